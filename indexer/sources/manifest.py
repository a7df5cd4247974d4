"""Photos that a table names: CSV with a header, JSON lines or Parquet, one photo a row.

    path           where the photo is, from the manifest's own folder; or
    url            any URL that fsspec reaches
    photo_id       its id, which names it for good: another photo under it takes its place. Without this column the
                   id is made from the path.
    any other      a field of metadata, see `indexer.metadata_cells`

A column whose name begins with # is a note: what `mgrl ingest --failed` writes is a manifest, and says there under
which id and name the photo was tried (#photo_id, #name), and why it was not stored (#reason).

The manifest is read whole first, to check every row and to count them, then photo by photo. Of the first reading eight
bytes a row stay in memory.
"""

import os
from array import array
from collections.abc import Iterator, Mapping, MutableMapping, Set
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from typing import IO, Any, Final, cast

import numpy as np

from indexer.embeddings_file import check_id
from indexer.errors import DataError
from indexer.metadata import ID_COLUMN, Kind, Value
from indexer.metadata_cells import Columns
from indexer.sources.folder import file_item
from indexer.sources.item import Item, Survey, as_text, place_id, refuse
from indexer.sources.remote import copy_url, is_url, shown, url_item
from indexer.sources.shard import ARCHIVE, open_shard
from indexer.table_file import format_of

PATH: Final = "path"
URL: Final = "url"
NOTE: Final = "#"
NOTED_ID, NOTED_NAME, REASON = "#photo_id", "#name", "#reason"

_PLACES: Final = {PATH, URL, ARCHIVE}


class Manifest:
    """A table of photos, on this machine or behind a URL."""

    def __init__(self, place: str, chosen: Set[str] | None = None) -> None:
        """Nothing is read yet.

        Args:
            place: a path or a URL; its suffix says the format.
            chosen: the fields to take, None for all.
        """
        self._place = place
        self._chosen = chosen
        self._columns: Columns | None = None
        self.name = PurePosixPath(shown(place)).name if is_url(place) else as_text(Path(place).name)
        table = format_of(self.name)
        assert table is not None, "a manifest is made of what has the suffix of one"
        self._format = table

    def survey(self, fields: Mapping[str, Kind]) -> Survey:
        """Check every row."""
        with self._local() as path:
            columns = Columns(fields, has_types=self._format.has_types)
            ids, total = self._look_over(path, columns)
            self._check_ids(path, ids)
            try:
                kinds = columns.kinds
            except DataError as error:
                raise DataError(f"{self.name}: {error}") from error
            for where, cells in self._rows(path):
                self._values(columns, where, cells)
        self._columns = columns
        return Survey(total, kinds)

    def items(self, fields: MutableMapping[str, Kind]) -> Iterator[Item]:
        """The photos, see `Source`."""
        columns = self._columns
        assert columns is not None, "the survey sets it"
        kinds = columns.kinds
        with self._local() as path:
            for where, cells in self._rows(path):
                if archive := cells.get(ARCHIVE):
                    yield from open_shard(archive, self._chosen).items(fields)
                    continue
                item = replace(self._located(cells), metadata=self._values(columns, where, cells), kinds=kinds)
                photo_id = _own_id(cells)
                yield item if photo_id is None else replace(item, photo_id=photo_id, has_own_id=True)

    def _look_over(self, path: Path, columns: Columns) -> tuple["array[int]", int | None]:
        """Hashes of the ids that rows give, and how many photos there are; None where an archive would tell."""
        ids = array("q")
        total: int | None = 0
        for where, cells in self._rows(path):
            total = None if total is None or cells.get(ARCHIVE) else total + 1
            try:
                photo_id = _own_id(cells)
                _check_place(cells)
                columns.see(self._fields_of(cells))
            except DataError as error:
                raise DataError(f"{self.name}: {where}: {error}") from error
            if photo_id is not None:
                ids.append(hash(photo_id))
        return ids, total

    def _values(self, columns: Columns, where: str, cells: Mapping[str, Any]) -> dict[str, Value | None]:
        try:
            return columns.values(self._fields_of(cells))
        except DataError as error:
            raise DataError(f"{self.name}: {where}, {error}") from error

    def _located(self, cells: Mapping[str, Any]) -> Item:
        """The photo of a row, its id made from the place."""
        if cells.get(URL):
            item = url_item(cells[URL])
        elif cells.get(PATH):
            item = self._of_path(cells[PATH])
        else:
            reason = f"it came from a stream and cannot be read again; then: {cells.get(REASON)}"
            item = Item(self.name, self.name, partial(refuse, reason))
        return replace(
            item,
            photo_id=as_text(cells.get(NOTED_ID) or item.photo_id),
            name=as_text(cells.get(NOTED_NAME) or item.name),
        )

    def _of_path(self, path: str) -> Item:
        if is_url(path):
            return url_item(path)
        place = str(listed_place(path))
        if is_url(self._place):
            folder = self._place.rpartition("/")[0]
            item = url_item(f"{folder}/{path}")
            return replace(item, photo_id=place_id(place), name=as_text(place))
        return file_item(str((Path(self._place).parent / path).absolute()), place, place)

    def _rows(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """(which, cells) of each row."""
        try:
            with path.open("rb") as file:
                # A path may hold bytes that are no UTF-8.
                for number, cells in self._format.rows(file, (PATH, URL, NOTED_NAME, ARCHIVE), "surrogateescape"):
                    yield f"{self._format.unit} {number}", cells
        except OSError as error:
            raise DataError(f"cannot read the manifest {self.name}: {error.strerror or error}") from error
        except DataError as error:
            said = str(error)
            raise DataError(said if said.startswith(f"{self.name}: ") else f"{self.name}: {said}") from error

    @contextmanager
    def _local(self) -> Iterator[Path]:
        """The table as a file of this machine: one behind a URL is copied, and what is copied is checked as a whole."""
        if not is_url(self._place):
            yield Path(self._place)
            return
        with NamedTemporaryFile(suffix=self.name) as copy:
            copy_url(self._place, cast("IO[bytes]", copy))
            yield Path(copy.name)

    def _fields_of(self, cells: Mapping[str, Any]) -> dict[str, Any]:
        """The cells that are metadata and wanted."""
        reserved = (PATH, URL, ID_COLUMN)
        return {
            column: cell
            for column, cell in cells.items()
            if column not in reserved
            and not column.startswith(NOTE)
            and (self._chosen is None or column.partition(":")[0] in self._chosen)
        }

    def _check_ids(self, path: Path, hashes: "array[int]") -> None:
        """Refuse a manifest that names a photo twice."""
        values, counts = np.unique(np.frombuffer(hashes, np.int64), return_counts=True)
        suspects = set(values[counts > 1].tolist())
        seen: dict[str, str] = {}
        # Two texts may share a hash: what is said is said of the texts.
        for where, cells in self._rows(path) if suspects else ():
            photo_id = _own_id(cells)
            if photo_id is not None and hash(photo_id) in suspects:
                if photo_id in seen:
                    raise DataError(
                        f"{self.name}: {where} gives the id {photo_id[:80]!r} that {seen[photo_id]} gives; an id names "
                        "one photo"
                    )
                seen[photo_id] = where


def listed_place(path: str) -> PurePosixPath:
    """The place that names a listed file: a relative path with its folders, of an absolute one its last part.

    Example:
        >>> listed_place("./faces/anna.jpg"), listed_place("../faces/anna.jpg"), listed_place("/data/faces/anna.jpg")
        (PurePosixPath('faces/anna.jpg'), PurePosixPath('faces/anna.jpg'), PurePosixPath('anna.jpg'))
    """
    place = PurePosixPath(path)
    parts = [part for part in place.parts if part != ".."]
    return PurePosixPath(place.name if place.is_absolute() or not parts else PurePosixPath(*parts))


def _own_id(cells: Mapping[str, Any]) -> str | None:
    """The id that a row gives; None where the manifest has no such column."""
    if ID_COLUMN not in cells:
        return None
    given = cells[ID_COLUMN]
    # A column of numbers may be one of ids.
    return check_id(str(given) if isinstance(given, int) and not isinstance(given, bool) else given)


def _check_place(cells: Mapping[str, Any]) -> None:
    """Refuse a row that does not say where its photo is, or says it in what cannot be a name."""
    texts = {column: cells[column] for column in (*_PLACES, NOTED_ID, NOTED_NAME) if cells.get(column) is not None}
    for column, text in texts.items():
        if not isinstance(text, str) or not _is_name(text):
            raise DataError(f"{column} must be a text that can name a file, got {str(text)[:80]!r}")
    if len(texts.keys() & _PLACES) != 1 and (texts.keys() & _PLACES or NOTED_NAME not in texts):
        given = [texts[column] for column in sorted(texts.keys() & _PLACES)]
        raise DataError(f"must name its photo in {PATH} or in {URL}, got {str(given)[:80]}")


def _is_name(text: str) -> bool:
    try:
        return bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False
