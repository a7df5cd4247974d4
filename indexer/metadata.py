"""What is known about a photo besides its looks: fields with a type, the values they take, and how they are kept.

A gallery has its fields, each of one kind for all photos; a photo may lack any of them. Values come from strangers'
files and end up in terminals and answers, so control characters and huge ones are refused where they enter.
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final

from indexer.errors import DataError

MAX_FIELDS: Final = 64
MAX_TEXT: Final = 1000
"""Characters of a string or a tag."""

MAX_TAGS: Final = 100
"""Tags of one photo in one field."""

ID_COLUMN: Final = "photo_id"
"""What a metadata file calls the photo; no field may have this name."""

Value = str | float | bool | date | tuple[str, ...]
"""A string, a number, a truth, a day, or tags."""

Changes = Mapping[str, Mapping[str, Value | None]]
"""Photo id -> field -> value, or None to take an earlier value away."""

_JOINERS: Final = "\u200c\u200d"
"""Persian and the scripts of India cannot be written without them."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class Kind(StrEnum):
    """The type of a field."""

    STRING = "string"
    NUMBER = "number"
    BOOL = "bool"
    DATE = "date"
    TAGS = "tags"


def check_field(name: str) -> str:
    """The name of a field, if it can be one.

    Raises:
        DataError: it is no plain word, or the name of the photo's id.
    """
    if not _NAME.fullmatch(name) or name == ID_COLUMN:
        raise DataError(
            f"a field's name must be 1 to 64 letters, digits and underscores, no digit first, and not {ID_COLUMN}; "
            f"got {name[:80]!r}"
        )
    return name


def check_kinds(kinds: Mapping[str, Kind]) -> None:
    """Refuse fields that no gallery can have.

    Raises:
        DataError: a name that cannot be, or too many.
    """
    if len(kinds) > MAX_FIELDS:
        raise DataError(f"a gallery may have {MAX_FIELDS} metadata fields, this one would have {len(kinds)}")
    for name in kinds:
        check_field(name)


def new_fields(known: Mapping[str, Kind], kinds: Mapping[str, Kind]) -> dict[str, Kind]:
    """Which of these fields a gallery with those that are known has to get.

    Raises:
        DataError: one has another kind there, or there would be too many.
    """
    for field, kind in kinds.items():
        if known.get(field, kind) is not kind:
            raise DataError(f"field {field} is a {known[field]} in this gallery, not a {kind}; give it another name")
    new = {field: kind for field, kind in kinds.items() if field not in known}
    if len(known) + len(new) > MAX_FIELDS:
        raise DataError(f"a gallery may have {MAX_FIELDS} metadata fields, this one would have {len(known) + len(new)}")
    return new


def check_value(kind: Kind, value: object) -> Value:
    """A value of a kind, as a field keeps it.

    Raises:
        DataError: another type, not finite, control characters in it, or too long.

    Example:
        >>> check_value(Kind.NUMBER, 31), check_value(Kind.DATE, "2024-02-29"), check_value(Kind.TAGS, ["scar", "scar"])
        (31.0, datetime.date(2024, 2, 29), ('scar',))
    """
    match kind:
        case Kind.STRING if isinstance(value, str):
            return _text(value)
        case Kind.NUMBER if isinstance(value, int | float) and not isinstance(value, bool):
            return _number(value)
        case Kind.BOOL if isinstance(value, bool):
            return value
        case Kind.DATE if isinstance(value, date) and not isinstance(value, datetime):
            return value
        case Kind.DATE if isinstance(value, str) and (day := as_date(value)) is not None:
            return day
        case Kind.TAGS if isinstance(value, list | tuple) and all(isinstance(tag, str) for tag in value):
            tags = tuple(sorted({_text(tag) for tag in value}))
            if len(tags) > MAX_TAGS:
                raise DataError(f"a photo may have {MAX_TAGS} tags in a field, got {len(tags)}")
            return tags
    wanted = {Kind.DATE: "a date such as 2024-02-29", Kind.TAGS: "a list of strings"}.get(kind, f"a {kind}")
    raise DataError(f"the value must be {wanted}, got {str(value)[:80]!r}")


def as_date(text: str) -> date | None:
    """The day that YYYY-MM-DD names, None for any other text."""
    try:
        return date.fromisoformat(text) if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) else None
    except ValueError:
        return None


def to_json(values: Mapping[str, Value]) -> dict[str, Any]:
    """Values as JSON holds them: days as YYYY-MM-DD, tags as lists."""
    plain: dict[str, Any] = {}
    for field, value in values.items():
        plain[field] = value.isoformat() if isinstance(value, date) else value
    return plain


def from_json(values: Mapping[str, Any], kinds: Mapping[str, Kind]) -> dict[str, Value]:
    """The values that `to_json` made plain."""
    return {field: check_value(kinds[field], value) for field, value in values.items()}


def _text(value: str) -> str:
    if len(value) > MAX_TEXT:
        raise DataError(f"a text may have {MAX_TEXT} characters, got {len(value)}")
    if not (value.isprintable() or all(map(_is_harmless, value))):
        raise DataError(f"a text must be printable, without line breaks and control characters, got {value[:80]!r}")
    return value


def _is_harmless(character: str) -> bool:
    """Whether a character may be in a text: Python calls all spaces but one unprintable, and the joiners of scripts."""
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def _number(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DataError(f"a number must be finite, got {number}")
    return number
