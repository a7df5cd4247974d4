"""Has memory go back to the system when drawings have come to rest: glibc would keep it for later.

The other way, blocks that bypass its heap, costs every stroke: the encoder takes 2 MB anew for each, and so many fresh
pages made an encoding of 10.0 ms one of 11.3 ms.
"""

import asyncio
import ctypes
import sys
from collections.abc import Callable
from typing import Final

_WAIT_S: Final = 2.0
"""Many drawings come to rest at once, and each time costs the next stroke a ms of fresh pages."""


def give_memory_back() -> bool:
    """Give the system every free page of this process's heaps; some ms, without the GIL.

    Returns:
        False, changing nothing, where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is None:
        return False
    trim(0)
    return True


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
