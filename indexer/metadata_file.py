"""A file with metadata of many photos: JSON lines, CSV with a header, or Parquet.

Each line names its photo in the column `photo_id`; every other column is a field, see `indexer.metadata_cells`. An
empty cell, or null, says that the photo has no such value.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.errors import DataError
from indexer.metadata import ID_COLUMN, Kind, Value
from indexer.metadata_cells import Columns
from indexer.table_file import format_of


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
    """Read a .jsonl, .csv or .parquet file, whole.

    Args:
        path: the file, UTF-8.
        known: the gallery's fields.

    Raises:
        DataError: it cannot be read, or a line of it does not hold; the message names file and line.
    """
    table = format_of(path.name)
    if table is None:
        raise DataError(f"a metadata file must be .jsonl, .csv or .parquet, got {path.name!r}")
    try:
        with path.open("rb") as file:
            rows = [
                (f"{table.unit} {line}", _photo_id(f"{table.unit} {line}", cells.pop(ID_COLUMN, None)), cells)
                for line, cells in table.rows(file, (ID_COLUMN,), "strict")
            ]
        return _table(path, rows, Columns(known, has_types=table.has_types))
    except OSError as error:
        raise DataError(f"cannot read the metadata file {path.name}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} must be UTF-8 ({error.reason})") from error
    except DataError as error:
        raise DataError(f"{path.name}: {error}") from error


def _photo_id(where: str, photo_id: object) -> str:
    if not isinstance(photo_id, str) or not photo_id:
        raise DataError(f"{where} must name its photo in {ID_COLUMN}, got {str(photo_id)[:80]!r}")
    return photo_id


def _table(path: Path, rows: list[tuple[str, str, dict[str, Any]]], columns: Columns) -> MetadataTable:
    for _, _, cells in rows:
        columns.see(cells)
    kinds = columns.kinds
    photos: dict[str, dict[str, Value | None]] = {}
    for where, photo_id, cells in rows:
        if photo_id in photos:
            raise DataError(f"{where} names the photo {photo_id[:80]!r} a second time")
        try:
            photos[photo_id] = columns.values(cells)
        except DataError as error:
            raise DataError(f"{where}, {error}") from error
    return MetadataTable(path.name, kinds, photos)
