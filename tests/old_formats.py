"""Makes galleries what older versions of mgrl wrote, tables included."""

import json
import sqlite3
from pathlib import Path

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
    """Format 3 did not know when photos were stored; 2 had no aliases and checksums, 1 no metadata and deletions."""
    ledger = sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)
    if version == 3:
        ledger.execute("DROP INDEX photos_by_age")
        ledger.execute("ALTER TABLE photos DROP COLUMN stored_s")
    else:
        _age_to_2(ledger)
    if version == 1:
        for table in ("photo_metadata", "fields", "deleted", "state"):
            ledger.execute(f"DROP TABLE {table}")
    ledger.close()
    manifest = json.loads((folder / "gallery.json").read_text())
    (folder / "gallery.json").write_text(json.dumps(manifest | {"format_version": version}))


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
