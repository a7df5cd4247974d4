"""Metadata and deletions in a gallery folder: what a reader sees, and what a crash leaves."""

import shutil
import sqlite3
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import DataError, GalleryError, UnknownPhotoError
from indexer.metadata import Kind
from indexer.store import Store, StoreWriter
from tests.conftest import unit_rows
from tests.indexer.test_store import MODEL, make_store, new_photos
from tests.old_formats import age_back


def test_an_old_gallery_is_read_as_it_is_and_upgraded_by_its_first_writer(tmp_path: Path) -> None:
    rows = make_store(tmp_path / "g", 3, 2)
    age_back(tmp_path / "g", 1)
    reader = Store.open(tmp_path / "g")
    contents, segments = reader.snapshot()
    assert (contents.photo_ids, contents.version, contents.present) == ([f"p{n}" for n in range(5)], 0, None)
    np.testing.assert_array_equal(np.concatenate(list(segments)), rows)
    assert (reader.fields(), reader.photo("p4").metadata, len(list(reader.names()))) == ({}, {}, 5)
    with StoreWriter.open(tmp_path / "g") as writer:
        assert writer.manifest.format_version == 5
        assert reader.version() == 1, "what was open before sees the change"
        writer.declare_fields({"age": Kind.NUMBER})
        writer.describe({"p1": {"age": 30.0}})
        writer.delete(["p0"])
        writer.append(new_photos(5, 1), rows[:1])
    assert reader.photo("p1").metadata == {"age": 30.0}
    assert reader.snapshot().contents.photo_ids == ["", "p1", "p2", "p3", "p4", "p5"]
    assert Store.open(tmp_path / "g").manifest.format_version == 5
    assert Store.open(tmp_path / "g").manifest.created == reader.manifest.created


def make_format_2(folder: Path) -> None:
    make_store(folder, 3, 2)
    with StoreWriter.open(folder) as writer:
        writer.declare_fields({"age": Kind.NUMBER})
        writer.describe({"p1": {"age": 30.0}})
        writer.delete(["p4"])
    age_back(folder, 2)


def test_a_gallery_of_format_2_keeps_what_is_known_about_its_photos(tmp_path: Path) -> None:
    make_format_2(tmp_path / "g")
    reader = Store.open(tmp_path / "g")
    before = reader.snapshot().contents
    assert before.photo_ids == ["p0", "p1", "p2", "p3", ""]
    with StoreWriter.open(tmp_path / "g") as writer:
        assert reader.snapshot().contents.segments == before.segments
        assert (writer.photo("p1").metadata, writer.fields()) == ({"age": 30.0}, {"age": Kind.NUMBER})
        assert writer.snapshot().contents.photo_ids == before.photo_ids
        assert writer.photo("p2").thumbnail == b"thumbnail 2"
        writer.upsert(new_photos(2, 1), unit_rows(np.random.default_rng(1), 1))
        assert reader.snapshot().contents.photo_ids == ["p0", "p1", "", "p3", "", "p2"]


UPGRADER = """
import os, sys
from pathlib import Path
import sqlalchemy
from sqlalchemy.engine.default import DefaultDialect
from indexer.store import StoreWriter
from tests.crash import Fatal

dying = Fatal(at=int(sys.argv[2]))
os.replace = dying(os.replace)
DefaultDialect.do_commit, DefaultDialect.do_execute = dying(DefaultDialect.do_commit), dying(DefaultDialect.do_execute)
StoreWriter.open(Path(sys.argv[1])).close()
"""


@pytest.mark.parametrize("fatal", [6, 10, 25, 26, 29])
def test_an_upgrade_killed_at_any_statement_can_be_done_again(tmp_path: Path, fatal: int) -> None:
    make_format_2(tmp_path / "g")
    command = [sys.executable, "-c", UPGRADER, str(tmp_path / "g"), str(fatal)]
    child = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert child.returncode == -9, child.stderr
    assert Store.open(tmp_path / "g").snapshot().contents.photo_ids == ["p0", "p1", "p2", "p3", ""]
    with StoreWriter.open(tmp_path / "g") as writer:
        assert writer.snapshot().contents.photo_ids == ["p0", "p1", "p2", "p3", ""]
        assert writer.photo("p1").metadata == {"age": 30.0}


def test_metadata_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    kinds = {"sex": Kind.STRING, "age": Kind.NUMBER, "beard": Kind.BOOL, "seen": Kind.DATE, "marks": Kind.TAGS}
    known = {"sex": "male", "age": 30.5, "beard": True, "seen": date(2024, 2, 29), "marks": ("mole", "scar")}
    make_store(tmp_path / "g", 3)
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.declare_fields(kinds)
        writer.describe({"p1": known, "p2": {"age": 1.0}, "nobody": {"age": 2.0}})
        writer.describe({"p2": {"age": None, "sex": "female"}, "p1": {}})
        assert writer.photo("p1").metadata == known
        assert writer.photo("p2").metadata == {"sex": "female"}
    store = Store.open(tmp_path / "g")
    assert store.fields() == kinds
    assert [store.photo(f"p{n}").metadata for n in range(3)] == [{}, known, {"sex": "female"}]


def test_every_change_is_a_new_version(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 3)
    reader = Store.open(tmp_path / "g")
    versions = [reader.version()]
    with StoreWriter.open(tmp_path / "g") as writer:
        for change in (
            lambda: writer.declare_fields({"age": Kind.NUMBER}),
            lambda: writer.describe({"p1": {"age": 3.0}}),
            lambda: writer.delete(["p0"]),
            lambda: writer.append(new_photos(3, 1), unit_rows(np.random.default_rng(3), 1)),
        ):
            change()
            versions.append(reader.version())
            assert reader.snapshot().contents.version == versions[-1]
    assert sorted(set(versions)) == versions


def test_a_field_keeps_its_kind_and_their_number_is_limited(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 1)
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.declare_fields({"age": Kind.NUMBER})
        with pytest.raises(DataError, match="field age is a number in this gallery, not a string"):
            writer.declare_fields({"other": Kind.BOOL, "age": Kind.STRING})
        with pytest.raises(DataError, match="a gallery may have 64 metadata fields, this one would have 65"):
            writer.declare_fields({f"f{n}": Kind.BOOL for n in range(64)})
        assert writer.fields() == {"age": Kind.NUMBER}


def test_a_deleted_photo_leaves_nothing_but_its_vectors(tmp_path: Path) -> None:
    rows = make_store(tmp_path / "g", 3, 2)
    # A service that is running has the ledger open, so SQLite itself would keep the log.
    reader = Store.open(tmp_path / "g")
    assert reader.photo("p1").thumbnail == b"thumbnail 1"
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.declare_fields({"name": Kind.STRING})
        writer.describe({"p3": {"name": "a name that nobody may keep"}})
        before = writer.version()
        with pytest.raises(UnknownPhotoError, match="gallery g has no photo 'p9'"):
            writer.delete(["p1", "p9"])
        assert writer.version() == before
        writer.delete(["p1", "p3", "p1"])
        with pytest.raises(UnknownPhotoError, match="gallery g has no photo 'p1'"):
            writer.delete(["p1"])
        contents, segments = writer.snapshot()
        assert contents.photo_ids == ["p0", "", "p2", "", "p4"]
        assert contents.present is not None
        assert contents.present.tolist() == [True, False, True, False, True]
        np.testing.assert_array_equal(np.concatenate(list(segments)), rows)
        with pytest.raises(UnknownPhotoError):
            writer.photo("p3")
        # The same photo may come again: as a new row.
        writer.append(new_photos(3, 1), rows[3:4])
        assert writer.snapshot().contents.photo_ids == ["p0", "", "p2", "", "p4", "p3"]
        assert writer.photo("p3").metadata == {}
    ledger = b"".join(path.read_bytes() for path in (tmp_path / "g").glob("ledger.sqlite*"))
    assert b"thumbnail 0" in ledger
    assert b"thumbnail 1" not in ledger
    assert b"a name that nobody may keep" not in ledger
    reader.close()


def test_a_reader_in_the_middle_of_something_holds_no_deletion_up(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 3)
    reader = sqlite3.connect(tmp_path / "g" / "ledger.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM photos").fetchone() == (3,)
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.delete(["p0"])
        assert writer.count() == 2
    assert reader.execute("SELECT count(*) FROM photos").fetchone() == (3,)
    reader.close()


def test_more_ids_than_a_statement_takes_can_be_deleted(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 1100)
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.delete([f"p{n}" for n in range(1099)])
        assert writer.snapshot().contents.photo_ids[-2:] == ["", "p1099"]


def test_a_ledger_that_lost_a_deletion_is_noticed(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 2)
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.delete(["p0"])
    with sqlite3.connect(tmp_path / "g" / "ledger.sqlite") as connection:
        connection.execute("DELETE FROM deleted")
    connection.close()
    with pytest.raises(GalleryError, match="gallery g: the ledger's photos and segments disagree"):
        Store.open(tmp_path / "g").snapshot()


EDITOR = """
import sys
from pathlib import Path
from indexer.store import StoreWriter
from tests.crash import Fatal

dying = Fatal(at=int(sys.argv[2]))

with StoreWriter.open(Path(sys.argv[1])) as writer:
    dialect = writer.engine.dialect
    dialect.do_commit, dialect.do_execute = dying(dialect.do_commit), dying(dialect.do_execute)
    writer.delete([f"p{n}" for n in range(4)])
    print("deleted", flush=True)
"""


@pytest.mark.parametrize("fatal", range(2, 7))
def test_a_deletion_killed_at_any_statement_is_whole_or_never_was(tmp_path: Path, fatal: int) -> None:
    make_store(tmp_path / "g", 3, 3)
    command = [sys.executable, "-c", EDITOR, str(tmp_path / "g"), str(fatal)]
    child = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    everyone = [f"p{n}" for n in range(6)]
    expected = ["", "", "", "", "p4", "p5"] if child.stdout else everyone
    assert child.returncode == (0 if child.stdout else -9), child.stderr
    assert Store.open(tmp_path / "g").snapshot().contents.photo_ids == expected
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.delete(["p5"])
    assert Store.open(tmp_path / "g").snapshot().contents.photo_ids == [*expected[:5], ""]


def test_a_copied_folder_keeps_its_deletions(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 2)
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.delete(["p0"])
    shutil.copytree(tmp_path / "g", tmp_path / "h")
    assert Store.open(tmp_path / "h").snapshot().contents.photo_ids == ["", "p1"]


def test_changes_wait_for_the_one_writer(tmp_path: Path) -> None:
    make_store(tmp_path / "g", 2)
    with (
        StoreWriter.open_or_create(tmp_path / "g", MODEL, 16),
        pytest.raises(GalleryError, match="gallery g is being written by another process"),
    ):
        StoreWriter.open(tmp_path / "g")
