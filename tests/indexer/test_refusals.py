"""Disks that are full, folders that may not be written, clocks that go back, and names that SQLite could misread."""

import errno
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from indexer.backup import copy_gallery
from indexer.compaction import compact, forget
from indexer.errors import GalleryError
from indexer.gallery import Gallery
from indexer.metadata import Kind
from indexer.regions import REGIONS
from indexer.store import Store, StoreWriter
from indexer.usage import usage
from indexer.verification import verify
from tests.conftest import unit_rows
from tests.indexer.test_store import make_store, new_photos

EVERY = np.ones(REGIONS, bool)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A gallery in folders that nobody may write, and that somebody who is not root reads."""
    home = Path(tempfile.mkdtemp())
    home.chmod(0o755)
    make_store(home / "g", 300)
    with StoreWriter.open(home / "g") as writer:
        writer.declare_fields({"age": Kind.NUMBER})
        writer.describe({"p1": {"age": 3.0}})
    look(home / "g", home)  # what is imported late can be read by root alone
    shutil.rmtree(home / "g" / "index", ignore_errors=True)
    (home / "g" / "index.lock").unlink(missing_ok=True)
    folders = [home / "g", *(path for path in (home / "g").rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    with as_nobody():
        yield home / "g"
    for folder in folders:
        folder.chmod(0o755)
    shutil.rmtree(home)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def look(folder: Path, scratch: Path) -> None:
    """All that can be done with a gallery without changing it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexer.gallery_index.FUSED_FROM", 1)
        patch.setattr("indexer.granular._APPROXIMATE_FROM", 1)
        gallery = Gallery.open(folder)
        gallery.build_approximate()  # its layout cannot be saved
    row = unit_rows(np.random.default_rng(0), 300)[7]
    assert gallery.search(row, EVERY, 1).hits[0].photo_id == "p7"
    assert gallery.photo("p1").metadata == {"age": 3.0}
    assert not gallery.is_stale()
    gallery.close()
    assert verify(folder).faults == ()
    assert usage(folder).photos == 300
    copy_gallery(folder, scratch / "copy")
    copy = Store.open(scratch / "copy")
    assert copy.count() == 300
    copy.close()
    shutil.rmtree(scratch / "copy")


def test_a_gallery_that_may_not_be_written_is_served_verified_and_copied(read_only: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        look(read_only, Path(scratch))
    assert sorted(os.listdir(read_only)) == ["gallery.json", "ledger.sqlite", "lock", "segments"]


def test_what_would_change_it_says_that_it_may_not_be_written(read_only: Path) -> None:
    message = r"gallery g cannot be written \(Permission denied\); it can still be served and searched"
    with pytest.raises(GalleryError, match=message):
        StoreWriter.open(read_only)
    with pytest.raises(GalleryError, match=r"the folder new cannot be made \(Permission denied\)"):
        StoreWriter.open_or_create(read_only / "new", "ab" * 32, 16)


@pytest.mark.parametrize("name", ["with ? and #", "100%41", "größe", os.fsdecode(b"no \xff utf-8")])
def test_a_folder_may_be_called_anything(tmp_path: Path, name: str) -> None:
    make_store(tmp_path / name, 3)
    with StoreWriter.open(tmp_path / name) as writer:
        writer.delete(["p1"])
        compact(writer)
    assert (tmp_path / name / "ledger.sqlite").is_file()
    assert Store.open(tmp_path / name).count() == 2
    assert os.listdir(tmp_path) == [name]


def test_a_ledger_that_is_full_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    """SQLite itself runs out of pages, in the middle of a batch, as it does on a full disk."""
    rows = make_store(tmp_path / "g", 5)
    with StoreWriter.open(tmp_path / "g") as writer:
        with writer.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count=30")
        message = r"5 photos could not be stored \(database or disk is full; this needs 1.0 MB and .* MB are free; what"
        large = new_photos(5, 5)
        for photo in large:
            vars(photo)["thumbnail"] = b"x" * 100_000
        with pytest.raises(GalleryError, match=message):
            writer.append(large, rows)
        assert writer.snapshot().contents.photo_ids == [f"p{n}" for n in range(5)]
    assert verify(tmp_path / "g").faults == ()
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.append(large, rows)
    assert verify(tmp_path / "g").faults == ()


def test_a_disk_without_room_to_read_a_ledger_is_called_full(tmp_path: Path) -> None:
    """SQLite's processes meet in a file, which a disk without a free page has no room for."""
    make_store(tmp_path / "g", 2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(GalleryError, match=r"g: its ledger cannot be read \(No space left on device; .* are free;"):
            verify(tmp_path / "g")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert verify(tmp_path / "g").faults == ()


@pytest.mark.parametrize("call", ["delete", "describe", "upsert", "forget"])
def test_any_change_on_a_full_disk_is_refused_whole(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_store(tmp_path / "g", 5)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with StoreWriter.open(tmp_path / "g") as writer:
        writer.declare_fields({"age": Kind.NUMBER})
        changes = {
            "delete": lambda: writer.delete(["p1"]),
            "describe": lambda: writer.describe({"p1": {"age": 1.0}}),
            "upsert": lambda: writer.upsert(new_photos(1, 2), rows[:2]),
            "forget": lambda: forget(writer, ["p1"]),
        }
        before = writer.version()
        monkeypatch.setattr("indexer.edits.touch", full)
        monkeypatch.setattr("indexer.store.edits.touch", full)
        with pytest.raises(GalleryError, match=r"No space left on device; .* MB are free; what was ackno"):
            changes[call]()
        monkeypatch.undo()
        assert (writer.version(), writer.count(), writer.photo("p1").metadata) == (before, 5, {})
    assert verify(tmp_path / "g").faults == ()


def test_no_change_depends_on_a_clock_that_goes_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba", reason="only the compiled scan has a layout; it needs the `fast` extra")
    monkeypatch.setattr("indexer.gallery_index.FUSED_FROM", 1)
    monkeypatch.setattr("indexer.granular._APPROXIMATE_FROM", 1)
    now = time.time()
    rows = unit_rows(np.random.default_rng(0), 500)
    versions = []
    for number in range(5):
        # A day back each time, before what the files say of themselves.
        monkeypatch.setattr("time.time", lambda number=number: now - 86_400 * number)
        first = 100 * number
        with StoreWriter.open_or_create(tmp_path / "g", "ab" * 32, 16) as writer:
            writer.append(new_photos(first, 100), rows[first : first + 100])
            writer.delete([f"p{first}"])
            if number % 2:
                compact(writer)
            versions.append(writer.version())
        gallery = Gallery.open(tmp_path / "g")
        assert gallery.build_approximate()
        assert gallery.photos == 99 * (number + 1)
        assert gallery.search(rows[first + 1], EVERY, 1).hits[0].photo_id == f"p{first + 1}"
        gallery.close()
        assert [path.suffix for path in (tmp_path / "g" / "index").iterdir()] == [""], "older ones are removed"
    assert versions == sorted(set(versions))
    with Store.open(tmp_path / "g").reading() as connection:
        stored = connection.exec_driver_sql("SELECT stored_s FROM photos ORDER BY segment, segment_row").scalars().all()
    assert stored == sorted(stored)
    assert verify(tmp_path / "g").faults == ()
