"""Work that is shared by the thread that has it and idle ones, each on processors of its own.

The caller takes part, since it runs already: it waits for no other thread to wake up, 0.3 ms and more. The others are
told which processors to wake up on. Left to itself, Linux put two threads on one of two processors for 4 ms at a time
as often as not, of the ten milliseconds that a scan takes.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


class Helpers:
    """Threads that help whoever calls `share`. Several may call it at the same time.

    Args:
        threads: that share work, the caller included.
        name: of the threads, for who looks at a process from outside.
    """

    def __init__(self, threads: int, name: str) -> None:
        self.threads = threads
        self._ids: list[int] = []
        ids = self._ids  # a thread keeps what it began with: were it these helpers, they and it would never go
        self._pool = ThreadPoolExecutor(max(1, threads - 1), name, lambda: ids.append(threading.get_native_id()))

    def share(self, parts: int, work: Callable[[int], object]) -> None:
        """Call `work` once for each part, by the caller and, as long as parts are left, by the helpers.

        Where all helpers are busy the caller does all of it: it waits only for parts that were begun.

        Args:
            parts: how many; they must not depend on each other.
            work: given the number of a part, from 0.
        """
        left = iter(range(parts))

        def take() -> None:
            for part in left:
                work(part)

        wanted = min(self.threads, parts) - 1
        if wanted > 0:
            self._part_processors()
        others = [self._pool.submit(take) for _ in range(wanted)]
        try:
            take()
        finally:
            for other in others:
                if not other.cancel():
                    other.result()

    def _part_processors(self) -> None:
        """Give each helper a part of the processors that the caller may use, without the one that it runs on."""
        if sys.platform != "linux" or _LIBC is None:
            return
        others = sorted(os.sched_getaffinity(0) - {_LIBC.sched_getcpu()})
        for place, thread in enumerate(self._ids):
            if processors := others[place % len(others) :: self.threads - 1] if others else []:
                with suppress(OSError):  # a sandbox may forbid it: then they share as the system has it
                    os.sched_setaffinity(thread, processors)
