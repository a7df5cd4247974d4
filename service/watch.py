"""Keeps the served galleries up to date: what `mgrl ingest` and `mgrl delete` change shows up without a restart.

A newer gallery is opened beside the older one, in a thread of its own, and then takes its name. Drawings that have
begun go on with the one they began with.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from indexer.errors import ModelMismatchError, PublicError
from indexer.gallery import Gallery
from service.galleries import Galleries
from service.niceness import nice

logger = logging.getLogger(__name__)

_SHARE: Final = 0.25
"""Of the time that may go into opening: an ingestion that runs for hours commits every second."""

_NICE: Final = 5
"""A quarter of a core beside a busy search: opening a gallery anew must not make answers slow."""


class GalleryWatch:
    """Looks for changes while it runs. Start and stop it on one event loop.

    Args:
        galleries: what is served.
        every_s: seconds between two looks, one row read from each ledger.
    """

    def __init__(self, galleries: Galleries, every_s: float) -> None:
        self._galleries = galleries
        self._every_s = every_s
        self._thread = ThreadPoolExecutor(1, "mgrl-open", initializer=nice(_NICE))
        self._task: asyncio.Task[None] | None = None
        self._complaints: set[str] = set()
        self._has_stopped = False

    def start(self, then: Callable[[], Awaitable[None]]) -> None:
        """Begin to look, and do something after every look."""
        self._task = asyncio.get_running_loop().create_task(self._watch(then))

    async def stop(self) -> None:
        """Look no more; a gallery that is being opened is not waited for."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._has_stopped = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def look(self) -> float:
        """Replace at once what is out of date; the seconds that took. Nothing once it was stopped."""
        if self._has_stopped:
            return 0.0
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._look)

    async def _watch(self, then: Callable[[], Awaitable[None]]) -> None:
        pause_s = self._every_s
        while True:
            await asyncio.sleep(pause_s)
            took_s = await self.look()
            await then()
            pause_s = max(self._every_s, took_s * (1 / _SHARE - 1))

    def _look(self) -> float:
        """Replace what is out of date; the seconds that took."""
        started = time.monotonic()
        for gallery in list(self._galleries):
            try:
                if gallery.is_stale():
                    newer = self._newer(gallery)
                    if self._galleries.replace(gallery, newer):
                        logger.info("gallery %s now has %d photos, it had %d", newer.name, newer.photos, gallery.photos)
                    self._complaints.clear()
            except Exception as error:
                # Whatever it is, the older one goes on serving; the next look tries again.
                if str(error) not in self._complaints:
                    self._complaints.add(str(error))
                    fault = None if isinstance(error, PublicError) else error
                    logger.warning(
                        "a change to gallery %s cannot be served yet: %s", gallery.name, error, exc_info=fault
                    )
        return time.monotonic() - started

    def _newer(self, gallery: Gallery) -> Gallery:
        """The gallery as it is now.

        Raises:
            ModelMismatchError: another model has made it anew, and the version that is served is as it was.
        """
        try:
            self._galleries.encoders.for_model(gallery.name, gallery.newest_manifest())
        except ModelMismatchError:
            # What is deleted is deleted from the version of this service's model, too.
            if not gallery.has_changed():
                raise
            return gallery.reopened(stays=True)
        return gallery.reopened()
