"""A small gallery in memory and a real server on a free port, on an event loop in a thread of its own."""

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from indexer.errors import ModelMismatchError, UnknownPhotoError
from indexer.fusion import fused_distance, region_distances
from indexer.regions import REGION_IDS
from indexer.sketch import Stroke
from service.client import Client
from service.config import ServerConfig
from service.galleries import Galleries
from service.server import SketchServer, build_server
from tests.conftest import PixelEncoder, unit_rows


@dataclass
class FakeHit:
    photo_id: str
    rank: int
    distance: float
    granularity_distances: dict
    region_distances: np.ndarray


@dataclass
class FakeRanking:
    hits: tuple
    gallery_photos: int
    exact: bool


@dataclass
class FakePhoto:
    photo_id: str
    source: str
    thumbnail: bytes


class FakeGallery:
    """The interface of `indexer.gallery.Gallery` over random rows, ranked by the reference formula."""

    def __init__(self, encoder, photos=24, name="faces", seed=0):
        self.name, self.photos, self.dim, self.model_hash = name, photos, encoder.dim, encoder.model_hash
        self.rows = unit_rows(np.random.default_rng(seed), photos, encoder.dim)
        self.searches = 0

    def check_model(self, encoder):
        if encoder.model_hash != self.model_hash:
            raise ModelMismatchError(f"gallery {self.name} was made by another model; ingest it again")

    def search(self, probe, ink, k=10, weights=None):
        self.searches += 1
        distances = fused_distance(probe, self.rows, ink, weights)
        per_region = region_distances(probe, self.rows)
        hits = []
        for rank, row in enumerate(np.argsort(distances, kind="stable")[:k], start=1):
            means = {
                g: float(per_region[row, ids][ink[ids]].mean()) if ink[ids].any() else 0.0
                for g, ids in ((g, list(ids)) for g, ids in REGION_IDS.items())
            }
            hits.append(FakeHit(f"photo{row:04d}", rank, float(distances[row]), means, per_region[row]))
        return FakeRanking(tuple(hits), self.photos, True)

    def photo(self, photo_id):
        number = int(photo_id.removeprefix("photo")) if photo_id.removeprefix("photo").isdigit() else self.photos
        if number >= self.photos:
            raise UnknownPhotoError(f"gallery {self.name} has no photo {photo_id!r}")
        return FakePhoto(photo_id, f"people/{photo_id}.jpg", b"\xff\xd8 thumbnail of " + photo_id.encode())


class GatedEncoder(PixelEncoder):
    """Counts its calls, and holds each back while `gate` is closed."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.calls = 0

    def encode_sketches(self, canvases):
        self.calls += 1
        self.entered.release()
        assert self.gate.wait(5)
        return super().encode_sketches(canvases)


class Serving:
    """A running server; `on_loop` runs a coroutine on its event loop."""

    def __init__(self, server: SketchServer, loop: asyncio.AbstractEventLoop):
        self.server, self.loop, self.address = server, loop, server.address

    def on_loop(self, coroutine, timeout_s=5.0):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout_s)


@contextmanager
def serving(galleries, encoder, **config) -> Iterator[Serving]:
    settings = ServerConfig(**{"address": "127.0.0.1:0", "threads": 2, "grace_s": 0.2, **config})
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:

        async def start():
            server = build_server(settings, Galleries(galleries, encoder), encoder)
            await server.start()
            return server

        server = asyncio.run_coroutine_threadsafe(start(), loop).result(5)
        try:
            yield Serving(server, loop)
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def gallery(encoder):
    return FakeGallery(encoder)


@pytest.fixture
def service(gallery, encoder):
    with serving([gallery], encoder) as running:
        yield running


@pytest.fixture
def client(service):
    with Client(service.address) as connected:
        yield connected


def line(x0=0.2, y0=0.3, x1=0.8, y1=0.3, **options) -> Stroke:
    return Stroke(np.linspace((x0, y0), (x1, y1), 8, dtype=np.float32), **options)


def png(draw: Callable[[Image.Image], None] | None = None, size=(240, 240), paper="white") -> bytes:
    image = Image.new("L", size, paper)
    if draw is None:
        image.paste("black" if paper == "white" else "white", (60, 80, 180, 88))
    else:
        draw(image)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def ids(answer) -> list[str]:
    return [hit.photo_id for hit in answer.hits]
