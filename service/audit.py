"""Writes the audit log: who searched which gallery, when, what for, and how many photos were shown.

Records that come while others are being brought to the disk share the next sync. Several processes may write one log: a
lock is held for every batch, and what another has added is read first.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from indexer.errors import ConfigError
from indexer.ledger import fsync_folder
from service.audit_chain import START, Head, files_of, line_of, read_tail, rotated, torn_record
from service.config_access import AuditConfig
from service.errors import AuditError

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]


class AuditFile:
    """The file of a log and the end of its chain. It blocks; see `AuditLog`.

    Args:
        path: where lines are added.
        rotate_bytes: size from which another file is begun.
    """

    def __init__(self, path: Path, rotate_bytes: int) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._head = START
        # Of the file when `_head` was its end; another process, or somebody else, may have changed it since.
        self._known: tuple[int, int] | None = None

    def append(self, records: Sequence[Record], *, sync: bool) -> None:
        """Add records, one at least, whole or, where the disk refuses, none.

        Those that do not say when they were made (`at`) say when they were written: of processes that take turns none
        is behind another.

        Raises:
            OSError: the disk refuses.
        """
        with open(self._path.with_name(self._path.name + ".lock"), "ab", opener=_private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            handle = self._opened()
            try:
                noted = self._catch_up(handle)
                if not noted and os.fstat(handle).st_size >= self._rotate_bytes:
                    self._begin_another(handle)
                at = now()
                self._write(handle, [{"at": at, **record} for record in (*noted, *records)])
                if sync:
                    os.fsync(handle)
                status = os.fstat(handle)
                self._known = status.st_ino, status.st_size
            finally:
                os.close(handle)

    def sync(self) -> None:
        """Bring what was added to the disk.

        Raises:
            OSError: the disk refuses.
        """
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            os.fsync(file.fileno())

    def _opened(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _begin_another(self, handle: int) -> None:
        """Put a full file aside and have the handle on another.

        Only now that a record comes: the file that is written to always holds the end of the chain, so that those put
        aside may be moved away.
        """
        os.fsync(handle)
        os.rename(self._path, rotated(self._path, self._head))
        another = self._opened()
        os.dup2(another, handle, inheritable=False)
        os.close(another)
        fsync_folder(self._path.parent)

    def _catch_up(self, handle: int) -> list[Record]:
        """Have `_head` at the end of the file; what is to be said of a line that a crash cut off."""
        status = os.fstat(handle)
        if (status.st_ino, status.st_size) == self._known:
            return []
        if status.st_size == 0:
            fsync_folder(self._path.parent)
        self._head, torn = START, read_tail(self._path).torn
        for path in reversed(files_of(self._path)):
            if (last := read_tail(path).record) is not None:
                self._head = Head(last["n"], last["hash"])
                break
        if not torn:
            return []
        if not torn.endswith(b"\n"):
            os.write(handle, b"\n")
        return [torn_record(torn)]

    def _write(self, handle: int, records: Sequence[Record]) -> None:
        lines, head = [], self._head
        for record in records:
            line, head = line_of(record, head)
            lines.append(line)
        start, data = os.fstat(handle).st_size, b"".join(lines)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
        except OSError:
            # Half a line of ours that nobody was told of; where it cannot be taken away it is noted as torn.
            with suppress(OSError):
                os.ftruncate(handle, start)
            self._known = None
            raise
        self._head = head


class AuditLog:
    """The audit log of a process, on one event loop. Use `AuditLog.open`; the constructor only stores."""

    def __init__(self, config: AuditConfig, file: AuditFile) -> None:
        self.config = config
        self._file = file
        self._thread = ThreadPoolExecutor(1, "mgrl-audit")
        self._waiting: list[tuple[Record, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._syncing: asyncio.Task[None] | None = None
        self.is_failing = False

    @classmethod
    def open(cls, config: AuditConfig) -> "AuditLog":
        """A log that can be written, with a record that says so.

        Raises:
            ConfigError: it cannot.
        """
        assert config.file is not None
        file = AuditFile(config.file, config.rotate_bytes)
        try:
            file.append([{"event": "opened", "process": os.getpid()}], sync=True)
        except OSError as error:
            raise ConfigError(f"the audit log {config.file.name} cannot be written ({error.strerror})") from error
        return cls(config, file)

    async def write(self, record: Record) -> None:
        """Add a record; when this returns it is in the file, and with `sync_s = 0` on the disk.

        Raises:
            AuditError: it could not be written.
        """
        await self.post(record)

    def post(self, record: Record) -> "asyncio.Future[None]":
        """Add a record soon; the future tells whether that went well, and need not be looked at."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._waiting.append((record, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_waiting())
        return done

    async def close(self) -> None:
        """Write what waits, say that this was all, and bring it to the disk."""
        with suppress(AuditError):
            await self.write({"event": "closed", "process": os.getpid()})
        if self._syncing is not None:
            self._syncing.cancel()
        with suppress(OSError):
            await asyncio.get_running_loop().run_in_executor(self._thread, self._file.sync)
        self._thread.shutdown(wait=False)

    async def _write_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            records = [record for record, _ in batch]
            try:
                await loop.run_in_executor(self._thread, self._append, records)
            except OSError as error:
                self._failed(error)
                for _, done in batch:
                    if not done.done():
                        done.set_exception(AuditError("the audit log cannot be written, so nothing is shown"))
            else:
                self.is_failing = False
                for _, done in batch:
                    if not done.done():
                        done.set_result(None)
        if self.config.sync_s and (self._syncing is None or self._syncing.done()):
            self._syncing = asyncio.create_task(self._sync_later())

    def _append(self, records: Sequence[Record]) -> None:
        self._file.append(records, sync=self.config.sync_s == 0)

    async def _sync_later(self) -> None:
        await asyncio.sleep(self.config.sync_s)
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._file.sync)
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        if not self.is_failing:
            logger.error("the audit log cannot be written: %s", error)
        self.is_failing = True


def now() -> str:
    """UTC to the microsecond, in ISO 8601."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
