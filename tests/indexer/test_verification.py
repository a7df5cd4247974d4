"""Every kind of damage is found and named, and what can be made whole is."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from indexer import edits
from indexer.errors import GalleryError
from indexer.gallery import Gallery
from indexer.metadata import Kind
from indexer.segments import write_segment
from indexer.store import Alias, Store, StoreWriter
from indexer.usage import usage
from indexer.verification import verify
from tests.indexer.test_store import make_store, new_photos
from tests.old_formats import age_back


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_store(tmp_path / "g", 300, 300, 5)
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.declare_fields({"age": Kind.NUMBER})
        writer.describe({f"p{n}": {"age": float(n)} for n in range(600)})
        writer.add_aliases([Alias("anna", "anna.jpg", of="p1")])
        writer.delete(["p2", "p303"])
    return tmp_path / "g"


def faults(folder: Path) -> list[str]:
    return [fault.what for fault in verify(folder).faults]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.unlink()  # not in place: a gallery that has it mapped would see it
    path.write_bytes(data)


def execute(folder: Path, *statements: str) -> None:
    with sqlite3.connect(folder / "ledger.sqlite") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_a_whole_gallery_is_whole_in_every_format_and_while_it_is_written(folder: Path) -> None:
    found = verify(folder)
    assert (found.photos, found.segments, found.faults, found.repaired) == (603, 3, (), ())
    with StoreWriter.open(folder):
        (folder / "segments" / "000009.vec.tmp").write_bytes(b"of a batch that is being stored")
        assert faults(folder) == []
    StoreWriter.open(folder).close()
    for version in (2, 1):
        make_store(folder.with_name(f"old{version}"), 3, 2)
        age_back(folder.with_name(f"old{version}"), version)
        assert faults(folder.with_name(f"old{version}")) == []


def test_what_killed_jobs_left_is_named_and_removed(folder: Path) -> None:
    for name in ("000009.vec", "000010-2.vec.tmp"):
        (folder / "segments" / name).write_bytes(b"left")
    stray = "segments/000009.vec is no file of the gallery; a job that was killed has left it"
    assert stray in faults(folder)
    found = verify(folder, repair=True)
    assert (len(found.repaired), found.faults) == (2, ())
    assert len(list((folder / "segments").iterdir())) == 3
    assert faults(folder) == []


def test_a_damaged_segment_is_named_with_its_photos_and_nothing_is_removed(folder: Path) -> None:
    flip(folder / "segments" / "000003.vec", 100)
    for found in (verify(folder), verify(folder, repair=True)):
        (fault,) = found.faults
        assert fault.what.startswith("gallery g: segment 000003.vec does not match its checksum, it was altered;")
        assert sorted(fault.photo_ids) == [f"p{n}" for n in range(600, 605)]
        assert found.repaired == ()
    (folder / "segments" / "000003.vec").unlink()
    (fault,) = verify(folder).faults
    assert "cannot be read (No such file" in fault.what


def test_embeddings_that_are_none_are_found_though_their_checksum_fits(tmp_path: Path) -> None:
    rows = make_store(tmp_path / "g", 2)
    # Past the store itself, which refuses such rows.
    with StoreWriter.open(tmp_path / "g") as writer, writer.writing("test") as connection:
        segment = write_segment(tmp_path / "g", rows * 2, edits.next_segment(connection))
        edits.insert_photos(connection, segment, new_photos(2, 2), edits.now_s(connection))
    (fault,) = verify(tmp_path / "g").faults
    assert "embeddings must be rows of length 1" in fault.what


def test_an_altered_row_of_the_ledger_is_found(folder: Path) -> None:
    Store.open(folder).photo("p77")
    path = folder / "ledger.sqlite"
    at = path.read_bytes().index(b"thumbnail 77")
    flip(path, at + 3)
    (fault,) = verify(folder, repair=True).faults
    assert fault.what == "the ledger's row of a photo does not match its checksum, it was altered"
    assert fault.photo_ids == ("p77",)


def test_an_altered_index_of_the_ledger_is_built_anew(folder: Path) -> None:
    path = folder / "ledger.sqlite"
    data = path.read_bytes()
    (page_size,) = sqlite3.connect(path).execute("PRAGMA page_size").fetchone()
    content_hash = new_photos(77, 1)[0].content_hash
    places = [at for at in range(len(data)) if data.startswith(content_hash, at)]
    pages = {data[at // page_size * page_size] for at in places}
    assert pages == {0x0A, 0x0D}, "one in a leaf of the index, one in a leaf of the table"
    (in_index,) = [at for at in places if data[at // page_size * page_size] == 0x0A]
    flip(path, in_index)
    assert any("photos_by_content" in fault for fault in faults(folder))
    found = verify(folder, repair=True)
    assert (len(found.repaired) > 0, found.faults) == (True, ())
    assert faults(folder) == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM photos WHERE photo_id = 'p5'", "1 rows of segment 1 have no photo and were not deleted"),
        ("DELETE FROM deleted WHERE segment = 2", "1 rows of segment 2 have no photo and were not deleted"),
        ("INSERT INTO deleted VALUES (1, 7)", "1 rows of segment 1 have more than one photo"),
        ("INSERT INTO deleted VALUES (1, 5000)", "1 photos are in rows that segment 1 does not have"),
        ("DELETE FROM segments WHERE segment = 3", "5 photos are in rows that segment 3 does not have"),
        ("DELETE FROM segments WHERE segment = 3", "the ledger is damaged: row 601 of photos names what segments does"),
        ("UPDATE aliases SET photo_id = 'p9'", "two photos have the same name"),
        ("""UPDATE photo_metadata SET "values" = '{"age": "old"}'""", "a photo's metadata does not fit the gallery's"),
        ("""UPDATE photo_metadata SET "values" = '{"size": 3}'""", "a photo's metadata does not fit the gallery's"),
        ("""UPDATE photo_metadata SET "values" = '{"age'""", "metadata in the ledger is no JSON"),
    ],
)
def test_tables_that_disagree_are_found(folder: Path, statement: str, expected: str) -> None:
    execute(folder, statement)
    assert any(fault.startswith(expected) for fault in faults(folder)), faults(folder)


def test_a_ledger_that_cannot_be_read_is_refused(folder: Path) -> None:
    (folder / "ledger.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(GalleryError, match=r"its ledger cannot be read \(file is not a database\)"):
        verify(folder)


@pytest.fixture
def laid_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("numba", reason="only the compiled scan has a layout; it needs the `fast` extra")
    monkeypatch.setattr("indexer.gallery_index.FUSED_FROM", 1)
    monkeypatch.setattr("indexer.granular._APPROXIMATE_FROM", 1)
    with closing(Gallery.open(folder)) as gallery:
        assert gallery.build_approximate()
    assert faults(folder) == []
    return folder


@pytest.mark.parametrize("name", ["order.npy", "photos-codes.npy", "header.json"])
def test_a_damaged_layout_is_removed(laid_out: Path, name: str) -> None:
    path = next(laid_out.glob(f"index/*/{name}"))
    flip(path, path.stat().st_size // 2)
    damage = "the saved layout of approximate search does not match its checksums, it was altered"
    assert faults(laid_out) == [damage]
    found = verify(laid_out, repair=True)
    assert ([fault.what for fault in found.repaired], found.faults, faults(laid_out)) == ([damage], (), [])
    assert not path.exists()
    assert Gallery.open(laid_out).build_approximate()
    assert path.exists()


def test_a_damaged_segment_is_found_in_every_form(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 300, 5)
    age_back(tmp_path / "g", 4)
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.append(new_photos(305, 2), make_store(tmp_path / "other", 2))
    assert faults(tmp_path / "g") == []
    for number in (1, 3):
        flip(tmp_path / "g" / "segments" / f"{number:06}.vec", -1)
    found = verify(tmp_path / "g", repair=True).faults
    assert [fault.what.partition(" does not match its checksum")[0] for fault in found] == [
        "gallery g: segment 000001.vec",
        "gallery g: segment 000003.vec",
    ]
    assert [len(fault.photo_ids) for fault in found] == [300, 2]


def test_usage_is_measured_while_files_go(laid_out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, listed = usage(laid_out), Path.glob

    def with_one_that_goes(folder: Path, pattern: str) -> Iterator[Path]:
        """What compaction removes between the listing of a folder and the look at its files."""
        yield folder / "gone.vec"
        yield from listed(folder, pattern)

    monkeypatch.setattr(Path, "glob", with_one_that_goes)
    monkeypatch.setattr(Path, "rglob", lambda folder, pattern: with_one_that_goes(folder, f"**/{pattern}"))
    assert usage(laid_out) == before


def test_usage_counts_every_byte_by_kind(laid_out: Path) -> None:
    (laid_out / "segments" / "000009.vec").write_bytes(b"x" * 77)
    used = usage(laid_out)
    files = [path for path in laid_out.rglob("*") if path.is_file() and path.name not in ("lock", "index.lock")]
    assert used.total == sum(path.stat().st_size for path in files)
    assert (used.photos, used.aliases, used.deleted, used.strays) == (603, 1, 2, 77)
    assert 603 * 896 < used.vectors < 603 * 896 + 3 * 500, "and what FAISS writes before them"
    assert used.deleted_vectors == 2 * 896
    assert used.thumbnails == sum(len(f"thumbnail {n}") for n in range(605) if n not in (2, 303))
    assert used.metadata == sum(len(f'{{"age":{n}.0}}') for n in range(600) if n not in (2, 303))
    assert used.index == sum(path.stat().st_size for path in laid_out.glob("index/*/*")) > 605 * 238
    assert used.reclaimable == used.deleted_vectors + used.strays + used.ledger_free
