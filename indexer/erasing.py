"""What an eraser leaves of strokes: they are cut where their middle line enters and leaves its path.

A path of half-width r is a chain of capsules, each convex, so a straight piece of a stroke is inside one on a single
interval, which has a closed form: no sampling, and a cut lies where it belongs to within rounding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.errors import SketchError
from indexer.sketch import MAX_WIDTH, Stroke, as_float32, check_points

DEFAULT_RADIUS: Final = 0.02
MAX_ERASER_POINTS: Final = 1000

_MAX_PAIRS: Final = 5_000_000
"""Pieces of strokes near the eraser times pieces of its path: under a second of work."""

_SLIVER: Final = 1e-3
"""Canvas units, a fifth of a pixel: what is left of a stroke and shorter than this goes, too."""


@dataclass(frozen=True, eq=False)
class Eraser:
    """The way of an eraser.

    Args:
        points: (n, 2) float, canvas units of 0..1; 1 to 1,000 of them.
        radius: half its width in canvas units, in (0, 0.2].
        whole_strokes: whether every stroke that it touches goes as a whole.

    Raises:
        SketchError: no points, too many, NaN or out of range.
    """

    points: npt.NDArray[np.float32]
    radius: float = DEFAULT_RADIUS
    whole_strokes: bool = False

    def __post_init__(self) -> None:
        points = as_float32(self.points)
        if len(points) > MAX_ERASER_POINTS:
            raise SketchError(
                f"an eraser's path may have {MAX_ERASER_POINTS} points, got {len(points)}; send it in pieces", field="x"
            )
        check_points(points, "an eraser's path")
        if not 0 < self.radius <= MAX_WIDTH:
            raise SketchError(
                f"an eraser's radius must be above 0 and at most {MAX_WIDTH:g} of the canvas, got {self.radius}",
                field="radius",
            )
        object.__setattr__(self, "points", points)


def erase(strokes: Mapping[int, Stroke], eraser: Eraser) -> dict[int, list[Stroke]]:
    """What is left of the strokes that the eraser touches.

    Args:
        strokes: by any numbers.
        eraser: its way over them.

    Returns:
        number -> pieces, in drawing order, none where nothing is left. Strokes that are not touched are absent.

    Raises:
        SketchError: too many strokes lie near the path for one message.

    Example:
        >>> line = Stroke(np.float32([[0, 0.5], [1, 0.5]]))
        >>> left = erase({7: line}, Eraser(np.float32([[0.5, 0.5]]), radius=0.125))
        >>> [piece.points.tolist() for piece in left[7]]
        [[[0.0, 0.5], [0.375, 0.5]], [[0.625, 0.5], [1.0, 0.5]]]
    """
    if not strokes:
        return {}
    lengths = np.array([len(stroke.points) for stroke in strokes.values()])
    starts = np.cumsum(lengths) - lengths
    gone = _gone(np.concatenate([stroke.points for stroke in strokes.values()]).astype(np.float64), starts, eraser)
    if not len(gone):
        return {}
    owners, first = np.unique(np.searchsorted(starts, gone[:, 0], side="right") - 1, return_index=True)
    numbers = list(strokes)
    left: dict[int, list[Stroke]] = {}
    for owner, own in zip(owners.tolist(), np.split(gone, first[1:]), strict=True):
        stroke = strokes[numbers[owner]]
        left[numbers[owner]] = [] if eraser.whole_strokes else _pieces(stroke, own - starts[owner])
    return left


def _gone(points: npt.NDArray[np.float64], starts: npt.NDArray[np.int64], eraser: Eraser) -> npt.NDArray[np.float64]:
    """(n, 2) intervals that are rubbed out, apart and climbing; 12.5 is the middle between points 12 and 13."""
    path = eraser.points.astype(np.float64)
    last = np.append(starts[1:], len(points)) - 1
    # Every point begins a piece; the last of a stroke one without length, which is all that a dot has.
    ends = np.minimum(np.arange(len(points)) + 1, np.repeat(last, np.diff(np.append(starts, len(points)))))
    low, high = np.minimum(points, points[ends]), np.maximum(points, points[ends])
    reach = eraser.radius
    near = np.flatnonzero(((high >= path.min(axis=0) - reach) & (low <= path.max(axis=0) + reach)).all(axis=1))
    if len(near) * len(path) > _MAX_PAIRS:
        raise SketchError(
            f"{len(near)} points lie near this eraser's path of {len(path)}, their product may be {_MAX_PAIRS}; send "
            "the path in pieces",
            field="x",
        )
    begin, way = points[near], points[ends[near]] - points[near]
    found = []
    for start, end in zip(path[: max(1, len(path) - 1)], path[min(1, len(path) - 1) :], strict=True):
        enters, leaves = _inside_capsule(begin, way, start, end, reach)
        hit = np.flatnonzero(enters <= leaves)
        # A piece without length is a point: it is inside at 0 or nowhere.
        until = np.where(ends[near[hit]] == near[hit], 0.0, leaves[hit])
        found.append(np.stack([near[hit] + enters[hit], near[hit] + until], axis=1))
    return _merged(np.concatenate(found))


def _merged(intervals: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The union of intervals: those that touch made one."""
    if not len(intervals):
        return intervals
    intervals = intervals[np.argsort(intervals[:, 0], kind="stable")]
    reached = np.maximum.accumulate(intervals[:, 1])
    begins = np.append(0, np.flatnonzero(intervals[1:, 0] > reached[:-1]) + 1)
    return np.stack([intervals[begins, 0], reached[np.append(begins[1:], len(intervals)) - 1]], axis=1)


def _inside_capsule(
    begin: npt.NDArray[np.float64],
    way: npt.NDArray[np.float64],
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    radius: float,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """From and until where on its way, 0 to 1, each straight piece is within `radius` of the line from start to end.

    Where it never is, the first is above the second. A capsule is a disc at either end and a rectangle between.
    """
    parts = [_inside_disc(begin, way, start, radius), _inside_disc(begin, way, end, radius)]
    length = float(np.hypot(*(end - start)))
    if length > 0:
        along = (end - start) / length
        across = np.array([-along[1], along[0]])
        from_start = begin - start
        first = _inside_band(from_start @ along, way @ along, 0.0, length)
        second = _inside_band(from_start @ across, way @ across, -radius, radius)
        parts.append((np.maximum(first[0], second[0]), np.minimum(first[1], second[1])))
    enters, leaves = np.full(len(begin), np.inf), np.full(len(begin), -np.inf)
    for low, high in parts:
        low, high = np.maximum(low, 0.0), np.minimum(high, 1.0)
        hit = low <= high
        enters = np.where(hit, np.minimum(enters, low), enters)
        leaves = np.where(hit, np.maximum(leaves, high), leaves)
    return enters, leaves


def _inside_disc(
    begin: npt.NDArray[np.float64], way: npt.NDArray[np.float64], centre: npt.NDArray[np.float64], radius: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    offset = begin - centre
    square = (way * way).sum(axis=1)
    middle, rest = (offset * way).sum(axis=1), (offset * offset).sum(axis=1) - radius * radius
    inside = middle * middle - square * rest
    moves = square > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(inside)
        enters, leaves = (-middle - root) / square, (-middle + root) / square
    stays_in = ~moves & (rest <= 0)
    enters = np.where(moves & (inside >= 0), enters, np.where(stays_in, -np.inf, np.inf))
    return enters, np.where(moves & (inside >= 0), leaves, np.where(stays_in, np.inf, -np.inf))


def _inside_band(
    value: npt.NDArray[np.float64], slope: npt.NDArray[np.float64], low: float, high: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    moves = slope != 0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        at_low, at_high = (low - value) / slope, (high - value) / slope
    stays_in = ~moves & (value >= low) & (value <= high)
    enters = np.where(moves, np.minimum(at_low, at_high), np.where(stays_in, -np.inf, np.inf))
    return enters, np.where(moves, np.maximum(at_low, at_high), np.where(stays_in, np.inf, -np.inf))


def _pieces(stroke: Stroke, gone: npt.NDArray[np.float64]) -> list[Stroke]:
    """What is left of one stroke outside the intervals, in points of its own."""
    last = len(stroke.points) - 1
    cuts = [0.0, *gone.ravel().tolist(), float(last)]
    return [
        piece
        for begin, end in zip(cuts[::2], cuts[1::2], strict=True)
        if begin < end and (piece := _piece(stroke, begin, end)) is not None
    ]


def _piece(stroke: Stroke, begin: float, end: float) -> Stroke | None:
    places = np.unique([begin, *range(int(begin) + 1, int(np.ceil(end))), end])
    own = np.arange(len(stroke.points))
    points = np.stack([np.interp(places, own, stroke.points[:, axis]) for axis in (0, 1)], axis=1)
    if np.hypot(*np.diff(points, axis=0).T).sum() < _SLIVER:
        return None
    pressure = None if stroke.pressure is None else np.interp(places, own, stroke.pressure)
    return Stroke(np.clip(points, 0, 1), stroke.width, None if pressure is None else np.clip(pressure, 0, 1))
