"""What a writer changes in a ledger besides adding photos: metadata and deletions, inside its caller's transaction."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from indexer.contents import read_fields
from indexer.errors import DataError
from indexer.ledger import DELETED, FIELDS, PHOTO_METADATA, PHOTOS, STATE
from indexer.metadata import MAX_FIELDS, Kind, Value, to_json

T = TypeVar("T")

_AT_ONCE: Final = 500
"""Ids a statement looks up: SQLite takes 32,766 variables, older ones 999."""


def touch(connection: sa.Connection) -> None:
    """Tell readers that something changed."""
    connection.execute(sa.update(STATE).values(version=STATE.c.version + 1))


def declare_fields(connection: sa.Connection, kinds: Mapping[str, Kind]) -> None:
    """Add the fields that are new.

    Raises:
        DataError: one has another kind in this gallery, or there would be too many.
    """
    known = read_fields(connection)
    for field, kind in kinds.items():
        if known.get(field, kind) is not kind:
            raise DataError(f"field {field} is a {known[field]} in this gallery, not a {kind}; give it another name")
    new = [{"name": field, "kind": kind.value} for field, kind in kinds.items() if field not in known]
    if len(known) + len(new) > MAX_FIELDS:
        raise DataError(f"a gallery may have {MAX_FIELDS} metadata fields, this one would have {len(known) + len(new)}")
    if new:
        connection.execute(sa.insert(FIELDS), new)


def insert_metadata(connection: sa.Connection, photos: Mapping[str, Mapping[str, Value]]) -> None:
    """Metadata of photos that have none yet."""
    described = {photo_id: values for photo_id, values in photos.items() if values}
    rows = {photo.photo_id: photo.row for photo in _found(connection, described)}
    if rows:
        values = [{"row": row, "values": to_json(described[photo_id])} for photo_id, row in rows.items()]
        connection.execute(sa.insert(PHOTO_METADATA), values)


def change_metadata(connection: sa.Connection, photos: Mapping[str, Mapping[str, Value | None]]) -> None:
    """Set the fields that are named, or take them away where None; ids that are not there are passed over."""
    rows = {photo.row: photo.photo_id for photo in _found(connection, photos)}
    changed = []
    for some in _chunks(rows):
        stored = connection.execute(sa.select(PHOTO_METADATA).where(PHOTO_METADATA.c.row.in_(some))).all()
        before = {row.row: row[1] for row in stored}
        for row in some:
            named = photos[rows[row]]
            kept = {field: value for field, value in before.get(row, {}).items() if field not in named}
            new = to_json({field: value for field, value in named.items() if value is not None})
            changed.append({"row": row, "values": kept | new})
        connection.execute(sa.delete(PHOTO_METADATA).where(PHOTO_METADATA.c.row.in_(some)))
    if changed:
        connection.execute(sa.insert(PHOTO_METADATA), changed)


def delete_photos(connection: sa.Connection, photo_ids: Sequence[str]) -> list[str]:
    """Take photos out, with their thumbnails and metadata; their vectors become rows of nobody.

    Returns:
        The ids that are not there.
    """
    found = _found(connection, photo_ids)
    if found:
        gone = [{"segment": photo.segment, "segment_row": photo.segment_row} for photo in found]
        connection.execute(sa.insert(DELETED), gone)
        for some in _chunks(photo.row for photo in found):
            connection.execute(sa.delete(PHOTOS).where(PHOTOS.c.row.in_(some)))
    there = {photo.photo_id for photo in found}
    return [photo_id for photo_id in photo_ids if photo_id not in there]


def _found(connection: sa.Connection, photo_ids: Iterable[str]) -> list[Any]:
    columns = PHOTOS.c.row, PHOTOS.c.photo_id, PHOTOS.c.segment, PHOTOS.c.segment_row
    found: list[Any] = []
    for some in _chunks(dict.fromkeys(photo_ids)):
        found += connection.execute(sa.select(*columns).where(PHOTOS.c.photo_id.in_(some))).all()
    return found


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    waiting = iter(items)
    while some := list(islice(waiting, _AT_ONCE)):
        yield some
