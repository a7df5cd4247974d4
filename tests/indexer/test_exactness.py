"""Exact search against brute force, over everything that must not change its answer."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba", reason="the compiled scan needs the `fast` extra")

from indexer.exact import exact_search
from indexer.granular import GranularIndex
from indexer.regions import GRANULARITIES, REGIONS
from tests.conftest import unit_rows

Rows = npt.NDArray[np.float32]
KINDS = ("spread", "clustered", "copies", "antipodes", "near copies", "rounding edges")


def gallery_of(rng: np.random.Generator, kind: str, photos: int, dim: int) -> Rows:
    """Unit rows, or for rounding edges rows half-way between two steps of the quantised copy in every number."""
    centre, spread = unit_rows(rng, 1, dim), unit_rows(rng, photos, dim)
    signs = np.where(rng.random((photos, 1, 1)) < 0.5, 1, -1)
    if kind == "spread":
        return spread
    if kind == "copies":
        return np.asarray(spread[rng.integers(max(1, photos // 5), size=photos)])
    if kind == "antipodes":
        return np.asarray(centre * signs, np.float32)
    if kind == "rounding edges":
        levels = rng.integers(-127, 127, size=(photos, REGIONS, dim)) + 0.5
        levels[::64] = 127
        return np.asarray(levels / 127 / np.sqrt(dim), np.float32)
    rows = centre + rng.normal(scale=0.2 if kind == "clustered" else 1e-7, size=spread.shape)
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def probes_of(rng: np.random.Generator, gallery: Rows, queries: int) -> Rows:
    """Photos of the gallery, their antipodes, what lies near them, and anything."""
    own = gallery[rng.integers(len(gallery), size=queries)]
    near = own + rng.normal(scale=0.05, size=own.shape)
    choice = rng.integers(4, size=(queries, 1, 1))
    return np.asarray(np.choose(choice, [own, -own, near, unit_rows(rng, queries, gallery.shape[2])]), np.float32)


def check(seed: int, kind: str, photos: int, dim: int, queries: int, k: int, threads: int) -> None:
    rng = np.random.default_rng(seed)
    gallery = gallery_of(rng, kind, photos, dim)
    index = GranularIndex(dim, fused_from=1, threads=threads)
    for segment in np.split(gallery, np.sort(rng.integers(photos + 1, size=rng.integers(5)))):
        index.add(segment)
    probes = probes_of(rng, gallery, queries)
    inks = rng.random((queries, REGIONS)) < rng.random((queries, 1))
    scales = 10.0 ** rng.integers(-6, 6, size=(queries, 3)) * (rng.random((queries, 3)) < 0.8)
    weights = [dict(zip(GRANULARITIES, each.tolist(), strict=True)) for each in rng.random((queries, 3)) * scales]
    allowed = rng.random(photos) < rng.choice([0.02, 0.5, 1])
    there = np.flatnonzero(allowed)
    found = index.search_batch(probes, inks, k, weights, None if allowed.all() else allowed)
    for probe, ink, each, (rows, distances) in zip(probes, inks, weights, found, strict=True):
        expected = exact_search(gallery[there], probe, ink, k, each)
        np.testing.assert_array_equal(rows, there[expected[0]])
        np.testing.assert_array_equal(distances, expected[1])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    photos=st.integers(1, 1500),
    dim=st.sampled_from([1, 4, 16, 17]),
    queries=st.sampled_from([1, 2, 5, 33]),
    k=st.sampled_from([1, 10, 100, 5000]),
    threads=st.sampled_from([1, 3]),
)
def test_answers_are_those_of_brute_force(
    seed: int, kind: str, photos: int, dim: int, queries: int, k: int, threads: int
) -> None:
    check(seed, kind, photos, dim, queries, k, threads)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_brute_force_on_larger_galleries(kind: str) -> None:
    for seed, photos in enumerate((6_000, 20_000, 40_000)):
        check(seed, kind, photos, 16, 8, 10, 2)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(KINDS), photos=st.integers(1, 800))
def test_the_order_of_ingestion_decides_nothing_but_ties(seed: int, kind: str, photos: int) -> None:
    rng = np.random.default_rng(seed)
    gallery, order = gallery_of(rng, kind, photos, 8), rng.permutation(photos)
    probe, ink = probes_of(rng, gallery, 1)[0], rng.random(REGIONS) < 0.7
    rows, distances = GranularIndex.build(gallery, fused_from=1).search(probe, ink, photos)
    others, same = GranularIndex.build(gallery[order], fused_from=1).search(probe, ink, photos)
    np.testing.assert_array_equal(distances, same)
    gaps = np.diff(distances, prepend=-1, append=distances[-1] + 1)
    for place in np.flatnonzero((gaps[:-1] > 0) & (gaps[1:] > 0)):
        assert order[others[place]] == rows[place]  # nothing ties with it
    for ranking in (rows, others):
        ties = np.diff(distances) == 0
        assert (np.diff(ranking)[ties] > 0).all()
