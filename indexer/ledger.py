"""The files of a gallery folder: its manifest, its ledger's tables, and how a file is replaced for good.

`indexer.store` reads and appends; this module says what the bytes are. The ledger is reached through SQLAlchemy Core,
so that another engine can stand behind the same statements.
"""

import json
import os
import sqlite3
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from indexer.errors import GalleryError

FORMAT_VERSION: Final = 2
"""Format 1 had no metadata and no deletions. It is read as it is; the first writer adds the tables."""
_LEDGER: Final = "ledger.sqlite"

METADATA: Final = sa.MetaData()
SEGMENTS: Final = sa.Table(
    "segments",
    METADATA,
    sa.Column("segment", sa.Integer, primary_key=True),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
)
PHOTOS: Final = sa.Table(
    "photos",
    METADATA,
    sa.Column("row", sa.Integer, primary_key=True),  # grows with ingestion: the order that breaks ties
    sa.Column("photo_id", sa.Text, nullable=False, unique=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("content_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("thumbnail", sa.LargeBinary, nullable=False),
    sa.Column("segment", sa.ForeignKey("segments.segment"), nullable=False),
    sa.Column("segment_row", sa.Integer, nullable=False),
    sa.UniqueConstraint("segment", "segment_row"),
    # All ids in the order of rows without a look at the rows themselves, which are as large as their thumbnails: of a
    # million photos in half a second and not three.
    sa.Index("photos_in_order", "segment", "segment_row", "photo_id"),
)
STATE: Final = sa.Table(
    "state",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),  # grows with every commit: readers look whether it did
)
DELETED: Final = sa.Table(
    "deleted",
    METADATA,
    # Rows of segments whose photo is gone; their vectors stay in the file.
    sa.Column("segment", sa.ForeignKey("segments.segment"), primary_key=True),
    sa.Column("segment_row", sa.Integer, primary_key=True),
)
FIELDS: Final = sa.Table(
    "fields",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
)
PHOTO_METADATA: Final = sa.Table(
    "photo_metadata",
    METADATA,
    sa.Column("row", sa.ForeignKey("photos.row", ondelete="CASCADE"), primary_key=True),
    sa.Column("values", sa.JSON, nullable=False),  # field -> value, as `indexer.metadata.to_json` writes it
)


@dataclass(frozen=True)
class Manifest:
    """What gallery.json says.

    Args:
        format_version: layout of the folder; this code reads `FORMAT_VERSION`.
        model_hash: names the encoder that made every embedding of the gallery.
        dim: numbers per region.
        created: UTC, ISO 8601.
    """

    format_version: int
    model_hash: str
    dim: int
    created: str


def folder_name(folder: Path) -> str:
    """The last part of a path, also for "."; messages may go over the wire and hold no more of it."""
    return folder.resolve().name


def replace_file(path: Path, data: bytes) -> None:
    """Write a file that survives a crash: the old bytes or the new, never a mixture."""
    scratch = path.with_name(path.name + ".tmp")
    with scratch.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
    _fsync_folder(path.parent)  # without this the rename itself can be lost


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def manifest_path(folder: Path) -> Path:
    """Where a gallery says that it is one."""
    return folder / "gallery.json"


def segment_path(folder: Path, segment: int) -> Path:
    """Where a segment's vectors lie."""
    return folder / "segments" / f"{segment:06}.vec"


def read_manifest(folder: Path) -> Manifest:
    """What a gallery says about itself.

    Raises:
        GalleryError: no gallery there, a damaged one, or one of another format.
    """
    name = folder_name(folder)
    try:
        raw = json.loads(manifest_path(folder).read_bytes())
        version = raw["format_version"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise GalleryError(f"{name} is no gallery (no gallery.json in it); make one with `mgrl ingest`") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GalleryError(f"gallery {name}: its gallery.json cannot be read; restore it from a copy") from error
    if version not in range(1, FORMAT_VERSION + 1):
        raise GalleryError(
            f"gallery {name} has format {version}, this version of mgrl reads formats 1 to {FORMAT_VERSION}; "
            "use the version that wrote it or ingest the photos anew"
        )
    if not (folder / _LEDGER).is_file():
        raise GalleryError(f"gallery {name}: its {_LEDGER} is missing; restore it from a copy")
    try:
        return Manifest(version, str(raw["model_hash"]), int(raw["dim"]), str(raw["created"]))
    except (KeyError, TypeError, ValueError) as error:
        raise GalleryError(f"gallery {name}: its gallery.json lacks {error}; restore it from a copy") from error


def create(folder: Path, model_hash: str, dim: int) -> None:
    """Make an empty gallery in a folder; the caller holds its lock. Unless gallery.json is there, none was made."""
    (folder / "segments").mkdir(exist_ok=True)
    engine = open_engine(folder)
    try:
        # An earlier attempt may have died anywhere before gallery.json; nothing in its ledger was acknowledged.
        METADATA.drop_all(engine)
        _create_tables(engine)
    finally:
        engine.dispose()
    _fsync_folder(folder)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = Manifest(FORMAT_VERSION, model_hash, dim, created)
    _write_manifest(folder, manifest)
    _fsync_folder(folder.resolve().parent)


def upgrade(folder: Path, manifest: Manifest) -> Manifest:
    """Bring a gallery of an older format to this one; the caller holds its lock. Its photos stay as they are."""
    if manifest.format_version == FORMAT_VERSION:
        return manifest
    engine = open_engine(folder)
    try:
        _create_tables(engine)
    finally:
        engine.dispose()
    upgraded = replace(manifest, format_version=FORMAT_VERSION)
    _write_manifest(folder, upgraded)
    return upgraded


def _create_tables(engine: sa.Engine) -> None:
    """Make the tables that are not there yet."""
    METADATA.create_all(engine)
    for index in PHOTOS.indexes:
        index.create(engine, checkfirst=True)
    with engine.begin() as connection:
        if connection.execute(sa.select(STATE)).one_or_none() is None:
            connection.execute(sa.insert(STATE), {"id": 1, "version": 1})


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    replace_file(manifest_path(folder), json.dumps(asdict(manifest), indent=2).encode())


def empty_log(engine: sa.Engine) -> None:
    """Bring the write-ahead log into the ledger and cut it off: until then, both hold what was overwritten.

    A reader in the middle of its transaction puts that off to a later change, or to when the last reader has closed.
    """
    connection = engine.raw_connection()  # outside of any transaction
    connection.detach()  # what is set here is for nobody else
    try:
        with suppress(sqlite3.OperationalError):
            connection.cursor().execute("PRAGMA busy_timeout=500")
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def open_engine(folder: Path) -> sa.Engine:
    """The ledger's SQLite file: write-ahead log, so that readers never wait, and a sync at every commit."""
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(folder.resolve() / _LEDGER)))

    @sa.event.listens_for(engine, "connect")
    def _settle(connection: Any, _: Any) -> None:
        # The driver must not begin transactions on its own: it would leave SELECTs out of them.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        # In WAL mode only FULL syncs the log at every commit; NORMAL may lose the last ones to a power cut.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        # What is deleted is overwritten: thumbnails and metadata of people must not lie about in free pages.
        connection.execute("PRAGMA secure_delete=ON")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine
