"""Photos are forgotten when they are too old, and never because a clock was wrong."""

import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import ConfigError
from indexer.retention import photos_older_than, retain
from indexer.store import Store, StoreWriter
from service import cli
from tests.conftest import unit_rows
from tests.indexer.test_store import MODEL, new_photos
from tests.old_formats import age_back

DAY = 86_400
NOW = 1_900_000_000.0


@pytest.fixture
def clock(monkeypatch):
    """Sets what time it is, in days from `NOW`."""

    def put(days: float) -> None:
        monkeypatch.setattr(time, "time", lambda: NOW + days * DAY)

    put(0)
    return put


def store(folder: Path, first: int, count: int) -> None:
    with StoreWriter.open_or_create(folder, MODEL, 16) as writer:
        writer.append(new_photos(first, count), unit_rows(np.random.default_rng(first), count))


def left(folder: Path) -> list[str]:
    return [photo_id for photo_id in Store.open(folder).snapshot().contents.photo_ids if photo_id]


def retained(folder: Path, days: float) -> tuple[int, int]:
    with StoreWriter.open(folder) as writer:
        done = retain(writer, days)
    return done.forgotten, done.kept


def test_only_what_is_older_goes(tmp_path, clock):
    for day in range(3):
        clock(day)
        store(tmp_path / "g", day * 2, 2)
    clock(10)
    assert photos_older_than(Store.open(tmp_path / "g"), 9.5) == ["p0", "p1"]
    assert retained(tmp_path / "g", 10.5) == (0, 6)
    assert retained(tmp_path / "g", 8.5) == (4, 2)
    assert left(tmp_path / "g") == ["p4", "p5"]
    assert retained(tmp_path / "g", 8.5) == (0, 2)
    clock(40)
    assert retained(tmp_path / "g", 8.5) == (2, 0)


def test_nothing_of_them_is_left_in_the_folder(tmp_path, clock):
    store(tmp_path / "g", 0, 2)
    clock(5)
    store(tmp_path / "g", 2, 1)
    thumbnail = Store.open(tmp_path / "g").photo("p1").thumbnail
    clock(6)
    retained(tmp_path / "g", 2)
    everything = b"".join(path.read_bytes() for path in (tmp_path / "g").rglob("*") if path.is_file())
    assert thumbnail not in everything
    assert left(tmp_path / "g") == ["p2"]


def test_a_clock_that_is_put_back_deletes_nothing_early(tmp_path, clock):
    clock(100)
    store(tmp_path / "g", 0, 1)
    clock(-300)  # ages are negative now
    assert retained(tmp_path / "g", 30) == (0, 1)
    store(tmp_path / "g", 1, 1)  # would be 400 days old once the clock is right again
    clock(101)
    assert retained(tmp_path / "g", 30) == (0, 2)
    clock(131)
    assert retained(tmp_path / "g", 30) == (2, 0)


def test_a_photo_replaced_while_the_clock_is_back_is_not_forgotten_early(tmp_path, clock):
    clock(100)
    store(tmp_path / "g", 0, 1)
    clock(-300)
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.upsert(new_photos(0, 1), unit_rows(np.random.default_rng(9), 1))
    clock(101)
    assert retained(tmp_path / "g", 30) == (0, 1)


def test_a_replaced_photo_is_as_old_as_what_replaced_it(tmp_path, clock):
    store(tmp_path / "g", 0, 2)
    clock(20)
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.upsert(new_photos(0, 1), unit_rows(np.random.default_rng(9), 1))
    clock(31)
    assert retained(tmp_path / "g", 30) == (1, 1)
    assert left(tmp_path / "g") == ["p0"]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_photos_of_an_older_format_count_from_the_upgrade(tmp_path, clock, version):
    store(tmp_path / "g", 0, 3)
    age_back(tmp_path / "g", version)
    clock(1000)
    assert photos_older_than(Store.open(tmp_path / "g"), 30) == []
    assert retained(tmp_path / "g", 30) == (0, 3)
    store(tmp_path / "g", 3, 1)
    clock(1029)
    assert retained(tmp_path / "g", 30) == (0, 4)
    clock(1031)
    assert retained(tmp_path / "g", 30) == (4, 0)


def test_the_upgrade_leads_to_the_tables_of_a_new_gallery(tmp_path, clock):
    def shape(folder: Path) -> dict[str, set[str]]:
        ledger = sqlite3.connect(folder / "ledger.sqlite")
        names = [name for (name,) in ledger.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'index')")]
        found = {name: {row[1] for row in ledger.execute(f"PRAGMA table_info('{name}')")} for name in names}
        ledger.close()
        return {name: columns for name, columns in found.items() if not name.startswith("sqlite_")}

    store(tmp_path / "new", 0, 2)
    for version in (1, 2, 3):
        store(tmp_path / f"old{version}", 0, 2)
        age_back(tmp_path / f"old{version}", version)
        StoreWriter.open(tmp_path / f"old{version}").close()
        assert shape(tmp_path / f"old{version}") == shape(tmp_path / "new")


def test_days_must_be_above_0(tmp_path):
    store(tmp_path / "g", 0, 1)
    for days in (0, -1, float("nan")):
        with pytest.raises(ConfigError, match="a number of days above 0"):
            retained(tmp_path / "g", days)
    assert left(tmp_path / "g") == ["p0"]


def test_the_command_forgets_or_only_says(tmp_path, clock, capsys):
    store(tmp_path / "g", 0, 2)
    clock(31)
    store(tmp_path / "g", 2, 1)
    gallery = str(tmp_path / "g")
    assert cli.main(["retention", gallery, "--days", "30", "--dry-run"]) == 0
    assert capsys.readouterr().out == "2 of 3 photos of gallery g are older than 30 days\n"
    assert len(left(tmp_path / "g")) == 3
    assert cli.main(["retention", gallery, "--days", "30", "--json", str(tmp_path / "done.json")]) == 0
    assert capsys.readouterr().out == "forgot 2 photos of gallery g older than 30 days, 1 are left\n"
    assert '"forgotten": 2' in (tmp_path / "done.json").read_text()
    assert cli.main(["retention", gallery, "--days", "0"]) == 1
    assert capsys.readouterr().err.startswith("mgrl retention: photos are kept for a number of days above 0")
