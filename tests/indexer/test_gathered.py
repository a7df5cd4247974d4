import numpy as np
import pytest

from indexer.exact import exact_search
from indexer.fusion import region_weights
from indexer.gathered import candidates
from indexer.granular import GranularIndex
from indexer.modes import Approximate
from indexer.regions import REGION_IDS, REGIONS
from indexer.sharing import Helpers
from indexer.stored_rows import StoredRows
from tests.conftest import unit_rows

ALL = np.ones(REGIONS, bool)
HELPERS = Helpers(2, "test")


def stored(gallery, edges=()):
    """The rows of a gallery in one part, or in several that end at these edges."""
    parts = np.split(gallery, edges)
    return StoredRows([
        {g: np.ascontiguousarray(part[:, i.start : i.stop]).reshape(len(part), -1) for g, i in REGION_IDS.items()}
        for part in parts
    ])  # fmt: skip


def agrees(gallery, rows, probe, ink, k, weights, edges=()) -> int:
    """Brute force over the rows finds its k among the candidates; how many those are."""
    found = candidates(stored(gallery, edges), rows, probe, region_weights(ink, weights), k, HELPERS)
    assert (np.diff(found) > 0).all()
    every = exact_search(gallery[rows], probe, ink, k, weights)
    among = exact_search(gallery[found], probe, ink, k, weights)
    np.testing.assert_array_equal(found[among[0]], rows[every[0]])
    np.testing.assert_array_equal(among[1], every[1])
    return len(found)


def test_random_queries_lose_none_of_the_nearest() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        photos, dim = int(rng.integers(5, 400)), int(rng.choice([1, 3, 16, 64]))
        gallery = unit_rows(rng, photos, dim)
        gallery[rng.integers(photos, size=photos // 3)] = gallery[0]  # ties
        rows = np.flatnonzero(rng.random(photos) < 0.5)
        if not len(rows):
            continue
        ink = rng.random(REGIONS) < 0.6
        ink[rng.integers(REGIONS)] = True
        weights = dict(zip((1, 2, 3), (rng.random(3) + 1e-3).tolist(), strict=True))
        edges = np.unique(rng.integers(1, photos, size=rng.integers(20)))
        agrees(gallery, rows, unit_rows(rng, 1, dim)[0], ink, int(rng.integers(1, len(rows) + 1)), weights, edges)


def test_distances_that_differ_by_less_than_float32_tells_are_all_kept() -> None:
    rng = np.random.default_rng(1)
    probe = unit_rows(rng, 1, 16)[0]
    away = unit_rows(rng, 1, 16)
    # All photos at nearly the same distance: a step of one float32 ulp in single numbers.
    gallery = np.repeat(away, 300, axis=0)
    for photo in range(300):
        region, d = rng.integers(REGIONS), rng.integers(16)
        gallery[photo, region, d] = np.nextafter(gallery[photo, region, d], np.float32(rng.choice([-2, 2])))
    agrees(gallery, np.arange(300), probe, ALL, 10, {1: 1.0, 2: 1.0, 3: 1.0})


def test_photos_that_are_the_probe_itself_or_nearly_so_keep_their_order() -> None:
    rng = np.random.default_rng(2)
    probe = unit_rows(rng, 1, 16)[0]
    gallery = np.repeat(probe[None], 50, axis=0)
    gallery[25:] += rng.choice([0, 1e-30, 1e-7], size=gallery[25:].shape).astype(np.float32)
    agrees(gallery, np.arange(50), probe, ALL, 30, {1: 1e6, 2: 1e-6, 3: 1.0})


def test_hardly_more_than_k_are_left() -> None:
    rng = np.random.default_rng(3)
    gallery = unit_rows(rng, 5000, 16)
    assert agrees(gallery, np.arange(5000), unit_rows(rng, 1, 16)[0], ALL, 10, {1: 1.0, 2: 1.0, 3: 1.0}) < 13


@pytest.mark.parametrize("share", [0.001, 0.01, 0.06])
def test_an_index_answers_narrow_filters_like_brute_force(share, monkeypatch) -> None:
    rng = np.random.default_rng(4)
    gallery = unit_rows(rng, 12_000, 16)
    index = GranularIndex.build(gallery, fused_from=1)
    assert index.build_approximate()
    scanned = []
    scan = index._fused.candidates
    monkeypatch.setattr(index._fused, "candidates", lambda *all: scanned.append(1) or scan(*all))
    allowed = rng.random(12_000) < share
    probes, inks = unit_rows(rng, 3, 16), rng.random((3, REGIONS)) < 0.7
    found = index.search_batch(probes, inks, 10, None, allowed)
    for probe, ink, (rows, distances) in zip(probes, inks, found, strict=True):
        expected = exact_search(gallery[allowed], probe, ink, 10)
        np.testing.assert_array_equal(rows, np.flatnonzero(allowed)[expected[0]])
        np.testing.assert_array_equal(distances, expected[1])
    assert bool(scanned) == (share > 1 / 32)
    # What is searched exactly in less time is not searched approximately.
    _, certificate = index.search_in_mode(probes[0], ALL, 10, allowed=allowed, mode=Approximate(0.5))
    assert certificate.exact or share > 1 / 32
