"""One training a folder: two would write over each other's checkpoints and features."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexer.errors import ConfigError, DataError


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder of a run, which is made if it is not there, against other processes.

    Raises:
        ConfigError: another one holds it.
        DataError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise DataError(f"the folder {folder} of the run cannot be written: {error.strerror}") from error
    with lock:
        try:
            # Not flock: the processes that draw batches would hold that, too, and outlive a run that is killed.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise ConfigError(
                f"another process (pid {lock.read().strip() or 'unknown'}) trains in {folder}; wait until it has "
                "ended, or use another folder"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
