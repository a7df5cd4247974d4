"""A drawing without a server."""

import numpy as np
import pytest

from indexer.errors import QueryError, SketchError
from indexer.sketch import MAX_STROKES, Canvas, Stroke, rasterise, read_raster
from service.answers import SearchOptions
from service.drawing import MAX_DRAWING_POINTS, Drawing, DrawingAbandonedError
from service.engine import Engine
from tests.service.conftest import GatedEncoder, ids, line, make_gallery, png


@pytest.fixture
def drawing(gallery, encoder):
    return Drawing(gallery, Engine(encoder), SearchOptions(k=24))


def pixels(drawing):
    return drawing._render(drawing.snapshot())


def random_strokes(rng, count):
    return [Stroke(rng.uniform(size=(rng.integers(1, 9), 2)), float(rng.uniform(0.004, 0.05))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_any_run_of_edits_gives_the_pixels_of_what_is_left(gallery, encoder, seed):
    rng = np.random.default_rng(seed)
    drawing, left, raster = Drawing(gallery, Engine(encoder)), [], None
    for _ in range(40):
        edit = rng.choice(["add", "undo", "clear", "raster", "rank"], p=[0.6, 0.2, 0.05, 0.05, 0.1])
        if edit == "add":
            new = random_strokes(rng, rng.integers(1, 4))
            drawing.add(new)
            left += new
        elif edit == "undo" and left:
            count = int(rng.integers(1, len(left) + 1))
            drawing.undo(count)
            del left[-count:]
        elif edit == "clear":
            drawing.clear()
            left, raster = [], None
        elif edit == "raster":
            raster = read_raster(png(), encoder.size_px)
            drawing.put_raster(raster)
        else:
            drawing.rank()
        expected = rasterise(left) if raster is None else np.maximum(rasterise(left), raster)
        if rng.random() < 0.5:  # not after every edit, so that several are drawn at once too
            np.testing.assert_array_equal(pixels(drawing), expected)
    np.testing.assert_array_equal(pixels(drawing), expected)


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
    with pytest.raises(SketchError, match=r"undo must take back 1 to 0 strokes \(all there are\), got 1"):
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
