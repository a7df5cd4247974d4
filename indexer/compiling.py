"""How numba compiles functions here: without the interpreter's lock, and once for all processes where the disk lets it.

Importing this module imports numba, which takes a second.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numba
from numba.core.caching import FunctionCache


def compiled(function: Callable[..., Any], **more: Any) -> Any:
    """The function, compiled when it is first called; `more` are options of numba's."""
    # Reordering and fused multiply-adds are covered by the error bound, and NaN never occurs; infinity does, and roots
    # must be IEEE's.
    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz", "nnan"}, **more}
    dispatcher = numba.njit(**options)(function)
    # Without a folder to cache in, as in a read-only installation without a home, it compiles once per process.
    with suppress(RuntimeError):
        dispatcher._cache = _Cache(function)  # type: ignore[no-untyped-call]  # numba has no types
    return dispatcher


class _Cache(FunctionCache):
    """Numba's own, which may cost the time of compiling anew and nothing more."""

    @contextmanager
    def _guard_against_spurious_io_errors(self) -> Iterator[None]:
        """What numba reads and writes within; on Windows it passes over some errors of files itself."""
        try:
            yield
        except Exception:  # a disk that is full, or bytes that are damaged: unpickling these raises almost anything
            with suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]
