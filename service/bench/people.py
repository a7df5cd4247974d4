"""People who draw: when they lift the pen, and what they draw. The same seed makes the same people.

The times are made before anything is sent. A service that falls behind therefore does not slow its own load down, and
the wait of a stroke that could not even be sent in time counts (no "coordinated omission").
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.sketch import Stroke
from mgrl.v1 import search_pb2, sketch_pb2
from service.convert import stroke_to_wire
from service.demo.pencil import draw_strokes
from service.demo.sample import person

_PAUSES: Final = 0.1
"""Share of strokes after which somebody looks at what was found."""

_PAUSE: Final = 5.0
"""Such a pause, over a gap between two other strokes."""

_UNEVEN: Final = 0.5
"""Standard deviation of the logarithm of a gap."""

_DRAWINGS: Final = 12
"""Different ones; hundreds of sessions share them."""


def _people(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    gaps = rng.lognormal(-(_UNEVEN**2) / 2, _UNEVEN, count)
    return gaps * np.where(rng.random(count) < _PAUSES, _PAUSE, 1.0) / (1 + _PAUSES * (_PAUSE - 1))


SCHEDULES: Final[Mapping[str, Callable[[np.random.Generator, int], npt.NDArray[np.float64]]]] = {
    "people": _people,
    "poisson": lambda rng, count: rng.exponential(1.0, count),
    "fixed": lambda rng, count: np.ones(count),
}
"""Name -> gaps between strokes, 1 on average."""


def timeline(schedule: str, rng: np.random.Generator, per_s: float, seconds: float) -> npt.NDArray[np.float64]:
    """Seconds, ascending, below `seconds`, at which one person finishes a stroke; the first comes after a random wait.

    Args:
        schedule: one of `SCHEDULES`.
        rng: of this person.
        per_s: strokes a second on average, pauses included.
        seconds: how long they draw.
    """
    gaps = SCHEDULES[schedule](rng, int(seconds * per_s * 3) + 20) / per_s
    gaps[0] = rng.random() / per_s
    times = np.cumsum(gaps)
    return times[times < seconds]


class Drawings:
    """Drawings of invented people, as they go over the wire."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.strokes: list[list[Stroke]] = [draw_strokes(person(seed, n + 1), rng) for n in range(_DRAWINGS)]
        self._wire: list[list[sketch_pb2.Stroke]] = [list(map(stroke_to_wire, each)) for each in self.strokes]

    def first(self, number: int, count: int) -> list[sketch_pb2.Stroke]:
        """The first strokes of a drawing."""
        return self._wire[number % len(self._wire)][:count]

    def messages(self, number: int) -> Iterator[list[search_pb2.DrawRequest]]:
        """What one session sends after `begin`, stroke by stroke, without end.

        When a drawing is done the canvas is cleared for the next one. The last message of each list is the stroke;
        sequence numbers climb from 2.
        """
        sequence, clears = 1, False
        while True:
            for stroke in self._wire[number % len(self._wire)]:
                sent = []
                if clears:
                    sequence, clears = sequence + 1, False
                    sent.append(search_pb2.DrawRequest(sequence=sequence, clear=search_pb2.DrawClear()))
                sequence += 1
                drawn = search_pb2.DrawStrokes(strokes=[stroke])
                sent.append(search_pb2.DrawRequest(sequence=sequence, strokes=drawn))
                yield sent
            number, clears = number + 1, True
