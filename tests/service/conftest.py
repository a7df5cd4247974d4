"""A small gallery and a real server on a free port, on an event loop in a thread of its own."""

import asyncio
import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from indexer.encoding import DEFAULT_MODEL
from indexer.gallery import Gallery
from indexer.ledger import Framing
from indexer.sketch import Stroke
from indexer.store import NewPhoto, StoreWriter
from service.access import Access
from service.client import Client
from service.config import ServerConfig
from service.creating import GalleryMaker
from service.galleries import Galleries
from service.opening import Opener
from service.server import SketchServer, build_server
from tests.conftest import PixelEncoder, unit_rows


class CountingGallery(Gallery):
    """A gallery that knows its rows and counts its searches."""

    rows: npt.NDArray[np.float32]
    searches = 0

    def search(self, *arguments, **options):
        self.searches += 1
        return super().search(*arguments, **options)


def make_gallery(folder, encoder, photos=24, seed=0, rows=None) -> CountingGallery:
    """A gallery folder without pictures, opened; its rows are random ones unless given."""
    rows = unit_rows(np.random.default_rng(seed), photos, encoder.dim) if rows is None else rows
    with StoreWriter.open_or_create(folder, encoder.model_hash, encoder.dim) as writer:
        writer.keep_framing(Framing("none"))  # noise has no face, and looking for one takes long
        names = [f"photo{row:04d}" for row in range(len(rows))]
        thumbnails = [b"\xff\xd8 thumbnail of " + name.encode() for name in names]
        writer.append(
            [
                NewPhoto(name, f"people/{name}.jpg", thumbnail, hashlib.sha256(thumbnail).digest())
                for name, thumbnail in zip(names, thumbnails, strict=True)
            ],
            rows,
        )
    gallery = CountingGallery.open(folder)
    gallery.rows = rows
    return gallery


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
        self.server, self.loop, self.address, self.access = server, loop, server.address, server._access

    def on_loop(self, coroutine, timeout_s=5.0):
        return self.start(coroutine).result(timeout_s)

    def start(self, coroutine):
        """A future of the coroutine, which runs on the server's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def block(self) -> threading.Event:
        """Hold the event loop until the event is set, 5 s at most."""
        go_on = threading.Event()
        self.loop.call_soon_threadsafe(go_on.wait, 5)
        return go_on


@contextmanager
def serving(galleries, encoder, telemetry=None, access=None, reload=None, **config) -> Iterator[Serving]:
    """A running server; `access` is a `Config` whose keys, limits, certificates and galleries' settings hold.

    Where `galleries` are `Galleries`, they are served as they are. Nobody is turned away, however busy the machine is.
    """
    patient = {"max_load": 1e9, "max_wait_s": 1e9}
    settings = ServerConfig(**{"address": "127.0.0.1:0", "threads": 2, "grace_s": 0.2, **patient, **config})
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:

        async def start():
            served = galleries
            if not isinstance(galleries, Galleries):
                served = Galleries(galleries, encoder, access.galleries if access else None)
            opened = Access.open(access, served) if access else None
            maker = GalleryMaker(served, Opener(access, {DEFAULT_MODEL: encoder}), lambda: access) if access else None
            server = build_server(settings, served, telemetry, opened, reload=reload, maker=maker)
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
def gallery(tmp_path, encoder):
    made = make_gallery(tmp_path / "faces", encoder)
    yield made
    made.close()


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
