import numpy as np
import numpy.typing as npt
import pytest

from indexer.exact import exact_search
from indexer.fused import FusedScan
from indexer.fusion import region_weights
from indexer.granular import GranularIndex
from indexer.kernels import scan_blocks
from indexer.regions import REGIONS
from tests.conftest import unit_rows


def face_like(rng: np.random.Generator, photos: int, dim: int = 16) -> npt.NDArray[np.float32]:
    """Unit rows around one direction a region, some of them copies of others."""
    rows = unit_rows(rng, 1, dim) + rng.normal(scale=0.3 * rng.random(), size=(photos, REGIONS, dim))
    rows = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    copies = rng.random(photos) < 0.1 * rng.random()
    rows[copies] = rows[rng.integers(photos, size=copies.sum())]
    return rows


def check(rng: np.random.Generator, photos: int, queries: int, dim: int = 16) -> None:
    """Batches of random queries, filtered or not, against brute force: ids, order and distances."""
    gallery = face_like(rng, photos, dim)
    index = GranularIndex.build(gallery, fused_from=1, threads=int(rng.integers(1, 4)))
    near = gallery[rng.integers(photos, size=queries)] + rng.normal(scale=0.1, size=(queries, REGIONS, dim))
    probes = (near / np.linalg.norm(near, axis=-1, keepdims=True)).astype(np.float32)
    inks = rng.random((queries, REGIONS)) < rng.random((queries, 1))
    weights = [dict(zip((1, 2, 3), rng.random(3).tolist(), strict=True)) for _ in range(queries)]
    k = int(rng.choice([1, 5, 10, 100, photos]))
    allowed = rng.random(photos) < rng.random() if rng.random() < 0.5 else np.ones(photos, bool)
    found = index.search_batch(probes, inks, k, weights, None if allowed.all() else allowed)
    for probe, ink, each, (rows, distances) in zip(probes, inks, weights, found, strict=True):
        expected = exact_search(gallery[allowed], probe, ink, k, each)
        np.testing.assert_array_equal(rows, np.flatnonzero(allowed)[expected[0]])
        np.testing.assert_array_equal(distances, expected[1])


def test_two_thousand_random_queries_agree_with_brute_force() -> None:
    rng = np.random.default_rng(1)
    for size in np.geomspace(1, 5000, 50).astype(int):
        check(rng, int(size), 40, dim=int(rng.choice([4, 8, 16])))


@pytest.mark.slow
def test_queries_on_a_large_gallery_agree_with_brute_force() -> None:
    rng = np.random.default_rng(2)
    for size in (30_000, 70_000):
        check(rng, size, 10)


def scan_of(gallery: npt.NDArray[np.float32], threads: int) -> FusedScan:
    return FusedScan.build(len(gallery), lambda rows: gallery[rows], threads)


def test_the_scan_is_compiled_once_and_not_again_under_the_first_batch() -> None:
    gallery = face_like(np.random.default_rng(5), 20_000)  # of several parts
    index, inks = GranularIndex.build(gallery, fused_from=1, threads=2), np.ones((3, REGIONS), bool)
    for some in (None, np.arange(20_000) % 2 == 0):
        index.search(gallery[0], inks[0], 5, allowed=some)
        index.search_batch(gallery[:3], inks, 5, allowed=some)
    arrays = [kind for signature in scan_blocks.signatures for kind in signature]
    assert {array.layout for array in arrays} == {"C"}


def test_few_photos_are_left_to_rank() -> None:
    rng = np.random.default_rng(3)
    gallery = unit_rows(rng, 1)[0] + rng.normal(scale=0.08, size=(20_000, REGIONS, 16))
    gallery = (gallery / np.linalg.norm(gallery, axis=-1, keepdims=True)).astype(np.float32)
    weights = np.stack([region_weights(np.ones(REGIONS, bool))] * 5)
    asked = []

    def distances(query: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        asked.append(len(rows))
        differences = gallery[rows].astype(np.float64) - gallery[query]
        return np.linalg.norm(differences, axis=-1) @ weights[query]

    candidates = list(scan_of(gallery, 2).candidates(gallery[:5], weights, 10, None, distances))
    assert asked == [10] * 5
    assert all(10 <= len(rows) < 60 for rows in candidates)


def test_candidates_do_not_depend_on_threads_or_batch() -> None:
    rng = np.random.default_rng(4)
    gallery = face_like(rng, 40_000)
    weights = np.stack([region_weights(np.ones(REGIONS, bool))] * 40)

    def distances(query: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        differences = gallery[rows].astype(np.float64) - gallery[query]
        return np.linalg.norm(differences, axis=-1) @ weights[query]

    expected = list(scan_of(gallery, 1).candidates(gallery[:40], weights, 7, None, distances))
    parallel = scan_of(gallery, 3).candidates(gallery[:40], weights, 7, None, distances)
    for rows, others in zip(expected, parallel, strict=True):
        assert set(rows) == set(others)
        assert (np.diff(rows) > 0).all()
