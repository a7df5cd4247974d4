"""An eraser against the slow definition: what is farther from its path than the radius stays, the rest goes."""

from itertools import pairwise

import numpy as np
import pytest

from indexer.erasing import MAX_ERASER_POINTS, Eraser, erase
from indexer.errors import SketchError
from indexer.sketch import Stroke


def distance_to(path, points):
    """(n,) distances from points to a chain of straight pieces, one by one."""
    nearest = np.full(len(points), np.inf)
    for start, end in zip(path[: max(1, len(path) - 1)], path[min(1, len(path) - 1) :], strict=True):
        way = end - start
        square = float(way @ way)
        along = np.clip((points - start) @ way / square, 0, 1) if square else np.zeros(len(points))
        nearest = np.minimum(nearest, np.linalg.norm(points - (start + along[:, None] * way), axis=1))
    return nearest


def samples(stroke, count=400):
    """Points along a stroke, close together."""
    if len(stroke.points) == 1:
        return stroke.points.astype(np.float64)
    points = stroke.points.astype(np.float64)
    return np.concatenate([np.linspace(start, end, count) for start, end in pairwise(points)])


@pytest.mark.parametrize("seed", range(30))
def test_what_is_left_is_what_the_eraser_did_not_reach(seed):
    rng = np.random.default_rng(seed)
    strokes = {number: Stroke(rng.uniform(size=(rng.integers(1, 6), 2))) for number in range(5)}
    eraser = Eraser(rng.uniform(size=(rng.integers(1, 6), 2)), float(rng.uniform(0.01, 0.2)))
    path, left = eraser.points.astype(np.float64), erase(strokes, eraser)
    for number, stroke in strokes.items():
        before = samples(stroke)
        away = distance_to(path, before)
        assert (number in left) == bool((away <= eraser.radius).any())
        pieces = left.get(number, [stroke])
        for piece in pieces:
            assert distance_to(path, samples(piece)).min() >= eraser.radius - 1e-6
        kept = np.concatenate([samples(piece) for piece in pieces]) if pieces else np.full((1, 2), 9.0)
        for point in before[away > eraser.radius + 5e-3]:
            assert np.linalg.norm(kept - point, axis=1).min() < 5e-3


def test_strokes_that_are_not_touched_are_not_spoken_of():
    strokes = {0: Stroke([(0.1, 0.1), (0.9, 0.1)]), 1: Stroke([(0.1, 0.9), (0.9, 0.9)]), 2: Stroke([(0.5, 0.12)])}
    assert list(erase(strokes, Eraser([(0.5, 0.1)], 0.05))) == [0, 2]
    assert erase(strokes, Eraser([(0.5, 0.5)], 0.05)) == {}
    assert erase({}, Eraser([(0.5, 0.5)])) == {}


def test_pressure_goes_with_its_points_and_is_cut_between():
    stroke = Stroke([(0, 0.5), (1, 0.5)], 0.05, [0, 1])
    left, right = erase({0: stroke}, Eraser([(0.5, 0.4), (0.5, 0.6)], 0.125))[0]
    assert left.pressure.tolist() == [0, 0.375]
    assert right.pressure.tolist() == [0.625, 1]
    assert left.width == right.width == 0.05


def test_an_eraser_of_whole_strokes_leaves_no_pieces():
    strokes = {4: Stroke([(0, 0.5), (1, 0.5)]), 5: Stroke([(0, 0.9), (1, 0.9)])}
    assert erase(strokes, Eraser([(0.5, 0.5)], 0.1, whole_strokes=True)) == {4: []}


def test_slivers_go_too():
    stroke = Stroke([(0.5, 0.5), (0.6005, 0.5)])
    assert erase({0: stroke}, Eraser([(0.5, 0.5)], 0.1)) == {0: []}


@pytest.mark.parametrize(
    ("arguments", "message", "field"),
    [
        (([],), "at least one", "x"),
        (([(0.5, np.nan)],), "point 0 is not a finite number", "y[0]"),
        (([(0.5, 0.5), (1.5, 0.5)],), r"point 1 is at \(1.5, 0.5\)", "x[1]"),
        (([(0.5, 0.5)] * (MAX_ERASER_POINTS + 1),), "may have 1000 points, got 1001", "x"),
        (([(0.5, 0.5)], 0.0), "radius must be above 0 and at most 0.2", "radius"),
        (([(0.5, 0.5)], float("nan")), "radius must be above 0", "radius"),
        (([(0.5, 0.5)], 0.3), "radius must be above 0 and at most 0.2", "radius"),
    ],
)
def test_an_eraser_out_of_range_is_refused(arguments, message, field):
    with pytest.raises(SketchError, match=message) as refused:
        Eraser(np.float32(arguments[0]).reshape(-1, 2), *arguments[1:])
    assert refused.value.field == field


def test_more_than_one_message_may_rub_out_is_refused():
    crowd = {number: Stroke(np.full((10_000, 2), 0.5)) for number in range(10)}
    with pytest.raises(SketchError, match="send the path in pieces"):
        erase(crowd, Eraser(np.full((MAX_ERASER_POINTS, 2), 0.5)))
    assert erase(crowd, Eraser([(0.5, 0.5)])) == {number: [] for number in crowd}
