"""The metadata of a gallery's photos, column by column, and which photos pass a filter."""

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from indexer.filters import And, Equals, Filter, HasTag, Ids, Not, OneOf, Or, Predicate, Range, Scalar
from indexer.metadata import Kind

Mask = npt.NDArray[np.bool_]
RowsOf = Callable[[Iterable[str]], list[int]]
"""From photo ids to the rows of those that are there."""

_EPOCH: Final = date(1970, 1, 1)

_KEPT_MASKS: Final = 32
"""One megabyte each for a gallery of a million photos."""


class Attributes:
    """Columns over the rows of a gallery. Use `build`; the constructor only stores.

    Args:
        kinds: the gallery's fields.
        photos: rows, those of deleted photos included.
        numbers: field -> (photos,) float64; NaN where a photo has no value. Bools are 0 and 1, dates days since 1970.
        strings: field -> (photos,) int32 codes, -1 where there is no value, and the code of each string.
        tags: field -> tag -> ascending rows.
    """

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        photos: int,
        numbers: Mapping[str, npt.NDArray[np.float64]],
        strings: Mapping[str, tuple[npt.NDArray[np.int32], Mapping[str, int]]],
        tags: Mapping[str, Mapping[str, npt.NDArray[np.int64]]],
    ) -> None:
        self.kinds = kinds
        self._photos = photos
        self._numbers, self._strings, self._tags = numbers, strings, tags

    @classmethod
    def build(cls, kinds: Mapping[str, Kind], photos: int, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> Self:
        """Columns from each row's values as `indexer.metadata.to_json` writes them."""
        numbers = {
            field: np.full(photos, np.nan)
            for field, kind in kinds.items()
            if kind in (Kind.NUMBER, Kind.BOOL, Kind.DATE)
        }
        codes = {field: np.full(photos, -1, np.int32) for field, kind in kinds.items() if kind is Kind.STRING}
        known: dict[str, dict[str, int]] = {field: {} for field in codes}
        tagged: dict[str, dict[str, list[int]]] = {
            field: defaultdict(list) for field, kind in kinds.items() if kind is Kind.TAGS
        }
        for row, values in rows:
            for field, value in values.items():
                if field in known:
                    codes[field][row] = known[field].setdefault(value, len(known[field]))
                elif field in tagged:
                    for tag in value:
                        tagged[field][tag].append(row)
                else:
                    numbers[field][row] = _days(date.fromisoformat(value)) if isinstance(value, str) else value
        strings = {field: (codes[field], known[field]) for field in codes}
        tags = {field: {tag: np.array(rows) for tag, rows in by_tag.items()} for field, by_tag in tagged.items()}
        return cls(kinds, photos, numbers, strings, tags)

    def passing(self, filter: Filter, rows_of: RowsOf) -> Mask:
        """(photos,) bool, the rows that pass.

        Args:
            filter: one that `check_size` and `check_fields` of `indexer.filters` let through.
            rows_of: finds the photos of `Ids`.
        """
        match filter:
            case And(parts):
                return _all((self.passing(part, rows_of) for part in parts), self._photos)
            case Or(parts):
                return ~_all((~self.passing(part, rows_of) for part in parts), self._photos)
            case Not(part):
                return ~self.passing(part, rows_of)
            case Ids(photo_ids):
                return self._only(np.array(rows_of(photo_ids), np.int64))
        return self._predicate(filter)

    def _predicate(self, predicate: Predicate) -> Mask:
        match predicate:
            case Equals(field, value):
                return self._one_of(field, (value,))
            case OneOf(field, values):
                return self._one_of(field, values)
            case Range(field, least, most):
                column = self._numbers[field]
                low = -np.inf if least is None else _number(least)
                high = np.inf if most is None else _number(most)
                return np.asarray((column >= low) & (column <= high))
            case HasTag(field, tag):
                return self._only(self._tags[field].get(tag, np.empty(0, np.int64)))
        raise AssertionError(predicate)

    def _one_of(self, field: str, values: tuple[Scalar, ...]) -> Mask:
        if field in self._numbers:
            return np.isin(self._numbers[field], [_number(value) for value in values if not isinstance(value, str)])
        codes, known = self._strings[field]
        return np.isin(codes, [known[value] for value in values if isinstance(value, str) and value in known])

    def _only(self, rows: npt.NDArray[np.int64]) -> Mask:
        mask = np.zeros(self._photos, np.bool_)
        mask[rows] = True
        return mask


class Masks:
    """What filters let through, evaluated once each while they are among the latest; safe to share between threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Filter, Mask] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, filter: Filter, evaluate: Callable[[Filter], Mask]) -> Mask:
        """The filter's mask, from `evaluate` where it is not known; errors are those of `evaluate`."""
        with self._lock:
            if filter in self._kept:
                self._kept.move_to_end(filter)
                return self._kept[filter]
        mask = evaluate(filter)
        with self._lock:
            self._kept[filter] = mask
            while len(self._kept) > _KEPT_MASKS:
                self._kept.popitem(last=False)
        return mask


def _all(masks: Iterable[Mask], photos: int) -> Mask:
    """Where every mask is True; one at a time is held, of the thousand that a filter may have."""
    every = np.ones(photos, np.bool_)
    for mask in masks:
        every &= mask
    return every


def _number(value: float | date) -> float:
    return _days(value) if isinstance(value, date) else float(value)


def _days(day: date) -> int:
    return (day - _EPOCH).days
