import numpy as np
import pytest

from indexer.drawing_order import ink
from indexer.episode import Episode, render_stages
from indexer.sketch import Stroke, rasterise
from training.variants import PROBE_SETS, move, probe_stages, wobble


def drawing() -> Episode:
    rng = np.random.default_rng(0)
    paths = np.clip(0.2 + 0.6 * rng.random((60, 1, 2)) + np.cumsum(rng.normal(0, 0.01, (60, 8, 2)), axis=1), 0, 1)
    return Episode(tuple(Stroke(path.astype(np.float32)) for path in paths), tuple(range(6, 61, 6)))


def centre(canvas: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(canvas > 100)
    return np.array([columns.mean(), rows.mean()]) + 0.5


@pytest.mark.parametrize("name", PROBE_SETS)
def test_every_set_keeps_the_stages_and_is_decided_by_its_seed(name: str) -> None:
    one, two, other = (render_stages(probe_stages(name, drawing(), seed)) for seed in (1, 1, 2))
    assert len(one) == 10
    np.testing.assert_array_equal(one, two)
    assert name == "aligned" or not np.array_equal(one[4], other[4])
    assert (np.diff(one.sum(axis=(1, 2), dtype=np.int64)) > 0).all()


def test_shuffled_ends_in_the_same_sketch_and_dropped_lacks_a_third() -> None:
    episode = drawing()
    whole = episode.canvases()[-1]
    np.testing.assert_array_equal(render_stages(probe_stages("shuffled", episode, 0))[-1], whole)
    kept = [stroke for stage in probe_stages("dropped", episode, 0) for stroke in stage]
    assert len(kept) == 40
    assert all(any(stroke is other for other in episode.strokes) for stroke in kept)


def test_a_shift_moves_the_picture_and_a_flip_mirrors_it() -> None:
    strokes = drawing().strokes
    before = rasterise(strokes)
    after = rasterise(move(strokes, (0.05, -0.02), 0, 1))
    assert centre(after) - centre(before) == pytest.approx([0.05 * 192, -0.02 * 192], abs=0.5)
    mirrored = rasterise(move(strokes, (0, 0), 0, 1, flip=True))
    difference = np.abs(mirrored[:, ::-1].astype(int) - before)
    assert difference.mean() < 2


def test_a_quarter_turn_is_clockwise_and_scale_is_about_the_centre() -> None:
    right = [Stroke(np.float32([[0.8, 0.5], [0.9, 0.5]]))]
    (turned,) = move(right, (0, 0), 90, 1)
    assert turned.points == pytest.approx(np.array([[0.5, 0.8], [0.5, 0.9]]), abs=1e-5)
    (smaller,) = move(right, (0, 0), 0, 0.5)
    assert smaller.points == pytest.approx(np.array([[0.65, 0.5], [0.7, 0.5]]), abs=1e-5)


def test_a_pen_presses_as_hard_wherever_the_drawing_goes() -> None:
    path = np.stack([np.linspace(0.1, 0.9, 17), np.full(17, 0.5)], axis=1).astype(np.float32)
    stroke = Stroke(path, 0.05, np.linspace(0.1, 0.5, 17).astype(np.float32))
    (same,), (cut,) = move([stroke], (0, 0), 0, 1), move([stroke], (0.5, 0), 0, 1)
    np.testing.assert_array_equal(same.pressure, stroke.pressure)
    np.testing.assert_array_equal(cut.pressure, stroke.pressure[: len(cut.points)])
    (shaky,) = wobble([stroke], np.random.default_rng(0), 0.0)
    assert shaky.pressure == pytest.approx(0.1 + 0.4 * (shaky.points[:, 0] - 0.1) / 0.8, abs=1e-5)


def test_what_leaves_the_canvas_is_cut_off() -> None:
    path = np.stack([np.linspace(0.1, 0.9, 17), np.full(17, 0.5)], axis=1).astype(np.float32)
    (rest,) = move([Stroke(path)], (0.5, 0), 0, 1)
    assert rest.points[:, 0].max() <= 1
    assert 0 < ink(rest) < ink(Stroke(path))
    assert move([Stroke(path)], (2, 0), 0, 1) == []


def test_a_shaky_hand_stays_near_the_line() -> None:
    line = Stroke(np.float32([[0.1, 0.5], [0.9, 0.5]]))
    (shaky,) = wobble([line], np.random.default_rng(0))
    away = np.abs(shaky.points[:, 1] - 0.5)
    assert 0.002 < away.mean() < 0.01
    assert len(shaky.points) > 50
