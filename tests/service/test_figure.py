import numpy as np
import pytest
from PIL import Image

from service.demo.chart import FOUND, RankAxes
from service.demo.figure import HEIGHT_PX, Candidate, Moment, draw_figure, shown_moments

GREY = Image.new("RGB", (96, 96), (90, 90, 90))


def moment(strokes=3, rank=40, target_at=None) -> Moment:
    canvas = np.zeros((192, 192), np.uint8)
    canvas[90:100, 20:170] = 255
    return Moment(canvas, strokes, rank, [Candidate(GREY, 1 + place / 10, place == target_at) for place in range(5)])


def figure(moments, ranks=None, photos=300) -> np.ndarray:
    strokes = [each.strokes for each in moments]
    ranks = [each.rank for each in moments] if ranks is None else ranks
    return np.asarray(draw_figure(moments, strokes, ranks, photos, GREY, "A title"))


def in_green(pixels) -> np.ndarray:
    return (pixels == FOUND).all(axis=-1)


def test_eight_moments_make_eight_columns_and_a_fixed_height():
    pixels = figure([moment(strokes=n + 1) for n in range(8)])
    assert pixels.shape == (HEIGHT_PX, 1284, 3)
    # The sketches' horizontal lines, black on white: one in each column.
    row = pixels[112 + 66, :, 0] < 80
    assert int(np.diff(row.astype(int)).clip(0).sum()) == 8


def test_only_the_target_is_framed_in_green():
    with_target, without = (figure([moment(target_at=at) for _ in range(8)]) for at in (2, None))
    # From the sketches down to the end of the photos; the rest of the figure has green of its own.
    columns = np.s_[250:870]
    assert in_green(with_target[columns]).sum() > 8 * 900
    assert not in_green(without[columns]).any()


def test_the_frame_is_in_the_row_of_the_targets_place():
    rows = [np.flatnonzero(in_green(figure([moment(target_at=at)])[250:870]).any(axis=1)).mean() for at in range(5)]
    np.testing.assert_allclose(np.diff(rows), 120, atol=4)


def test_a_rank_among_the_shown_ones_is_printed_in_green():
    found, lost = figure([moment(rank=5)]), figure([moment(rank=6)])
    line = np.s_[874:896]
    assert in_green(found[line]).any()
    assert not in_green(lost[line]).any()


def test_the_curve_runs_through_the_ranks():
    moments = [moment(strokes=n, rank=rank) for n, rank in ((10, 300), (20, 30), (40, 1))]
    axes = RankAxes((0, 0, 300, 200), 40, 300)
    assert axes.y(300) == 0
    assert axes.y(1) == 200
    assert axes.y(30) - axes.y(300) == pytest.approx(axes.y(3) - axes.y(30))
    assert axes.x(20) == 150
    high, low = (int(in_green(figure(moments, ranks=ranks)[960:1060, 420:]).sum()) for ranks in ([300] * 3, [1] * 3))
    assert high > low + 400


@pytest.mark.parametrize("photos", [2, 7, 300, 12_345])
def test_ticks_begin_at_rank_1_and_end_at_the_gallerys_size(photos):
    ticks = RankAxes((0, 0, 300, 200), 40, photos).rank_ticks()
    assert ticks[0] == 1
    assert ticks[-1] == photos
    assert ticks == sorted(set(ticks))


@pytest.mark.parametrize("count", [1, 2, 8, 9, 12, 70, 300])
def test_shown_moments_are_distinct_and_hold_the_first_and_the_last(count):
    shown = shown_moments(count)
    assert len(shown) == len(set(shown)) == min(count, 8)
    assert shown == sorted(shown)
    assert (shown[0], shown[-1]) == (0, count - 1)


def test_one_moment_without_an_answer_still_makes_a_figure():
    blank = Moment(np.zeros((192, 192), np.uint8), 1, 2, [])
    assert figure([blank], photos=2).shape[0] == HEIGHT_PX
