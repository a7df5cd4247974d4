import numpy as np
import pytest

from indexer.errors import QueryError, ShapeError
from indexer.fusion import EQUAL_WEIGHTS, fused_distance, region_distances, region_weights
from indexer.regions import REGION_IDS, REGIONS
from tests.conftest import unit_rows


def slow_fused_distance(probe, photo, ink, weights) -> float:  # type: ignore[no-untyped-def]
    """Eq. (3) as the paper writes it, one number at a time."""
    total = 0.0
    for granularity, ids in REGION_IDS.items():
        inked = [region for region in ids if ink[region]]
        if not inked:
            continue
        distances = [
            sum((float(a) - float(b)) ** 2 for a, b in zip(probe[region], photo[region], strict=True)) ** 0.5
            for region in inked
        ]
        total += weights[granularity] * sum(distances) / len(distances)
    return total


@pytest.mark.parametrize("seed", range(8))
def test_fused_distance_agrees_with_a_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probe, gallery = unit_rows(rng, 1)[0], unit_rows(rng, 5)
    ink = rng.random(REGIONS) < rng.random()
    weights = dict(zip((1, 2, 3), rng.random(3), strict=True))
    expected = [slow_fused_distance(probe, photo, ink, weights) for photo in gallery]
    np.testing.assert_allclose(fused_distance(probe, gallery, ink, weights), expected, rtol=1e-12)


def test_three_photos_worked_by_hand() -> None:
    probe = np.tile(np.float32([1, 0]), (REGIONS, 1))
    same, opposite, square = probe, -probe, np.tile(np.float32([0, 1]), (REGIONS, 1))
    ink = np.zeros(REGIONS, bool)
    ink[[0, 1]] = True
    found = fused_distance(probe, np.stack([same, opposite, square]), ink, {1: 1.0, 2: 0.5, 3: 9.0})
    np.testing.assert_allclose(found, [0, 3, 1.5 * 2**0.5])


def test_empty_sketch_ties_every_photo() -> None:
    rng = np.random.default_rng(0)
    found = fused_distance(unit_rows(rng, 1)[0], unit_rows(rng, 7), np.zeros(REGIONS, bool))
    assert found.tolist() == [0] * 7


def test_a_region_without_ink_never_changes_the_distance() -> None:
    rng = np.random.default_rng(2)
    probe, gallery = unit_rows(rng, 1)[0], unit_rows(rng, 20)
    ink = rng.random(REGIONS) < 0.5
    moved_probe, moved = probe.copy(), gallery.copy()
    moved_probe[~ink] = unit_rows(rng, 1)[0][~ink]
    moved[:, ~ink] = unit_rows(rng, 20)[:, ~ink]
    np.testing.assert_array_equal(fused_distance(probe, gallery, ink), fused_distance(moved_probe, moved, ink))


def test_a_photo_s_distance_does_not_depend_on_the_photos_around_it() -> None:
    """Else equal photos would not tie, and an index that ranks a few candidates could not agree with brute force."""
    rng = np.random.default_rng(3)
    for photos in (1, 2, 3, 5, 8, 33, 500):
        probe, gallery = unit_rows(rng, 1)[0], unit_rows(rng, photos)
        gallery[-1] = gallery[0]
        ink = rng.random(REGIONS) < 0.7
        weights = dict(zip((1, 2, 3), rng.random(3), strict=True))
        together = fused_distance(probe, gallery, ink, weights)
        alone = [fused_distance(probe, gallery[row : row + 1], ink, weights)[0] for row in range(photos)]
        np.testing.assert_array_equal(together, alone)


def test_a_granularity_s_weights_add_up_to_its_weight() -> None:
    ink = np.zeros(REGIONS, bool)
    ink[[0, 1, 3, 5, 9, 13]] = True
    per_region = region_weights(ink, {1: 0.25, 2: 1.0, 3: 2.0})
    assert [per_region[list(ids)].sum() for ids in REGION_IDS.values()] == [0.25, 1.0, 2.0]
    assert not per_region[~ink].any()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({1: 1.0, 2: -1.0, 3: 1.0}, "granularity 2 must be finite and >= 0, got -1.0"),
        ({1: 1.0, 2: 1.0, 3: float("nan")}, "granularity 3 must be finite and >= 0, got nan"),
        ({1: 1e308, 2: 1.0, 3: 1.0}, r"granularity 1 must be 0 or from 1e-100 to 1e\+100, got 1e\+308; only"),
        ({1: 5e-324, 2: 1.0, 3: 1.0}, "granularity 1 must be 0 or from 1e-100 .* got 4.94066e-324"),
        ({1: 1.0, 2: 1.0}, r"must name the granularities \[1, 2, 3\], got \[1, 2\]"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights: dict[int, float], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        region_weights(np.ones(REGIONS, bool), weights)


def test_shapes_that_disagree_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ShapeError, match=r"got \(14, 8\) and \(3, 14, 16\)"):
        region_distances(unit_rows(rng, 1, 8)[0], unit_rows(rng, 3))
    with pytest.raises(ShapeError, match=r"ink must be \(14,\), got \(13,\)"):
        fused_distance(unit_rows(rng, 1)[0], unit_rows(rng, 3), np.ones(13, bool), EQUAL_WEIGHTS)
