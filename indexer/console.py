"""What every subcommand shows: a progress bar with rate and time left, a table, a JSON file.

Only commands use this file; library code reports through callbacks and never prints.
"""

import errno
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from indexer.errors import DataError

_LINE_EVERY_S: Final = 5.0


class Update(Protocol):
    """Tells a progress bar how many are done, the total where it was not known at the start, and what else to say."""

    def __call__(self, done: int, total: int | None = None, notes: str = "") -> None: ...


@contextmanager
def progress(label: str, total: int | None, unit: str = "photos") -> Iterator[Update]:
    """A bar on stderr with rate and time left; where stderr is no terminal, a line every few seconds.

    Yields:
        Call it with how many are done so far. The first call may count what an earlier run did: the rate is of late.
    """
    if not sys.stderr.isatty():
        yield _Lines(label, total, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[notes]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, rate="", notes="")

        def update(done: int, total: int | None = None, notes: str = "") -> None:
            speed = bar.tasks[task].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:.1f}/s" if speed else "", notes=notes)

        yield update


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout, printable: the first column to the left, the others to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else printable(str(cell)) for cell in row))
    # A pipe has no width of its own; cells must not be cut short there.
    console = Console(width=None if sys.stdout.isatty() else 1000, highlight=False, markup=False)
    console.print(printable(title))  # not the table's own title, which is folded to the table's width
    console.print(table)


def printable(text: str) -> str:
    r"""A name of somebody else's for the terminal, or what holds one: what a terminal would obey is spelled out.

    Example:
        >>> print(printable("anna\x1b[2J"))
        anna\x1b[2J
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def check_writable(path: Path) -> None:
    """Refuse before the work a file that could not be written after it; makes its folder.

    Raises:
        DataError: it cannot be written.
    """
    with _said(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # Asked, not tried: a pipe may mind being opened and closed.
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """The result as JSON, where a file was asked for; NaN and infinity, which JSON has not, as null.

    Raises:
        DataError: the file cannot be written.
    """
    if path is None:
        return
    with _said(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


@contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise DataError(f"cannot write {path}: {path.parent} is no folder") from error
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {key: _finite(held) for key, held in value.items()}
        case list() | tuple():
            return [_finite(held) for held in value]
    return value


class _Lines:
    """Progress for a log. The rate is that since the line before."""

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._last_s, self._last_done = time.monotonic(), 0
        self._began = False

    def __call__(self, done: int, total: int | None = None, notes: str = "") -> None:
        if not self._began:
            self._began, self._last_done = True, done
        self._total = self._total if total is None else total
        now = time.monotonic()
        if now - self._last_s < _LINE_EVERY_S and done != self._total:
            return
        rate = (done - self._last_done) / max(now - self._last_s, 1e-9)
        self._last_s, self._last_done = now, done
        line = f"{self._label}: {done}" + ("" if self._total is None else f"/{self._total}") + f" {self._unit}"
        if rate > 0:
            line += f", {rate:.1f}/s"
            if self._total is not None:
                line += f", {(self._total - done) / rate:.0f} s left"
        print(f"{line}, {notes}" if notes else line, file=sys.stderr)
