import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba", reason="only the compiled scan's index is saved; it needs the `fast` extra")

from indexer.approximate import ApproximateScan
from indexer.errors import GalleryError
from indexer.exact import exact_search
from indexer.gallery import Gallery
from indexer.granular import GranularIndex
from indexer.index_files import build_index
from indexer.layout_files import layout_is_whole
from indexer.modes import Approximate
from indexer.regions import REGIONS
from indexer.store import StoreWriter
from tests.conftest import unit_rows
from tests.indexer.test_store import MODEL, new_photos

PHOTOS = 10_050
DIM = 4
EVERY = np.ones(REGIONS, bool)

Rows = npt.NDArray[np.float32]


def append(folder: Path, first: int, rows: Rows) -> None:
    with StoreWriter.open_or_create(folder, MODEL, DIM) as writer:
        writer.append(new_photos(first, len(rows)), rows)


@pytest.fixture(scope="module")
def rows() -> Rows:
    return unit_rows(np.random.default_rng(0), PHOTOS + 100, DIM)


@pytest.fixture
def folder(tmp_path: Path, rows: Rows) -> Path:
    append(tmp_path / "g", 0, rows[:6000])
    append(tmp_path / "g", 6000, rows[6000:PHOTOS])
    return tmp_path / "g"


def saved(folder: Path) -> list[Path]:
    return sorted((folder / "index").iterdir())


def assert_right(gallery: Gallery, rows: Rows) -> None:
    probe = rows[7]
    expected = exact_search(rows, probe, EVERY, 10)
    found = gallery.search(probe, EVERY, 10)
    assert [hit.photo_id for hit in found.hits] == [f"p{row}" for row in expected[0]]
    assert [hit.distance for hit in found.hits] == expected[1].tolist()


def test_a_large_gallery_is_built_once_and_mapped_from_then_on(
    folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_right(Gallery.open(folder), rows[:PHOTOS])
    monkeypatch.setattr("indexer.store.Store.read_segment", lambda *_: pytest.fail("read although an index was saved"))
    gallery = Gallery.open(folder)
    assert_right(gallery, rows[:PHOTOS])
    assert gallery._index._home
    assert gallery.rank_of("p7", rows[7], EVERY) == 1
    np.testing.assert_array_equal(gallery._index.vectors(np.arange(PHOTOS)), rows[:PHOTOS])
    with pytest.raises(AssertionError, match="mapped"):
        gallery._index.add(rows[:1])
    assert gallery.build_approximate()
    assert_right(gallery, rows[:PHOTOS])


def test_a_small_gallery_saves_nothing(tmp_path: Path, rows: Rows) -> None:
    append(tmp_path / "g", 0, rows[:50])
    assert_right(Gallery.open(tmp_path / "g"), rows[:50])
    assert not (tmp_path / "g" / "index").exists()


@pytest.mark.parametrize("name", ["3.faiss", "1.faiss", "codes.npy", "heads.npy", "longest.npy", "header.json"])
@pytest.mark.parametrize("damage", ["altered", "cut", "longer", "missing"])
def test_files_that_are_not_whole_are_built_again(
    folder: Path, rows: Rows, name: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gallery.open(folder).close()
    path = saved(folder)[0] / name
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1 if damage == "altered" else 0
        # Not in place: a gallery that is still open would see it.
        path.unlink()
        path.write_bytes({"altered": data, "cut": data[:-1], "longer": data + b"\0"}[damage])
    built = []
    monkeypatch.setattr("indexer.gallery.build_index", lambda *_: built.append(True))
    assert_right(Gallery.open(folder), rows[:PHOTOS])
    assert built == [True]


def test_a_damaged_index_is_replaced_by_a_whole_one(folder: Path, rows: Rows) -> None:
    Gallery.open(folder).close()
    path = saved(folder)[0] / "codes.npy"
    path.unlink()
    path.write_bytes(b"nothing")
    Gallery.open(folder).close()
    assert path.stat().st_size > 100_000
    assert [path.suffix for path in saved(folder)] == [""]


def test_new_segments_get_a_new_index_while_the_old_one_serves(folder: Path, rows: Rows) -> None:
    old = Gallery.open(folder)
    (before,) = saved(folder)
    append(folder, PHOTOS, rows[PHOTOS:])
    new = old.reopened()
    (after,) = saved(folder)
    assert before != after
    assert_right(old, rows[:PHOTOS])
    assert_right(new, rows)


def test_a_full_disk_leaves_no_files_and_serves_from_memory(
    folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("indexer.index_files.np.save", full)
    gallery = Gallery.open(folder)
    assert_right(gallery, rows[:PHOTOS])
    assert not gallery._index._home
    assert saved(folder) == []


def test_rows_too_long_for_the_compiled_scan_are_searched_without(
    folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("granular", "index_files"):
        monkeypatch.setattr(f"indexer.{module}.LONGEST", 0.5)
    gallery = Gallery.open(folder)
    assert_right(gallery, rows[:PHOTOS])
    assert not gallery._index.compiled
    assert saved(folder) == []


@pytest.mark.parametrize("photos", [1, 64, 1000])
def test_the_files_are_what_faiss_and_the_index_in_memory_make_of_the_rows(
    tmp_path: Path, rows: Rows, photos: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.index_files._CHUNK", 128)
    index = build_index(tmp_path, "k", np.array_split(rows[:photos], 7), photos, DIM)
    assert index is not None
    expected = GranularIndex.build(rows[:photos], fused_from=1)
    for granularity, one in expected._indices.items():
        faiss.write_index(one, str(tmp_path / "one"))
        assert (tmp_path / "index" / "k" / f"{granularity}.faiss").read_bytes() == (tmp_path / "one").read_bytes()
    np.testing.assert_array_equal(index._least, expected._least)
    np.testing.assert_array_equal(index._most, expected._most)
    for found, row in zip(index.search_batch(rows[:5], np.ones((5, REGIONS), bool), 3), rows[:5], strict=True):
        np.testing.assert_array_equal(found[0], exact_search(rows[:photos], row, EVERY, 3)[0])


def test_out_of_memory_is_said_and_the_old_gallery_serves_on(
    folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Gallery.open(folder)
    append(folder, PHOTOS, rows[PHOTOS:])

    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("indexer.gallery.build_index", exhausted)
    message = r"gallery g does not fit into memory: its 10150 photos take about 2 MB; free some"
    with pytest.raises(GalleryError, match=message):
        old.reopened()
    assert_right(old, rows[:PHOTOS])


def test_several_open_it_for_the_first_time_at_once(folder: Path, rows: Rows) -> None:
    with ThreadPoolExecutor(4) as pool:
        for gallery in pool.map(Gallery.open, [folder] * 4):
            assert_right(gallery, rows[:PHOTOS])
    assert [path.suffix for path in saved(folder)] == [""]
    assert Gallery.open(folder)._index._home


def laid_out(folder: Path) -> Gallery:
    gallery = Gallery.open(folder)
    assert gallery.build_approximate()
    return gallery


Answers = list[tuple[list[str], float, bool]]


def answers(gallery: Gallery, rows: Rows) -> Answers:
    found = [gallery.search(row, EVERY, 10, mode=Approximate(0.9)) for row in rows[:20]]
    return [([hit.photo_id for hit in each.hits], each.unseen_from, each.exact) for each in found]


@pytest.fixture(scope="module")
def once_laid_out(tmp_path_factory: pytest.TempPathFactory, rows: Rows) -> tuple[Path, Answers]:
    folder = tmp_path_factory.mktemp("laid") / "g"
    append(folder, 0, rows[:PHOTOS])
    return folder, answers(laid_out(folder), rows)


@pytest.fixture
def with_layout(once_laid_out: tuple[Path, Answers], tmp_path: Path) -> tuple[Path, Answers]:
    """A folder with its layout, and what it answers."""
    return shutil.copytree(once_laid_out[0], tmp_path / "copy"), once_laid_out[1]


def test_the_layout_of_approximate_search_is_made_once(
    folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answers(laid_out(folder), rows)
    assert {exact for _, _, exact in expected} != {True}
    monkeypatch.setattr(ApproximateScan, "build", lambda *_: pytest.fail("made although it was saved"))
    gallery = laid_out(folder)
    assert answers(gallery, rows) == expected
    assert_right(gallery, rows[:PHOTOS])
    (home,) = saved(folder)
    assert [path.name for path in home.iterdir() if path.is_dir()] == ["layout"]


@pytest.mark.parametrize(
    "name", ["order.npy", "photos-codes.npy", "centres-blocks-heads.npy", "shares-14-10.npy", "header.json"]
)
@pytest.mark.parametrize("damage", ["altered", "cut", "missing"])
def test_a_layout_that_is_not_whole_is_made_again_and_replaced(
    with_layout: tuple[Path, Answers], rows: Rows, name: str, damage: str
) -> None:
    folder, expected = with_layout
    path = saved(folder)[0] / "layout" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1 if damage == "altered" else 0
    path.unlink()
    if damage != "missing":
        path.write_bytes(data if damage == "altered" else data[:-1])
    assert answers(laid_out(folder), rows) == expected
    assert layout_is_whole(saved(folder)[0])
    assert sorted(path.name for path in saved(folder)[0].iterdir() if path.is_dir()) == ["layout"]


@pytest.mark.parametrize("text", ["{}", '{"format": 2, "files": {}}', "[]"])
def test_a_layout_whose_header_names_too_little_is_made_again(
    with_layout: tuple[Path, Answers], rows: Rows, text: str
) -> None:
    folder, expected = with_layout
    header = saved(folder)[0] / "layout" / "header.json"
    header.write_text(text)
    assert answers(laid_out(folder), rows) == expected
    assert "order.npy" in header.read_text()


def test_a_layout_of_another_format_is_no_fault_and_made_again(with_layout: tuple[Path, Answers], rows: Rows) -> None:
    folder, expected = with_layout
    header = saved(folder)[0] / "layout" / "header.json"
    files = json.loads(header.read_text())["files"]
    header.write_text(json.dumps(files))  # as the first format had it
    (header.parent / "order.npy").write_bytes(b"what it was then")
    assert layout_is_whole(saved(folder)[0])
    assert answers(laid_out(folder), rows) == expected
    assert json.loads(header.read_text())["files"] == files


def test_new_segments_need_a_new_layout(folder: Path, rows: Rows) -> None:
    old = laid_out(folder)
    append(folder, PHOTOS, rows[PHOTOS:])
    new = old.reopened()
    assert len(saved(folder)) == 1
    assert layout_is_whole(saved(folder)[0])
    assert_right(new, rows)
    assert answers(new, rows)


def test_a_disk_without_room_for_the_layout_leaves_none_and_searches_all_the_same(
    folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    gallery = Gallery.open(folder)
    monkeypatch.setattr("indexer.layout_files.np.save", full)
    assert gallery.build_approximate()
    assert answers(gallery, rows)
    assert not [path for path in saved(folder)[0].iterdir() if path.is_dir()]
