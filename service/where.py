"""Conditions as people type them, `sex=female` or `age>=30`, to filters.

    FIELD=VALUE,...    it has this value, or one of several        FIELD!=VALUE,...   it has none of them
    FIELD>=VALUE       a number or date is at least this           FIELD<=VALUE       at most this
    FIELD:TAG          its tags hold this one                      FIELD!:TAG         they do not
    photo_id=ID,...    these photos                                photo_id!=ID,...   all but these

A value is a number (30), true or false, a date (2024-02-29), or else text; text in double quotes is always text
(badge="007"), may hold commas, and a quote in it is doubled. A tag is all that follows, or a text in double quotes.
"""

import re
from datetime import date
from typing import Final

from indexer.errors import QueryError
from indexer.filters import And, Equals, Filter, HasTag, Ids, Not, OneOf, Range, Scalar
from indexer.metadata import ID_COLUMN, as_date

_CONDITION: Final = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(>=|<=|!=|!:|=|:)(.*)", re.DOTALL)
_VALUE: Final = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,"]*))\s*(,|$)')
_BOOLS: Final = {"true": True, "false": False}


def filter_of(conditions: list[str]) -> Filter | None:
    """The photos for which all conditions hold; None without conditions.

    Raises:
        QueryError: one cannot be read.

    Example:
        >>> filter_of(["age>=30", "marks!:scar"])
        And(parts=(Range(field='age', least=30.0, most=None), Not(part=HasTag(field='marks', tag='scar'))))
        >>> filter_of(['badge="007"', "sex=female,male"]).parts[1]
        OneOf(field='sex', values=('female', 'male'))
    """
    parts = tuple(map(_condition, conditions))
    return And(parts) if len(parts) > 1 else next(iter(parts), None)


def _condition(text: str) -> Filter:
    parsed = _CONDITION.fullmatch(text)
    if parsed is None:
        raise QueryError(
            f"a condition must be FIELD=VALUE, FIELD!=VALUE, FIELD>=VALUE, FIELD<=VALUE, FIELD:TAG or FIELD!:TAG, got "
            f"{text[:80]!r}"
        )
    field, operator, rest = parsed.groups()
    if operator in (":", "!:"):
        has_tag = HasTag(field, _tag(text, rest.strip()))
        return Not(has_tag) if operator == "!:" else has_tag
    values = _values(text, rest)
    if operator in (">=", "<="):
        return _range(text, field, operator, values)
    wanted: Filter
    if field == ID_COLUMN:
        wanted = Ids(tuple(written for written, _ in values))
    else:
        meant = tuple(value for _, value in values)
        wanted = Equals(field, meant[0]) if len(meant) == 1 else OneOf(field, meant)
    return Not(wanted) if operator == "!=" else wanted


def _tag(text: str, written: str) -> str:
    tag = written
    if written.startswith('"'):
        ((tag, _), *others) = _values(text, written)
        if others:
            raise QueryError(f"a condition on tags names one of them, got {text[:80]!r}")
    if not tag:
        raise QueryError(f"a condition on tags needs a tag, got {text[:80]!r}")
    return tag


def _range(text: str, field: str, operator: str, values: list[tuple[str, Scalar]]) -> Range:
    value = values[0][1]
    if len(values) > 1 or isinstance(value, bool) or not isinstance(value, float | date):
        raise QueryError(f"{operator} compares with one number or one date, got {text[:80]!r}")
    return Range(field, value, None) if operator == ">=" else Range(field, None, value)


def _values(text: str, rest: str) -> list[tuple[str, Scalar]]:
    """Each value as it is written, without its quotes, and what it means."""
    values: list[tuple[str, Scalar]] = []
    place, separator = 0, ","
    while separator:
        found = _VALUE.match(rest, place)
        if found is None:
            raise QueryError(f"a quote that is opened must be closed before the next comma, got {text[:80]!r}")
        quoted, plain, separator = found.groups()
        place = found.end()
        written = plain.strip() if quoted is None else quoted.replace('""', '"')
        if quoted is None and not written:
            raise QueryError(f'a condition needs a value, "" for an empty text, got {text[:80]!r}')
        values.append((written, written if quoted is not None else _meant(written)))
    return values


def _meant(text: str) -> Scalar:
    if text.lower() in _BOOLS:
        return _BOOLS[text.lower()]
    if (day := as_date(text)) is not None:
        return day
    return float(text) if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) else text
