"""Who may come in: new calls are turned away early, so that the drawings that run stay fast.

A drawing asks for two rankings a second for minutes, and none of them can be refused without spoiling it. So the
question is put once, when it begins: what those that are open ask for, times what a ranking costs. Somebody who asks
for more than people draw is counted as one who draws: the rest of what he takes he gives up when others come, because
his latest stroke wins. What is turned away costs next to nothing, and hears when to try again.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from service.errors import OverloadedError

_MEMORY_S: Final = 5.0
"""Time constant of every average here: people stop and look at what was found."""

_DRAWN_PER_S: Final = 2.0
"""Strokes a second of somebody who draws; expected of a drawing that begins."""

_ACTIVE_PER_S: Final = 0.02
"""Below, a drawing is left out of the sum: thousands may lie idle."""

_LOOK_EVERY_S: Final = 0.05

_ENOUGH: Final = 10
"""Rankings from which their cost is learnt; fewer may all have been of empty canvases."""

_SHARE: Final = 0.2
"""Of the newest in what a ranking is taken to cost."""

_RETRY_S: Final = 1.0


class Slots:
    """Pieces of work that run at once, and for how long any of them does; a context manager for threads.

    Any piece may take every core (the encoder's threads, a scan's), so the machine counts as busy while one runs.

    Args:
        count: at least 1.
    """

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._lock = threading.Lock()
        self._running = 0
        self._since = time.monotonic()
        self._busy_s = 0.0

    def __enter__(self) -> None:
        self._free.acquire()
        self._count(+1)

    def __exit__(self, *_: object) -> None:
        self._count(-1)
        self._free.release()

    def busy_s(self) -> float:
        """Seconds during which something ran, since the beginning."""
        self._count(0)
        return self._busy_s

    def _count(self, change: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._busy_s += (now - self._since) * (self._running > 0)
            self._running += change
            self._since = now


class Seat:
    """An open drawing's share of the load: the strokes a second that it is expected to bring."""

    def __init__(self) -> None:
        self._count = _DRAWN_PER_S * _MEMORY_S
        self._since = time.monotonic()

    def answered(self) -> None:
        """One more ranking."""
        self._decay()
        self._count += 1

    def per_s(self) -> float:
        """Rankings a second, at most what people draw."""
        self._decay()
        return min(self._count / _MEMORY_S, _DRAWN_PER_S)

    def _decay(self) -> None:
        now = time.monotonic()
        self._count *= math.exp((self._since - now) / _MEMORY_S)
        self._since = now


class Admission:
    """Lets calls in while there is room. For one thread, the event loop.

    Args:
        slots: where rankings are computed.
        most_load: share of the time that open drawings may keep the machine busy, above 0.
        most_wait_s: seconds that a new ranking may have to wait, above 0.
        most_open: drawings that may be open, drawn at or not; they take memory.
    """

    def __init__(self, slots: Slots, most_load: float, most_wait_s: float, most_open: int) -> None:
        self._slots, self._most_load, self._most_wait_s, self._most_open = slots, most_load, most_wait_s, most_open
        self._seats: set[Seat] = set()
        self._open = 0
        self.depth = 0
        self._asked_per_s, self._looked = 0.0, -math.inf
        self._cost_s, self._busy_before_s, self._ended = 0.0, 0.0, 0

    @contextmanager
    def ranking(self) -> Iterator[None]:
        """Counts one ranking, from when it begins to wait."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
            self._ended += 1

    @contextmanager
    def drawing(self) -> Iterator[Seat]:
        """Lets a drawing in for as long as the block runs.

        Raises:
            OverloadedError: there is no room.
        """
        if self._open >= self._most_open:
            raise OverloadedError.after(_RETRY_S, f"{self._open} drawings are open and no more may be; try again later")
        self.check_wait()
        if (load := self._load()) + _DRAWN_PER_S * self._cost_s > self._most_load and self._seats:
            raise OverloadedError.after(
                _RETRY_S,
                f"the drawings that are open take {load:.0%} of the time; others are let in below "
                f"{self._most_load:.0%}, so that those stay fast; try again in {_RETRY_S:.0f} s",
            )
        seat = Seat()
        self._seats.add(seat)
        self._asked_per_s += _DRAWN_PER_S
        self._open += 1
        try:
            yield seat
        finally:
            self._open -= 1
            self._seats.discard(seat)

    def drew(self, seat: Seat) -> None:
        """A drawing got one more ranking."""
        seat.answered()
        self._seats.add(seat)  # it may have been idle

    def check_wait(self) -> None:
        """Refuse what would have to wait for long.

        Raises:
            OverloadedError: the queue is too long.
        """
        self._load()
        if (wait_s := self.depth * self._cost_s) > self._most_wait_s:
            raise OverloadedError.after(
                _RETRY_S,
                f"{self.depth} rankings wait, for {wait_s:.2f} s; try again in {_RETRY_S:.0f} s",
            )

    def has_room(self) -> bool:
        """Whether a drawing would be let in now."""
        try:
            self.check_wait()
        except OverloadedError:
            return False
        load = self._load() + _DRAWN_PER_S * self._cost_s
        return self._open < self._most_open and (load <= self._most_load or not self._seats)

    def _load(self) -> float:
        """Share of the time that the open drawings keep the machine busy."""
        now = time.monotonic()
        if now - self._looked > _LOOK_EVERY_S:
            self._looked = now
            rates = {seat: seat.per_s() for seat in self._seats}
            self._seats = {seat for seat, per_s in rates.items() if per_s > _ACTIVE_PER_S}
            self._asked_per_s = sum(rates.values())
            self._learn_cost()
        return self._asked_per_s * self._cost_s

    def _learn_cost(self) -> None:
        """What a ranking costs: the time that the machine was busy, over the rankings that ended meanwhile."""
        if self._ended < _ENOUGH:
            return
        busy_s = self._slots.busy_s()
        cost_s = (busy_s - self._busy_before_s) / self._ended
        self._busy_before_s, self._ended = busy_s, 0
        self._cost_s += (cost_s - self._cost_s) * (_SHARE if self._cost_s else 1.0)
