"""Embeddings that were made elsewhere, as a file: photo ids, fourteen rows each, and what is known about the photos.

    photo_id      texts, each once
    embeddings    (n, 14, dim) numbers, unit rows in region-id order
    any other     a field of metadata, one value a photo; `seen:date` states its kind, `marks:tags` splits at `|`

These are the arrays of an .npz, the fields of the records in an .npy, or the columns of a .parquet file, whose
embeddings are lists of 14 x dim numbers, nested or not, and whose nulls are absent values, as are NaN and empty texts
in all three. The file is read from beginning to end in parts, so memory does not grow with it. A photo whose row does
not hold is given back with the reason; what is wrong with the file as a whole is an error before the first photo.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from indexer.arrays_file import Columns, NumpyColumns, ParquetColumns, Part
from indexer.errors import DataError
from indexer.metadata import ID_COLUMN, MAX_FIELDS, Kind, Value, as_date, check_field, check_value
from indexer.metadata_cells import stated_kind
from indexer.regions import REGIONS

EMBEDDINGS: Final = "embeddings"
READERS: Final[Mapping[str, Callable[[Path], Columns]]] = {
    ".npz": NumpyColumns.open,
    ".npy": NumpyColumns.open,
    ".parquet": ParquetColumns.open,
}
MAX_ID: Final = 1000
"""Characters of a photo id."""

_UNIT_WITHIN: Final = 0.01
_SCANNED: Final = 65_536
"""Rows at a time when only the ids are looked at."""


@dataclass(frozen=True, eq=False)
class EmbeddedPhotos:
    """Some rows of the file.

    Args:
        photo_ids: of the photos that hold.
        embeddings: (photos, 14, dim) float32 unit rows, theirs.
        metadata: field -> value of each; None where the photo has no such value.
        refused: (photo id, reason) of the rows that do not hold.
    """

    photo_ids: list[str]
    embeddings: npt.NDArray[np.float32]
    metadata: list[dict[str, Value | None]]
    refused: list[tuple[str, str]] = field(default_factory=list)


class EmbeddingsFile:
    """A file that was looked at, and can be read any number of times. Use `EmbeddingsFile.open`."""

    def __init__(self, columns: Columns, dim: int, fields: Mapping[str, str], kinds: Mapping[str, Kind]) -> None:
        self._columns = columns
        self._fields = fields
        self.dim = dim
        self.kinds = kinds
        """Field -> kind."""

    @classmethod
    def open(cls, path: Path, known: Mapping[str, Kind]) -> Self:
        """Look at a file: its columns, their types, and whether an id appears twice.

        Args:
            path: an .npz, .npy or .parquet file.
            known: fields that the gallery has, whose kinds hold where the file states none.

        Raises:
            DataError: it cannot be read, lacks a column, or holds what cannot be a gallery's; the message names it.
            ConfigError: Parquet cannot be read here.
        """
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            raise DataError(f"a file of embeddings must be .npz, .npy or .parquet, got {path.name!r}")
        columns = reader(path)
        if missing := {ID_COLUMN, EMBEDDINGS} - columns.kinds.keys():
            found = str(sorted(columns.kinds))[:200]
            raise DataError(f"{path.name} lacks {' and '.join(sorted(missing))}; it has {found}")
        fields = {column: column.partition(":")[0] for column in columns.kinds if column not in (ID_COLUMN, EMBEDDINGS)}
        try:
            if len(fields) > MAX_FIELDS or len(set(fields.values())) < len(fields):
                raise DataError(f"it may name {MAX_FIELDS} fields, each once, got {len(fields)} columns")
            kinds = {check_field(name): _kind(columns, column, name, known) for column, name in fields.items()}
        except DataError as error:
            raise DataError(f"{path.name}: {error}") from error
        opened = cls(columns, _dim(columns), fields, kinds)
        opened._check_ids()
        return opened

    def __len__(self) -> int:
        return self._columns.rows

    @property
    def name(self) -> str:
        """Of the file, for messages."""
        return self._columns.name

    def parts(self, rows: int) -> Iterator[EmbeddedPhotos]:
        """All photos in order, `rows` at a time.

        Raises:
            DataError: the file ends early or is damaged.
        """
        for part in self._columns.parts([ID_COLUMN, EMBEDDINGS, *self._fields], rows):
            yield self._checked(part)

    def _checked(self, part: Part) -> EmbeddedPhotos:
        ids = part[ID_COLUMN]
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as too long
            embeddings = np.asarray(part[EMBEDDINGS], np.float32).reshape(len(ids), REGIONS, self.dim)
        reasons = _wrong_rows(embeddings)
        texts: list[str] = []
        metadata: list[dict[str, Value | None]] = []
        for row, raw in enumerate(ids):
            values: dict[str, Value | None] = {}
            try:
                text = check_id(raw)
                for column, name in self._fields.items():
                    values[name] = _value(self.kinds[name], part[column][row], name)
            except DataError as error:
                text = str(raw)[:MAX_ID]
                reasons.setdefault(row, str(error))
            texts.append(text)
            metadata.append(values)
        if not reasons:
            return EmbeddedPhotos(texts, embeddings, metadata)
        good = [row for row in range(len(texts)) if row not in reasons]
        refused = [(texts[row], reasons[row]) for row in sorted(reasons)]
        return EmbeddedPhotos([texts[row] for row in good], embeddings[good], [metadata[row] for row in good], refused)

    def _check_ids(self) -> None:
        """Refuse a file that names a photo twice; eight bytes a photo are held."""
        hashes = np.fromiter(map(hash, self._texts()), np.int64)
        values, counts = np.unique(hashes, return_counts=True)
        suspects = set(values[counts > 1].tolist())
        seen: set[str] = set()
        # Two texts may share a hash: what is said is said of the texts.
        for text in self._texts() if suspects else ():
            if hash(text) in suspects and text in seen:
                raise DataError(f"{self.name} names the photo {text[:80]!r} a second time")
            seen.add(text)

    def _texts(self) -> Iterator[str]:
        """The ids in order, without what is no text: `parts` gives that back with the reason."""
        for part in self._columns.parts([ID_COLUMN], _SCANNED):
            yield from (text for text in part[ID_COLUMN] if isinstance(text, str))


def _dim(columns: Columns) -> int:
    """Numbers per region, or an error where the rows cannot be a photo's."""
    numbers = columns.row_shape(EMBEDDINGS)
    if numbers is not None and (numbers[:1] == (REGIONS,) or len(numbers) == 1):
        dim, rest = divmod(int(np.prod(numbers)), REGIONS)
        if dim and not rest:
            return dim
    found = "lists of different lengths" if numbers is None else f"(n, {', '.join(map(str, numbers))})"
    raise DataError(f"{columns.name}: {EMBEDDINGS} must be (n, {REGIONS}, dim) numbers, found {found}")


def _kind(columns: Columns, column: str, name: str, known: Mapping[str, Kind]) -> Kind:
    found = columns.kinds[column]
    if found is None:
        raise DataError(f"column {column[:80]!r} must hold texts, numbers, bools, dates or lists of texts")
    return stated_kind(column) or known.get(name) or found


def check_id(text: object) -> str:
    """A text that can be a photo's id.

    Raises:
        DataError: it cannot.
    """
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_ID:
        raise DataError(f"a photo id must be a text of 1 to {MAX_ID} characters, got {str(text)[:80]!r}")
    with suppress(UnicodeEncodeError):
        text.encode()
        return str(text)
    raise DataError("a photo id must be Unicode text, this one holds lone surrogates")


def _value(kind: Kind, value: Any, name: str) -> Value | None:
    """A cell as a gallery keeps it."""
    if value is None or value == "" or value != value:  # NaN alone differs from itself, and so does NaT
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if kind is Kind.TAGS and isinstance(value, str):
        value = [tag.strip() for tag in value.split("|") if tag.strip()]
    if kind is Kind.DATE and isinstance(value, str):
        value = as_date(value) or value
    try:
        return check_value(kind, value)
    except DataError as error:
        raise DataError(f"field {name}: {error}") from error


def _wrong_rows(embeddings: npt.NDArray[np.float32]) -> dict[int, str]:
    """Row -> why it is no photo's."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("nrd,nrd->nr", embeddings, embeddings))
        wrong = ~(np.abs(lengths - 1) <= _UNIT_WITHIN)
    reasons = {}
    for row in np.flatnonzero(wrong.any(axis=1)).tolist():
        region = int(wrong[row].argmax())
        reasons[row] = (
            f"embeddings must be rows of length 1, that of region {region} is {lengths[row, region]:.4g} long"
        )
    return reasons
