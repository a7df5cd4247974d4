"""What compaction takes away, and that nobody who reads meanwhile is misled."""

import errno
import hashlib
import os
import re
import sqlite3
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from indexer import compaction, ledger
from indexer.compaction import compact, forget
from indexer.errors import GalleryError, StaleSnapshotError, UnknownPhotoError
from indexer.gallery import Gallery
from indexer.metadata import Kind
from indexer.regions import REGIONS
from indexer.segments import row_bytes
from indexer.store import Alias, NewPhoto, Store, StoreWriter
from tests.conftest import unit_rows
from tests.folder_bytes import folder_bytes
from tests.indexer.test_store import make_store, new_photos

EVERY = np.ones(REGIONS, bool)


def contents(folder: Path) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Ids and their vectors, in order."""
    snapshot = Store.open(folder).snapshot()
    rows = np.concatenate([np.empty((0, REGIONS, 16), np.float32), *snapshot.segments])
    there = [row for row, photo_id in enumerate(snapshot.contents.photo_ids) if photo_id]
    return [snapshot.contents.photo_ids[row] for row in there], rows[there]


def test_what_was_deleted_is_gone_and_the_rest_is_as_it_was(tmp_path: Path) -> None:
    rows = make_store(tmp_path / "g", 3, 2, 4, 1)
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.declare_fields({"age": Kind.NUMBER})
        writer.describe({f"p{n}": {"age": float(n)} for n in range(10)})
        writer.delete(["p1", "p3", "p4", "p9"])
        before = contents(tmp_path / "g")
        done = compact(writer)
        assert (done.segments_before, done.segments_after, done.removed) == (4, 1, 4)
        kept = [0, 2, 5, 6, 7, 8]
        assert contents(tmp_path / "g")[0] == before[0] == [f"p{n}" for n in kept]
        np.testing.assert_array_equal(contents(tmp_path / "g")[1], rows[kept])
        assert [writer.photo(f"p{n}").metadata for n in kept] == [{"age": float(n)} for n in kept]
        assert writer.snapshot().contents.present is None
        for gone in (1, 3, 4, 9):
            assert rows[gone, 0].tobytes() not in folder_bytes(tmp_path / "g")
        writer.append(new_photos(9, 1), rows[9:])
    assert sorted(os.listdir(tmp_path / "g" / "segments")) == ["000001-1.vec", "000005.vec"]
    assert contents(tmp_path / "g")[0] == [f"p{n}" for n in (*kept, 9)]


def test_segments_are_put_together_up_to_a_size_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "SEGMENT_BYTES", 5 * row_bytes(16))
    rows = make_store(tmp_path / "g", 2, 2, 2, 5, 7, 1, 1)
    with StoreWriter.open(tmp_path / "g") as writer:
        compact(writer)
        names = ["000001-1.vec", "000003.vec", "000004.vec", "000005.vec", "000006-1.vec"]
        assert sorted(os.listdir(tmp_path / "g" / "segments")) == names
        np.testing.assert_array_equal(contents(tmp_path / "g")[1], rows)
        version = writer.version()
        done = compact(writer)
        assert (done.segments_before, done.segments_after, done.removed) == (5, 5, 0)
        assert (sorted(os.listdir(tmp_path / "g" / "segments")), writer.version()) == (names, version)
        writer.delete([f"p{n}" for n in range(4, 11)])
        compact(writer)
    assert contents(tmp_path / "g")[0] == [f"p{n}" for n in (*range(4), *range(11, 20))]
    np.testing.assert_array_equal(contents(tmp_path / "g")[1], np.delete(rows, range(4, 11), axis=0))


def test_a_gallery_without_photos_has_no_segments(tmp_path: Path) -> None:
    rows = make_store(tmp_path / "g", 2, 1)
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.delete(["p0", "p1", "p2"])
        compact(writer)
        assert os.listdir(tmp_path / "g" / "segments") == []
        writer.append(new_photos(0, 1), rows[:1])
    # A number is never given twice: a reader may still look for the older file.
    assert os.listdir(tmp_path / "g" / "segments") == ["000003.vec"]


def test_rankings_stay_the_same(tmp_path: Path) -> None:
    rows = make_store(tmp_path / "g", 30, 30)
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.delete([f"p{n}" for n in range(5, 50, 7)])
        before = Gallery.open(tmp_path / "g").search(rows[3], EVERY, 60)
        older = Gallery.open(tmp_path / "g")
        compact(writer)
        assert older.is_stale()
        newer = older.reopened()
    for gallery in (older, newer, Gallery.open(tmp_path / "g")):
        found = gallery.search(rows[3], EVERY, 60)
        assert [(hit.photo_id, hit.distance) for hit in found.hits] == [
            (hit.photo_id, hit.distance) for hit in before.hits
        ]


def test_a_reader_whose_files_are_gone_is_told_to_look_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_store(tmp_path / "g", 2, 2)
    snapshot = Store.open(tmp_path / "g").snapshot()
    first = next(snapshot.segments)
    with StoreWriter.open(tmp_path / "g") as writer:
        compact(writer)
    np.testing.assert_array_equal(first, rows[:2])
    with pytest.raises(StaleSnapshotError, match="gallery g was compacted while it was read; open it again"):
        next(snapshot.segments)
    taken: list[int] = []

    def compacted_meanwhile(store: Store) -> object:
        found = original(store)
        if len(taken) < 3:
            taken.append(1)
            with StoreWriter.open(tmp_path / "g") as writer:
                writer.append(new_photos(3 + len(taken), 1), rows[:1])
                compact(writer)
        return found

    original = Store.snapshot
    monkeypatch.setattr(Store, "snapshot", compacted_meanwhile)
    assert Gallery.open(tmp_path / "g").photos == 7
    assert len(taken) == 3


def test_readers_that_never_stop_see_only_whole_galleries(tmp_path: Path) -> None:
    """Every gallery that is opened holds a moment of the store: some run of ids that was there, with their vectors."""
    rows = make_store(tmp_path / "g", *[2] * 10)
    stop, wrong, opened = threading.Event(), [], []

    def read() -> None:
        while not stop.is_set():
            try:
                gallery = Gallery.open(tmp_path / "g")
                numbers = [int(photo_id[1:]) for photo_id in gallery.photo_ids]
                opened.append(len(numbers))
                for number in numbers[:2]:
                    best = gallery.search(rows[number], EVERY, 1).hits[0]
                    if best.photo_id != f"p{number}":
                        wrong.append(f"{best.photo_id} has the vectors of p{number}")
                gallery.close()
            except GalleryError as error:
                wrong.append(str(error))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    with StoreWriter.open(tmp_path / "g") as writer:
        for number in range(0, 16, 2):
            writer.delete([f"p{number}"])
            compact(writer)
            forget(writer, [f"p{number + 1}"])
            writer.append(new_photos(20 + number, 1), unit_rows(np.random.default_rng(number), 1))
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert opened


def test_a_damaged_segment_is_not_compacted_unless_all_of_it_is_deleted(tmp_path: Path) -> None:
    rows = make_store(tmp_path / "g", 2, 2)
    (tmp_path / "g" / "segments" / "000002.vec").write_bytes(b"altered")
    with StoreWriter.open(tmp_path / "g") as writer:
        with pytest.raises(GalleryError, match=r"segment 000002.vec has 7 bytes"):
            compact(writer)
        assert sorted(os.listdir(tmp_path / "g" / "segments")) == ["000001.vec", "000002.vec"]
        writer.delete(["p2", "p3"])
        compact(writer)
    np.testing.assert_array_equal(contents(tmp_path / "g")[1], rows[:2])


def test_a_full_disk_leaves_the_gallery_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_store(tmp_path / "g", 2, 2)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with StoreWriter.open(tmp_path / "g") as writer:
        writer.delete(["p1"])
        monkeypatch.setattr(ledger.os, "fsync", full)
        message = r"g: its vectors could not be written anew, it is as it was \(No space left on device; this needs 0.0"
        with pytest.raises(GalleryError, match=message):
            compact(writer)
        monkeypatch.undo()
        assert sorted(os.listdir(tmp_path / "g" / "segments")) == ["000001.vec", "000002.vec"]
    np.testing.assert_array_equal(contents(tmp_path / "g")[1], rows[[0, 2, 3]])


def make_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> npt.NDArray[np.float32]:
    """A gallery that saves a layout, thumbnails that take several pages, and names that moved between them."""
    pytest.importorskip("numba", reason="only the compiled scan has a layout; it needs the `fast` extra")
    monkeypatch.setattr("indexer.gallery_index.FUSED_FROM", 1)
    monkeypatch.setattr("indexer.granular._APPROXIMATE_FROM", 1)
    rows = unit_rows(np.random.default_rng(0), 400)
    order = np.random.default_rng(1).permutation(400)
    with StoreWriter.open_or_create(folder, "ab" * 32, 16) as writer:
        writer.declare_fields({"name": Kind.STRING})
        for some in np.array_split(order, 20):
            photos = [photo for n in some for photo in new_photos(n, 1)]
            for photo in photos:
                vars(photo)["thumbnail"] = b"thumbnail of %s;" % photo.photo_id.encode() * 200
                vars(photo)["metadata"] = {"name": f"name of {photo.photo_id}."}
                vars(photo)["photo_id"] = f"person {photo.photo_id[1:]} of many"
            writer.append(photos, rows[some])
    return rows


def traces(folder: Path, number: int, row: npt.NDArray[np.float32]) -> list[str]:
    """Which of a photo's belongings are in any byte of a folder."""
    data = folder_bytes(folder)
    belongings = {
        "id": f"person {number} of".encode(),
        "source": f"photos/p{number}.jpg".encode(),
        "thumbnail": b"thumbnail of p%d;" % number,
        "metadata": f"name of p{number}.".encode(),
        "content hash": new_photos(number, 1)[0].content_hash,
        "alias": f"alias of {number}.".encode(),
        "vectors": row[0].tobytes(),
        "last region's": row[13].tobytes(),
    }
    return [what for what, found in belongings.items() if found in data]


def test_a_forgotten_photo_leaves_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "g"
    rows = make_large(folder, monkeypatch)
    served = Gallery.open(folder)  # a service that goes on
    assert served.build_approximate()
    assert list((folder / "index").iterdir())
    with StoreWriter.open(folder) as writer:
        writer.add_aliases([Alias(f"alias of {n}.", f"alias/{n}.jpg", of=f"person {n} of many") for n in (7, 8)])
        assert traces(folder, 7, rows[7]) == [
            "id", "source", "thumbnail", "metadata", "content hash", "alias", "vectors", "last region's",
        ]  # fmt: skip
        done = forget(writer, ["alias of 7.", "person 300 of many"])
        assert (done.removed, done.segments_before, done.segments_after) == (2, 20, 20)
        assert traces(folder, 7, rows[7]) == traces(folder, 300, rows[300]) == []
        assert list((folder / "index").iterdir()) == [], "a layout tells of every photo's vectors"
        assert len(traces(folder, 8, rows[8])) == 8
        with pytest.raises(UnknownPhotoError):
            forget(writer, ["person 7 of many"])
    newer = served.reopened()
    assert newer.photos == 398
    assert [hit.photo_id for hit in newer.search(rows[8], EVERY, 1).hits] == ["person 8 of many"]
    assert list((folder / "index").iterdir())
    assert traces(folder, 7, rows[7]) == []


def test_what_was_deleted_long_ago_leaves_no_byte_after_compaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "g"
    rows = make_large(folder, monkeypatch)
    Gallery.open(folder).close()
    gone = list(range(0, 400, 3))
    with StoreWriter.open(folder) as writer:
        writer.delete([f"person {n} of many" for n in gone])
        assert "vectors" in traces(folder, 3, rows[3])
        compact(writer)
        for number in gone:
            assert traces(folder, number, rows[number]) == []


def test_a_layout_of_old_vectors_that_is_being_saved_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "g"
    make_large(folder, monkeypatch)
    gallery = Gallery.open(folder)
    saving, go_on = threading.Event(), threading.Event()
    save = np.save

    def slowly(path: Path, array: npt.NDArray[np.float32]) -> None:
        saving.set()
        assert go_on.wait(30)
        save(path, array)

    monkeypatch.setattr("indexer.layout_files.np.save", slowly)
    saver = threading.Thread(target=gallery.build_approximate)
    saver.start()
    assert saving.wait(30)
    with StoreWriter.open(folder) as writer:
        forgetting = threading.Thread(target=forget, args=(writer, ["person 7 of many"]))
        forgetting.start()
        forgetting.join(0.3)
        assert forgetting.is_alive(), "it waits for who saves"
        go_on.set()
        saver.join()
        forgetting.join()
    assert list((folder / "index").iterdir()) == []


def test_a_reader_that_does_not_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_READER_S", 0.2)
    make_store(tmp_path / "g", 3)
    reader = sqlite3.connect(tmp_path / "g" / "ledger.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM photos").fetchone() == (3,)
    with StoreWriter.open(tmp_path / "g") as writer:
        message = r"gallery g is changed, but its ledger may still hold remains .* a reader has been busy for .*compact"
        with pytest.raises(GalleryError, match=message):
            forget(writer, ["p1"])
        assert writer.count() == 2
        reader.close()
        compact(writer)
    assert b"thumbnail 1" not in folder_bytes(tmp_path / "g")


def test_copies_that_moved_to_other_pages_are_erased_too(tmp_path: Path) -> None:
    """SQLite overwrites what is deleted where it is, but not what a page held before part of it moved to a new one."""
    folder, rng = tmp_path / "g", np.random.default_rng(0)
    names = [hashlib.md5(str(number).encode()).hexdigest() for number in range(3000)]
    with StoreWriter.open_or_create(folder, "ab" * 32, 16) as writer:
        for some in np.array_split(np.arange(3000), 60):
            photos = [NewPhoto(names[n], "s", rng.bytes(100), content_hash=rng.bytes(32)) for n in some]
            writer.append(photos, unit_rows(rng, len(some)))
    counts = Counter(re.findall(rb"[0-9a-f]{32}", folder_bytes(folder)))
    usual = Counter(counts.values()).most_common(1)[0][0]
    moved = [name for name in names if counts[name.encode()] > usual]
    if not moved:
        pytest.skip("this SQLite leaves no copies behind")
    with StoreWriter.open(folder) as writer:
        forget(writer, moved)
    assert not any(name.encode() in folder_bytes(folder) for name in moved)
