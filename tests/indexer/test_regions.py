import numpy as np
import pytest

from indexer.errors import ShapeError
from indexer.regions import INK_LEVEL, REGIONS, ink_mask, region_box


@pytest.mark.parametrize("size", [6, 96, 192])
def test_the_cells_of_each_granularity_tile_the_image(size: int) -> None:
    for first, last in ((0, 1), (1, 5), (5, 14)):
        covered = np.zeros((size, size), int)
        for region in range(first, last):
            left, top, right, bottom = region_box(region, size)
            covered[top:bottom, left:right] += 1
        assert (covered == 1).all()


def test_a_size_that_cells_cannot_share_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"multiple of 6 px, got 100"):
        region_box(0, 100)
    with pytest.raises(ShapeError, match=r"multiple of 6 px, got \(190, 190\)"):
        ink_mask(np.zeros((190, 190), np.uint8))


def test_ink_mask_agrees_with_counting_the_pixels_of_each_box() -> None:
    rng = np.random.default_rng(1)
    canvases = (rng.random((40, 96, 96)) < rng.random((40, 1, 1)) ** 6 * 0.02).astype(np.uint8) * 255
    for canvas, mask in zip(canvases, ink_mask(canvases, 0.002), strict=True):
        for region in range(REGIONS):
            left, top, right, bottom = region_box(region, 96)
            cell = canvas[top:bottom, left:right]
            assert mask[region] == ((cell >= INK_LEVEL).sum() >= max(1, 0.002 * cell.size))


def test_an_empty_canvas_has_no_ink_and_faint_grain_is_none() -> None:
    assert not ink_mask(np.zeros((192, 192), np.uint8)).any()
    assert not ink_mask(np.full((192, 192), INK_LEVEL - 1, np.uint8)).any()
    assert ink_mask(np.full((192, 192), INK_LEVEL, np.uint8)).all()


def test_a_dot_in_a_corner_inks_that_corner_only() -> None:
    canvas = np.zeros((192, 192), np.uint8)
    canvas[:10, -10:] = 255
    assert np.flatnonzero(ink_mask(canvas)).tolist() == [0, 2, 7]
