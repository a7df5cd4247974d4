"""Copies of galleries: of one moment, verified, and complete or no gallery."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from indexer import versions
from indexer.backup import copy_gallery
from indexer.compaction import compact
from indexer.errors import GalleryError
from indexer.metadata import Kind
from indexer.store import Alias, Store, StoreWriter
from indexer.verification import verify
from tests.conftest import unit_rows
from tests.indexer.test_compaction import contents
from tests.indexer.test_store import make_store, new_photos
from tests.old_formats import age_back


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_store(tmp_path / "g", 3, 2, 4)
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.declare_fields({"age": Kind.NUMBER})
        writer.describe({"p1": {"age": 30.0}})
        writer.add_aliases([Alias("anna", "anna.jpg", of="p1")])
        writer.delete(["p2"])
        compact(writer)
        writer.append(new_photos(9, 2), unit_rows(np.random.default_rng(1), 2))
    return tmp_path / "g"


def test_there_and_back_again(folder: Path, tmp_path: Path) -> None:
    with StoreWriter.open(folder):  # a job is at work, and a copy is made all the same
        done = copy_gallery(folder, tmp_path / "backup")
    assert (done.photos, done.segments) == (10, 2)
    for path in folder.rglob("*"):
        path.unlink() if path.is_file() else None
    done = copy_gallery(tmp_path / "backup", tmp_path / "again")
    assert done.photos == 10
    for copy in (tmp_path / "backup", tmp_path / "again"):
        store = Store.open(copy)
        assert store.photo("anna").metadata == {"age": 30.0}
        assert store.photo("p10").thumbnail == b"thumbnail 10"
        assert contents(copy)[0] == [f"p{n}" for n in range(11) if n != 2]
        store.close()
    np.testing.assert_array_equal(contents(tmp_path / "backup")[1], contents(tmp_path / "again")[1])
    with StoreWriter.open(tmp_path / "again") as writer:
        writer.append(new_photos(11, 1), unit_rows(np.random.default_rng(2), 1))
    assert verify(tmp_path / "again").faults == ()
    assert Store.open(tmp_path / "backup").count() == 10


@pytest.mark.parametrize("version", [1, 2])
def test_old_galleries_are_copied_as_they_are(tmp_path: Path, version: int) -> None:
    make_store(tmp_path / "g", 3, 2)
    age_back(tmp_path / "g", version)
    copy_gallery(tmp_path / "g", tmp_path / "backup")
    assert Store.open(tmp_path / "backup").manifest.format_version == version
    assert contents(tmp_path / "backup")[0] == [f"p{n}" for n in range(5)]


@pytest.mark.parametrize("version", [1, 3])
def test_a_copy_of_an_old_gallery_can_be_written_though_another_brings_that_to_a_newer_format(
    tmp_path: Path, version: int
) -> None:
    make_store(tmp_path / "g", 3, 2)
    age_back(tmp_path / "g", version)
    copy_gallery(tmp_path / "g", tmp_path / "backup", on_progress=lambda *_: StoreWriter.open(tmp_path / "g").close())
    assert Store.open(tmp_path / "g").manifest.format_version > version
    with StoreWriter.open(tmp_path / "backup") as writer:
        writer.append(new_photos(5, 1), unit_rows(np.random.default_rng(1), 1))
    assert contents(tmp_path / "backup")[0] == [f"p{n}" for n in range(6)]


def test_a_copy_is_of_the_version_that_was_in_use_when_it_began(folder: Path, tmp_path: Path) -> None:
    home = versions.version_folder(folder, "cd" * 32)
    StoreWriter.open_or_create(home, "cd" * 32, 8).close()
    before = Store.open(folder).manifest
    copy_gallery(folder, tmp_path / "backup", on_progress=lambda *_: versions.switch(folder, home))
    assert Store.open(folder).manifest.dim == 8
    assert Store.open(tmp_path / "backup").manifest == before
    np.testing.assert_array_equal(contents(tmp_path / "backup")[0][:2], ["p0", "p1"])


def test_links_take_no_room_and_survive_what_becomes_of_the_gallery(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    done = copy_gallery(folder, tmp_path / "backup", links=True)
    assert done.copied_bytes == (tmp_path / "backup" / "ledger.sqlite").stat().st_size
    assert all(path.stat().st_nlink == 2 for path in (tmp_path / "backup" / "segments").iterdir())
    with StoreWriter.open(folder) as writer:
        writer.delete(["p0", "p9"])
        compact(writer)
    assert verify(tmp_path / "backup").faults == ()
    np.testing.assert_array_equal(contents(tmp_path / "backup")[1], before[1])


def test_a_copy_made_while_the_gallery_changes_is_of_one_moment(tmp_path: Path) -> None:
    """Batches of three come, are deleted and compacted all the while: a copy has whole batches, and is whole."""
    make_store(tmp_path / "g", 3)
    stop, failed = threading.Event(), []

    def change() -> None:
        try:
            with StoreWriter.open(tmp_path / "g") as writer:
                batch = 1
                while not stop.is_set():
                    rows = unit_rows(np.random.default_rng(batch), 3)
                    writer.append(new_photos(3 * batch, 3), rows)
                    if batch % 3 == 0:
                        writer.delete([f"p{n}" for n in range(3 * batch - 3, 3 * batch)])
                        compact(writer)
                    batch += 1
        except BaseException as error:
            failed.append(error)

    changing = threading.Thread(target=change)
    changing.start()
    for number in range(6):
        copy_gallery(tmp_path / "g", tmp_path / f"backup{number}")
    stop.set()
    changing.join()
    assert failed == []
    for number in range(6):
        ids = contents(tmp_path / f"backup{number}")[0]
        assert len(ids) % 3 == 0
        assert ids == [f"p{n}" for first in map(int, (i[1:] for i in ids[::3])) for n in range(first, first + 3)]
        assert verify(tmp_path / f"backup{number}").faults == ()


COPIER = """
import os, sys
from pathlib import Path
from indexer.backup import copy_gallery
from tests.crash import Fatal

dying = Fatal(at=int(sys.argv[3]))
os.fsync, os.replace = dying(os.fsync), dying(os.replace)
copy_gallery(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("fatal", [1, 3, 5, 9])
def test_a_copy_killed_at_any_write_is_no_gallery_and_goes_on(folder: Path, tmp_path: Path, fatal: int) -> None:
    command = [sys.executable, "-c", COPIER, str(folder), str(tmp_path / "backup"), str(fatal)]
    child = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert child.returncode == -9, child.stderr
    with pytest.raises(GalleryError, match=r"backup is no gallery \(no gallery.json in it\)"):
        Store.open(tmp_path / "backup")
    left = {path.name: path.stat().st_ino for path in (tmp_path / "backup" / "segments").glob("*.vec")}
    with StoreWriter.open(folder) as writer:
        writer.append(new_photos(11, 1), unit_rows(np.random.default_rng(2), 1))
    copy_gallery(folder, tmp_path / "backup")
    assert contents(tmp_path / "backup")[0] == contents(folder)[0]
    after = {path.name: path.stat().st_ino for path in (tmp_path / "backup" / "segments").glob("*.vec")}
    assert left.items() <= after.items(), "what is there is not copied again"


def test_what_cannot_be_copied_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_gallery(folder, tmp_path / "backup")
    with pytest.raises(GalleryError, match="backup is a gallery already; name a new folder, or move it away"):
        copy_gallery(folder, tmp_path / "backup")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").touch()
    with pytest.raises(GalleryError, match=r"notes is no gallery and not empty \(it holds 'diary.txt'\)"):
        copy_gallery(folder, tmp_path / "notes")
    with pytest.raises(GalleryError, match="notes is no gallery"):
        copy_gallery(tmp_path / "notes", tmp_path / "other")
    with pytest.raises(GalleryError, match="a copy of gallery g must lie outside of it; name another folder"):
        copy_gallery(folder, folder / "backups" / "monday")
    assert not (tmp_path / "other").exists()
    assert not (folder / "backups").exists()
    with monkeypatch.context() as full:
        free = namedtuple("free", "total used free")(10, 10, 100)
        full.setattr("indexer.backup.shutil.disk_usage", lambda _: free)
        message = r"the copy of gallery g needs 0.0 MB more, and 0.0 MB are free; free some and run it again"
        with pytest.raises(GalleryError, match=message):
            copy_gallery(folder, tmp_path / "full")
    with monkeypatch.context() as full:  # of a disk that has no room for the log of the copied ledger

        def refuse(_: object) -> None:
            raise sa.exc.OperationalError("SELECT", {}, sqlite3.OperationalError("disk I/O error"))

        full.setattr("indexer.backup.read_segments", refuse)
        with pytest.raises(GalleryError, match=r"gallery g could not be copied \(disk I/O error\)"):
            copy_gallery(folder, tmp_path / "full")
    path = next((folder / "segments").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(GalleryError, match=rf"segment {path.name} does not match its checksum"):
        copy_gallery(folder, tmp_path / "other")
    assert not (tmp_path / "other" / "gallery.json").exists()
    assert sorted(os.listdir(tmp_path / "notes")) == ["diary.txt"]
