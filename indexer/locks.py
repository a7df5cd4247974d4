"""Who may write a gallery folder: one process at a time, and what it says to the others.

The lock is the kernel's, so that it goes with its holder however that ends, and no clock plays a part in it.
"""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from indexer.errors import GalleryError, GalleryHeldError
from indexer.ledger import LEDGER, folder_name, manifest_path
from indexer.versions import home_of

_LOOK_EVERY_S: Final = 0.1
_PROBE_S: Final = 0.15
"""Longer than `is_being_written` holds the lock."""


def make_folder(folder: Path) -> None:
    """Make the folder of a new gallery, if it is not there.

    Raises:
        GalleryError: it cannot be made, or holds what is no gallery's.
    """
    name = folder_name(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GalleryError(f"the folder {name} cannot be made ({error.strerror})") from error
    ours = {LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm", "lock", "segments", "gallery.json.tmp"}
    if not manifest_path(folder).exists() and (foreign := {path.name for path in folder.iterdir()} - ours):
        raise GalleryError(
            f"{name} is no gallery and not empty (it holds {sorted(foreign)[0]!r}); name a new or empty folder"
        )


def is_being_written(folder: Path) -> bool:
    """Whether a writer is at work; asking keeps none from beginning."""
    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # never written, or on a disk that cannot be
        pass
    return False


def take_lock(folder: Path, wait_s: float = 0.0) -> tuple[Path, IO[str]]:
    """The folder of a gallery's version, and the lock of its one writer, held until the file is closed.

    Args:
        folder: the gallery's.
        wait_s: seconds to wait for another writer to end.

    Raises:
        GalleryHeldError: another process holds it still.
        GalleryError: the folder may not be written.
    """
    while True:
        home = home_of(folder)
        lock = _locked(home, folder_name(folder), wait_s)
        if home_of(folder) == home:
            return home, lock
        lock.close()  # another version became the gallery's meanwhile


def _locked(home: Path, gallery: str, wait_s: float) -> IO[str]:
    try:
        lock = (home / "lock").open("a+")
    except OSError as error:
        raise GalleryError(
            f"gallery {gallery} cannot be written ({error.strerror}); it can still be served and searched"
        ) from error
    until = time.monotonic() + max(wait_s, _PROBE_S)
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if time.monotonic() >= until:
                lock.seek(0)
                holder = lock.read().strip() or "unknown"
                lock.close()
                raise GalleryHeldError(
                    f"gallery {gallery} is being written by another process (pid {holder}); wait until it has ended"
                ) from error
        time.sleep(_LOOK_EVERY_S)
    with suppress(OSError):  # a full disk keeps nobody from taking photos out
        lock.truncate(0)
        os.write(lock.fileno(), str(os.getpid()).encode())
    return lock
