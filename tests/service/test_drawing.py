"""A drawing without a server."""

import numpy as np
import pytest

from indexer.erasing import Eraser, erase
from indexer.errors import QueryError, SketchError
from indexer.regions import REGION_IDS
from indexer.sketch import MAX_DRAWING_POINTS, MAX_STROKES, Canvas, Stroke, rasterise, read_raster
from service.answers import SearchOptions
from service.drawing import Drawing, DrawingAbandonedError
from service.engine import Engine
from tests.service.conftest import GatedEncoder, ids, line, make_gallery, png


@pytest.fixture
def drawing(gallery, encoder):
    return Drawing(gallery, Engine(encoder), SearchOptions(k=24))


def pixels(drawing):
    return drawing._render(drawing.snapshot())


def random_strokes(rng, count):
    return [Stroke(rng.uniform(size=(rng.integers(1, 9), 2)), float(rng.uniform(0.004, 0.05))) for _ in range(count)]


class Slow:
    """The reference: keeps every state the strokes were ever in, and undo and redo look them up."""

    def __init__(self):
        self.raster = None
        self.clear()

    def clear(self):
        self.past, self.future = [{}], []

    @property
    def strokes(self):
        return self.past[-1]

    @property
    def next(self):
        return max((number for state in self.past for number in state), default=-1) + 1

    def step(self, strokes):
        self.past.append(strokes)
        self.future = []


def add(rng, drawing, slow):
    strokes = random_strokes(rng, rng.integers(1, 4))
    drawing.add(strokes)
    for stroke in strokes:
        slow.step({**slow.strokes, slow.next: stroke})


def extend(rng, drawing, slow):
    drew = slow.strokes.keys() - (slow.past[-2].keys() if len(slow.past) > 1 else set())
    more = rng.uniform(size=(rng.integers(1, 4), 2)).astype(np.float32)
    if len(slow.past) < 2 or slow.past[-2].keys() - slow.strokes.keys():
        with pytest.raises(SketchError, match="no stroke to extend"):
            drawing.extend(more)
        return
    (number,) = drew
    drawing.extend(more)
    stroke = slow.strokes[number]
    slow.past.pop()
    slow.step({**slow.strokes, number: Stroke(np.concatenate([stroke.points, more]), stroke.width)})


def undo(rng, drawing, slow):
    if len(slow.past) > 1:
        count = int(rng.integers(1, min(4, len(slow.past))))
        drawing.undo(count)
        for _ in range(count):
            slow.future.append(slow.past.pop())


def redo(rng, drawing, slow):
    if slow.future:
        count = int(rng.integers(1, len(slow.future) + 1))
        drawing.redo(count)
        for _ in range(count):
            slow.past.append(slow.future.pop())


def rub_out(rng, drawing, slow):
    eraser = Eraser(rng.uniform(size=(rng.integers(1, 4), 2)), 0.05, bool(rng.integers(2)))
    left = erase(drawing.strokes(), eraser)
    drawing.erase(left)
    if left:
        pieces = [piece for several in left.values() for piece in several]
        kept = {number: stroke for number, stroke in slow.strokes.items() if number not in left}
        slow.step(kept | dict(enumerate(pieces, slow.next)))


def erase_numbers(rng, drawing, slow):
    if slow.strokes:
        numbers = rng.choice(list(slow.strokes), rng.integers(1, min(3, len(slow.strokes)) + 1), replace=False)
        drawing.erase(dict.fromkeys(numbers.tolist(), ()))
        slow.step({number: stroke for number, stroke in slow.strokes.items() if number not in numbers})


def clear(rng, drawing, slow):
    drawing.clear()
    slow.clear()
    slow.raster = None


def put_raster(rng, drawing, slow):
    slow.raster = read_raster(png(), drawing.size_px)
    drawing.put_raster(slow.raster)


def rest(rng, drawing, slow):
    drawing.rank()
    drawing.rest()


EDITS = {
    add: 0.35, extend: 0.15, undo: 0.1, redo: 0.12, rub_out: 0.1, erase_numbers: 0.06, clear: 0.02, put_raster: 0.04,
    rest: 0.06,
}  # fmt: skip


def assert_same(drawing, slow):
    state = drawing.snapshot().state
    assert (state.strokes, state.undo_steps) == (len(slow.strokes), len(slow.past) - 1)
    assert (state.redo_steps, state.next_stroke) == (len(slow.future), slow.next)
    assert drawing.strokes().keys() == slow.strokes.keys()
    expected = rasterise(list(slow.strokes.values()))
    expected = expected if slow.raster is None else np.maximum(expected, slow.raster)
    np.testing.assert_array_equal(pixels(drawing), expected)


@pytest.mark.parametrize("seed", range(6))
def test_any_run_of_edits_gives_the_pixels_of_what_is_left(gallery, encoder, seed):
    rng = np.random.default_rng(seed)
    drawing, slow = Drawing(gallery, Engine(encoder)), Slow()
    for _ in range(60):
        rng.choice(list(EDITS), p=list(EDITS.values()))(rng, drawing, slow)
        if rng.random() < 0.5:  # not after every edit, so that several are drawn at once too
            assert_same(drawing, slow)
    assert_same(drawing, slow)


def test_adding_strokes_draws_only_the_new_ones(drawing, monkeypatch):
    drawn = []
    draw = Canvas.draw
    monkeypatch.setattr(Canvas, "draw", lambda canvas, strokes: (drawn.append(len(strokes)), draw(canvas, strokes)))
    for y in (0.2, 0.4, 0.6):
        drawing.add([line(y0=y, y1=y)])
        drawing.rank()
    drawing.undo()
    drawing.rank()
    assert drawn == [1, 1, 1, 2]


def test_a_stroke_that_grows_draws_only_itself(drawing, monkeypatch):
    drawn = []
    draw = Canvas.draw
    monkeypatch.setattr(Canvas, "draw", lambda canvas, strokes: (drawn.append(len(strokes)), draw(canvas, strokes)))
    drawing.add([line(y0=y, y1=y) for y in (0.2, 0.4, 0.6)])
    drawing.rank()
    drawing.extend(np.float32([[0.9, 0.9], [0.1, 0.9]]))
    drawing.rank()
    assert drawn == [3, 1, 0]


def test_a_stroke_grows_as_it_was_begun(drawing):
    drawing.add([line(), line(pressure=np.full(8, 0.5))])
    with pytest.raises(SketchError, match="was begun with pressure; go on as it was begun"):
        drawing.extend(np.float32([[0.5, 0.5]]))
    drawing.extend(np.float32([[0.5, 0.5]]), np.float32([0.25]))
    assert drawing.strokes()[1].pressure.tolist() == [0.5] * 8 + [0.25]
    drawing.undo()
    with pytest.raises(SketchError, match="was begun with no pressure"):
        drawing.extend(np.float32([[0.5, 0.5]]), np.float32([0.25]))
    with pytest.raises(SketchError, match="a stroke may have 10000 points, got 10007"):
        drawing.extend(np.full((9_999, 2), 0.5, np.float32))
    assert drawing.rank().strokes == 1


def test_erasing_what_is_not_there_changes_nothing(drawing):
    drawing.add([line(), line()])
    with pytest.raises(SketchError, match="no stroke 2 is on the canvas"):
        drawing.erase({0: (), 2: ()})
    drawing.erase({0: ()})
    with pytest.raises(SketchError, match="no stroke 0 is on the canvas"):
        drawing.erase({0: ()})
    state = drawing.rank().state
    assert (state.strokes, state.undo_steps) == (1, 3)


def test_what_can_be_undone_is_bounded(drawing):
    long = Stroke(np.full((10_000, 2), 0.5))
    for _ in range(3):  # three million points, two of which are kept for undo at most
        drawing.add([long] * 100)
        drawing.erase(dict.fromkeys(drawing.strokes(), ()))
    state = drawing.snapshot().state
    assert (state.strokes, state.undo_steps) == (0, 101)
    drawing.undo(101)
    assert len(drawing.strokes()) == 0
    drawing.redo(101)
    drawing.undo()
    assert len(drawing.strokes()) == 100


def test_new_options_rank_without_encoding_again(tmp_path):
    encoder = GatedEncoder()
    drawing = Drawing(make_gallery(tmp_path / "faces", encoder), Engine(encoder))
    drawing.add([line()])
    first = drawing.rank()
    drawing.set_options(SearchOptions(k=3, weights={1: 0.0, 2: 0.0, 3: 1.0}))
    again = drawing.rank()
    assert (encoder.calls, len(first.hits), len(again.hits)) == (1, 10, 3)
    assert again.timings.encode_ms == 0
    assert [hit.distance for hit in again.hits] == [pytest.approx(hit.granularity_distances[3]) for hit in again.hits]


def test_contributions_add_up_to_the_distance(gallery, encoder):
    weights = {1: 1.0, 2: 0.5, 3: 2.0}
    drawing = Drawing(gallery, Engine(encoder), SearchOptions(weights=weights))
    drawing.add([line()])
    answer = drawing.rank()
    assert not answer.ink.all()
    for hit in answer.hits:
        assert hit.contributions.sum() == pytest.approx(hit.distance, rel=1e-6)
        assert not hit.contributions[~answer.ink].any()
        for granularity, ids_ in REGION_IDS.items():
            share = weights[granularity] * hit.granularity_distances[granularity]
            assert hit.contributions[list(ids_)].sum() == pytest.approx(share)


def test_the_canvas_is_told_when_strokes_were_rearranged(gallery, encoder):
    drawing = Drawing(gallery, Engine(encoder), tells_canvas=True)
    drawing.rank()
    drawing.add([line(), line(0.5, 0.1, 0.5, 0.9)])
    assert drawing.rank().state.canvas is None
    drawing.erase(erase(drawing.strokes(), Eraser([(0.5, 0.3)], 0.1)))
    canvas = drawing.rank().state.canvas
    assert list(canvas) == [2, 3, 4, 5]
    assert drawing.rank().state.canvas is None
    drawing.undo()
    assert sorted(drawing.rank().state.canvas) == [0, 1]
    drawing.clear()
    assert drawing.rank().state.canvas == {}


def test_an_edit_during_a_ranking_waits_for_the_next(drawing):
    drawing.add([line()])
    snapshot = drawing.snapshot()
    drawing.add([line(0.5, 0.1, 0.5, 0.9)])
    assert drawing.rank(snapshot).strokes == 1
    assert drawing.rank().strokes == 2
    np.testing.assert_array_equal(pixels(drawing), rasterise([line(), line(0.5, 0.1, 0.5, 0.9)]))


def test_rank_changes_after_undo_mirror_those_before(drawing):
    drawing.add([line()])
    drawing.rank()
    drawing.add([line(0.5, 0.1, 0.5, 0.9)])
    forth = drawing.rank()
    drawing.undo()
    back = drawing.rank()
    changes = {hit.photo_id: hit.rank_change for hit in forth.hits}
    assert {hit.photo_id: -hit.rank_change for hit in back.hits} == changes
    assert any(changes.values())


def test_the_first_ranking_after_a_clear_starts_afresh(drawing):
    drawing.add([line()])
    drawing.rank()
    drawing.clear()
    assert drawing.rank().no_ink
    drawing.add([line()])
    assert {(hit.rank_change, hit.is_new) for hit in drawing.rank().hits} == {(None, False)}


def test_a_speck_too_small_for_any_region_is_no_ink(drawing, gallery):
    drawing.add([Stroke([(0.4, 0.4)], width=0.001)])
    answer = drawing.rank()
    assert (answer.no_ink, answer.strokes, gallery.searches) == (True, 1, 0)


def test_too_many_strokes_or_points_add_none(drawing):
    drawing.add([line()])
    with pytest.raises(SketchError, match=f"may have {MAX_STROKES} strokes, this one has 1 and got {MAX_STROKES} more"):
        drawing.add([line()] * MAX_STROKES)
    long = Stroke(np.full((10_000, 2), 0.5))
    with pytest.raises(SketchError, match=f"may have {MAX_DRAWING_POINTS} points, this one has 8 and got 1000000 more"):
        drawing.add([long] * 100)
    drawing.add([long] * 99)
    drawing.undo(99)
    drawing.add([long] * 99)
    assert drawing.rank().strokes == 100


def test_undo_needs_something_to_undo(drawing):
    with pytest.raises(SketchError, match=r"undo must take back 1 to 0 steps \(all there are\), got 1"):
        drawing.undo()


def test_an_abandoned_drawing_stops_before_the_encoder(tmp_path):
    encoder = GatedEncoder()
    drawing = Drawing(make_gallery(tmp_path / "faces", encoder), Engine(encoder))
    drawing.add([line()])
    with pytest.raises(DrawingAbandonedError):
        drawing.rank(is_abandoned=lambda: True)
    assert encoder.calls == 0
    assert ids(drawing.rank())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be from 1 to 1000, got 0"),
        ({"k": 200, "include_thumbnails": True}, "k must be at most 100 with thumbnails, got 200"),
        ({"weights": {1: 1.0, 2: 2e6, 3: 1.0}}, "weights must be at most 1000000, got 2000000.0"),
        ({"weights": {1: 0.0, 2: 0.0, 3: 0.0}}, "at least one weight must be above 0"),
        (
            {"weights": {1: 1.0, 2: 1.0, 3: float("nan")}},
            "the weight of granularity 3 must be finite",
        ),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(QueryError, match=message):
        SearchOptions(**options)


def test_ink_only_where_the_weights_do_not_look_is_no_ink(gallery, encoder):
    drawing = Drawing(gallery, Engine(encoder), SearchOptions(weights={1: 1.0, 2: 0.0, 3: 0.0}))
    drawing.add([Stroke([(0.4, 0.4)], width=0.02)])  # enough for a cell of the 3x3 grid, too little for the face
    assert drawing.rank().no_ink
    drawing.add([line()])
    assert not drawing.rank().no_ink
