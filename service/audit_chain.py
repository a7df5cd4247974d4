"""The lines of an audit log: each names the hash of the one before, so that none can be changed or taken out unseen.

A line is one JSON object in canonical form. Whoever may write the file could compute all of it anew, or cut off its
end; against that, keep a record's number and hash elsewhere (`mgrl audit verify` prints the last ones, and checks one).
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any, Final, NamedTuple

from indexer.errors import DataError

NO_HASH: Final = "0" * 64
"""What the first record of all names."""

RECOVERED: Final = "recovered"
"""The event that follows a line of which a crash left only a part."""

_BLOCK: Final = 64 * 1024
_MEMBERS: Final = {"n": int, "previous": str, "hash": str, "at": str, "event": str}
"""What every record has."""


class Head(NamedTuple):
    """The end of a chain: the number of its last record, 0 before the first, and its hash."""

    number: int
    hash: str


START: Final = Head(0, NO_HASH)


class Tail(NamedTuple):
    """The end of a file: its last good record, or None where it has none, and what a crash left behind it."""

    record: Mapping[str, Any] | None
    torn: bytes


@dataclass(frozen=True)
class Verified:
    """What a check found.

    Args:
        records: good ones.
        first: the number of the first, 0 if there is none.
        head: the last one.
        problems: what is wrong, by file and line; empty for a good log.
        remarks: what is worth knowing and not wrong.
    """

    records: int
    first: int
    head: Head
    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def line_of(record: Mapping[str, Any], head: Head) -> tuple[bytes, Head]:
    """The line that follows `head`, and the head that it makes."""
    chained = {**record, "n": head.number + 1, "previous": head.hash}
    digest = hashlib.sha256(_canonical(chained)).hexdigest()
    return _canonical({**chained, "hash": digest}) + b"\n", Head(head.number + 1, digest)


def read_record(line: bytes) -> Mapping[str, Any]:
    """The record of a line without its end.

    Raises:
        ValueError: it is none, or does not have the hash that it says.
    """
    try:
        record = json.loads(line)
    except RecursionError as error:
        raise ValueError("it is no record of an audit log") from error
    if not isinstance(record, dict) or any(type(record.get(name)) is not kind for name, kind in _MEMBERS.items()):
        raise ValueError("it is no record of an audit log")
    if _canonical(record) != line:
        raise ValueError("it is not as it was written")
    body = {name: value for name, value in record.items() if name != "hash"}
    if hashlib.sha256(_canonical(body)).hexdigest() != record["hash"]:
        raise ValueError("its hash is another")
    return record


def torn_record(torn: bytes) -> dict[str, Any]:
    """What is noted of what a crash left, which stays where it is."""
    return {"event": RECOVERED, "torn_bytes": len(torn), "torn_sha256": _sha256(torn.removesuffix(b"\n"))}


def read_tail(path: Path) -> Tail:
    """The end of a file, read from its end as far back as its last good record.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        left, data = file.seek(0, os.SEEK_END), b""
        while True:
            end = data.rfind(b"\n")
            # A line whose beginning is not read yet waits for the next block.
            while end >= 0 and ((start := data.rfind(b"\n", 0, end)) >= 0 or not left):
                with suppress(ValueError):
                    return Tail(read_record(data[start + 1 : end]), data[end + 1 :])
                end = start
            if not left:
                return Tail(None, data)
            step = min(_BLOCK, left)
            left -= step
            file.seek(left)
            data = file.read(step) + data


def files_of(path: Path) -> list[Path]:
    """The files of a log that are there, oldest first."""
    older = _put_aside(path)
    return [*(older[number] for number in sorted(older)), *([path] if path.exists() else [])]


def rotated(path: Path, head: Head) -> Path:
    """The name that a log's file gets when another is begun: it tells the file's last record.

    So no two are alike, wherever the older ones have been moved to. Earlier versions counted files, which gave smaller
    numbers.
    """
    return path.with_name(f"{path.name}.{max([head.number, *(number + 1 for number in _put_aside(path))]):06}")


def _put_aside(path: Path) -> dict[int, Path]:
    """Number -> the file of the log that was put aside under it."""
    endings = ((each, each.name.removeprefix(f"{path.name}.")) for each in path.parent.glob(escape(path.name) + ".*"))
    return {int(ending): each for each, ending in endings if re.fullmatch("[0-9]{6,18}", ending)}


def read_records(path: Path) -> Iterator[Mapping[str, Any]]:
    """The good records of a log, oldest first; lines that are none are passed over: see `verify`.

    Raises:
        DataError: a file cannot be read, or no line of the log is a record.
    """
    is_log = is_other = False
    for _, _, line in _lines(path):
        try:
            record = read_record(line)
        except ValueError:
            is_other = True
        else:
            is_log = True
            yield record
    if is_other and not is_log:
        raise DataError(f"{path.name} is no audit log: none of its lines is a record")


def verify(path: Path, expected: Head | None = None) -> Verified:
    """Check every line of a log, over all its files.

    Args:
        path: the file that is written to; older ones lie beside it.
        expected: a record that was there at an earlier check.

    Raises:
        DataError: there is no log, or a file cannot be read.
    """
    check = _Check(expected)
    for name, number, line in _lines(path):
        check.take(f"{name} line {number}", line)
    return check.result()


class _Check:
    def __init__(self, expected: Head | None) -> None:
        self._expected, self._has_expected = expected, False
        self._records, self._first = 0, 0
        self._head: Head | None = None
        self._before: Head | None = None
        self._last_line, self._last_at = b"", ""
        # Lines that are no records, and what is wrong with them: a record after them may say that a crash left them.
        self._doubtful: list[bytes] = []
        self._doubts: list[str] = []
        self._problems: list[str] = []
        self._remarks: list[str] = []

    def take(self, where: str, line: bytes) -> None:
        try:
            record = read_record(line)
        except ValueError as error:
            is_json = not isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
            self._doubts.append(f"{where}: {error if is_json else 'it is no JSON'}")
            self._doubtful.append(line)
            return
        if record["event"] == RECOVERED:
            self._recover(where, record)
        self._settle()
        self._follow(where, record)
        self._last_line = line

    def _recover(self, where: str, record: Mapping[str, Any]) -> None:
        torn = record.get("torn_sha256")
        if self._doubtful and torn == _sha256(b"\n".join(self._doubtful)):
            self._doubtful, self._doubts = [], []
        elif not self._doubtful and torn == _sha256(self._last_line):
            # What the crash left was a whole record that lacked nothing but the end of its line.
            self._records, self._head = self._records - 1, self._before
        else:
            return
        self._remarks.append(f"{where}: {record.get('torn_bytes')} bytes before it are what a crash left, as it says")

    def _follow(self, where: str, record: Mapping[str, Any]) -> None:
        head = self._head
        if head is None:
            self._first = record["n"]
            if (record["n"], record["previous"]) != (1, NO_HASH):
                self._remarks.append(f"{where}: begins with record {record['n']}, those before it are not here")
        elif record["n"] != head.number + 1:
            self._problems.append(f"{where}: record {record['n']} follows {head.number}, records are missing")
        elif record["previous"] != head.hash:
            self._problems.append(f"{where}: record {head.number} before it is not the one that it was written after")
        if record["at"] < self._last_at:
            self._remarks.append(f"{where}: the clock was put back, from {self._last_at} to {record['at']}")
        self._last_at = record["at"]
        self._before, self._head = head, Head(record["n"], record["hash"])
        self._records += 1
        if self._expected is not None and record["n"] == self._expected.number:
            self._has_expected = record["hash"] == self._expected.hash

    def _settle(self) -> None:
        self._problems += self._doubts
        self._doubtful, self._doubts = [], []

    def result(self) -> Verified:
        self._settle()
        if self._expected is not None and not self._has_expected:
            self._problems.append(f"record {self._expected.number} is not the one that was there before")
        head = self._head or START
        return Verified(self._records, self._first, head, tuple(self._problems), tuple(self._remarks))


def _lines(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """(file name, 1-based number, line without its end)."""
    files = files_of(path)
    if not files:
        raise DataError(f"there is no audit log {path.name}")
    for each in files:
        try:
            with each.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    yield each.name, number, line.removesuffix(b"\n")
        except OSError as error:
            raise DataError(f"the audit log {each.name} cannot be read ({error.strerror})") from error


def _canonical(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _sha256(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
