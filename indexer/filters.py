"""Which photos take part in a search: predicates on their metadata; clients import it.

A photo that lacks a field passes no predicate on it, and so passes the negation of every one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from indexer.errors import DataError, QueryError
from indexer.metadata import MAX_TEXT, Kind, check_value

MAX_DEPTH: Final = 16
MAX_PREDICATES: Final = 1000
MAX_VALUES: Final = 10_000
"""Values and ids of one filter together."""

Scalar = str | float | bool | date


@dataclass(frozen=True)
class Equals:
    """The field has this value; a string as it is written, upper and lower case."""

    field: str
    value: Scalar


@dataclass(frozen=True)
class OneOf:
    """The field has one of these values; with none of them no photo passes."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Range:
    """The number or day of the field lies between these, both included; None is no bound."""

    field: str
    least: float | date | None = None
    most: float | date | None = None


@dataclass(frozen=True)
class HasTag:
    """The field's tags hold this one."""

    field: str
    tag: str


@dataclass(frozen=True)
class Ids:
    """The photo is one of these; an id that the gallery does not have is no error."""

    photo_ids: tuple[str, ...]


@dataclass(frozen=True)
class And:
    """Every part passes; without parts, every photo."""

    parts: "tuple[Filter, ...]"


@dataclass(frozen=True)
class Or:
    """One part at least passes; without parts, no photo."""

    parts: "tuple[Filter, ...]"


@dataclass(frozen=True)
class Not:
    """The part does not pass."""

    part: "Filter"


Filter = Equals | OneOf | Range | HasTag | Ids | And | Or | Not
Predicate = Equals | OneOf | Range | HasTag | Ids


def check_size(filter: Filter) -> None:
    """Refuse a filter that is too large, before anything walks it by recursion.

    Raises:
        QueryError: nested deeper than 16, more than 1000 predicates, more than 10,000 values, or a long text.
    """
    values = 0
    for predicates, (depth, part) in enumerate(_walk(filter), start=1):
        if depth > MAX_DEPTH:
            raise QueryError(f"a filter may be nested {MAX_DEPTH} deep, this one is deeper; write it flatter")
        texts = _values(part)
        values += len(texts)
        if predicates > MAX_PREDICATES or values > MAX_VALUES:
            raise QueryError(
                f"a filter may have {MAX_PREDICATES} predicates and {MAX_VALUES} values, this one has more; tag the "
                "photos at ingestion and ask for the tag"
            )
        if any(isinstance(text, str) and len(text) > MAX_TEXT for text in texts):
            raise QueryError(f"a text in a filter may have {MAX_TEXT} characters")


def check_fields(filter: Filter, kinds: Mapping[str, Kind]) -> None:
    """Refuse a filter that does not fit a gallery's fields.

    Raises:
        QueryError: an unknown field, a value of another type, or a predicate that the field's kind does not have.
    """
    for _, part in _walk(filter):
        match part:
            case Equals(field) | OneOf(field) | Range(field) | HasTag(field):
                _check_predicate(part, _kind(field, kinds))


def _check_predicate(predicate: Equals | OneOf | Range | HasTag, kind: Kind) -> None:
    field = predicate.field
    match predicate:
        case HasTag() if kind is not Kind.TAGS:
            raise QueryError(f"field {field} is a {kind} and has no tags")
        case Equals() | OneOf() if kind is Kind.TAGS:
            raise QueryError(f"field {field} holds tags: ask whether it has one ({field}:TAG), not what it equals")
        case Range() if kind not in (Kind.NUMBER, Kind.DATE):
            raise QueryError(f"field {field} is a {kind}: only numbers and dates have a range")
        case Range(_, None, None):
            raise QueryError(f"a range of {field} needs a least or a most value")
    for value in _values(predicate):
        try:
            # Days are days here: a text that names one is a text.
            if kind is Kind.DATE and not isinstance(value, date):
                raise DataError(f"the value must be a date, got {str(value)[:80]!r}")
            check_value(Kind.STRING if kind is Kind.TAGS else kind, value)
        except DataError as error:
            advice = (
                f'; write it in quotes: {field}="..."' if kind is Kind.STRING and not isinstance(value, str) else ""
            )
            raise QueryError(f"field {field} is a {kind}: {error}{advice}") from error


def _kind(field: str, kinds: Mapping[str, Kind]) -> Kind:
    if field not in kinds:
        known = ", ".join(f"{name} ({kind})" for name, kind in sorted(kinds.items())) or "none"
        raise QueryError(f"no metadata field is named {field[:80]!r}; the gallery has: {known}")
    return kinds[field]


def _walk(filter: Filter) -> Iterator[tuple[int, Filter]]:
    """Every part of a filter and how deep it lies, from 1 on."""
    waiting: list[tuple[int, Filter]] = [(1, filter)]
    while waiting:
        depth, part = waiting.pop()
        yield depth, part
        match part:
            case And(parts) | Or(parts):
                waiting += [(depth + 1, inner) for inner in parts]
            case Not(inner):
                waiting.append((depth + 1, inner))


def _values(part: Filter) -> tuple[Scalar, ...]:
    match part:
        case Equals(_, value):
            return (value,)
        case OneOf(_, values):
            return values
        case Range(_, least, most):
            return tuple(bound for bound in (least, most) if bound is not None)
        case HasTag(_, tag):
            return (tag,)
        case Ids(photo_ids):
            return photo_ids
    return ()
