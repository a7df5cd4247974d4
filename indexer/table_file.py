"""Rows of a table in a file: CSV with a header, JSON lines, or Parquet. Each row is read when it is asked for.

An empty CSV cell is None, as null is elsewhere.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath
from typing import IO, Any, Final

from indexer.errors import ConfigError, DataError

Row = tuple[int, dict[str, Any]]
"""Line of the file, counted from 1, and the cells by column. In Parquet rows are counted."""

_AT_ONCE: Final = 1024


@dataclass(frozen=True)
class Format:
    """How tables of one suffix are read.

    Args:
        rows: the file, the columns of which it must have one -> its rows.
        has_types: whether its values have types; in CSV all are texts.
        unit: what a row's number counts.
    """

    rows: Callable[[IO[bytes], Sequence[str], str], Iterator[Row]]
    has_types: bool
    unit: str = "line"


def format_of(name: str) -> Format | None:
    """The format of a file of this name; None where it is no table."""
    return FORMATS.get(PurePosixPath(name).suffix.lower())


def _json_rows(file: IO[bytes], needed: Sequence[str], errors: str) -> Iterator[Row]:
    for line, text in enumerate(_text(file, errors), start=1):
        if not text.strip():
            continue
        try:
            cells = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"line {line} is no JSON object ({error})") from error
        if not isinstance(cells, dict):
            raise DataError(f"line {line} must be a JSON object, got {text.strip()[:80]!r}")
        yield line, cells


def _csv_rows(file: IO[bytes], needed: Sequence[str], errors: str) -> Iterator[Row]:
    reader = csv.reader(_text(file, errors), strict=True)
    try:
        columns = [column.strip() for column in next(reader, [])]
        _check_columns(columns, needed, "the first line must name the columns")
        if len(set(columns)) < len(columns):
            raise DataError(f"a column appears twice in the header {str(columns)[:80]}")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(columns):
                raise DataError(f"line {reader.line_num} has {len(cells)} cells, the header has {len(columns)}")
            yield reader.line_num, dict(zip(columns, (cell.strip() or None for cell in cells), strict=True))
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} is no CSV ({error})") from error


def _parquet_rows(file: IO[bytes], needed: Sequence[str], errors: str) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("Parquet needs pyarrow; install it with: pip install 'mgrl[parquet]'") from error
    try:
        table = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
        _check_columns(table.schema_arrow.names, needed, "it must have columns")
        row = 0
        for batch in table.iter_batches(_AT_ONCE):
            columns = [days_of(column) for column in batch.columns]
            for cells in pyarrow.record_batch(columns, names=batch.schema.names).to_pylist():
                row += 1
                yield row, {column: _as_json_has_it(value) for column, value in cells.items()}
    # Of damaged names it is UnicodeDecodeError, of days that Python has not OverflowError.
    except (pyarrow.ArrowException, ValueError, OverflowError, OSError) as error:
        raise DataError(f"it is no Parquet file, or damaged ({str(error).splitlines()[0]})") from error


FORMATS: Final[Mapping[str, Format]] = {
    ".csv": Format(_csv_rows, has_types=False),
    ".jsonl": Format(_json_rows, has_types=True),
    ".parquet": Format(_parquet_rows, has_types=True, unit="row"),
}


def _check_columns(columns: Sequence[str], needed: Sequence[str], must: str) -> None:
    if not set(needed) & set(columns):
        raise DataError(f"{must}, {' or '.join(needed)} among them, got {str(columns)[:80]}")


def days_of(column: Any) -> Any:
    """A column of pyarrow's moments as one of their days, which is what fields hold; any other as it is."""
    import pyarrow

    return column.cast(pyarrow.date32(), safe=False) if pyarrow.types.is_timestamp(column.type) else column


def _as_json_has_it(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def _text(file: IO[bytes], errors: str) -> Iterator[str]:
    """The file's lines, with their ends."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors=errors, newline="")
    try:
        yield from text
    finally:
        with suppress(ValueError):  # the caller closes the file, and may have done so
            text.detach()
