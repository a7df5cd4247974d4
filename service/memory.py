"""Keeps a service's memory where it is after an hour: few heaps, whose free pages go back to the system.

glibc gives threads heaps of their own, up to eight a core, and each grows to the most that was ever wanted of it: over
25,000 strokes a service grew from 146 to 167 MB, with two heaps from 142 to 143. What drawings free when they come to
rest it would keep for later. The other way, blocks that bypass its heaps, costs every stroke: the encoder takes 2 MB
anew for each, and so many fresh pages made an encoding of 10.0 ms one of 11.3 ms.
"""

import asyncio
import ctypes
import sys
from collections.abc import Callable
from typing import Final

_M_ARENA_MAX: Final = -8

_WAIT_S: Final = 2.0
"""Many drawings come to rest at once, and each time costs the next stroke a ms of fresh pages."""


def give_memory_back() -> bool:
    """Give the system every free page of this process's heaps; some ms, without the GIL.

    Returns:
        False, changing nothing, where there is no glibc.
    """
    if (trim := _of_glibc("malloc_trim")) is None:
        return False
    trim(0)
    return True


def share_heaps(count: int) -> bool:
    """Have all threads of this process share so many heaps, from now on; at least 2.

    Returns:
        False, changing nothing, where there is no glibc.
    """
    mallopt = _of_glibc("mallopt")
    return mallopt is not None and mallopt(_M_ARENA_MAX, max(2, count)) == 1


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library, None where that is another: musl has none of these."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None


class Tidying:
    """Gives memory back some time after it was asked to, once for all who asked. For one thread, the event loop.

    Args:
        tidy: what is then done, beside the event loop.
        wait_s: seconds until then.
    """

    def __init__(self, tidy: Callable[[], object] = give_memory_back, wait_s: float = _WAIT_S) -> None:
        self._tidy, self._wait_s = tidy, wait_s
        self._timer: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """Ask for it."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._wait_s, self._begin)

    def close(self) -> None:
        """Do it no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        self._timer = None
        asyncio.get_running_loop().run_in_executor(None, self._tidy)
