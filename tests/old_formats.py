"""Makes galleries what older versions of mgrl wrote, tables included."""

import hashlib
import json
import sqlite3
from pathlib import Path

from indexer.contents import read_segments
from indexer.segments import path_of
from indexer.store import Store

PHOTOS = """CREATE TABLE photos_old (
	"row" INTEGER NOT NULL,
	photo_id TEXT NOT NULL,
	source TEXT NOT NULL,
	content_hash BLOB NOT NULL,
	thumbnail BLOB NOT NULL,
	segment INTEGER NOT NULL,
	segment_row INTEGER NOT NULL,
	PRIMARY KEY ("row"),
	UNIQUE (segment, segment_row),
	UNIQUE (photo_id),
	UNIQUE (content_hash),
	FOREIGN KEY(segment) REFERENCES segments (segment)
)"""


def age_back(folder: Path, version: int) -> None:
    """Format 4 had raw vectors in its segments, 3 did not know when photos were stored; 2 had no aliases and checksums.

    Format 1 had neither metadata nor deletions.
    """
    ledger = sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)
    _make_raw(folder, ledger)
    if version == 3:
        ledger.execute("DROP INDEX photos_by_age")
        ledger.execute("ALTER TABLE photos DROP COLUMN stored_s")
    elif version < 3:
        _age_to_2(ledger)
    if version == 1:
        for table in ("photo_metadata", "fields", "deleted", "state"):
            ledger.execute(f"DROP TABLE {table}")
    ledger.close()
    manifest = json.loads((folder / "gallery.json").read_text())
    (folder / "gallery.json").write_text(json.dumps(manifest | {"format_version": version}))


def _make_raw(folder: Path, ledger: sqlite3.Connection) -> None:
    store = Store.open(folder)
    with store.reading() as connection:
        segments = read_segments(connection)
    for segment in segments:
        data = store.open_segment(segment).embeddings().astype("<f4").tobytes()
        path_of(folder, segment).unlink()
        path_of(folder, segment).write_bytes(data)
        row = len(data), hashlib.sha256(data).hexdigest(), segment.segment
        ledger.execute("UPDATE segments SET bytes = ?, sha256 = ? WHERE segment = ?", row)
    store.close()


def _age_to_2(ledger: sqlite3.Connection) -> None:
    ledger.execute(PHOTOS)
    columns = "row, photo_id, source, content_hash, thumbnail, segment, segment_row"
    ledger.execute(f"INSERT INTO photos_old SELECT {columns} FROM photos")
    for table in ("aliases", "photos"):
        ledger.execute(f"DROP TABLE {table}")
    ledger.execute("ALTER TABLE photos_old RENAME TO photos")
    ledger.execute("CREATE INDEX photos_in_order ON photos (segment, segment_row, photo_id)")
    ledger.execute("ALTER TABLE segments DROP COLUMN generation")
    ledger.execute("ALTER TABLE state DROP COLUMN last_segment")
