"""Takes what was deleted out of a gallery's files for good, while it is served.

Deleted photos leave rows in their segments that nothing names. Compaction writes such segments anew without them, many
small segments as one, and those of older formats as files are written now: the new files first, each synced; then one
commit that makes them the gallery's; then the old files go. Rows keep their order, so no ranking changes. A crash
before the commit leaves files that the next writer removes, one after it leaves old ones that the next writer removes.

A reader in the middle of the old files gets `StaleSnapshotError` and reads again; a gallery that is open has them
mapped, and keeps what it has mapped. A saved layout goes before the commit, for it tells of the same vectors. The
ledger is written anew (VACUUM): its pages may hold copies of what has moved to other pages before it was deleted.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from indexer import edits, ledger, versions
from indexer.contents import read_segments
from indexer.errors import GalleryError, GalleryHeldError, unknown_photo
from indexer.layout_files import no_layout
from indexer.segments import is_raw, row_bytes, write_segment
from indexer.store import StoreWriter
from indexer.tables import DELETED, PHOTOS, SEGMENTS

SEGMENT_BYTES: Final = 64 << 20
"""Segments are put together up to this; compaction holds two of them in memory."""

_FAILURE: Final = "its vectors could not be written anew, it is as it was"


@dataclass(frozen=True)
class Compaction:
    """What compaction did.

    Args:
        segments_before: how many files the vectors were in.
        segments_after: how many they are in now.
        removed: photos whose vectors were taken away.
        freed_bytes: by which segments and ledger are smaller now; the derived layout is gone besides.
    """

    segments_before: int
    segments_after: int
    removed: int
    freed_bytes: int


@dataclass(frozen=True, eq=False)
class _Run:
    """Neighbouring segments that become one, and the rows of each that stay."""

    segments: Sequence[Any]
    kept: Sequence[npt.NDArray[np.intp]]

    @property
    def rows(self) -> int:
        return sum(map(len, self.kept))

    @property
    def is_changed(self) -> bool:
        return len(self.segments) != 1 or self.rows != self.segments[0].rows

    def joined(self, other: "_Run") -> "_Run":
        return _Run([*self.segments, *other.segments], [*self.kept, *other.kept])


def compact(writer: StoreWriter) -> Compaction:
    """Remove the vectors of deleted photos, and put small segments together; all or, after a crash, nothing.

    Raises:
        GalleryError: a segment is damaged, the disk refuses (the gallery is as it was), or a reader that does not end
            keeps the ledger's log from being emptied.
    """
    versions.erase_superseded(writer.root)
    return _rewrite(writer, list(_merged(_runs(writer), writer.manifest.dim)))


def forget(writer: StoreWriter, photo_ids: Sequence[str]) -> Compaction:
    """Delete photos, by any of their names, and leave no byte of them in the folder; all or, after a crash, none.

    Vectors, thumbnails, metadata, ids, sources and content hashes are gone from segments, ledger, its log and layout
    of every version of the gallery when this returns. What was deleted before from the same segments goes as well.
    Only these segments are written anew, but all of the ledger.

    Raises:
        UnknownPhotoError: an id is not there.
        GalleryHeldError: `mgrl reindex` is at work on another version.
        GalleryError: as `compact`.
    """
    with writer.reading() as connection:
        rows = edits.rows_of(connection, photo_ids)
        if missing := [photo_id for photo_id in photo_ids if photo_id not in rows]:
            raise unknown_photo(writer.name, missing[0])
        places = edits.places_of(connection, rows.values())
        photos = edits.photos_in(connection, rows.values())
    versions.erase_superseded(writer.root)
    for other in versions.unfinished(writer.root):
        with _unfinished(writer, other) as unfinished:
            with unfinished.reading() as connection:
                # It has no aliases yet, and knows a photo that was renamed since by its earlier name.
                there = list(edits.rows_of(connection, {*photo_ids, *photos}))
                there += edits.ids_of_contents(connection, photos.values())
            if there:
                forget(unfinished, there)
    touched = {segment for segment, _ in places}
    runs = [run for run in _runs(writer, places) if run.segments[0].segment in touched]
    return _rewrite(writer, runs, lambda connection: edits.delete_photos(connection, photo_ids))


def _unfinished(writer: StoreWriter, version: Path) -> StoreWriter:
    """The writer of a version that `mgrl reindex` is making."""
    try:
        return StoreWriter.open(version)
    except GalleryHeldError as error:
        raise GalleryHeldError(
            f"gallery {writer.name} is being encoded anew by `mgrl reindex`, which would keep what is forgotten; stop "
            "that (it goes on where it was), or wait until it has ended"
        ) from error


def _runs(writer: StoreWriter, gone: Sequence[tuple[int, int]] = ()) -> list[_Run]:
    """Every segment as a run of its own, without deleted rows and those that are `gone`."""
    with writer.reading() as connection:
        segments = read_segments(connection)
        deleted = [(row.segment, row.segment_row) for row in connection.execute(sa.select(DELETED))]
    kept = {segment.segment: np.ones(segment.rows, np.bool_) for segment in segments}
    for segment, row in (*deleted, *gone):
        kept[segment][row] = False
    return [_Run([segment], [np.flatnonzero(kept[segment.segment])]) for segment in segments]


def _merged(runs: Sequence[_Run], dim: int) -> Iterator[_Run]:
    """Neighbours put together up to `SEGMENT_BYTES`."""
    most = max(1, SEGMENT_BYTES // row_bytes(dim))
    waiting: _Run | None = None
    for run in runs:
        if waiting is None:
            waiting = run
        elif waiting.rows + run.rows <= most:
            waiting = waiting.joined(run)
        else:
            yield waiting
            waiting = run
    if waiting is not None:
        yield waiting


def _rewrite(
    writer: StoreWriter, runs: Sequence[_Run], also: Callable[[sa.Connection], object] = lambda _: None
) -> Compaction:
    """Write these runs anew, and do something else in the same commit; then erase what is gone."""
    dim = writer.manifest.dim
    changed = [run for run in runs if run.is_changed or is_raw(run.segments[0].bytes, run.rows, dim)]
    size_before = _size(writer)
    before = len(_runs(writer))
    if changed:
        _commit(writer, changed, also)
    ledger.write_anew(writer.engine, writer.folder)
    removed = sum(segment.rows for run in changed for segment in run.segments) - sum(run.rows for run in changed)
    return Compaction(before, len(_runs(writer)), removed, size_before - _size(writer))


def _commit(writer: StoreWriter, runs: Sequence[_Run], also: Callable[[sa.Connection], object]) -> None:
    needs = sum(run.rows for run in runs) * row_bytes(writer.manifest.dim)
    try:
        written = [_write(writer, run) for run in runs]
        with no_layout(writer.folder), writer.writing(_FAILURE, needs) as connection:
            also(connection)
            for run, row in zip(runs, written, strict=True):
                _put_in_place(connection, run, row)
    except OSError as error:
        raise GalleryError(
            f"gallery {writer.name}: {_FAILURE} ({ledger.refusal(writer.folder, error, needs)})"
        ) from error
    finally:
        writer.remove_strays()  # the old files, or, where that failed, the new ones


def _write(writer: StoreWriter, run: _Run) -> dict[str, Any] | None:
    """The new file of a run, as a row of SEGMENTS; None where no photo is left."""
    if not run.rows:
        return None
    # A segment of which nothing stays is not read: it may be deleted because it is damaged.
    parts = [
        writer.open_segment(segment).embeddings()[kept]
        for segment, kept in zip(run.segments, run.kept, strict=True)
        if len(kept)
    ]
    first = run.segments[0]
    return write_segment(writer.folder, np.concatenate(parts), first.segment, first.generation + 1)


def _put_in_place(connection: sa.Connection, run: _Run, row: dict[str, Any] | None) -> None:
    """Let the ledger name a run's new file in place of the old ones."""
    first, last = run.segments[0].segment, run.segments[-1].segment
    in_run = PHOTOS.c.segment.between(first, last)
    connection.execute(sa.delete(DELETED).where(DELETED.c.segment.between(first, last)))
    if row is not None:
        place = sa.func.row_number().over(order_by=(PHOTOS.c.segment, PHOTOS.c.segment_row)) - 1
        places = sa.select(PHOTOS.c.row, place.label("place")).where(in_run).subquery()
        moved = sa.update(PHOTOS).where(PHOTOS.c.row == places.c.row)
        count = connection.execute(moved.values(segment=first, segment_row=places.c.place)).rowcount
        assert count == row["rows"], (count, row)
        connection.execute(sa.update(SEGMENTS).where(SEGMENTS.c.segment == first).values(row))
        first += 1
    connection.execute(sa.delete(SEGMENTS).where(SEGMENTS.c.segment.between(first, last)))


def _size(writer: StoreWriter) -> int:
    paths = [*(writer.folder / "segments").iterdir(), *writer.folder.glob(f"{ledger.LEDGER}*")]
    sizes = []
    for path in paths:
        with suppress(FileNotFoundError):  # SQLite's log comes and goes
            sizes.append(path.stat().st_size)
    return sum(sizes)
