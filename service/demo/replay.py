"""A drawing replayed against the real service: a server on a free port, the real client, one answer a stage."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.encoding import RegionEncoder
from indexer.episode import Episode
from indexer.gallery import Gallery
from indexer.sketch import Canvas
from service.answers import MAX_K, Answer
from service.client import Client
from service.config import ServerConfig
from service.galleries import Galleries
from service.server import SketchServer, build_server


@dataclass(frozen=True, eq=False)
class Step:
    """The drawing after one stage.

    Args:
        stage: 0-based.
        strokes: strokes on the canvas.
        canvas: (size, size) uint8, ink bright on 0.
        answer: what the service said.
        rank: of the target, 1-based; the gallery's size while there is no ink.
    """

    stage: int
    strokes: int
    canvas: npt.NDArray[np.uint8]
    answer: Answer
    rank: int


@contextmanager
def serving(gallery: Gallery, encoder: RegionEncoder) -> Iterator[str]:
    """A service for one gallery on this machine alone; yields its HOST:PORT and stops it afterwards."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="mgrl-demo-server")
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(_started(gallery, encoder), loop).result()
        try:
            yield server.address
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def replay(client: Client, gallery: Gallery, encoder: RegionEncoder, episode: Episode, target: str) -> Iterator[Step]:
    """Draw an episode through the client, one message a stage, each after the answer to the one before.

    Args:
        client: connected to a service for this gallery.
        gallery: looks the target's rank up when it is not among the 1000 photos that an answer may hold.
        encoder: the one that serves.
        episode: what to draw.
        target: photo id of the person drawn.
    """
    canvas = Canvas(encoder.size_px)
    drawn = 0
    with client.draw(gallery.name, k=min(gallery.photos, MAX_K)) as drawing:
        for stage in range(episode.stages):
            strokes = episode.added_at(stage)
            answer = drawing.strokes(strokes)
            canvas.draw(strokes)
            drawn += len(strokes)
            pixels = canvas.pixels()
            rank = gallery.photos if answer.no_ink else answer.rank_of(target)
            if rank is None:
                rank = gallery.rank_of(target, encoder.encode_sketches(pixels[None])[0], answer.ink)
            yield Step(stage, drawn, pixels, answer, rank)


async def _started(gallery: Gallery, encoder: RegionEncoder) -> SketchServer:
    server = build_server(ServerConfig("127.0.0.1:0", grace_s=1.0), Galleries([gallery], encoder))
    await server.start()
    return server
