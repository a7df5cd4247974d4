"""What goes over the wire comes back the same."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from indexer.erasing import DEFAULT_RADIUS, Eraser
from indexer.errors import QueryError, SketchError
from indexer.modes import EXACT, Approximate, Budget
from indexer.sketch import DEFAULT_WIDTH, MAX_STROKES, Stroke
from mgrl.v1 import search_pb2, sketch_pb2
from service.answers import Answer, CanvasState, RankedPhoto, SearchOptions, Stability, Timings
from service.convert import (
    answer_from_draw_result,
    answer_from_search_response,
    answer_to_draw_result,
    answer_to_search_response,
    eraser_from_wire,
    eraser_to_wire,
    options_from_wire,
    options_to_wire,
    stroke_from_wire,
    stroke_to_wire,
    strokes_from_wire,
)
from service.convert_metadata import metadata_from_wire, metadata_to_wire


@pytest.mark.parametrize("pressure", [None, np.float32([0, 0.25, 1])])
def test_strokes_survive_the_wire(pressure):
    stroke = Stroke(np.float32([[0, 1], [0.25, 0.75], [1, 0]]), 0.05, pressure)
    back = stroke_from_wire(sketch_pb2.Stroke.FromString(stroke_to_wire(stroke).SerializeToString()))
    np.testing.assert_array_equal(back.points, stroke.points)
    assert back.width == pytest.approx(0.05)
    np.testing.assert_array_equal(back.pressure, pressure)


def test_a_stroke_without_width_has_the_default_one():
    assert stroke_from_wire(sketch_pb2.Stroke(x=[0.5], y=[0.5])).width == DEFAULT_WIDTH


def test_a_bad_stroke_is_named_by_its_place():
    good, bad = sketch_pb2.Stroke(x=[0.5], y=[0.5]), sketch_pb2.Stroke(x=[0.5, -1], y=[0.5, 0.5])
    with pytest.raises(SketchError, match=r"stroke 2: point 1 is at \(-1, 0.5\)"):
        strokes_from_wire([good, good, bad])


def test_too_many_strokes_are_counted_before_they_are_read():
    with pytest.raises(SketchError, match=f"a drawing may have {MAX_STROKES} strokes, got {MAX_STROKES + 1}"):
        strokes_from_wire([sketch_pb2.Stroke()] * (MAX_STROKES + 1))


@pytest.mark.parametrize("mode", [EXACT, Approximate(0.9), Budget(2.5)])
def test_options_survive_the_wire(mode):
    options = SearchOptions(k=7, weights={1: 0.0, 2: 0.5, 3: 2.0}, include_thumbnails=True, mode=mode)
    assert options_from_wire(options_to_wire(options)) == options


def test_no_options_are_the_defaults():
    assert options_from_wire(search_pb2.SearchOptions()) == SearchOptions()
    approximate = search_pb2.SearchOptions(approximate=search_pb2.ApproximateMode())
    assert options_from_wire(approximate) == SearchOptions(mode=Approximate(0.99))


@pytest.mark.parametrize("bound", [0.1, 0.3, 1.25, 1e-50])
def test_a_bound_is_still_one_after_the_wire(bound):
    answer = Answer((hit(1),), 99, False, np.ones(14, bool), Timings(), unseen_from=bound)
    received = answer_from_search_response(answer_to_search_response(answer)).unseen_from
    assert 0 <= received <= bound
    assert received == pytest.approx(bound, abs=1e-7)


def hit(rank, **fields):
    distances = np.arange(14, dtype=np.float32) / 8
    return RankedPhoto(f"photo{rank}", rank, 1.5, {1: 0.5, 2: 0.25, 3: 0.75}, distances, distances / 4, **fields)


def test_answers_survive_the_wire():
    ink = np.arange(14) % 3 == 0
    hits = (hit(1, rank_change=0, thumbnail=b"jpeg"), hit(2, rank_change=-3), hit(3, is_new=True))
    state = CanvasState(strokes=4, undo_steps=3, redo_steps=1, next_stroke=6)
    answer = Answer(hits, 99, True, ink, Timings(1.5, 2.5, 0.25), state, skipped=2, sequence=9, gallery_version=7)
    answer = replace(answer, stability=Stability(0.5, 3, False))
    back = answer_from_draw_result(answer_to_draw_result(answer), answer.sequence)
    arrays = {"region_distances": 0, "contributions": 0}
    for sent, received in zip(answer.hits, back.hits, strict=True):
        for name in arrays:
            np.testing.assert_array_equal(getattr(received, name), getattr(sent, name))
        assert vars(received) | arrays == vars(sent) | arrays
    np.testing.assert_array_equal(back.ink, ink)
    assert vars(back.state) == vars(state)
    own = {"hits": 0, "ink": 0, "state": 0}
    assert vars(back) | own == vars(answer) | own
    found = answer_from_search_response(answer_to_search_response(answer))
    assert [hit.photo_id for hit in found.hits] == ["photo1", "photo2", "photo3"]
    assert found.timings == answer.timings


def test_a_canvas_survives_the_wire():
    strokes = {3: Stroke(np.float32([[0.5, 0.25]]), 0.125), 8: Stroke(np.float32([[0, 1], [1, 0]]))}
    answer = Answer((), 0, False, np.zeros(14, bool), state=CanvasState(2, canvas=strokes), timings=Timings())
    back = answer_from_draw_result(answer_to_draw_result(answer)).state.canvas
    assert list(back) == [3, 8]
    assert back[3].width == 0.125
    np.testing.assert_array_equal(back[8].points, strokes[8].points)


def test_erasers_survive_the_wire():
    eraser = Eraser(np.float32([[0.5, 0.25], [0.75, 1]]), 0.125, True)
    back = eraser_from_wire(eraser_to_wire(eraser))
    np.testing.assert_array_equal(back.points, eraser.points)
    assert (back.radius, back.whole_strokes) == (0.125, True)
    assert eraser_from_wire(search_pb2.EraserPath(x=[0.5], y=[0.5])).radius == DEFAULT_RADIUS


def test_values_survive_the_wire_and_others_are_refused():
    values = {"sex": "female", "age": 31.0, "beard": False, "seen": date(2024, 2, 29), "marks": ("mole", "scar")}
    assert metadata_from_wire(metadata_to_wire(values)) == values
    for value, kind in ((["scar"], "list"), (None, "NoneType"), (np.int64(3), "int64"), (("scar", 1), "tuple")):
        with pytest.raises(QueryError, match=rf"a value must be a text, .* got .* \({kind}\)"):
            metadata_to_wire({"marks": value})


def test_without_ink_there_is_no_ranking():
    answer = Answer((), 0, False, np.zeros(14, bool), Timings(raster_ms=1), no_ink=True)
    result = answer_to_draw_result(answer)
    assert result.no_ink
    assert not result.HasField("ranking")
    assert answer_from_draw_result(result).no_ink
