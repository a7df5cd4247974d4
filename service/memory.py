"""Has memory go back to the system when drawings rest: glibc would keep their canvases for later.

Once a large block has been freed glibc takes the next ones of its size from its heap, where what lies behind them keeps
them from being given back. With 2,000 drawings at rest each takes 52 KB this way, and 68 KB otherwise.
"""

import ctypes
import sys
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
_LARGE_BYTES: Final = 128 * 1024


def give_large_blocks_back() -> bool:
    """Take blocks of 128 KiB and more from the system one by one, in this process, from now on.

    Returns:
        False, changing nothing, where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES) == 1
