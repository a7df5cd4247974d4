"""Who writes the galleries of a service, for calls that bring photos or take them away, and for those that are too old.

A gallery's lock is held while a call needs it and no longer. All calls of a service share one writing thread, so they
take turns, and decoding and encoding never take more than one core; the thread is niced, so that where cores are short
searches come first.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from indexer.encoding import OnnxEncoder, RegionEncoder
from indexer.errors import ConfigError
from indexer.gallery import Gallery
from indexer.retention import retain
from indexer.store import StoreWriter
from indexer.upserting import Upserter
from service.encoders import Encoders
from service.niceness import nice

T = TypeVar("T")

_NICE: Final = 10
"""A tenth of a core beside a busy search, all of it beside an idle one."""

_LAST_S: Final = 5.0
"""That calls get to let their galleries go when the service stops."""


@dataclass
class _Open:
    """A gallery that is being written, and by how many calls."""

    upserter: Upserter
    calls: int = 0


class GalleryWriters:
    """Opens galleries for writing. Use it on one event loop.

    Args:
        encoders: made the galleries' embeddings.
        is_allowed: whether this service takes photos for the gallery of a name.
    """

    def __init__(self, encoders: Encoders, is_allowed: Callable[[str], bool]) -> None:
        self._encoders = encoders
        self._is_allowed = is_allowed
        self._thread = ThreadPoolExecutor(1, "mgrl-write", initializer=nice(_NICE))
        self._turn = asyncio.Condition()
        self._open: dict[Path, _Open] = {}  # by folder: changed settings may put another under a name
        self._single: dict[str, RegionEncoder] = {}

    @asynccontextmanager
    async def writing(self, gallery: Gallery) -> AsyncIterator["GalleryWriter"]:
        """A gallery's writer, which every call of this service shares.

        Raises:
            ConfigError: this service takes no photos.
            GalleryError: another process writes the gallery, or nobody may.
        """
        if not self._is_allowed(gallery.name):
            raise ConfigError(
                f"this service takes no photos for gallery {gallery.name}; start it with `mgrl serve --writable`, or "
                "use mgrl ingest"
            )
        entering = asyncio.create_task(self._enter(gallery))
        try:
            opened = await asyncio.shield(entering)
            yield GalleryWriter(opened.upserter, self._thread)
        finally:
            # Also where the call was cancelled, even while the gallery was being opened: the lock must not outlive it.
            await asyncio.shield(self._leave(gallery.folder, entering))

    async def retain(self, gallery: Gallery, days: float) -> int:
        """Forget a gallery's photos that are too old, also while calls write it; how many they were.

        Raises:
            GalleryError: another process writes the gallery; else as `indexer.retention.retain`.
        """
        async with self._turn:  # nobody is just opening it
            opened = self._open.get(gallery.folder)
            # Begun before the turn is over: who writes it now lets it go on the same thread, later.
            forgetting = self._run(
                partial(_retain, gallery.folder, days) if opened is None else partial(opened.upserter.retain, days)
            )
        return await forgetting

    async def close(self) -> None:
        """Wait a little for the calls that write; then start nothing more. What is being stored is stored."""
        async with self._turn:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_S):
                    await self._turn.wait_for(lambda: not self._open)
        self._thread.shutdown(wait=False)

    async def _enter(self, gallery: Gallery) -> _Open:
        async with self._turn:
            if gallery.folder not in self._open:
                self._open[gallery.folder] = _Open(await self._run(partial(self._upserter, gallery)))
            opened = self._open[gallery.folder]
            opened.calls += 1
            return opened

    async def _leave(self, folder: Path, entering: "asyncio.Task[_Open]") -> None:
        await asyncio.wait({entering})
        if entering.exception() is not None:
            return
        async with self._turn:
            opened = entering.result()
            opened.calls -= 1
            if not opened.calls:
                del self._open[folder]
                await self._run(opened.upserter.close)
            self._turn.notify_all()

    def _run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _upserter(self, gallery: Gallery) -> Upserter:
        encoder = self._encoders.for_gallery(gallery)
        if encoder.model_hash not in self._single:
            # With more threads, these would not be niced.
            self._single[encoder.model_hash] = (
                encoder.single_threaded() if isinstance(encoder, OnnxEncoder) else encoder
            )
        return Upserter.open(gallery.folder, self._single[encoder.model_hash])


def _retain(folder: Path, days: float) -> int:
    with StoreWriter.open(folder) as writer:
        return retain(writer, days).forgotten


class GalleryWriter:
    """One gallery, for one call.

    Args:
        upserter: does it.
        thread: the one that may use it.
    """

    def __init__(self, upserter: Upserter, thread: ThreadPoolExecutor) -> None:
        self._upserter = upserter
        self._thread = thread

    async def do(self, work: Callable[[Upserter], T]) -> T:
        """Run `work` when the writing thread is free."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._upserter)
