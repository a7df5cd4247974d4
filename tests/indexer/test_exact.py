import numpy as np
import pytest

from indexer.errors import QueryError, ShapeError
from indexer.exact import exact_distances, exact_search
from indexer.fusion import fused_distance
from indexer.regions import REGIONS
from tests.conftest import unit_rows


def test_exact_search_agrees_with_sorting_pairs_of_distance_and_row() -> None:
    rng = np.random.default_rng(0)
    probe, gallery = unit_rows(rng, 1)[0], unit_rows(rng, 60)
    gallery[40:50] = gallery[:10]
    ink = rng.random(REGIONS) < 0.5
    pairs = sorted((float(fused_distance(probe, gallery[row][None], ink)[0]), row) for row in range(60))
    rows, distances = exact_search(gallery, probe, ink, k=25)
    assert list(zip(distances.tolist(), rows.tolist(), strict=True)) == pairs[:25]


def test_blocks_give_what_one_call_gives() -> None:
    rng = np.random.default_rng(1)
    probe, gallery = unit_rows(rng, 1, 2)[0], unit_rows(rng, 9001, 2)
    ink = np.ones(REGIONS, bool)
    np.testing.assert_array_equal(exact_distances(gallery, probe, ink), fused_distance(probe, gallery, ink))


def test_a_photo_farther_than_the_target_never_changes_its_rank() -> None:
    rng = np.random.default_rng(2)
    probe, gallery = unit_rows(rng, 1)[0], unit_rows(rng, 40)
    ink = rng.random(REGIONS) < 0.5
    ranking = exact_search(gallery, probe, ink, k=40)[0].tolist()
    target = ranking[10]
    farther = gallery[ranking[11:]]
    for count in (1, 5, 29):
        grown = exact_search(np.concatenate([gallery, farther[:count]]), probe, ink, k=99)[0].tolist()
        assert grown.index(target) == 10
        shrunk = exact_search(np.delete(gallery, ranking[-count:], axis=0), probe, ink, k=99)[1]
        assert (shrunk <= exact_distances(gallery, probe, ink)[target]).sum() == 11


def test_without_ink_all_photos_tie_in_the_order_of_rows() -> None:
    rng = np.random.default_rng(3)
    rows, distances = exact_search(unit_rows(rng, 5), unit_rows(rng, 1)[0], np.zeros(REGIONS, bool), k=9)
    assert rows.tolist() == [0, 1, 2, 3, 4]
    assert distances.tolist() == [0] * 5


def test_an_empty_gallery_gives_an_empty_ranking() -> None:
    probe = unit_rows(np.random.default_rng(4), 1)[0]
    rows, distances = exact_search(np.empty((0, REGIONS, 16), np.float32), probe, np.ones(REGIONS, bool), k=3)
    assert rows.shape == distances.shape == (0,)


def test_bad_queries_are_refused() -> None:
    rng = np.random.default_rng(5)
    gallery, probe, ink = unit_rows(rng, 3), unit_rows(rng, 1)[0], np.ones(REGIONS, bool)
    with pytest.raises(QueryError, match="k must be at least 1, got 0"):
        exact_search(gallery, probe, ink, k=0)
    with pytest.raises(ShapeError, match=r"probe must be \(14, 16\) float32 .* got \(13, 16\)"):
        exact_search(gallery, probe[:13], ink, k=1)
    probe[3, 3] = np.nan
    with pytest.raises(ShapeError, match="probe must hold finite numbers, got NaN"):
        exact_search(gallery, probe, ink, k=1)
