import weakref
from collections.abc import Iterator
from subprocess import CalledProcessError
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'mgrl[train]' or 'mgrl[gpu]'")

from indexer.device_rows import PRECISIONS  # noqa: E402
from indexer.device_scan import DeviceScan  # noqa: E402
from indexer.errors import ConfigError  # noqa: E402
from indexer.exact import exact_search  # noqa: E402
from indexer.fusion import region_distances, region_weights  # noqa: E402
from indexer.granular import GranularIndex  # noqa: E402
from indexer.regions import REGIONS  # noqa: E402
from tests.conftest import unit_rows  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")
BOTH = pytest.mark.parametrize("precision", PRECISIONS)
EVERYWHERE = np.ones(REGIONS, bool)


def faces(rng: np.random.Generator, photos: int, dim: int = 16) -> npt.NDArray[np.float32]:
    """Unit rows around one direction a region."""
    rows = unit_rows(rng, 1, dim) + rng.normal(scale=0.08, size=(photos, REGIONS, dim))
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def scan_of(gallery: npt.NDArray[np.float32], **options: Any) -> DeviceScan:
    return DeviceScan.build(len(gallery), lambda rows: gallery[rows], **{"devices": ["cpu"], "chunk": 256} | options)


def candidates(
    scan: DeviceScan, gallery: npt.NDArray[np.float32], probes: npt.NDArray[np.float32], k: int, **more: Any
) -> Iterator[npt.NDArray[np.int64]]:
    weights = np.stack([region_weights(EVERYWHERE)] * len(probes))

    def distances(query: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return region_distances(probes[query], gallery[rows]) @ weights[query]

    return scan.candidates(probes, weights, k, more.get("allowed"), distances)


@BOTH
@pytest.mark.parametrize("dim", [1, 16, 100])
def test_no_sum_exceeds_the_distance_by_more_than_the_offset(precision: str, dim: int) -> None:
    """On rows that a format rounds worst: halfway between its steps, copies of the probe, antipodes, rows not unit."""
    rng = np.random.default_rng(1)
    gallery = faces(rng, 600, dim)
    probe = gallery[3] + np.float32(1e-7)
    gallery[100:200] = probe
    gallery[200:300] = -probe
    gallery[300:400] += np.float32(2.0**-12) * (1 + 2.0**-11)
    gallery[400:500] *= rng.uniform(0, 30, size=(100, REGIONS, 1)).astype(np.float32)
    scan = scan_of(gallery, precision=precision)
    for ink in (EVERYWHERE, np.arange(REGIONS) == 0, rng.random(REGIONS) < 0.5):
        shares = region_weights(ink).astype(np.float32)[None]
        centred = probe[None] - scan._centre
        (totals,) = (shard.totals(centred, shares, None)[0].double().numpy() for shard in scan._shards)
        distances = region_distances(probe, gallery) @ shares[0].astype(np.float64)
        offset = scan._offsets(centred, shares)[0]
        assert (totals <= (distances + offset) * scan._slack).all()
        assert (totals >= (distances - offset) / scan._slack).all()


@pytest.mark.parametrize(("precision", "most"), [("float16", 12), ("int8", 60)])
def test_few_photos_are_left_to_rank(precision: str, most: int) -> None:
    rng = np.random.default_rng(3)
    gallery = faces(rng, 20_000)
    scan = scan_of(gallery, precision=precision, chunk=4096)
    found = list(candidates(scan, gallery, faces(rng, 5), 10))
    assert all(10 <= len(rows) <= most for rows in found), [len(rows) for rows in found]


@BOTH
def test_candidates_do_not_depend_on_devices_chunks_or_batch(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    gallery, probes = faces(rng, 1000), faces(rng, 40)
    allowed = rng.random(1000) < 0.4
    expected = list(candidates(scan_of(gallery, precision=precision), gallery, probes, 7, allowed=allowed))
    assert all(allowed[rows].all() and (np.diff(rows) > 0).all() for rows in expected)
    for devices, chunk in ((["cpu"] * 2, 64), (["cpu"] * 3, 336), (["cpu"] * 5, 1024)):
        scan = scan_of(gallery, precision=precision, devices=devices, chunk=chunk)
        monkeypatch.setattr("indexer.device_scan._SUMS", 1000 * len(devices))
        found = list(candidates(scan, gallery, probes, 7, allowed=allowed))
        assert [rows.tolist() for rows in found] == [rows.tolist() for rows in expected]


def test_photos_are_dealt_out_chunk_by_chunk() -> None:
    gallery = faces(np.random.default_rng(5), 300)
    scan = scan_of(gallery, devices=["cpu", "cpu"], chunk=64)
    assert [shard.photos for shard in scan._shards] == [64 + 64 + 44, 64 + 64]
    assert scan._rows(0, np.array([0, 64, 171])).tolist() == [0, 128, 299]
    assert scan._rows(1, np.array([0, 127])).tolist() == [64, 255]


@BOTH
def test_regions_without_ink_are_never_read(precision: str) -> None:
    gallery = faces(np.random.default_rng(6), 300)
    index = GranularIndex.build(gallery, fused_from=1, shards=["cpu"], precision=precision)
    scan, ink = index._fused, np.zeros(REGIONS, bool)
    ink[[0, 2, 9]] = True
    assert isinstance(scan, DeviceScan)
    for chunk in scan._shards[0]._chunks:
        spoiled = chunk.codes if chunk.scales is None else chunk.scales
        spoiled[~torch.from_numpy(ink)] = torch.nan
    found = index.search(gallery[7], ink, 9)
    assert found[0].tolist() == exact_search(gallery, gallery[7], ink, 9)[0].tolist()


def test_a_chunk_grows_without_losing_what_it_holds() -> None:
    gallery = faces(np.random.default_rng(7), 500)
    for precision in PRECISIONS:
        scan = scan_of(gallery[:20], precision=precision, chunk=512)
        assert scan._shards[0]._chunks[0].room == 32
        scan.update(20, 300, lambda rows: gallery[rows])
        scan.update(300, 500, lambda rows: gallery[rows])
        whole = scan_of(gallery[:20], precision=precision, chunk=512)
        whole.update(20, 500, lambda rows: gallery[rows])
        (grown,), (once,) = scan._shards[0]._chunks, whole._shards[0]._chunks
        assert torch.equal(grown.codes[:, :500], once.codes[:, :500])
        assert grown.room <= 512


def test_a_gallery_for_which_there_is_no_room_is_refused_and_searched_without(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    gallery = faces(rng, 400)
    index = GranularIndex.build(gallery[:100], fused_from=1, shards=["cpu"])
    assert isinstance(index._fused, DeviceScan)

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("indexer.device_rows.torch.empty", full)
        with pytest.raises(ConfigError, match="cpu has no room for 400 photos in int8; use more GPUs or device cpu"):
            index.add(gallery[100:])
    found = index.search(gallery[350], EVERYWHERE, 5)
    assert found[0].tolist() == exact_search(gallery, gallery[350], EVERYWHERE, 5)[0].tolist()


def test_rows_become_int8_where_float16_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is a later photo for which there is none, and then for all of them."""
    gallery = faces(np.random.default_rng(12), 400)
    scan = scan_of(gallery[:100])
    assert scan.precision == "float16"
    empty = torch.empty

    def full_of_halves(*shape: Any, **options: Any) -> Any:
        if options.get("dtype") is torch.float16 and len(shape[0]) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return empty(*shape, **options)

    monkeypatch.setattr("indexer.device_rows.torch.empty", full_of_halves)
    held = weakref.ref(scan._shards[0])
    scan.update(100, 400, lambda rows: gallery[rows])
    assert held() is None, "what float16 took must be free for int8"
    assert scan.precision == "int8"
    assert scan._shards[0].photos == 400
    (found,) = candidates(scan, gallery, gallery[7:8], 5)
    assert set(exact_search(gallery, gallery[7], EVERYWHERE, 5)[0]) <= set(found)
    with pytest.raises(ConfigError, match="no room for 400 photos in float16"):
        scan_of(gallery, precision="float16")


@pytest.mark.parametrize(
    "failure", [RuntimeError("Failed to find C compiler"), CalledProcessError(1, ["gcc"]), PermissionError("/.triton")]
)
def test_a_kernel_that_cannot_be_compiled_is_named_before_the_first_search(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise failure

    monkeypatch.setattr("indexer.device_rows.add_up", broken)
    with pytest.raises(ConfigError, match=r"the search cannot be compiled for cpu: .*needs a C compiler"):
        scan_of(faces(np.random.default_rng(9), 20))


def test_bad_input_is_refused() -> None:
    gallery = faces(np.random.default_rng(9), 20)
    with pytest.raises(ConfigError, match="precision must be one of float16, int8, got 'int4'"):
        scan_of(gallery, precision="int4")
    with pytest.raises(ConfigError, match="torch cannot use device 'abacus'"):
        scan_of(gallery, devices=["abacus"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="torch cannot use device 'cuda:0'"):
        scan_of(faces(np.random.default_rng(9), 20), devices=["cuda:0"])


def test_device_cuda_scans_on_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.granular.torch_gpus", lambda: ["cpu", "cpu"])
    gallery = faces(np.random.default_rng(10), 200)
    index = GranularIndex.build(gallery, device="cuda", fused_from=1)
    assert index._lists is None
    assert isinstance(index._fused, DeviceScan)
    assert len(index._fused._shards) == 2
    assert index.build_approximate() is False
    assert isinstance(index._fused, DeviceScan)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs torch with CUDA and a GPU")
@BOTH
def test_gpus_agree_with_brute_force(precision: str) -> None:
    rng = np.random.default_rng(11)
    gallery = faces(rng, 50_000)
    index = GranularIndex.build(gallery, device="cuda", precision=precision)
    assert isinstance(index._fused, DeviceScan)
    probes, inks = faces(rng, 40), rng.random((40, REGIONS)) < 0.6
    inks[:, 0] = True
    allowed = rng.random(50_000) < 0.1
    for some in (None, allowed):
        for probe, ink, found in zip(probes, inks, index.search_batch(probes, inks, 10, None, some), strict=True):
            rows = np.arange(50_000) if some is None else np.flatnonzero(some)
            expected = rows[exact_search(gallery[rows], probe, ink, 10)[0]]
            assert found[0].tolist() == expected.tolist()
            assert index.search(probe, ink, 10, allowed=some)[0].tolist() == expected.tolist()
