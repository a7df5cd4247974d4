"""Is a gallery whole: every checksum, every count, every file.

A gallery may be served and written while it is looked at: what is said is of one moment. What can be made whole again
is: the ledger's own indices and a saved layout follow from the rest.
"""

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from indexer.contents import read_fields, read_segments
from indexer.errors import DataError, GalleryError, ShapeError, StaleSnapshotError
from indexer.layout_files import layout_is_whole, no_layout
from indexer.locks import is_being_written
from indexer.metadata import from_json
from indexer.rows import check_rows
from indexer.segments import strays
from indexer.store import Store, StoreWriter
from indexer.tables import ALIASES, DELETED, PHOTO_METADATA, PHOTOS, layout

_COMPACTIONS: Final = 10
_AT_ONCE: Final = 1000


@dataclass(frozen=True)
class Fault:
    """What is wrong.

    Args:
        what: a sentence.
        photo_ids: the photos that are lost with it, where it is known.
    """

    what: str
    photo_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verification:
    """What was found.

    Args:
        photos: how many there are.
        segments: how many files of vectors.
        faults: what is wrong with the gallery now.
        repaired: what was.
    """

    photos: int
    segments: int
    faults: tuple[Fault, ...]
    repaired: tuple[Fault, ...] = ()


def verify(folder: Path, *, repair: bool = False, wait_s: float = 0.0) -> Verification:
    """Read all of a gallery and say what is wrong with it.

    Args:
        folder: the gallery's.
        repair: make whole what can be: remove stray files and a damaged layout, build the ledger's indices anew.
            Nothing that somebody ingested is removed.
        wait_s: seconds that a repair waits for another writer to end.

    Raises:
        GalleryError: no gallery there; the ledger cannot be read at all; or repairs while another process writes.
    """
    found = _look(folder)
    if not repair or not found.faults:
        return found
    with StoreWriter.open(folder, wait_s=wait_s) as writer:  # which removes stray files
        found = _joined(found, _look(folder, writer))
        _repair(writer)
        now = _look(folder, writer)
    return Verification(now.photos, now.segments, now.faults, tuple(f for f in found.faults if f not in now.faults))


def _joined(one: Verification, other: Verification) -> Verification:
    return Verification(other.photos, other.segments, tuple(dict.fromkeys([*one.faults, *other.faults])))


def _look(folder: Path, writer: StoreWriter | None = None) -> Verification:
    store = writer or Store.open(folder)
    try:
        for _ in range(_COMPACTIONS):
            try:
                return _look_once(store, is_ours=writer is not None)
            except StaleSnapshotError:
                continue
        raise StaleSnapshotError(f"gallery {store.name} is compacted again and again; verify it when that has ended")
    finally:
        if writer is None:
            store.close()


def _look_once(store: Store, *, is_ours: bool) -> Verification:
    with store.reading() as connection:
        segments = read_segments(connection)
        faults = [*_ledger_faults(connection), *_photo_faults(connection), *_count_faults(connection, segments)]
        photos = connection.execute(sa.select(sa.func.count()).select_from(PHOTOS)).scalar_one()
        ids = {segment.segment: tuple(_ids_in(connection, segment.segment)) for segment in segments}
    damaged = [fault for segment in segments if (fault := _segment_fault(store, segment, ids[segment.segment]))]
    if not layout_is_whole(store.folder, segments, store.manifest.dim):
        damaged.append(Fault("the saved layout of approximate search does not match its checksums, it was altered"))
    # What a writer has begun is not the ledger's yet.
    strays = [] if not is_ours and is_being_written(store.folder) else list(_stray_faults(store))
    return Verification(photos, len(segments), tuple(faults + damaged + strays))


def _ledger_faults(connection: sa.Connection) -> Iterator[Fault]:
    """SQLite's own checks: its pages, its indices, and what refers to what."""
    for (said,) in connection.exec_driver_sql("PRAGMA integrity_check"):
        if said != "ok":
            yield Fault(f"the ledger is damaged: {said}")
    for table, row, other, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield Fault(f"the ledger is damaged: row {row} of {table} names what {other} does not have")


def _photo_faults(connection: sa.Connection) -> Iterator[Fault]:
    """Photos whose row was altered, metadata that does not fit its fields, names that two have."""
    if layout(connection) >= 3:
        own = PHOTOS.c.photo_id, PHOTOS.c.source, PHOTOS.c.content_hash, PHOTOS.c.thumbnail, PHOTOS.c.checksum
        for *said, checksum in connection.execute(sa.select(*own).execution_options(yield_per=_AT_ONCE)):
            if _checksum(*said) != checksum:
                yield Fault("the ledger's row of a photo does not match its checksum, it was altered", (str(said[0]),))
        both = sa.select(PHOTOS.c.photo_id).join(ALIASES, ALIASES.c.photo_id == PHOTOS.c.photo_id)
        for photo_id in connection.execute(both).scalars():
            yield Fault("two photos have the same name", (photo_id,))
    if layout(connection) >= 2:
        kinds = read_fields(connection)
        stored = sa.select(PHOTOS.c.photo_id, PHOTO_METADATA.c["values"]).join(PHOTO_METADATA)
        try:
            for photo_id, values in connection.execute(stored.execution_options(yield_per=_AT_ONCE)):
                try:
                    from_json(values, kinds)
                except (DataError, KeyError, AttributeError, TypeError):
                    yield Fault("a photo's metadata does not fit the gallery's fields", (photo_id,))
        except ValueError as error:
            yield Fault(f"metadata in the ledger is no JSON ({error})")


def _checksum(*said: Any) -> int:
    """Of a row as it is, whatever type damage has given its values."""
    return zlib.crc32(b"\0".join(value.encode() if isinstance(value, str) else bytes(value) for value in said))


def _count_faults(connection: sa.Connection, segments: Any) -> Iterator[Fault]:
    """Every row of every segment has one photo or was deleted, and no other row has."""
    tables = [PHOTOS] if layout(connection) == 1 else [PHOTOS, DELETED]
    rows = {segment.segment: segment.rows for segment in segments}
    claims: dict[int, Counter[int]] = {segment: Counter() for segment in rows}
    for table in tables:
        places = connection.execute(sa.select(table.c.segment, table.c.segment_row))
        for segment, row in places.yield_per(_AT_ONCE):
            claims.setdefault(segment, Counter())[row] += 1
    for segment, claimed in claims.items():
        expected = rows.get(segment, 0)
        if (several := sum(count > 1 for count in claimed.values())) > 0:
            yield Fault(f"{several} rows of segment {segment} have more than one photo")
        if (unnamed := sum(row not in claimed for row in range(expected))) > 0:
            yield Fault(f"{unnamed} rows of segment {segment} have no photo and were not deleted")
        if (beyond := sum(not 0 <= row < expected for row in claimed)) > 0:
            yield Fault(f"{beyond} photos are in rows that segment {segment} does not have")


def _ids_in(connection: sa.Connection, segment: int) -> Iterator[str]:
    yield from connection.execute(sa.select(PHOTOS.c.photo_id).where(PHOTOS.c.segment == segment)).scalars()


def _segment_fault(store: Store, segment: Any, photo_ids: tuple[str, ...]) -> Fault | None:
    try:
        check_rows(store.open_segment(segment).embeddings(), segment.rows, store.manifest.dim)
    except StaleSnapshotError:
        raise
    except (GalleryError, ShapeError) as error:
        return Fault(str(error), photo_ids)
    return None


def _stray_faults(store: Store) -> Iterator[Fault]:
    with store.reading() as connection:
        found = strays(store.folder, read_segments(connection))
    for path in found:
        yield Fault(f"segments/{path.name} is no file of the gallery; a job that was killed has left it")


def _repair(writer: StoreWriter) -> None:
    """Make whole what follows from what is whole."""
    with writer.writing("the ledger could not be repaired") as connection:
        connection.exec_driver_sql("REINDEX")
    with writer.reading() as connection:
        segments = read_segments(connection)
    if not layout_is_whole(writer.folder, segments, writer.manifest.dim):
        with no_layout(writer.folder):
            pass
