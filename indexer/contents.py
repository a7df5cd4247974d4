"""What a ledger says a gallery holds, read in one transaction: segments, photos, deletions and metadata together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from indexer.attributes import Attributes
from indexer.errors import GalleryError
from indexer.metadata import Kind, Value, from_json
from indexer.tables import ALIASES, DELETED, FIELDS, PHOTO_METADATA, PHOTOS, SEGMENTS, STATE, layout


@dataclass(frozen=True, eq=False)
class Contents:
    """A gallery at one moment.

    Args:
        version: grows with every commit to the ledger.
        segments: rows of the table, in order.
        photo_ids: in the order of rows; empty where the photo was deleted.
        present: (rows,) bool, False where the photo was deleted; None while none was.
        attributes: the photos' metadata.
    """

    version: int
    segments: Sequence[Any]
    photo_ids: list[str]
    present: npt.NDArray[np.bool_] | None
    attributes: Attributes


def read_contents(connection: sa.Connection, gallery: str) -> Contents:
    """Everything but the vectors.

    Raises:
        GalleryError: the tables disagree.
    """
    is_old = is_format_1(connection)
    segments = read_segments(connection)
    order = PHOTOS.c.segment, PHOTOS.c.segment_row
    ids = list(connection.execute(sa.select(PHOTOS.c.photo_id).order_by(*order)).scalars())
    rows = sum(segment.rows for segment in segments)
    gone = np.empty(0, np.int64) if is_old else _deleted_rows(connection, segments)
    if rows != len(ids) + len(gone):
        raise GalleryError(f"gallery {gallery}: the ledger's photos and segments disagree; ingest it anew")
    present = None
    if len(gone):
        present = np.ones(rows, np.bool_)
        present[gone] = False
        there = iter(ids)
        ids = [next(there) if is_there else "" for is_there in present]
    kinds = {} if is_old else read_fields(connection)
    return Contents(read_version(connection), segments, ids, present, _attributes(connection, kinds, rows, present))


def is_format_1(connection: sa.Connection) -> bool:
    """Whether the ledger is still without metadata and deletions."""
    return layout(connection) == 1


def read_segments(connection: sa.Connection) -> Sequence[Any]:
    """The live segments in order, in any format."""
    columns = [column for column in SEGMENTS.columns if column.name != "generation"]
    generation = SEGMENTS.c.generation if layout(connection) >= 3 else sa.literal(0).label("generation")
    return connection.execute(sa.select(*columns, generation).order_by(SEGMENTS.c.segment)).all()


def read_names(connection: sa.Connection) -> Iterator[tuple[str, bytes]]:
    """Every id, aliases too, with the content hash of its photo."""
    yield from read_own_names(connection)
    if layout(connection) >= 3:
        for row in connection.execute(sa.select(ALIASES.c.photo_id, PHOTOS.c.content_hash).join(PHOTOS)):
            yield row.photo_id, row.content_hash


def read_own_names(connection: sa.Connection) -> Iterator[tuple[str, bytes]]:
    """Every photo's own id with its content hash."""
    for row in connection.execute(sa.select(PHOTOS.c.photo_id, PHOTOS.c.content_hash)):
        yield row.photo_id, row.content_hash


def read_names_of(connection: sa.Connection, content_hash: bytes) -> list[tuple[str, str]]:
    """(id, source) of every photo of this content, and then of their aliases."""
    is_it = PHOTOS.c.content_hash == content_hash
    found = [*connection.execute(sa.select(PHOTOS.c.photo_id, PHOTOS.c.source).where(is_it).order_by(PHOTOS.c.row))]
    if layout(connection) >= 3:
        aliases = sa.select(ALIASES.c.photo_id, ALIASES.c.source).join(PHOTOS).where(is_it)
        found += connection.execute(aliases.order_by(ALIASES.c.photo_id)).all()
    return [(row.photo_id, row.source) for row in found]


def read_primary_id(connection: sa.Connection, photo_id: str) -> str:
    """The photo's own id where this is an alias, otherwise the same."""
    if layout(connection) < 3:
        return photo_id
    found = connection.execute(sa.select(PHOTOS.c.photo_id).join(ALIASES).where(ALIASES.c.photo_id == photo_id))
    return found.scalar() or photo_id


def read_version(connection: sa.Connection) -> int:
    """How often the ledger was written, 0 in format 1."""
    return 0 if is_format_1(connection) else connection.execute(sa.select(STATE.c.version)).scalar_one()


def read_fields(connection: sa.Connection) -> dict[str, Kind]:
    """The gallery's metadata fields."""
    return {row.name: Kind(row.kind) for row in connection.execute(sa.select(FIELDS).order_by(FIELDS.c.name))}


def read_metadata_of(connection: sa.Connection, photo_id: str) -> dict[str, Value]:
    """One photo's metadata; nothing for an unknown photo."""
    if is_format_1(connection):
        return {}
    values = connection.execute(
        sa.select(PHOTO_METADATA.c["values"]).join(PHOTOS).where(PHOTOS.c.photo_id == photo_id)
    ).scalar()
    return from_json(values or {}, read_fields(connection))


def _deleted_rows(connection: sa.Connection, segments: Sequence[Any]) -> npt.NDArray[np.int64]:
    starts, start = {}, 0
    for segment in segments:
        starts[segment.segment] = start
        start += segment.rows
    deleted = connection.execute(sa.select(DELETED)).all()
    return np.array([starts[row.segment] + row.segment_row for row in deleted], np.int64)


def _attributes(
    connection: sa.Connection, kinds: Mapping[str, Kind], rows: int, present: npt.NDArray[np.bool_] | None
) -> Attributes:
    if not kinds:
        return Attributes.build({}, rows, ())
    values = connection.execute(
        sa.select(PHOTO_METADATA.c["values"])
        .select_from(PHOTOS.outerjoin(PHOTO_METADATA))
        .order_by(PHOTOS.c.segment, PHOTOS.c.segment_row)
    ).scalars()
    where = range(rows) if present is None else np.flatnonzero(present).tolist()
    return Attributes.build(kinds, rows, ((row, of_row or {}) for row, of_row in zip(where, values, strict=True)))
