"""Large galleries are searched in their segments' files: mapped, checked, shared, and never copied."""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba", reason="only the compiled scan searches mapped segments; it needs the `fast` extra")

from indexer.compaction import compact, forget
from indexer.errors import GalleryError
from indexer.exact import exact_search
from indexer.filters import OneOf
from indexer.fused import FusedScan
from indexer.gallery import Gallery
from indexer.metadata import Kind
from indexer.regions import REGIONS
from indexer.segments import _MAPPINGS
from indexer.store import Store, StoreWriter
from tests.conftest import unit_rows
from tests.indexer.test_store import MODEL, new_photos
from tests.old_formats import age_back

DIM = 4
EVERY = np.ones(REGIONS, bool)
SIZES = (1, 63, 64, 65, 300, 1, 700, 6, 129)
PHOTOS = sum(SIZES)

Rows = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def rows() -> Rows:
    rows = unit_rows(np.random.default_rng(0), PHOTOS + 200, DIM)
    rows[[200, 900, 1250]] = rows[70]  # ties over several segments
    return rows


@pytest.fixture(autouse=True)
def every_gallery_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.gallery_index.FUSED_FROM", 1)


def append(folder: Path, first: int, rows: Rows) -> None:
    with StoreWriter.open_or_create(folder, MODEL, DIM) as writer:
        writer.append(new_photos(first, len(rows)), rows)


@pytest.fixture
def folder(tmp_path: Path, rows: Rows) -> Path:
    with StoreWriter.open_or_create(tmp_path / "g", MODEL, DIM) as writer:
        first = 0
        for size in SIZES:
            writer.append(new_photos(first, size), rows[first : first + size])
            first += size
    return tmp_path / "g"


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "segments").iterdir())


def mapped(folder: Path) -> int:
    """How many mappings of a gallery's segments this process has."""
    return Path("/proc/self/maps").read_text().count(f"{folder / 'segments'}/")


def assert_right(gallery: Gallery, rows: Rows, gone: Sequence[int] = ()) -> None:
    """Ids, their order and distances are those of brute force in float64."""
    there = np.setdiff1d(np.arange(len(rows)), gone)
    rng = np.random.default_rng(1)
    probes = [rows[70], *unit_rows(rng, 3, DIM)]
    inks = [EVERY, *(rng.random((3, REGIONS)) < 0.5)]
    equal = {1: 1.0, 2: 1.0, 3: 1.0}
    together = gallery.search_batch(np.array(probes), np.array(inks), 12, [equal] * 4)
    for probe, ink, ranking in zip(probes, inks, together, strict=True):
        expected = exact_search(rows[there], probe, ink, 12)
        for found in (ranking, gallery.search(probe, ink, 12)):
            assert [hit.photo_id for hit in found.hits] == [f"p{there[row]}" for row in expected[0]]
            assert [hit.distance for hit in found.hits] == expected[1].tolist()
        assert gallery.rank_of(f"p{there[-1]}", probe, ink) == _rank(rows[there], probe, ink)


def _rank(rows: Rows, probe: Rows, ink: npt.NDArray[np.bool_]) -> int:
    """Of the last photo."""
    order, distances = exact_search(rows, probe, ink, len(rows))
    return int((distances <= distances[order == len(rows) - 1]).sum())


def test_rankings_over_many_segments_are_brute_force(folder: Path, rows: Rows) -> None:
    gallery = Gallery.open(folder)
    assert_right(gallery, rows[:PHOTOS])
    np.testing.assert_array_equal(gallery._index.vectors(np.arange(PHOTOS)), rows[:PHOTOS])
    some = np.random.default_rng(2).permutation(PHOTOS)
    np.testing.assert_array_equal(gallery._index.vectors(some), rows[some])
    assert gallery._index.compiled
    assert not (folder / "index").exists()
    with pytest.raises(AssertionError, match="files"):
        gallery._index.add(rows[:1])


def test_deleted_photos_and_those_that_a_filter_leaves_out_are_passed_over(folder: Path, rows: Rows) -> None:
    kept = {"few": range(0, PHOTOS, 60), "many": range(0, PHOTOS, 2)}
    with StoreWriter.open(folder) as writer:
        writer.declare_fields(dict.fromkeys(kept, Kind.BOOL))
        for name, photos in kept.items():
            writer.describe({f"p{n}": {name: True} for n in photos})
        writer.delete(["p0", "p200", "p1250"])
    gallery = Gallery.open(folder)
    assert_right(gallery, rows[:PHOTOS], gone=[0, 200, 1250])
    for name, photos in kept.items():
        there = np.setdiff1d(photos, [0, 200, 1250])
        found = gallery.search(rows[70], EVERY, 12, filter=OneOf(name, (True,)))
        expected = exact_search(rows[there], rows[70], EVERY, 12)
        assert [hit.photo_id for hit in found.hits] == [f"p{there[row]}" for row in expected[0]]
        assert [hit.distance for hit in found.hits] == expected[1].tolist()


@pytest.mark.parametrize("version", [2, 3, 4])
def test_segments_of_older_formats_are_read_and_compaction_writes_them_anew(
    folder: Path, rows: Rows, version: int
) -> None:
    age_back(folder, version)
    raw = [path.stat().st_size for path in segments(folder)]
    assert raw == [size * REGIONS * DIM * 4 for size in SIZES]
    (folder / "index" / "of an older version").mkdir(parents=True)
    assert_right(Gallery.open(folder), rows[:PHOTOS])
    assert list((folder / "index").iterdir()) == []
    append(folder, PHOTOS, rows[PHOTOS:])
    assert [path.stat().st_size for path in segments(folder)][:-1] == raw
    both = Gallery.open(folder)
    assert_right(both, rows)
    with StoreWriter.open(folder) as writer:
        assert writer.manifest.format_version == 5
        compact(writer)
        assert compact(writer).segments_after == 1
    (path,) = segments(folder)
    assert path.stat().st_size > len(rows) * REGIONS * DIM * 4
    assert path.name == "000001-1.vec", "what is as it should be is not written again"
    assert_right(both, rows)
    assert_right(both.reopened(), rows)


def test_one_segment_of_an_older_format_is_written_anew(tmp_path: Path, rows: Rows) -> None:
    append(tmp_path / "g", 0, rows)
    age_back(tmp_path / "g", 4)
    with StoreWriter.open(tmp_path / "g") as writer:
        assert compact(writer).removed == 0
    assert [path.name for path in segments(tmp_path / "g")] == ["000001-1.vec"]
    assert_right(Gallery.open(tmp_path / "g"), rows)


def test_files_that_compaction_removed_stay_readable_for_who_has_them_mapped(folder: Path, rows: Rows) -> None:
    old = Gallery.open(folder)
    with StoreWriter.open(folder) as writer:
        forget(writer, ["p3", "p700"])
        compact(writer)
    assert len(segments(folder)) == 1
    assert_right(old, rows[:PHOTOS])
    assert_right(old.reopened(), rows[:PHOTOS], gone=[3, 700])


@pytest.mark.parametrize("damage", ["altered", "cut", "longer", "empty", "missing"])
def test_a_damaged_segment_is_found_at_opening(folder: Path, damage: str) -> None:
    path = segments(folder)[4]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    if damage != "missing":
        path.write_bytes({"altered": data, "cut": data[:-1], "longer": data + b"\0", "empty": b""}[damage])
    what = {"altered": "does not match its checksum", "missing": r"cannot be read \(No such"}
    with pytest.raises(GalleryError, match=f"segment 000005.vec {what.get(damage, 'has [0-9]+ bytes')}"):
        Gallery.open(folder)


def test_a_batch_adds_its_rows_alone_and_disturbs_nobody(
    folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = Gallery.open(folder)
    opened = []
    open_segment = Store.open_segment
    monkeypatch.setattr(Store, "open_segment", lambda *of: opened.append(of[1].segment) or open_segment(*of))
    monkeypatch.setattr(FusedScan, "build", lambda *_: pytest.fail("what was made of the older segments is taken over"))
    with ThreadPoolExecutor(1) as pool:
        for number in range(1, 5):
            size = PHOTOS + 50 * number
            append(folder, size - 50, rows[size - 50 : size])
            searching = pool.submit(assert_right, gallery, rows[: size - 50])
            newer = gallery.reopened()
            searching.result()
            assert_right(newer, rows[:size])
            assert_right(gallery, rows[: size - 50])
            gallery = newer
    assert opened == [10, 11, 12, 13]


def test_a_gallery_that_shrank_is_made_anew_of_the_files_that_are_mapped(
    folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = Gallery.open(folder)
    with StoreWriter.open(folder) as writer:
        forget(writer, ["p0"])  # the first segment goes, the others stay
    monkeypatch.setattr(Store, "open_segment", lambda *_: pytest.fail("mapped already"))
    assert_right(gallery.reopened(), rows[:PHOTOS], gone=[0])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_mappings_take_no_file_descriptors_and_end_with_the_gallery(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    gallery = Gallery.open(folder)
    gallery.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert mapped(folder) == len(SIZES)
    del gallery
    assert mapped(folder) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_share_the_rows(folder: Path, rows: Rows) -> None:
    """No page of a segment belongs to one of the two alone, and none was copied."""
    gallery = Gallery.open(folder)
    code = f"""
import sys
import indexer.gallery_index
from indexer.gallery import Gallery
from pathlib import Path
indexer.gallery_index.FUSED_FROM = 1
gallery = Gallery.open(Path({str(folder)!r}))
counts, ours = {{}}, False
for line in open("/proc/self/smaps"):
    name, value = line.split()[0], line.split()[1]
    if "-" in name:
        ours = ".vec" in line
    elif ours and name in ("Rss:", "Private_Clean:", "Private_Dirty:"):
        counts[name] = counts.get(name, 0) + int(value)
print(counts["Rss:"], counts["Private_Clean:"] + counts["Private_Dirty:"])
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    shared_kb, private_kb = map(int, said.split())
    assert shared_kb * 1024 >= PHOTOS * REGIONS * DIM * 4
    assert private_kb == 0
    assert_right(gallery, rows[:PHOTOS])


def test_where_the_system_maps_no_more_files_are_read(
    folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_: str) -> None:
        raise RuntimeError("could not mmap")

    monkeypatch.setattr("indexer.segments.faiss.MmappedFileMappingOwner", refuses)
    assert_right(Gallery.open(folder), rows[:PHOTOS])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_gallery_of_very_many_files_leaves_mappings_for_the_rest_of_the_process(
    folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    mappings = type(_MAPPINGS)()  # its own: what others left may go at any time
    monkeypatch.setattr("indexer.segments._MAPPINGS", mappings)
    monkeypatch.setattr("indexer.segments._MOST_MAPPED", len(SIZES) + 3)
    first = Gallery.open(folder)
    second = Gallery.open(folder)
    assert len(mappings) == len(SIZES) + 3
    assert_right(second, rows[:PHOTOS])
    del first  # and what it had mapped may be again
    third = Gallery.open(folder)
    assert len(mappings) == 3 + len(SIZES)
    assert_right(third, rows[:PHOTOS])


def test_rows_too_long_for_the_compiled_scan_are_searched_without(
    folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.granular.LONGEST", 0.5)
    gallery = Gallery.open(folder)
    assert_right(gallery, rows[:PHOTOS])
    assert not gallery._index.compiled


def test_without_numba_rows_are_in_memory(folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("gallery_index", "device"):
        monkeypatch.setattr(f"indexer.{module}.compiled_scan", lambda: None)
    gallery = Gallery.open(folder)
    assert_right(gallery, rows[:PHOTOS])
    assert not gallery._index.file_parts


def test_out_of_memory_is_said_and_the_old_gallery_serves_on(
    folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Gallery.open(folder)
    append(folder, PHOTOS, rows[PHOTOS:])

    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(FusedScan, "grown", exhausted)
    message = rf"gallery g does not fit into memory: its {PHOTOS + 200} photos take about 0 MB; free some"
    with pytest.raises(GalleryError, match=message):
        old.reopened()
    assert_right(old, rows[:PHOTOS])


def test_several_open_it_at_once(folder: Path, rows: Rows) -> None:
    with ThreadPoolExecutor(4) as pool:
        for gallery in pool.map(Gallery.open, [folder] * 4):
            assert_right(gallery, rows[:PHOTOS])


def test_a_small_gallery_is_in_memory(folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.gallery_index.FUSED_FROM", PHOTOS + 1)
    gallery = Gallery.open(folder)
    assert_right(gallery, rows[:PHOTOS])
    assert not gallery._index.file_parts
    append(folder, PHOTOS, rows[PHOTOS:])
    larger = gallery.reopened()  # and now it is large
    assert len(larger._index.file_parts) == len(SIZES) + 1
    assert_right(larger, rows)
