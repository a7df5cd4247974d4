"""A file with metadata of many photos: JSON lines, or CSV with a header.

Each line names its photo in the column `photo_id`; every other column is a field. A column `seen:date` has that kind
(string, number, bool, date or tags); without one, the kind is what the gallery has or else what all its values can be:
in JSON their own type, in CSV bool (true, false), number, date or string; texts that are all YYYY-MM-DD are dates. In
CSV tags are separated by `|` and need `:tags`. An empty cell, or null, says that the photo has no such value.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from indexer.errors import DataError
from indexer.metadata import ID_COLUMN, MAX_FIELDS, Kind, Value, as_date, check_field, check_value

_BOOLS: Final = {"true": True, "false": False}

Row = tuple[int, str, dict[str, Any]]
"""Line, photo, and its cells as the file has them; None where there is no value."""


@dataclass(frozen=True)
class MetadataTable:
    """What a file says.

    Args:
        name: of the file, for messages.
        kinds: field -> kind.
        photos: photo id -> field -> value, or None to take an earlier value away.
    """

    name: str
    kinds: Mapping[str, Kind]
    photos: Mapping[str, Mapping[str, Value | None]]

    def check_ids(self, known: Iterable[str]) -> None:
        """Refuse a file that speaks of photos that are not there.

        Raises:
            DataError: one of them, by name.
        """
        missing = set(self.photos)
        missing.difference_update(known)
        if unknown := sorted(missing):
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise DataError(
                f"{self.name}: no photo has the id {unknown[0][:80]!r}{more}; an id is the path inside the source "
                "without suffix"
            )


def read_metadata(path: Path, known: Mapping[str, Kind]) -> MetadataTable:
    """Read a .jsonl or .csv file, whole.

    Args:
        path: the file, UTF-8.
        known: the gallery's fields.

    Raises:
        DataError: it cannot be read, or a line of it does not hold; the message names file and line.
    """
    readers: dict[str, Callable[[IO[str]], Iterator[Row]]] = {".jsonl": _json_rows, ".csv": _csv_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"a metadata file must be .jsonl or .csv, got {path.name!r}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(reader(file))
        return _table(path, rows, known, from_text=reader is _csv_rows)
    except OSError as error:
        raise DataError(f"cannot read the metadata file {path.name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} must be UTF-8 ({error.reason})") from error
    except DataError as error:
        raise DataError(f"{path.name}: {error}") from error


def _json_rows(file: IO[str]) -> Iterator[Row]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            cells = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"line {line} is no JSON object ({error})") from error
        if not isinstance(cells, dict):
            raise DataError(f"line {line} must be a JSON object, got {text.strip()[:80]!r}")
        yield line, _photo_id(line, cells.pop(ID_COLUMN, None)), cells


def _csv_rows(file: IO[str]) -> Iterator[Row]:
    reader = csv.reader(file, strict=True)
    try:
        columns = [column.strip() for column in next(reader, [])]
        if ID_COLUMN not in columns:
            raise DataError(f"the first line must name the columns, {ID_COLUMN} among them, got {str(columns)[:80]}")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(columns):
                raise DataError(f"line {reader.line_num} has {len(cells)} cells, the header has {len(columns)}")
            row: dict[str, Any] = dict(zip(columns, (cell.strip() or None for cell in cells), strict=True))
            if len(row) < len(columns):
                raise DataError(f"a column appears twice in the header {str(columns)[:80]}")
            yield reader.line_num, _photo_id(reader.line_num, row.pop(ID_COLUMN)), row
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} is no CSV ({error})") from error


def _photo_id(line: int, photo_id: object) -> str:
    if not isinstance(photo_id, str) or not photo_id:
        raise DataError(f"line {line} must name its photo in {ID_COLUMN}, got {str(photo_id)[:80]!r}")
    return photo_id


def _table(path: Path, rows: list[Row], known: Mapping[str, Kind], *, from_text: bool) -> MetadataTable:
    columns = dict.fromkeys(column for _, _, cells in rows for column in cells)
    fields = {column: check_field(column.partition(":")[0]) for column in columns}
    if len(fields) > MAX_FIELDS or len(set(fields.values())) < len(fields):
        raise DataError(f"a file may name {MAX_FIELDS} fields, each once, got {len(fields)} columns")
    kinds = {}
    for column, field in fields.items():
        values = [cells[column] for _, _, cells in rows if cells.get(column) is not None]
        kinds[column] = (
            stated_kind(column) or known.get(field) or (_kind_of_texts if from_text else _kind_of_json)(values)
        )
    photos: dict[str, dict[str, Value | None]] = {}
    for line, photo_id, cells in rows:
        if photo_id in photos:
            raise DataError(f"line {line} names the photo {photo_id[:80]!r} a second time")
        photos[photo_id] = {}
        for column, cell in cells.items():
            try:
                value = _from_text(kinds[column], cell) if from_text else cell
                photos[photo_id][fields[column]] = None if value is None else check_value(kinds[column], value)
            except DataError as error:
                raise DataError(f"line {line}, field {fields[column]}: {error}") from error
    return MetadataTable(path.name, {fields[column]: kind for column, kind in kinds.items()}, photos)


def stated_kind(column: str) -> Kind | None:
    """The kind that a column's name states, None where it states none.

    Raises:
        DataError: it is no kind.

    Example:
        >>> stated_kind("seen:date"), stated_kind("age")
        (<Kind.DATE: 'date'>, None)
    """
    _, colon, kind = column.partition(":")
    if colon and kind not in list(Kind):
        raise DataError(f"column {column[:80]!r}: the kind must be one of {', '.join(Kind)}")
    return Kind(kind) if colon else None


def _kind_of_json(values: list[Any]) -> Kind:
    # Of mixed types the first names the kind, and the others are refused by their lines.
    match values:
        case [bool(), *_]:
            return Kind.BOOL
        case [int() | float(), *_]:
            return Kind.NUMBER
        case [list(), *_]:
            return Kind.TAGS
        case [str(), *_] if all(isinstance(value, str) and as_date(value) for value in values):
            return Kind.DATE
    return Kind.STRING


def _kind_of_texts(texts: list[str]) -> Kind:
    for kind in (Kind.BOOL, Kind.NUMBER, Kind.DATE):
        if texts and all(_reads_as(kind, text) for text in texts):
            return kind
    return Kind.STRING


def _reads_as(kind: Kind, text: str) -> bool:
    try:
        check_value(kind, _from_text(kind, text))
    except DataError:
        return False
    return True


def _from_text(kind: Kind, text: str | None) -> object:
    """A CSV cell as `check_value` takes it; what cannot be one stays a text, and is refused there."""
    if text is None:
        return None
    if kind is Kind.TAGS:
        return [tag.strip() for tag in text.split("|") if tag.strip()]
    if kind is Kind.BOOL:
        return _BOOLS.get(text.lower(), text)
    try:
        return float(text) if kind is Kind.NUMBER else text
    except ValueError:
        return text
