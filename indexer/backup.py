"""Copies a gallery while it is served and written, verified; a copy is a gallery like any other.

The ledger is copied at one moment by SQLite itself, then the segments that it names, which never change. Where
compaction takes one of them away meanwhile, the ledger is copied again. gallery.json comes last: a copy that was
interrupted is no gallery yet, and the same command goes on with it. What is derived is not copied; it is made anew
where the copy is opened.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from indexer import ledger
from indexer.contents import read_segments
from indexer.errors import GalleryError, StaleSnapshotError
from indexer.ledger import LEDGER, fsync_folder, manifest_path, megabytes, refusal
from indexer.locks import make_folder, take_lock
from indexer.segments import open_segment, path_of, strays
from indexer.store import Store
from indexer.verification import verify
from indexer.versions import manifest_of

_COMPACTIONS: Final = 10


@dataclass(frozen=True)
class Copy:
    """What was copied.

    Args:
        photos: in the copy.
        segments: files of vectors.
        copied_bytes: that were written, the ledger's included; an interrupted copy's are not written again.
    """

    photos: int
    segments: int
    copied_bytes: int


def copy_gallery(
    source: Path,
    target: Path,
    *,
    links: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Copy:
    """Copy a gallery into a new folder, and verify the copy.

    Args:
        source: a gallery, or a copy of one.
        target: a folder that is not there, empty, or the beginning of such a copy.
        links: segments become further names of the same files where both folders are on one file system: at once, and
            without room, but damage to one is damage to both.
        on_progress: called with (segments done, of how many).

    Raises:
        GalleryError: no gallery there, a damaged one, the target is something else, or the disk refuses.
    """
    if manifest_path(target).exists():
        raise GalleryError(f"{ledger.folder_name(target)} is a gallery already; name a new folder, or move it away")
    if target.resolve().is_relative_to(source.resolve()):
        raise GalleryError(
            f"a copy of gallery {ledger.folder_name(source)} must lie outside of it; name another folder"
        )
    store = Store.open(source)
    try:
        make_folder(target)
        _, lock = take_lock(target)
        with lock:
            written = _copied(store, target, links, on_progress)
            # Last: with it the folder is a gallery.
            ledger.write_manifest(target, _manifest(store))
            fsync_folder(target.resolve().parent)
        found = verify(target)
    except (OSError, sa.exc.DBAPIError) as error:
        raise GalleryError(f"gallery {store.name} could not be copied ({refusal(target, error)})") from error
    finally:
        store.close()
    if found.faults:
        raise GalleryError(f"the copy of gallery {store.name} is damaged: {found.faults[0].what}; check the disk")
    return Copy(found.photos, found.segments, written)


def _manifest(store: Store) -> ledger.Manifest:
    """What a copy says of itself, whatever became of the gallery while it was copied.

    Another version may be in use by now, a framing may have been said before the first photo came, and a gallery of an
    older format may have been brought to this one, though not the ledger that was copied.
    """
    now = manifest_of(store.root, store.folder)
    return replace(now, format_version=store.manifest.format_version)


def _copied(store: Store, target: Path, links: bool, on_progress: Callable[[int, int], None]) -> int:
    """Copy ledger and segments of one moment; the bytes that were written."""
    (target / "segments").mkdir(exist_ok=True)
    written = 0
    for _ in range(_COMPACTIONS):
        segments = _copy_ledger(store, target)
        written += (target / LEDGER).stat().st_size
        missing = [segment for segment in segments if not _is_there(target, segment, store.manifest.dim)]
        if not links:
            _check_room(store, target, missing)
        for path in strays(target, segments):
            path.unlink()
        try:
            for number, segment in enumerate(missing, start=1 + len(segments) - len(missing)):
                written += _copy_segment(store, target, segment, links)
                on_progress(number, len(segments))
        except StaleSnapshotError:
            continue
        fsync_folder(target / "segments")
        fsync_folder(target)
        return written
    raise StaleSnapshotError(f"gallery {store.name} is compacted again and again; copy it when that has ended")


def _copy_ledger(store: Store, target: Path) -> Sequence[Any]:
    """The ledger as it is at this moment; the segments that it names."""
    for name in (LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm"):
        (target / name).unlink(missing_ok=True)
    copy = sqlite3.connect(target / LEDGER)
    try:
        with store.reading() as connection:
            connection.connection.driver_connection.backup(copy)  # type: ignore[union-attr]  # the driver's own
    except sqlite3.Error as error:
        needs = (store.folder / LEDGER).stat().st_size
        reason = refusal(target, error, needs)
        raise GalleryError(f"the ledger of gallery {store.name} could not be copied ({reason})") from error
    finally:
        copy.close()
    engine = ledger.open_engine(target)
    try:
        with engine.connect() as connection:
            return read_segments(connection)
    finally:
        engine.dispose()  # and with the last connection SQLite's log is gone
        with (target / LEDGER).open("rb") as file:
            os.fsync(file.fileno())


def _is_there(target: Path, segment: Any, dim: int) -> bool:
    """Whether an interrupted copy has this segment already."""
    with suppress(GalleryError):
        open_segment(target, segment, dim, target.name)
        return True
    return False


def _check_room(store: Store, target: Path, missing: Sequence[Any]) -> None:
    needs, free = sum(segment.bytes for segment in missing), shutil.disk_usage(target).free
    if needs > free:
        raise GalleryError(
            f"the copy of gallery {store.name} needs {megabytes(needs)} more, and {megabytes(free)} are free; "
            "free some and run it again: it goes on where it was"
        )


def _copy_segment(store: Store, target: Path, segment: Any, links: bool) -> int:
    """The bytes that were written; 0 for a link."""
    data = store.open_segment(segment).data  # verified
    path = path_of(target, segment)
    if links:
        with suppress(OSError):  # another file system, or one without links
            path.unlink(missing_ok=True)
            os.link(path_of(store.folder, segment), path)
            return 0
    ledger.replace_file(path, data.data)
    return int(segment.bytes)
