"""Threads beside the event loop, which itself never computes.

Rankings have a pool of their own, so that a queue of them never keeps a new stroke from being read: that is what
makes "latest stroke wins" work. ONNX Runtime and FAISS release the GIL, so threads suffice. How many of them work at
once is decided by `service.engine`; here many may wait, so that those who wait for the same scan can share it.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Final, TypeVar

from service.admission import Admission
from service.memory import Tidying
from service.metrics import Metrics

T = TypeVar("T")

_RANKING: Final = 64
"""Rankings that are begun and may wait for their scan; a thread costs little until it is needed."""


class Workers:
    """Two thread pools: one ranks, one reads large messages.

    Args:
        admission: counts what ranks and what waits to.
        metrics: told the same.
    """

    def __init__(self, admission: Admission, metrics: Metrics) -> None:
        self.admission = admission
        self.tidying = Tidying()
        self._depth = metrics.queue_depth
        self._ranking = ThreadPoolExecutor(_RANKING, "mgrl-rank")
        self._reading = ThreadPoolExecutor(1, "mgrl-read")

    def rank(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Run `work` when a ranking thread is free.

        No coroutine: the task around it would turn the event loop four times more for every stroke.
        """
        with ExitStack() as counted:
            counted.enter_context(self.admission.ranking())
            counted.enter_context(self._depth.track_inprogress())
            ranking = asyncio.get_running_loop().run_in_executor(self._ranking, work)
            ended = counted.pop_all()
            ranking.add_done_callback(lambda _: ended.close())
        return ranking

    async def read(self, work: Callable[[], T]) -> T:
        """Run `work` when the reading thread is free."""
        return await asyncio.get_running_loop().run_in_executor(self._reading, work)

    def close(self) -> None:
        """Drop what has not started; what runs is not waited for."""
        self.tidying.close()
        self._ranking.shutdown(wait=False, cancel_futures=True)
        self._reading.shutdown(wait=False, cancel_futures=True)


@contextmanager
def abandoned_on_exit() -> Iterator[threading.Event]:
    """An event that is set when the caller's block ends: cancelling a call does not stop its thread by itself."""
    abandoned = threading.Event()
    try:
        yield abandoned
    finally:
        abandoned.set()
