import math

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba", reason="the compiled scan needs the `fast` extra")

from indexer.approximate import ApproximateScan
from indexer.arrangement import arranged
from indexer.calibration import Calibration
from indexer.errors import QueryError
from indexer.exact import exact_distances, exact_search
from indexer.face_like import FaceLike
from indexer.granular import GranularIndex
from indexer.modes import EXACT, Approximate, Budget
from indexer.regions import REGIONS
from tests.conftest import unit_rows

PHOTOS = 12_100  # the last block is not full
EVERY = np.ones(REGIONS, bool)


@pytest.fixture(scope="module")
def source() -> FaceLike:
    return FaceLike(8, seed=5)


@pytest.fixture(scope="module")
def gallery(source: FaceLike) -> npt.NDArray[np.float32]:
    return source.photos(PHOTOS)


@pytest.fixture(scope="module")
def index(gallery: npt.NDArray[np.float32]) -> GranularIndex:
    index = GranularIndex.build(gallery, threads=2)
    assert index.build_approximate()
    return index


def inks(rng: np.random.Generator, queries: int, inked: int) -> npt.NDArray[np.bool_]:
    return np.argsort(rng.random((queries, REGIONS)), axis=1) < inked


@pytest.mark.parametrize("inked", [2, 5, 14])
def test_the_promised_recall_is_kept_on_queries_it_was_not_measured_on(
    index: GranularIndex, source: FaceLike, gallery: npt.NDArray[np.float32], inked: int
) -> None:
    rng, found = np.random.default_rng(inked), []
    probes = source.sketches(gallery[rng.integers(PHOTOS, size=40)])
    for probe, ink in zip(probes, inks(rng, 40, inked), strict=True):
        (rows, distances), _ = index.search_in_mode(probe, ink, 10, mode=Approximate(0.9))
        assert (np.diff(distances) >= 0).all()
        np.testing.assert_array_equal(distances, exact_distances(gallery[rows], probe, ink))
        found.append(len(np.intersect1d(rows, exact_search(gallery, probe, ink, 10)[0])) / 10)
    assert np.mean(found) >= 0.9


def test_the_recall_is_kept_where_a_filter_goes_by_looks(
    index: GranularIndex, gallery: npt.NDArray[np.float32]
) -> None:
    """The tenth that lies farthest along the gallery's widest direction, asked for by sketches of anybody."""
    rng, found = np.random.default_rng(11), []
    rows = gallery.reshape(PHOTOS, -1) - gallery.reshape(PHOTOS, -1).mean(axis=0)
    along = rows @ np.linalg.eigh(rows.T @ rows)[1][:, -1]
    allowed = along > np.quantile(along, 0.9)
    for probe in FaceLike(8, seed=5).sketches(gallery[rng.integers(PHOTOS, size=40)]):
        (rows, _), _ = index.search_in_mode(probe, EVERY, 10, allowed=allowed, mode=Approximate(0.9))
        expected = np.flatnonzero(allowed)[exact_search(gallery[allowed], probe, EVERY, 10)[0]]
        found.append(len(np.intersect1d(rows, expected)) / 10)
    assert np.mean(found) >= 0.9


@pytest.mark.parametrize("weights", [{1: 1.0, 2: 0.01, 3: 0.01}, {1: 0.01, 2: 1.0, 3: 0.01}])
def test_the_recall_is_kept_where_one_granularity_outweighs_the_others(
    index: GranularIndex, gallery: npt.NDArray[np.float32], weights: dict[int, float]
) -> None:
    rng, found = np.random.default_rng(12), []
    for probe in FaceLike(8, seed=5).sketches(gallery[rng.integers(PHOTOS, size=40)]):
        (rows, _), _ = index.search_in_mode(probe, EVERY, 10, weights, mode=Approximate(0.9))
        found.append(len(np.intersect1d(rows, exact_search(gallery, probe, EVERY, 10, weights)[0])) / 10)
    assert np.mean(found) >= 0.9


def test_approximate_search_leaves_most_blocks_out(index: GranularIndex) -> None:
    scan = index._fused
    assert isinstance(scan, ApproximateScan)
    half = scan._calibration.share(14, 10, 0.9).blocks
    assert scan._calibration.share(14, 10, 0.5).blocks < half < 0.5
    assert half < scan._calibration.share(2, 10, 0.9).blocks


@pytest.mark.parametrize("mode", [Approximate(0.3), Approximate(0.95), Budget(0.01), Budget(1000)])
def test_no_photo_left_out_is_nearer_than_the_certificate_says(
    index: GranularIndex, source: FaceLike, gallery: npt.NDArray[np.float32], mode: Approximate | Budget
) -> None:
    rng = np.random.default_rng(3)
    for probe, ink in zip(source.sketches(gallery[:12]), inks(rng, 12, 6), strict=True):
        weights = dict(zip((1, 2, 3), rng.random(3).tolist(), strict=True))
        (rows, distances), certificate = index.search_in_mode(probe, ink, 10, weights, mode=mode)
        expected = exact_search(gallery, probe, ink, 10, weights)
        missed = np.setdiff1d(expected[0], rows)
        assert (exact_distances(gallery[missed], probe, ink, weights) >= certificate.unseen_from).all()
        if certificate.exact:
            np.testing.assert_array_equal(rows, expected[0])
            np.testing.assert_array_equal(distances, expected[1])


def test_what_stands_apart_is_found_with_a_certificate() -> None:
    rng = np.random.default_rng(4)
    centres = unit_rows(rng, 4, 8)
    gallery = np.repeat(centres, 3200, axis=0) + rng.normal(scale=1e-3, size=(12_800, REGIONS, 8)).astype(np.float32)
    index = GranularIndex.build(gallery, threads=1)
    assert index.build_approximate()
    # A quarter of the gallery lies around the probe; the rest is ruled out by its blocks' radii.
    scan = index._fused
    assert isinstance(scan, ApproximateScan)
    scan._calibration = Calibration({(14, 10): np.array([[0.25, 0.25]])})
    (rows, distances), certificate = index.search_in_mode(gallery[5], EVERY, 10, mode=Approximate(0.99))
    assert certificate.exact
    assert distances[-1] < certificate.unseen_from < math.inf
    np.testing.assert_array_equal(rows, exact_search(gallery, gallery[5], EVERY, 10)[0])


def test_all_the_time_it_takes_and_a_recall_of_one_are_exact(
    index: GranularIndex, gallery: npt.NDArray[np.float32], source: FaceLike
) -> None:
    probe = source.sketches(gallery[:1])[0]
    expected = exact_search(gallery, probe, EVERY, 10)
    for mode in (EXACT, Approximate(1), Budget(60_000)):
        (rows, distances), certificate = index.search_in_mode(probe, EVERY, 10, mode=mode)
        assert certificate.exact
        np.testing.assert_array_equal(rows, expected[0])
        np.testing.assert_array_equal(distances, expected[1])


def test_groups_that_stay_closed_cost_no_more_than_the_recall_and_are_certified(
    monkeypatch: pytest.MonkeyPatch, source: FaceLike
) -> None:
    monkeypatch.setattr("indexer.centres._LEAST_GROUPS", 1)
    rng, photos, recalls = np.random.default_rng(10), source.photos(60_000), []
    index = GranularIndex.build(photos, threads=2)
    assert index.build_approximate()
    scan = index._fused
    assert isinstance(scan, ApproximateScan)
    assert scan._calibration.share(14, 10, 0.9).groups < 1
    for probe in source.sketches(photos[rng.integers(60_000, size=30)]):
        expected = exact_search(photos, probe, EVERY, 10)
        for mode in (Approximate(0.9), Budget(0.01)):
            (rows, _), certificate = index.search_in_mode(probe, EVERY, 10, mode=mode)
            missed = np.setdiff1d(expected[0], rows)
            assert (exact_distances(photos[missed], probe, EVERY) >= certificate.unseen_from).all()
            if isinstance(mode, Approximate):
                recalls.append(1 - len(missed) / 10)
        (rows, _), certificate = index.search_in_mode(probe, EVERY, 10, mode=Budget(60_000))
        assert certificate.exact
        np.testing.assert_array_equal(rows, expected[0])
    assert np.mean(recalls) >= 0.9


def test_exact_search_is_exact_over_the_arranged_scan_filtered_or_not(
    index: GranularIndex, gallery: npt.NDArray[np.float32], source: FaceLike
) -> None:
    rng = np.random.default_rng(6)
    probes = source.sketches(gallery[100:120])
    allowed = rng.random(PHOTOS) < 0.05
    for probe, (rows, _) in zip(probes, index.search_batch(probes, inks(rng, 20, 14), 10), strict=True):
        np.testing.assert_array_equal(rows, exact_search(gallery, probe, EVERY, 10)[0])
    for mode in (EXACT, Approximate(0.9), Budget(0.01)):
        (rows, _), certificate = index.search_in_mode(probes[0], EVERY, 700, allowed=allowed, mode=mode)
        assert allowed[rows].all()
        assert len(rows) == min(700, allowed.sum())
        if certificate.exact:
            expected = exact_search(gallery[allowed], probes[0], EVERY, 700)[0]
            np.testing.assert_array_equal(rows, np.flatnonzero(allowed)[expected])


def test_photos_added_later_are_always_looked_at(gallery: npt.NDArray[np.float32]) -> None:
    index = GranularIndex.build(gallery[:12_000], threads=1)
    assert index.build_approximate()
    index.add(gallery[12_000:])
    for row in (12_000, 12_055, PHOTOS - 1):
        (rows, _), _ = index.search_in_mode(gallery[row], EVERY, 1, mode=Approximate(0.01))
        assert rows.tolist() == [row]


@pytest.mark.parametrize("mode", [Approximate(0.5), Budget(0.01), Budget(1000)])
def test_a_filter_may_leave_only_photos_that_were_added_later(
    gallery: npt.NDArray[np.float32], mode: Approximate | Budget
) -> None:
    index = GranularIndex.build(gallery[:11_520], threads=1)  # whole blocks
    assert index.build_approximate()
    index.add(gallery[11_520:])
    allowed = np.arange(PHOTOS) >= 11_520
    (rows, _), certificate = index.search_in_mode(gallery[3], EVERY, 10, allowed=allowed, mode=mode)
    assert certificate.exact
    np.testing.assert_array_equal(rows, 11_520 + exact_search(gallery[11_520:], gallery[3], EVERY, 10)[0])


def test_a_small_gallery_answers_exactly_and_says_so() -> None:
    gallery = unit_rows(np.random.default_rng(7), 300)
    index = GranularIndex.build(gallery)
    assert not index.build_approximate()
    for mode in (Approximate(0.5), Budget(0.01)):
        (rows, _), certificate = index.search_in_mode(gallery[3], EVERY, 10, mode=mode)
        assert certificate.exact
        np.testing.assert_array_equal(rows, exact_search(gallery, gallery[3], EVERY, 10)[0])


def test_copies_of_one_photo_are_arranged_too() -> None:
    gallery = np.repeat(unit_rows(np.random.default_rng(8), 1, 4), 1000, axis=0)
    assert sorted(arranged(1000, lambda rows: gallery[rows], (256, 64))) == list(range(1000))


def test_runs_of_every_size_are_alike() -> None:
    rng = np.random.default_rng(9)
    kinds = rng.permutation(np.arange(1024) // 64)  # sixteen, four to each of four families
    families = unit_rows(rng, 4, 4).repeat(4, axis=0)
    gallery = (families + unit_rows(rng, 16, 4) / 20)[kinds] + rng.normal(scale=1e-3, size=(1024, REGIONS, 4))
    order = arranged(1024, lambda rows: gallery[rows].astype(np.float32), (256, 64))
    assert all(len(set(run)) == 1 for run in kinds[order].reshape(16, 64))
    assert all(len(set(run)) == 1 for run in (kinds[order] // 4).reshape(4, 256))


@pytest.mark.parametrize("recall", [0, -0.1, 1.01, math.nan])
def test_a_recall_out_of_range_is_refused(recall: float) -> None:
    with pytest.raises(QueryError, match="recall must be above 0 and at most 1, got"):
        Approximate(recall)


@pytest.mark.parametrize("ms", [0, -1, math.nan, math.inf])
def test_a_budget_out_of_range_is_refused(ms: float) -> None:
    with pytest.raises(QueryError, match="budget_ms must be above 0 and at most 60000, got"):
        Budget(ms)
