import hashlib
import json
import os
import resource
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from indexer import versions
from indexer.errors import GalleryError, ModelMismatchError, PublicError, ShapeError, UnknownPhotoError
from indexer.ledger import replace_file
from indexer.store import NewPhoto, Store, StoreWriter
from indexer.verification import verify
from tests.conftest import unit_rows

MODEL = "ab" * 32


def new_photos(first: int, count: int) -> list[NewPhoto]:
    return [
        NewPhoto(f"p{n}", f"photos/p{n}.jpg", f"thumbnail {n}".encode(), hashlib.sha256(str(n).encode()).digest())
        for n in range(first, first + count)
    ]


def make_store(folder: Path, *batches: int) -> np.ndarray:
    rows = unit_rows(np.random.default_rng(0), sum(batches))
    with StoreWriter.open_or_create(folder, MODEL, 16) as writer:
        first = 0
        for count in batches:
            writer.append(new_photos(first, count), rows[first : first + count])
            first += count
    return rows


def test_what_was_appended_is_there_after_a_reopen(tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    rows = make_store(folder, 3, 1, 5)
    store = Store.open(folder)
    contents, segments = store.snapshot()
    ids = contents.photo_ids
    np.testing.assert_array_equal(np.concatenate(list(segments)), rows)
    assert ids == [f"p{n}" for n in range(9)]
    assert store.photo("p4").source == "photos/p4.jpg"
    assert store.photo("p4").thumbnail == b"thumbnail 4"
    assert (store.name, store.manifest.model_hash, store.manifest.dim) == ("faces", MODEL, 16)
    assert dict(store.names()) == {photo.photo_id: photo.content_hash for photo in new_photos(0, 9)}


def test_an_empty_store_opens(tmp_path: Path) -> None:
    make_store(tmp_path / "g")
    contents, segments = Store.open(tmp_path / "g").snapshot()
    ids = contents.photo_ids
    assert (ids, list(segments)) == ([], [])


def test_an_unknown_photo_is_named(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 1)
    with pytest.raises(UnknownPhotoError, match="gallery g has no photo 'p7'"):
        Store.open(tmp_path / "g").photo("p7")


@pytest.mark.parametrize("at", [0, 1000, -1])
def test_a_flipped_byte_in_a_segment_is_detected(tmp_path: Path, at: int) -> None:
    make_store(tmp_path / "g", 3, 3)
    path = tmp_path / "g" / "segments" / "000002.vec"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    message = r"gallery g: segment 000002.vec does not match its checksum, it was altered; restore"
    with pytest.raises(GalleryError, match=message):
        list(Store.open(tmp_path / "g").snapshot()[1])


def test_a_segment_cut_short_or_missing_is_named(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 3)
    path = tmp_path / "g" / "segments" / "000001.vec"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(GalleryError, match=r"segment 000001.vec has 2876 bytes, the ledger says 2880"):
        list(Store.open(tmp_path / "g").snapshot()[1])
    path.unlink()
    with pytest.raises(GalleryError, match=r"segment 000001.vec cannot be read \(No such file"):
        list(Store.open(tmp_path / "g").snapshot()[1])


def test_photos_without_their_segment_are_noticed(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 2, 2)
    with sqlite3.connect(tmp_path / "g" / "ledger.sqlite") as connection:
        connection.execute("DELETE FROM photos WHERE photo_id = 'p3'")
    connection.close()
    with pytest.raises(GalleryError, match="gallery g: the ledger's photos and segments disagree"):
        Store.open(tmp_path / "g").snapshot()


def test_what_is_no_gallery_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for folder in (tmp_path / "notes", tmp_path / "gone"):
        with pytest.raises(GalleryError, match=rf"{folder.name} is no gallery \(no gallery.json in it\)"):
            Store.open(folder)
    (tmp_path / "notes" / "diary.txt").touch()
    with pytest.raises(GalleryError, match=r"notes is no gallery and not empty \(it holds 'diary.txt'\)"):
        StoreWriter.open_or_create(tmp_path / "notes", MODEL, 16)
    assert os.listdir(tmp_path / "notes") == ["diary.txt"]


def test_photos_whose_gallery_json_is_lost_are_not_taken_for_nothing(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 3)
    manifest = (tmp_path / "g" / "gallery.json").rename(tmp_path / "aside")
    with pytest.raises(GalleryError, match=r"g has a ledger with 3 photos and no gallery.json; finish the copy"):
        StoreWriter.open_or_create(tmp_path / "g", MODEL, 16)
    with pytest.raises(
        GalleryError, match=r"g is no gallery \(no gallery.json in it\); run what began it again: `mgrl r"
    ):
        Store.open(tmp_path / "g")
    manifest.rename(tmp_path / "g" / "gallery.json")
    assert (verify(tmp_path / "g").photos, verify(tmp_path / "g").faults) == (3, ())


def test_a_gallery_of_another_format_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 1)
    manifest = tmp_path / "g" / "gallery.json"
    whole = json.loads(manifest.read_text())
    for text, message in (
        (
            json.dumps(whole | {"format_version": 9}),
            "gallery g has format 9, this version of mgrl reads formats 1 to 5",
        ),
        (json.dumps({"format_version": 1}), "gallery.json lacks 'model_hash'"),
        ('{"format_ver', "gallery.json cannot be read"),
        ("[]", "gallery.json cannot be read"),
    ):
        manifest.write_text(text)
        with pytest.raises(GalleryError, match=message):
            Store.open(tmp_path / "g")
    manifest.write_text(json.dumps(whole))
    ledger = tmp_path / "g" / "ledger.sqlite"
    ledger.write_bytes(b"not a database" * 100)
    with pytest.raises(GalleryError, match=r"gallery g: its ledger cannot be read \(file is not a database\)"):
        Store.open(tmp_path / "g").snapshot()
    ledger.unlink()
    with pytest.raises(GalleryError, match=r"its ledger.sqlite is missing"):
        Store.open(tmp_path / "g")


def test_another_model_is_refused_with_both_hashes(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 1)
    message = r"gallery g was made by model abababababab \(dim 16\), this model is cdcdcdcdcdcd \(dim 16\); change"
    with pytest.raises(ModelMismatchError, match=message):
        StoreWriter.open_or_create(tmp_path / "g", "cd" * 32, 16)
    with pytest.raises(ModelMismatchError, match=r"\(dim 16\), this model is abababababab \(dim 32\)"):
        StoreWriter.open_or_create(tmp_path / "g", MODEL, 32)
    make_store(tmp_path / "g")  # a refusal gives the lock back


def test_a_second_writer_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with StoreWriter.open_or_create(tmp_path / "g", MODEL, 16):
        message = rf"gallery g is being written by another process \(pid {os.getpid()}\); wait"
        with pytest.raises(GalleryError, match=message):
            StoreWriter.open_or_create(tmp_path / "g", MODEL, 16)
    StoreWriter.open_or_create(tmp_path / "g", MODEL, 16).close()


def test_who_waits_for_a_change_of_model_gets_the_version_that_is_in_use_then(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 2)
    home = versions.version_folder(tmp_path / "g", "cd" * 32)
    StoreWriter.open_or_create(home, "cd" * 32, 8).close()
    holder = StoreWriter.open(tmp_path / "g")

    def switch() -> None:
        versions.switch(tmp_path / "g", home)
        holder.close()

    threading.Timer(0.5, switch).start()
    with StoreWriter.open(tmp_path / "g", wait_s=60) as writer:
        assert (writer.folder, writer.manifest.dim) == (home, 8)


def test_a_batch_that_does_not_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    rows = make_store(tmp_path / "g", 2)
    with StoreWriter.open_or_create(tmp_path / "g", MODEL, 16) as writer:
        with pytest.raises(ShapeError, match=r"embeddings must be \(3, 14, 16\) for these photos, got \(2, 14, 16\)"):
            writer.append(new_photos(2, 3), rows)
        with pytest.raises(ShapeError, match="finite"):
            writer.append(new_photos(2, 2), rows * np.float32(np.inf))
        longer = rows.copy()
        longer[1, 13] *= 1.05
        with pytest.raises(ShapeError, match=r"embeddings must be rows of length 1, one is 1.05 long"):
            writer.append(new_photos(2, 2), longer)
        with pytest.raises(GalleryError, match="gallery g has a photo 'p1' already; give it another id"):
            writer.append(new_photos(1, 2), rows)
        assert writer.snapshot().contents.photo_ids == ["p0", "p1"]
        writer.append(new_photos(2, 2), rows)
        assert len(np.concatenate(list(writer.snapshot()[1]))) == 4


def test_a_full_disk_keeps_what_was_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_store(tmp_path / "g", 2)

    def full(path: Path, data: bytes) -> None:
        replace_file(path.with_suffix(".part"), data[:100])
        raise OSError(28, "No space left on device")

    with StoreWriter.open_or_create(tmp_path / "g", MODEL, 16) as writer:
        monkeypatch.setattr("indexer.segments.replace_file", full)
        message = (
            r"2 photos could not be stored \(No space left on device; this needs 0.0 MB and [0-9.]+ MB are free; what"
        )
        with pytest.raises(GalleryError, match=message):
            writer.append(new_photos(2, 2), rows)
    monkeypatch.undo()
    assert Store.open(tmp_path / "g").snapshot().contents.photo_ids == ["p0", "p1"]


def test_a_disk_without_room_for_a_gallery_is_an_error_and_the_next_attempt_makes_it(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (1, 4096, 20_000):  # of the longest file, in bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(GalleryError, match=r"gallery g could not be made \("):
                StoreWriter.open_or_create(tmp_path / "g", MODEL, 16)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    make_store(tmp_path / "g", 2)
    assert verify(tmp_path / "g").faults == ()


def test_the_next_writer_removes_what_a_crash_left(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 2)
    segments = tmp_path / "g" / "segments"
    for name in ("000002.vec", "000003.vec.tmp"):
        (segments / name).write_bytes(b"left by a crash")
    Store.open(tmp_path / "g")
    assert len(os.listdir(segments)) == 3, "a reader must not touch what a writer may be writing"
    make_store(tmp_path / "g")
    assert os.listdir(segments) == ["000001.vec"]


def test_a_reader_keeps_its_moment_while_a_writer_goes_on(tmp_path: Path) -> None:
    rows = make_store(tmp_path / "g", 2)
    store = Store.open(tmp_path / "g")
    _, before = store.snapshot()
    stop = threading.Event()
    seen: list[int] = []
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            try:
                contents, segments = store.snapshot()
                ids = contents.photo_ids
                seen.append(len(ids))
                if sum(map(len, segments)) != len(ids):
                    wrong.append(f"{len(ids)} ids do not fit their segments")
            except PublicError as error:
                wrong.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    with StoreWriter.open_or_create(tmp_path / "g", MODEL, 16) as writer:
        for first in range(2, 42):
            writer.append(new_photos(first, 1), rows[:1])
    stop.set()
    reader.join()
    assert wrong == []
    assert seen == sorted(seen)
    assert len(np.concatenate(list(before))) == 2


APPENDER = """
import os, sys
from pathlib import Path
import numpy as np
from indexer.store import StoreWriter
from tests.crash import Fatal
from tests.indexer.test_store import MODEL, new_photos
from tests.conftest import unit_rows

dying = Fatal(at=int(sys.argv[2]))

os.fsync, os.replace = dying(os.fsync), dying(os.replace)
rows = unit_rows(np.random.default_rng(0), 8)
with StoreWriter.open_or_create(Path(sys.argv[1]), MODEL, 16) as writer:
    writer.engine.dialect.do_commit = dying(writer.engine.dialect.do_commit)
    for first in range(0, 8, 2):
        writer.append(new_photos(first, 2), rows[first : first + 2])
        print(first + 2, flush=True)
"""


@pytest.mark.parametrize("fatal", [1, 3, 5, 7, 9, 14])
def test_a_writer_killed_at_any_write_loses_nothing_acknowledged(tmp_path: Path, fatal: int) -> None:
    """The child kills itself (SIGKILL) at the given fsync, rename or commit, from making the gallery on."""
    command = [sys.executable, "-c", APPENDER, str(tmp_path / "g"), str(fatal)]
    child = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert child.returncode == -9, child.stderr
    acknowledged = max(map(int, child.stdout.split()), default=0)
    rows = unit_rows(np.random.default_rng(0), 8)
    if not (tmp_path / "g" / "gallery.json").exists():
        assert acknowledged == 0
    else:
        contents, segments = Store.open(tmp_path / "g").snapshot()
        ids = contents.photo_ids
        assert ids == [f"p{n}" for n in range(len(ids))]
        assert acknowledged <= len(ids) <= acknowledged + 2
        np.testing.assert_array_equal(np.concatenate([rows[:0], *segments]), rows[: len(ids)])
        acknowledged = len(ids)
    with StoreWriter.open_or_create(tmp_path / "g", MODEL, 16) as writer:
        writer.append(new_photos(acknowledged, 8 - acknowledged), rows[acknowledged:])
        contents, segments = writer.snapshot()
        ids = contents.photo_ids
        assert ids == [f"p{n}" for n in range(8)]
        np.testing.assert_array_equal(np.concatenate(list(segments)), rows)


def test_ids_are_read_in_order_without_the_rows_that_hold_the_thumbnails(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 2)
    with sqlite3.connect(tmp_path / "g" / "ledger.sqlite") as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT photo_id FROM photos ORDER BY segment, segment_row"
        ).fetchall()
    connection.close()
    assert [step[-1] for step in plan] == ["SCAN photos USING COVERING INDEX photos_in_order"]
