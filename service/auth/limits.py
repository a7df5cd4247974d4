"""How much a caller may ask for: token buckets, filled by time and emptied by calls and strokes."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from service.auth.callers import Caller
from service.errors import LimitError

_BURST_S: Final = 2.0
"""A bucket holds what flows in during so many seconds."""

_MOST_CALLERS: Final = 10_000
"""Buckets that are kept; the caller that was quiet for longest loses its own, which is full by then or soon."""


class Bucket:
    """Holds what may be taken now.

    Args:
        rate: what flows in a second, above 0.
        now: seconds that only grow.
    """

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._most = max(1.0, rate * _BURST_S)
        self._level = self._most
        self._since = now

    def take(self, amount: float, now: float) -> float:
        """Take it, or the seconds until it may be had.

        More than a bucket ever holds may be taken from a full one, and is paid for afterwards.
        """
        self._level = min(self._most, self._level + (now - self._since) * self._rate)
        self._since = now
        lacking = min(amount, self._most) - self._level
        if lacking > 1e-9:
            return lacking / self._rate
        self._level -= amount
        return 0.0


class Limiter:
    """The buckets of all callers; for one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str, str, float], Bucket] = OrderedDict()

    def take_call(self, caller: Caller) -> None:
        """Count a call.

        Raises:
            LimitError: the caller made too many.
        """
        self._take(caller, "calls", caller.limits.calls_per_s, 1)

    def take_strokes(self, caller: Caller, strokes: int) -> None:
        """Count strokes.

        Raises:
            LimitError: the caller drew too many.
        """
        self._take(caller, "strokes", caller.limits.strokes_per_s, strokes)

    def check_size(self, caller: Caller, size_bytes: int) -> None:
        """Refuse a message that is too large for its caller.

        Raises:
            LimitError: it is.
        """
        if size_bytes > (most := caller.limits.message_bytes):
            raise LimitError(f"a message may have {most} bytes, this one has {size_bytes}; thin it out or split it")

    def _take(self, caller: Caller, what: str, rate: float, amount: int) -> None:
        if not rate or not amount:
            return
        key = caller.kind, caller.name, what, rate
        now = self._clock()
        bucket = self._buckets.setdefault(key, Bucket(rate, now))
        self._buckets.move_to_end(key)
        if len(self._buckets) > _MOST_CALLERS:
            self._buckets.popitem(last=False)
        if wait_s := bucket.take(amount, now):
            raise LimitError.after(
                wait_s, f"{caller} may ask for {rate:g} {what} a second; try again in {max(wait_s, 0.1):.1f} s"
            )
