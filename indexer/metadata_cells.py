"""From the cells of a table to fields with a kind: what each column is, found out row by row, and cells as values.

A column `seen:date` has that kind; one without has the kind that the gallery gives it, or else what all its values can
be: where they have types, their own, and otherwise bool (true, false), number, date or string. Texts that are all
YYYY-MM-DD are dates. Tags in a text are separated by `|` and need `:tags`. Where nothing tells the kind, for all cells
are empty, a column is no field yet.
"""

import re
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from indexer.errors import DataError
from indexer.metadata import MAX_FIELDS, Kind, Value, as_date, check_field, check_value

_BOOLS: Final = {"true": True, "false": False}
_CODE: Final = re.compile(r"[+-]?0\d|.*_|[+-]?\d{16}")
"""How codes begin that read as numbers and are none, such as 007 and 12_34: a number would not give them back. It has
15 digits."""


class Columns:
    """The columns of a table, of which rows are seen one after the other, and later read."""

    def __init__(self, known: Mapping[str, Kind], *, has_types: bool) -> None:
        """Begin without columns.

        Args:
            known: the gallery's fields.
            has_types: whether cells have types; otherwise all are texts.
        """
        self._known = known
        self._has_types = has_types
        self._fields: dict[str, str] = {}
        self._guesses: dict[str, _Guess] = {}

    def see(self, cells: Mapping[str, Any]) -> None:
        """Look at one row.

        Raises:
            DataError: a column cannot be a field.
        """
        for column, cell in cells.items():
            if column not in self._fields:
                self._add(column)
            if cell is not None and (guess := self._guesses.get(column)) is not None:
                guess.see(cell)

    @property
    def kinds(self) -> dict[str, Kind]:
        """Field -> kind, as far as rows were seen.

        Raises:
            DataError: there are too many fields, or two columns are the same one.
        """
        if len(self._fields) > MAX_FIELDS or len(set(self._fields.values())) < len(self._fields):
            raise DataError(f"a file may name {MAX_FIELDS} fields, each once, got {len(self._fields)} columns")
        kinds = {field: self._kind(column, field) for column, field in self._fields.items()}
        return {field: kind for field, kind in kinds.items() if kind is not None}

    def values(self, cells: Mapping[str, Any]) -> dict[str, Value | None]:
        """One row's values by field, None where it has none.

        Raises:
            DataError: one is of another kind.
        """
        values: dict[str, Value | None] = {}
        for column, cell in cells.items():
            field = self._fields.get(column, "")
            kind = self._kind(column, field) if field else None
            if field and kind is None and cell is None:
                continue
            if kind is None:
                raise DataError(f"column {column[:80]!r} was not there when the file was checked; it has changed")
            try:
                values[field] = typed(kind, cell, has_types=self._has_types)
            except DataError as error:
                raise DataError(f"field {field}: {error}") from error
        return values

    def _add(self, column: str) -> None:
        field = check_field(column.partition(":")[0])
        if stated_kind(column) is None and field not in self._known:
            self._guesses[column] = _Guess() if self._has_types else _TextGuess()
        self._fields[column] = field

    def _kind(self, column: str, field: str) -> Kind | None:
        guess = self._guesses.get(column)
        return guess.kind if guess else stated_kind(column) or self._known[field]


def typed(kind: Kind, cell: object, *, has_types: bool) -> Value | None:
    """A cell as a value of its kind.

    Raises:
        DataError: it cannot be one.
    """
    value = cell if has_types else _from_text(kind, cell)
    return None if value is None else check_value(kind, value)


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


def kind_of(value: object) -> Kind:
    """The kind of a value that has a type; a text is a string even where it looks like a date."""
    match value:
        case bool():
            return Kind.BOOL
        case int() | float():
            return Kind.NUMBER
        case list():
            return Kind.TAGS
        case date():
            return Kind.DATE
    return Kind.STRING


class _Guess:
    """The kind of a column of typed values, if any: the first names it, others are refused by their lines."""

    def __init__(self) -> None:
        self._first: Kind | None = None
        self._are_dates = True

    def see(self, cell: Any) -> None:
        self._first = self._first or kind_of(cell)
        self._are_dates = self._are_dates and (isinstance(cell, date) or _is_date(cell))

    @property
    def kind(self) -> Kind | None:
        return Kind.DATE if self._first is Kind.STRING and self._are_dates else self._first


class _TextGuess(_Guess):
    """The kind of a column of texts: the first that all of them can be."""

    def __init__(self) -> None:
        super().__init__()
        self._left = [Kind.BOOL, Kind.NUMBER, Kind.DATE]
        self._is_empty = True

    def see(self, cell: Any) -> None:
        self._is_empty = False
        self._left = [kind for kind in self._left if _reads_as(kind, cell)]

    @property
    def kind(self) -> Kind | None:
        return None if self._is_empty else next(iter(self._left), Kind.STRING)


def _is_date(cell: Any) -> bool:
    return isinstance(cell, str) and as_date(cell) is not None


def _reads_as(kind: Kind, text: str) -> bool:
    if kind is Kind.NUMBER and _CODE.match(text):
        return False
    try:
        typed(kind, text, has_types=False)
    except DataError:
        return False
    return True


def _from_text(kind: Kind, text: Any) -> object:
    """A text as `check_value` takes it; what cannot be one stays a text, and is refused there."""
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
