"""Threads beside the event loop, which itself never computes.

Rankings have a pool of their own, so that a queue of them never keeps a new stroke from being read: that is what
makes "latest stroke wins" work. ONNX Runtime and FAISS release the GIL, so threads suffice.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Workers:
    """Two thread pools: one ranks, one reads large messages."""

    def __init__(self, threads: int) -> None:
        self._ranking = ThreadPoolExecutor(threads, "mgrl-rank")
        self._reading = ThreadPoolExecutor(1, "mgrl-read")

    async def rank(self, work: Callable[[], T]) -> T:
        """Run `work` when a ranking thread is free."""
        return await asyncio.get_running_loop().run_in_executor(self._ranking, work)

    async def read(self, work: Callable[[], T]) -> T:
        """Run `work` when the reading thread is free."""
        return await asyncio.get_running_loop().run_in_executor(self._reading, work)

    def close(self) -> None:
        """Drop what has not started; what runs is not waited for."""
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
