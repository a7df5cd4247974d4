"""The tables of a gallery's ledger, and how a ledger of an older format gets them.

Statements are SQLAlchemy Core's, so that another engine can stand behind them; only the change of an older format,
which no other engine has, is SQLite's own.
"""

import time
import zlib
from typing import Final

import sqlalchemy as sa

METADATA: Final = sa.MetaData()
SEGMENTS: Final = sa.Table(
    "segments",
    METADATA,
    sa.Column("segment", sa.Integer, primary_key=True),  # the order of rows; never given twice
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    # Grows when compaction writes the segment anew: two files of different content never have the same name.
    sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
)
PHOTOS: Final = sa.Table(
    "photos",
    METADATA,
    sa.Column("row", sa.Integer, primary_key=True),
    sa.Column("photo_id", sa.Text, nullable=False, unique=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("content_hash", sa.LargeBinary, nullable=False),
    sa.Column("thumbnail", sa.LargeBinary, nullable=False),
    sa.Column("segment", sa.ForeignKey("segments.segment"), nullable=False),
    sa.Column("segment_row", sa.Integer, nullable=False),
    sa.Column("checksum", sa.Integer, nullable=False),  # of `photo_checksum`
    # Unix seconds when it was stored, never less than those of a photo that was there before: a clock that was put back
    # must not make photos look older than they are. Of photos from before format 4: when they were brought to it.
    sa.Column("stored_s", sa.Integer, nullable=False),
    # All ids in the order of rows without a look at the rows themselves, which are as large as their thumbnails: of a
    # million photos in half a second and not three. The order of rows is the order that breaks ties.
    sa.Index("photos_in_order", "segment", "segment_row", "photo_id"),
    sa.Index("photos_by_content", "content_hash", "photo_id"),
    sa.Index("photos_by_age", "stored_s"),
)
ALIASES: Final = sa.Table(
    "aliases",
    METADATA,
    # Further names of a photo: the same content under another id. No photo and alias have the same id.
    sa.Column("photo_id", sa.Text, primary_key=True),
    sa.Column("row", sa.ForeignKey("photos.row", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("source", sa.Text, nullable=False),
)
STATE: Final = sa.Table(
    "state",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),  # grows with every commit: readers look whether it did
    sa.Column("last_segment", sa.Integer, nullable=False, server_default="0"),  # the highest number ever given
)
DELETED: Final = sa.Table(
    "deleted",
    METADATA,
    # Rows of segments whose photo is gone; their vectors stay in the file until it is compacted.
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


def photo_checksum(photo_id: str, source: str, content_hash: bytes, thumbnail: bytes) -> int:
    """CRC-32 of what a row of PHOTOS says of its photo: against accidents to the ledger's pages."""
    return zlib.crc32(b"\0".join([photo_id.encode(), source.encode(), content_hash, thumbnail]))


def layout(connection: sa.Connection) -> int:
    """The format that the tables have, at most 4; gallery.json says it too, but only after an upgrade is done.

    1 has neither metadata nor deletions, 2 no aliases; neither has the checksums of photos or what compaction needs.
    3 does not know when photos were stored. Format 5 has the tables of 4, and other segments: `indexer.segments`.
    """
    tables = sa.inspect(connection)
    if tables.has_table(ALIASES.name):
        return 4 if any(column["name"] == "stored_s" for column in tables.get_columns(PHOTOS.name)) else 3
    return 2 if tables.has_table(STATE.name) else 1


def create_tables(connection: sa.Connection) -> None:
    """Make the tables that are not there yet, with their indices and the one row of STATE."""
    METADATA.create_all(connection)
    if connection.execute(sa.select(STATE)).one_or_none() is None:
        connection.execute(sa.insert(STATE), {"id": 1, "version": 1, "last_segment": 0})


def upgrade_tables(connection: sa.Connection) -> None:
    """Bring the tables of an older format to this one, in the caller's transaction, without enforced foreign keys."""
    before = layout(connection)
    if before == 4:
        return
    if before == 3:
        # A default is written once, not into every row with its thumbnail.
        now = int(time.time())
        connection.exec_driver_sql(f"ALTER TABLE photos ADD COLUMN stored_s INTEGER NOT NULL DEFAULT {now}")
        _index_photos(connection)
        return
    connection.exec_driver_sql("ALTER TABLE segments ADD COLUMN generation INTEGER NOT NULL DEFAULT 0")
    if before == 2:
        connection.exec_driver_sql("ALTER TABLE state ADD COLUMN last_segment INTEGER NOT NULL DEFAULT 0")
    _rebuild_photos(connection)
    create_tables(connection)
    highest = sa.select(sa.func.coalesce(sa.func.max(SEGMENTS.c.segment), 0)).scalar_subquery()
    connection.execute(sa.update(STATE).values(last_segment=highest))


def _rebuild_photos(connection: sa.Connection) -> None:
    """Photos with checksums, and without the constraints that aliases and compaction cannot keep.

    SQLite changes no constraint of a table: its manual has the table copied, dropped and renamed.
    """
    scratch = sa.MetaData()
    SEGMENTS.to_metadata(scratch)
    copy = PHOTOS.to_metadata(scratch, name="photos_3")
    connection.execute(sa.schema.CreateTable(copy))
    driver: Final = connection.connection.dbapi_connection
    assert driver is not None
    driver.create_function("photo_checksum", 4, photo_checksum, deterministic=True)
    kept = [column.name for column in PHOTOS.columns if column.name not in ("checksum", "stored_s")]
    checked = sa.func.photo_checksum(PHOTOS.c.photo_id, PHOTOS.c.source, PHOTOS.c.content_hash, PHOTOS.c.thumbnail)
    everything = sa.select(*(PHOTOS.c[name] for name in kept), checked, sa.literal(int(time.time())))
    connection.execute(sa.insert(copy).from_select([*kept, "checksum", "stored_s"], everything))
    connection.exec_driver_sql("DROP TABLE photos")
    connection.exec_driver_sql("ALTER TABLE photos_3 RENAME TO photos")
    _index_photos(connection)


def _index_photos(connection: sa.Connection) -> None:
    for index in PHOTOS.indexes:
        index.create(connection, checkfirst=True)
