"""Forgets photos that are older than their gallery's period, beside the service that answers.

A clock that jumps ahead would make every photo look old. So time is watched: when the wall clock moves on by more than
time has passed, nothing is forgotten for a day, and the log says so.
"""

import asyncio
import logging
import time
from contextlib import suppress
from typing import Final

from indexer.errors import PublicError
from service.galleries import Galleries
from service.writing import GalleryWriters

logger = logging.getLogger(__name__)

EVERY_S: Final = 3600.0

_JUMP_S: Final = 600.0
_DISTRUST_S: Final = 86_400.0


class Keeper:
    """Looks every hour, first when it starts. Start and stop it on one event loop.

    Args:
        galleries: what is served.
        writers: write it.
        every_s: seconds between two looks.
    """

    def __init__(self, galleries: Galleries, writers: GalleryWriters, every_s: float = EVERY_S) -> None:
        self._galleries = galleries
        self._writers = writers
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None
        self._seen = time.time(), time.monotonic()
        self._distrusts_until = 0.0

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """Look no more; a gallery that is being written is left whole."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _keep(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        """Forget what is too old now."""
        if not self._trusts_the_clock():
            return
        for gallery in list(self._galleries):
            days = self._galleries.settings(gallery.name).retention_days
            if not days:
                continue
            try:
                forgotten = await self._writers.retain(gallery, days)
            except Exception as error:
                # Another process writes it, or whatever else it is: the next look tries again.
                fault = None if isinstance(error, PublicError) else error
                logger.warning(
                    "photos of gallery %s that are too old stay for now: %s", gallery.name, error, exc_info=fault
                )
                continue
            if forgotten:
                logger.info("gallery %s: %d photos were older than its period", gallery.name, forgotten)

    def _trusts_the_clock(self) -> bool:
        wall, steady = time.time(), time.monotonic()
        ahead_s = (wall - self._seen[0]) - (steady - self._seen[1])
        self._seen = wall, steady
        if ahead_s > _JUMP_S:
            logger.warning("the clock jumped %.0f s ahead; no photo is forgotten for a day", ahead_s)
            self._distrusts_until = steady + _DISTRUST_S
        return steady >= self._distrusts_until
