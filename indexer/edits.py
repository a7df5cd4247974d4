"""What a writer changes in a ledger, inside its caller's transaction: photos, other names, metadata, deletions.

A photo's other names (aliases) stand for it wherever one is named. They go with it; where it is replaced under its own
name, the content that was there lives on under the first of them.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa

from indexer.contents import read_fields
from indexer.metadata import Changes, Kind, Value, from_json, new_fields, to_json
from indexer.tables import ALIASES, DELETED, FIELDS, PHOTO_METADATA, PHOTOS, SEGMENTS, STATE, photo_checksum

if TYPE_CHECKING:
    from indexer.store import Alias, NewPhoto

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
    if new := new_fields(read_fields(connection), kinds):
        connection.execute(sa.insert(FIELDS), [{"name": field, "kind": kind.value} for field, kind in new.items()])


def next_segment(connection: sa.Connection) -> int:
    """A number that no segment ever had: a reader may still look for the file of one that is gone."""
    last: int = connection.execute(sa.select(STATE.c.last_segment)).scalar_one()
    connection.execute(sa.update(STATE).values(last_segment=last + 1))
    return last + 1


def now_s(connection: sa.Connection) -> int:
    """What time it is, but not before any photo was stored: clocks are put back."""
    newest = connection.execute(sa.select(sa.func.max(PHOTOS.c.stored_s))).scalar() or 0
    return max(int(time.time()), newest)


def insert_photos(
    connection: sa.Connection, segment: Mapping[str, Any], photos: Sequence["NewPhoto"], stored_s: int
) -> None:
    """Add a segment, a row of SEGMENTS, and its photos, in the order of its rows, as stored at a time of `now_s`."""
    connection.execute(sa.insert(SEGMENTS), segment)
    rows = []
    for segment_row, photo in enumerate(photos):
        columns = {name: value for name, value in vars(photo).items() if name != "metadata"}
        checksum = photo_checksum(**columns)
        place = {"segment": segment["segment"], "segment_row": segment_row}
        rows.append({**columns, **place, "checksum": checksum, "stored_s": stored_s})
    connection.execute(sa.insert(PHOTOS), rows)
    described = {photo.photo_id: to_json(photo.metadata) for photo in photos if photo.metadata}
    if described:
        values = [
            {"row": row, "values": described[photo_id]} for photo_id, row in rows_of(connection, described).items()
        ]
        connection.execute(sa.insert(PHOTO_METADATA), values)


def insert_aliases(connection: sa.Connection, aliases: Sequence["Alias"]) -> list[str]:
    """Give photos further names; one of them may be called by a name that comes before in the list.

    Returns:
        The photos that are not there.
    """
    rows = rows_of(connection, [alias.of for alias in aliases])
    new = []
    for alias in aliases:
        if alias.of in rows:
            rows[alias.photo_id] = rows[alias.of]
            new.append({"photo_id": alias.photo_id, "row": rows[alias.of], "source": alias.source})
    if new:
        connection.execute(sa.insert(ALIASES), new)
    return [alias.of for alias in aliases if alias.of not in rows]


def names_taken(connection: sa.Connection, photo_ids: Iterable[str]) -> list[str]:
    """Which of these ids photos or aliases have."""
    return list(rows_of(connection, photo_ids))


def contents_of(connection: sa.Connection, photo_ids: Iterable[str]) -> dict[str, bytes]:
    """The content hash of each photo, by its id or an alias of it; ids that are not there are left out."""
    found: dict[str, bytes] = {}
    for some in _chunks(photo_ids):
        own = sa.select(PHOTOS.c.photo_id, PHOTOS.c.content_hash).where(PHOTOS.c.photo_id.in_(some))
        other = sa.select(ALIASES.c.photo_id, PHOTOS.c.content_hash).join(PHOTOS).where(ALIASES.c.photo_id.in_(some))
        for query in (own, other):
            found |= {row.photo_id: row.content_hash for row in connection.execute(query)}
    return found


def change_metadata(connection: sa.Connection, photos: Changes) -> None:
    """Set the fields that are named, or take them away where None; ids that are not there are passed over."""
    changes: dict[int, dict[str, Value | None]] = {}
    for photo_id, row in rows_of(connection, photos).items():
        changes.setdefault(row, {}).update(photos[photo_id])
    changed = []
    for some in _chunks(changes):
        before = read_values(connection, some)
        for row in some:
            named = changes[row]
            kept = {field: value for field, value in before.get(row, {}).items() if field not in named}
            new = to_json({field: value for field, value in named.items() if value is not None})
            changed.append({"row": row, "values": kept | new})
        connection.execute(sa.delete(PHOTO_METADATA).where(PHOTO_METADATA.c.row.in_(some)))
    if changed:
        connection.execute(sa.insert(PHOTO_METADATA), changed)


def changed_metadata(connection: sa.Connection, photos: Changes) -> Changes:
    """Of what photos are to have, by their own ids, that which differs from what is known of them."""
    changed: dict[str, Mapping[str, Value | None]] = {}
    for some in _chunks(photos):
        ids = sa.select(PHOTOS.c.photo_id, PHOTO_METADATA.c["values"]).select_from(PHOTOS.outerjoin(PHOTO_METADATA))
        for photo_id, known in connection.execute(ids.where(PHOTOS.c.photo_id.in_(some))):
            named, before = photos[photo_id], known or {}
            values = to_json({field: value for field, value in named.items() if value is not None})
            # Tags are a tuple here and a list there.
            if any(_plain(values.get(field)) != before.get(field) for field in named):
                changed[photo_id] = named
    return changed


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def read_values(connection: sa.Connection, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Stored metadata by row of PHOTOS, as JSON has it."""
    stored = connection.execute(sa.select(PHOTO_METADATA).where(PHOTO_METADATA.c.row.in_(rows))).all()
    return {row.row: row[1] for row in stored}


def delete_photos(connection: sa.Connection, photo_ids: Iterable[str]) -> list[str]:
    """Take photos out, with their thumbnails, metadata and all their names; their vectors become rows of nobody.

    Returns:
        The ids that are not there.
    """
    asked = list(dict.fromkeys(photo_ids))
    found = rows_of(connection, asked)
    for some in _chunks(dict.fromkeys(found.values())):
        places = [{"segment": segment, "segment_row": row} for segment, row in places_of(connection, some)]
        connection.execute(sa.insert(DELETED), places)
        connection.execute(sa.delete(PHOTOS).where(PHOTOS.c.row.in_(some)))
    return [photo_id for photo_id in asked if photo_id not in found]


def make_way(connection: sa.Connection, photos: Sequence["NewPhoto"]) -> list["NewPhoto"]:
    """Free the names of photos that are to come; they may have been there with other content.

    A photo of such a name is deleted, unless it has an alias: then it goes by that. An alias is taken away.

    Returns:
        The photos, with what was known about those of their names where they say nothing.
    """
    photo_ids = [photo.photo_id for photo in photos]
    rows = rows_of(connection, photo_ids)
    known = {row: values for some in _chunks(rows.values()) for row, values in read_values(connection, some).items()}
    for some in _chunks(photo_ids):
        connection.execute(sa.delete(ALIASES).where(ALIASES.c.photo_id.in_(some)))
    own = names_taken(connection, rows)
    heirs: dict[int, Any] = {}
    for owned in _chunks(rows[photo_id] for photo_id in own):
        others = sa.select(ALIASES).where(ALIASES.c.row.in_(owned)).order_by(ALIASES.c.photo_id)
        for alias in connection.execute(others):
            heirs.setdefault(alias.row, alias)
    for alias in heirs.values():
        _rename(connection, alias)
    delete_photos(connection, [photo_id for photo_id in own if rows[photo_id] not in heirs])
    kinds = read_fields(connection)
    before = {photo_id: from_json(known[row], kinds) for photo_id, row in rows.items() if row in known}
    return [replace(photo, metadata={**before.get(photo.photo_id, {}), **photo.metadata}) for photo in photos]


def _rename(connection: sa.Connection, alias: Any) -> None:
    """Let a photo go by one of its aliases."""
    this = PHOTOS.c.row == alias.row
    photo = connection.execute(sa.select(PHOTOS.c.content_hash, PHOTOS.c.thumbnail).where(this)).one()
    checksum = photo_checksum(alias.photo_id, alias.source, photo.content_hash, photo.thumbnail)
    new = {"photo_id": alias.photo_id, "source": alias.source, "checksum": checksum}
    connection.execute(sa.delete(ALIASES).where(ALIASES.c.photo_id == alias.photo_id))
    connection.execute(sa.update(PHOTOS).where(this).values(new))


def places_of(connection: sa.Connection, rows: Iterable[int]) -> list[tuple[int, int]]:
    """(segment, its row) of rows of PHOTOS."""
    places: list[tuple[int, int]] = []
    for some in _chunks(dict.fromkeys(rows)):
        found = connection.execute(sa.select(PHOTOS.c.segment, PHOTOS.c.segment_row).where(PHOTOS.c.row.in_(some)))
        places += [(segment, row) for segment, row in found]
    return places


def photos_in(connection: sa.Connection, rows: Iterable[int]) -> dict[str, bytes]:
    """Own id -> content hash of rows of PHOTOS."""
    photos: dict[str, bytes] = {}
    for some in _chunks(dict.fromkeys(rows)):
        query = sa.select(PHOTOS.c.photo_id, PHOTOS.c.content_hash).where(PHOTOS.c.row.in_(some))
        photos |= {row.photo_id: row.content_hash for row in connection.execute(query)}
    return photos


def ids_of_contents(connection: sa.Connection, contents: Iterable[bytes]) -> list[str]:
    """The own ids of all photos of these contents."""
    ids: list[str] = []
    for some in _chunks(dict.fromkeys(contents)):
        ids += connection.execute(sa.select(PHOTOS.c.photo_id).where(PHOTOS.c.content_hash.in_(some))).scalars()
    return ids


def rows_of(connection: sa.Connection, photo_ids: Iterable[str]) -> dict[str, int]:
    """Id -> row of PHOTOS, for those that photos or aliases have."""
    rows: dict[str, int] = {}
    for some in _chunks(dict.fromkeys(photo_ids)):
        for table in (PHOTOS, ALIASES):
            found = connection.execute(sa.select(table.c.photo_id, table.c.row).where(table.c.photo_id.in_(some)))
            rows.update((photo_id, row) for photo_id, row in found)
    return rows


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    waiting = iter(items)
    while some := list(islice(waiting, _AT_ONCE)):
        yield some
