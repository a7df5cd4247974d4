import importlib.util
import itertools
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.bounds import Bounds
from indexer.device import torch_gpus
from indexer.errors import ConfigError, QueryError, ShapeError
from indexer.exact import Found, exact_distances, exact_search
from indexer.fusion import EQUAL_WEIGHTS, LEAST_WEIGHT, MOST_WEIGHT, region_weights
from indexer.granular import GranularIndex
from indexer.lists import GPU_NAMES, FaissLists
from indexer.regions import REGIONS
from tests.conftest import unit_rows

HAS_GPU_FAISS = hasattr(faiss, "StandardGpuResources")

OPTIONS: dict[str, dict[str, Any]] = {
    "scan": {"use_lists": False},
    "lists": {"use_lists": True},
    "fused": {"fused_from": 1, "threads": 2},
}
HAS_TORCH = importlib.util.find_spec("torch") is not None
if HAS_TORCH:
    OPTIONS["device"] = {"fused_from": 1, "shards": ["cpu"]}
    OPTIONS["two devices"] = {"fused_from": 1, "shards": ["cpu", "cpu"], "precision": "int8"}
WAYS = pytest.mark.parametrize("way", OPTIONS)


@pytest.fixture(autouse=True)
def small_chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices hold more than one chunk, and those beyond the first hold any at all, in galleries of a hundred."""
    if HAS_TORCH:
        request.getfixturevalue("one_torch_thread")
        build = importlib.import_module("indexer.device_scan").DeviceScan.build
        monkeypatch.setattr("indexer.device_scan.DeviceScan.build", partial(build, chunk=64))


def hard_gallery(rng: np.random.Generator, photos: int, dim: int, probe: npt.NDArray[np.float32]) -> npt.NDArray:
    """Unit rows in tight clusters, with copies of each other and of the probe, near-copies and antipodes."""
    centres = unit_rows(rng, max(1, photos // 8), dim)
    rows = centres[rng.integers(len(centres), size=photos)] + rng.normal(scale=0.05, size=(photos, REGIONS, dim))
    kind = rng.random(photos)
    rows[kind < 0.1] = probe
    rows[(kind >= 0.1) & (kind < 0.2)] = -probe
    near = (kind >= 0.2) & (kind < 0.4)
    rows[near] = probe + rng.normal(scale=1e-7, size=(near.sum(), REGIONS, dim))
    rows = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    copies = rng.random(photos) < 0.2
    rows[copies] = rows[rng.integers(photos, size=copies.sum())]
    return rows


def weights_of(rng: np.random.Generator) -> dict[int, float]:
    choice = rng.integers(4)
    if choice == 0:
        return dict(EQUAL_WEIGHTS)
    drawn = rng.random(3) * 10.0 ** rng.integers(-40, 40, size=3) if choice == 1 else rng.random(3)
    return dict(zip((1, 2, 3), (drawn * (rng.random(3) < 0.8)).tolist(), strict=True))


def assert_same(found: Found, expected: Found) -> None:
    """Same photos, same order, and the very same distances."""
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@WAYS
@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    photos=st.integers(1, 400),
    dim=st.sampled_from([1, 2, 3, 8, 16, 17]),
    k=st.integers(1, 500),
)
def test_search_and_rank_agree_with_brute_force(way: str, seed: int, photos: int, dim: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    probe = unit_rows(rng, 1, dim)[0]
    gallery = hard_gallery(rng, photos, dim, probe)
    index = GranularIndex.build(gallery, **OPTIONS[way])
    ink, weights = rng.random(REGIONS) < rng.random(), weights_of(rng)
    assert_same(index.search(probe, ink, k, weights), exact_search(gallery, probe, ink, k, weights))
    allowed = rng.random(photos) < rng.random()
    rows, distances = exact_search(gallery[allowed], probe, ink, k, weights)
    assert_same(index.search(probe, ink, k, weights, allowed), (np.flatnonzero(allowed)[rows], distances))
    every = exact_distances(gallery, probe, ink, weights)
    target = int(rng.integers(photos))
    assert index.rank(target, probe, ink, weights) == (every <= every[target]).sum()


@WAYS
@pytest.mark.parametrize("weight", [LEAST_WEIGHT, MOST_WEIGHT])
def test_the_least_and_the_greatest_weights_find_what_brute_force_finds(way: str, weight: float) -> None:
    rng = np.random.default_rng(20)
    gallery, allowed = unit_rows(rng, 300), np.arange(300) % 2 == 1
    weights, ink = {1: weight, 2: 0.0, 3: weight}, np.ones(REGIONS, bool)
    rows, distances = exact_search(gallery[allowed], gallery[0], ink, 200, weights)
    found = GranularIndex.build(gallery, **OPTIONS[way]).search(gallery[0], ink, 200, weights, allowed)
    assert_same(found, (np.flatnonzero(allowed)[rows], distances))


@WAYS
def test_large_galleries_agree_with_brute_force(way: str) -> None:
    rng = np.random.default_rng(7)
    centres = unit_rows(rng, 200)
    spread = rng.normal(scale=0.08, size=(9000, REGIONS, 16)) + centres[rng.integers(200, size=9000)]
    gallery = (spread / np.linalg.norm(spread, axis=-1, keepdims=True)).astype(np.float32)
    index = GranularIndex.build(gallery, **OPTIONS[way])
    for k in (1, 10, 300, 3000):
        ink = rng.random(REGIONS) < 0.6
        probe = gallery[rng.integers(9000)]
        assert_same(index.search(probe, ink, k), exact_search(gallery, probe, ink, k))


def test_rows_that_are_not_unit_are_still_searched_exactly() -> None:
    rng = np.random.default_rng(8)
    gallery = (unit_rows(rng, 300) * rng.uniform(0, 3, size=(300, REGIONS, 1))).astype(np.float32)
    probe = unit_rows(rng, 1)[0] * np.float32(2)
    ink = rng.random(REGIONS) < 0.8
    for options in OPTIONS.values():
        found = GranularIndex.build(gallery, **options).search(probe, ink, 20)
        np.testing.assert_array_equal(found[0], exact_search(gallery, probe, ink, 20)[0])


def test_lists_certify_a_clear_case_without_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(9)
    gallery = unit_rows(rng, 4000)
    probe = gallery[17]
    index = GranularIndex.build(gallery, use_lists=True)
    monkeypatch.setattr(Bounds, "lower", lambda *_: pytest.fail("scanned although the lists were enough"))
    rows, distances = index.search(probe, np.ones(REGIONS, bool), k=1)
    assert (rows.tolist(), distances.tolist()) == ([17], [0.0])


def test_the_certificate_never_exceeds_the_distance_of_a_photo_outside() -> None:
    rng = np.random.default_rng(10)
    probe = unit_rows(rng, 1)[0]
    gallery = hard_gallery(rng, 3000, 16, probe)
    index = GranularIndex.build(gallery, use_lists=True)
    assert index._lists is not None
    inks = rng.random((10, REGIONS)) < 0.5
    inks[0, 1:] = False
    inks[1] = np.arange(REGIONS) > 4
    weights = np.array([region_weights(ink) for ink in inks])
    for length in (5, 256, 2048, 3000):
        together = index._lists.proposals(np.stack([probe] * 10), weights, length, (index._least, index._most))
        for query, (seen, unseen_from) in enumerate(together):
            outside = np.delete(exact_distances(gallery, probe, inks[query]), seen)
            assert len(outside) == 0 or outside.min() >= unseen_from
            assert (np.diff(seen) > 0).all()
            alone = index._lists.proposals(probe[None], weights[[query]], length, (index._least, index._most))
            np.testing.assert_array_equal(alone[0][0], seen)


def test_a_batch_shares_the_calls_of_the_lists() -> None:
    """At most one call a granularity and length, whatever the number of queries, all of them by the owner."""
    rng = np.random.default_rng(19)
    gallery, probes = unit_rows(rng, 3000), unit_rows(rng, 20)
    calls, names = [], set()

    class Counting:
        def __init__(self, index: Any) -> None:
            self._index, self.ntotal = index, index.ntotal

        def search(self, queries: npt.NDArray, length: int) -> Any:
            calls.append((len(queries), length))
            names.add(threading.current_thread().name)
            return self._index.search(queries, length)

    index = GranularIndex.build(gallery, use_lists=True)
    with ThreadPoolExecutor(1, thread_name_prefix="owner") as owner:
        index._lists = FaissLists({g: Counting(one) for g, one in index._indices.items()}, owner)
        inks = np.ones((20, REGIONS), bool)
        found = index.search_batch(probes, inks, 3)
    assert calls[:3] == [(20, 256)] * 3
    assert len(calls) <= 6
    assert names == {"owner_0"}
    for probe, ink, ranking in zip(probes, inks, found, strict=True):
        assert_same(ranking, exact_search(gallery, probe, ink, 3))


@WAYS
def test_vectors_added_in_parts_are_those_added_at_once(way: str) -> None:
    rng = np.random.default_rng(11)
    gallery, probe = unit_rows(rng, 300), unit_rows(rng, 1)[0]
    index = GranularIndex(16, **OPTIONS[way])
    ink = np.ones(REGIONS, bool)
    for start, stop in itertools.pairwise((0, 1, 1, 63, 64, 65, 200, 300)):
        index.add(gallery[start:stop])
        assert_same(index.search(probe, ink, 9), exact_search(gallery[:stop], probe, ink, 9))
    np.testing.assert_array_equal(index.vectors(np.arange(300)), gallery)


def test_regions_without_ink_are_never_read() -> None:
    rng = np.random.default_rng(12)
    gallery, probe = unit_rows(rng, 30), unit_rows(rng, 1)[0]
    ink = np.zeros(REGIONS, bool)
    ink[[0, 2, 9]] = True
    index = GranularIndex.build(gallery)
    expected = index.search(probe, ink, 30)
    (part,) = index._rows.parts
    part[2][:, :16] = np.nan
    part[3][:, : 4 * 16] = np.nan
    total = _bounds(index, probe, ink).lower(index._rows, probe)
    assert np.isfinite(total).all()
    assert np.argmin(total) == expected[0][0]


def _bounds(index: GranularIndex, probe: npt.NDArray[np.float32], ink: npt.NDArray[np.bool_]):  # type: ignore[no-untyped-def]
    return Bounds.of(probe, region_weights(ink), index._least, index._most)


def test_lower_bounds_lie_below_the_distance_and_close_to_it() -> None:
    rng = np.random.default_rng(13)
    probe = unit_rows(rng, 1)[0]
    gallery = hard_gallery(rng, 2000, 16, probe)
    index = GranularIndex.build(gallery)
    ink = np.ones(REGIONS, bool)
    bounds = _bounds(index, probe, ink)
    lower = bounds.lower(index._rows, probe).astype(np.float64) * bounds.unit
    distances = exact_distances(gallery, probe, ink)
    assert (lower <= distances * (1 + 2e-6)).all()
    assert (distances - lower).max() < 0.006
    assert (distances - lower)[distances > 1].max() < 5e-5


@WAYS
def test_concurrent_searches_agree_with_single_ones(way: str) -> None:
    rng = np.random.default_rng(14)
    gallery, probes = unit_rows(rng, 2000), unit_rows(rng, 40)
    index, ink = GranularIndex.build(gallery, **OPTIONS[way]), np.ones(REGIONS, bool)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda probe: index.search(probe, ink, 5)[0].tolist(), probes))
    assert together == [index.search(probe, ink, 5)[0].tolist() for probe in probes]


@WAYS
def test_a_batch_finds_what_its_queries_find_alone(way: str) -> None:
    rng = np.random.default_rng(17)
    gallery, probes = unit_rows(rng, 700), unit_rows(rng, 70)
    inks = rng.random((70, REGIONS)) < 0.5
    inks[3] = False
    probes[5] *= np.float32(1e6)  # far from unit, but finite: no reason to answer wrongly
    weights = [weights_of(rng) for _ in range(70)]
    allowed = rng.random(700) < 0.3
    index = GranularIndex.build(gallery, **OPTIONS[way])
    together = index.search_batch(probes, inks, 12, weights, allowed)
    for probe, ink, each, found in zip(probes, inks, weights, together, strict=True):
        assert_same(found, index.search(probe, ink, 12, each, allowed))
        rows, distances = exact_search(gallery[allowed], probe, ink, 12, each)
        assert_same(found, (np.flatnonzero(allowed)[rows], distances))


def test_small_galleries_never_load_numba() -> None:
    code = """
import sys, numpy as np
from indexer.granular import GranularIndex
rows = np.ones((2000, 14, 2), np.float32)
GranularIndex.build(rows).search(rows[0], np.ones(14, bool), 3)
print("numba" in sys.modules, "indexer.fused" in sys.modules)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["False", "False"]


@pytest.mark.usefixtures("without_numba")
def test_without_numba_large_galleries_are_searched_all_the_same() -> None:
    rng = np.random.default_rng(18)
    gallery, probe, ink = unit_rows(rng, 300), unit_rows(rng, 1)[0], np.ones(REGIONS, bool)
    index = GranularIndex.build(gallery, **OPTIONS["fused"])
    assert index.compiled is False
    assert GranularIndex.build(gallery).compiled is False
    assert_same(index.search(probe, ink, 10), exact_search(gallery, probe, ink, 10))


def test_bad_input_is_refused() -> None:
    rng = np.random.default_rng(15)
    index, ink = GranularIndex.build(unit_rows(rng, 3)), np.ones(REGIONS, bool)
    with pytest.raises(QueryError, match="k must be at least 1, got -1"):
        index.search(unit_rows(rng, 1)[0], ink, -1)
    with pytest.raises(ShapeError, match=r"embeddings must be \(photos, 14, 16\), got \(2, 14, 8\)"):
        index.add(unit_rows(rng, 2, 8))
    broken = unit_rows(rng, 2)
    broken[1, 13, 0] = np.nan
    with pytest.raises(ShapeError, match="embeddings must hold finite numbers"):
        index.add(broken)
    with pytest.raises(ConfigError, match="device must be cpu or cuda, got 'tpu'"):
        GranularIndex(16, device="tpu")
    assert len(index) == 3
    with pytest.raises(ShapeError, match=r"allowed must be \(3,\) bool, one per photo, got \(4,\) bool"):
        index.search(unit_rows(rng, 1)[0], ink, 1, allowed=np.ones(4, bool))
    with pytest.raises(ShapeError, match="every query needs a probe, an ink mask and weights, got 2, 1 and 2"):
        index.search_batch(unit_rows(rng, 2), ink[None], 1)


@pytest.mark.skipif(HAS_GPU_FAISS and faiss.get_num_gpus() > 0, reason="this machine has a GPU")
@pytest.mark.skipif(bool(torch_gpus()), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="device cuda needs"):
        GranularIndex(16, device="cuda")


@pytest.mark.skipif(not HAS_GPU_FAISS, reason="the installed faiss wheel is CPU only; install the `gpu` extra")
def test_every_gpu_name_in_use_exists() -> None:
    assert [name for name in GPU_NAMES if not hasattr(faiss, name)] == []
    assert hasattr(faiss.StandardGpuResources, "setTempMemory")
    assert hasattr(faiss.GpuClonerOptions(), "useFloat16")


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU_FAISS or faiss.get_num_gpus() == 0, reason="needs faiss-gpu and a CUDA device")
def test_a_gpu_index_agrees_with_brute_force() -> None:
    rng = np.random.default_rng(16)
    probe = unit_rows(rng, 1)[0]
    gallery = hard_gallery(rng, 5000, 16, probe)
    index = GranularIndex.build(gallery, device="cuda", use_lists=True)
    assert isinstance(index._lists, FaissLists)
    with ThreadPoolExecutor(4) as pool:
        inks = [rng.random(REGIONS) < 0.5 for _ in range(20)]
        found = list(pool.map(lambda ink: index.search(probe, ink, 10)[0].tolist(), inks))
    assert found == [exact_search(gallery, probe, ink, 10)[0].tolist() for ink in inks]


def test_only_what_has_something_to_share_asks_for_batches() -> None:
    rows = unit_rows(np.random.default_rng(0), 50)
    assert not GranularIndex.build(rows).shares_scans
    assert GranularIndex.build(rows, use_lists=True).shares_scans
    pytest.importorskip("numba", reason="the compiled scan needs the `fast` extra")
    assert GranularIndex.build(rows, fused_from=1).shares_scans
