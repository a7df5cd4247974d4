"""When a ranking counts as settled."""

import numpy as np
import pytest

from indexer.sketch import read_raster
from service.drawing import Drawing
from service.engine import Engine
from service.stability import SETTLED_REGIONS, SETTLED_STROKES, Settling
from tests.service.conftest import line, png

MUCH, LITTLE = np.arange(14) < SETTLED_REGIONS, np.arange(14) < SETTLED_REGIONS - 1


def judge(settling, leader="a", before=None, ink=MUCH, drawn=0, has_picture=False):
    return settling.judge([leader, "b", "c", "d"], before, ink, drawn, has_picture)


def test_a_lead_settles_with_the_strokes_that_do_not_change_it():
    settling = Settling()
    told = [judge(settling, drawn=drawn) for drawn in range(2, 9)]
    assert [each.settled_strokes for each in told] == list(range(7))
    assert [each.too_early for each in told] == [True] * SETTLED_STROKES + [False] * 2
    assert judge(settling, "z", drawn=9).too_early
    assert not judge(settling, "z", drawn=9 + SETTLED_STROKES).too_early


def test_many_answers_to_one_stroke_settle_nothing():
    settling = Settling()
    assert all(judge(settling, drawn=1).too_early for _ in range(50))


def test_little_ink_settles_nothing():
    settling = Settling()
    judge(settling)
    assert judge(settling, drawn=50, ink=LITTLE).too_early
    assert not judge(settling, drawn=50).too_early


def test_strokes_taken_back_settle_nothing():
    settling = Settling()
    judge(settling, drawn=10)
    assert judge(settling, drawn=4).settled_strokes == 0


def test_a_picture_is_settled_by_its_ink():
    assert not judge(Settling(), has_picture=True).too_early
    assert judge(Settling(), has_picture=True, ink=LITTLE).too_early


def test_nobody_leads_an_empty_ranking():
    told = Settling().judge([], None, MUCH, 50, True)
    assert (told.too_early, told.overlap) == (True, None)


@pytest.mark.parametrize(("before", "overlap"), [(None, None), ({}, 0.0), ({"a": 3, "c": 9, "x": 1}, 0.5)])
def test_overlap_is_the_share_of_hits_that_were_there(before, overlap):
    assert judge(Settling(), before=before).overlap == overlap


def test_a_drawing_says_how_settled_it_is(gallery, encoder):
    drawing = Drawing(gallery, Engine(encoder))
    assert drawing.rank().stability is None
    drawing.add([line()])
    first = drawing.rank()
    assert (first.stability.overlap, first.stability.too_early) == (None, True)
    drawing.add([line(0.5, 0.1, 0.5, 0.9)])
    second = drawing.rank()
    shared = {hit.photo_id for hit in first.hits} & {hit.photo_id for hit in second.hits}
    assert second.stability.overlap == len(shared) / 10
    assert drawing.rank().stability.overlap == 1
    drawing.put_raster(read_raster(png(), drawing.size_px))
    assert drawing.rank().stability.settled_strokes <= 2
