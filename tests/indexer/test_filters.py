import tracemalloc
from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.attributes import Attributes, Masks
from indexer.errors import QueryError
from indexer.filters import And, Equals, Filter, HasTag, Ids, Not, OneOf, Or, Range, check_fields, check_size
from indexer.metadata import Kind, to_json

KINDS = {"hair": Kind.STRING, "age": Kind.NUMBER, "beard": Kind.BOOL, "seen": Kind.DATE, "marks": Kind.TAGS}
HAIR, TAGS = ("red", "black", "grey"), ("mole", "scar", "ring")
DAYS = [date(2020, 1, day) for day in range(1, 6)]

photos = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "hair": st.sampled_from(HAIR),
            "age": st.integers(0, 4).map(float),
            "beard": st.booleans(),
            "seen": st.sampled_from(DAYS),
            "marks": st.lists(st.sampled_from(TAGS), unique=True).map(tuple),
        },
    ),
    max_size=12,
)
values = {
    "hair": st.sampled_from((*HAIR, "green")),
    "age": st.integers(-1, 5).map(float),
    "beard": st.booleans(),
    "seen": st.sampled_from([*DAYS, date(2021, 1, 1)]),
}
predicates = st.one_of(
    *[st.builds(Equals, st.just(field), value) for field, value in values.items()],
    *[st.builds(OneOf, st.just(field), st.lists(value, max_size=3).map(tuple)) for field, value in values.items()],
    *[st.builds(Range, st.just(f), values[f], st.one_of(st.none(), values[f])) for f in ("age", "seen")],
    st.builds(Range, st.just("age"), st.none(), values["age"]),
    st.builds(HasTag, st.just("marks"), st.sampled_from((*TAGS, "none"))),
    st.builds(Ids, st.lists(st.integers(0, 14).map(str), max_size=3).map(tuple)),
)
filters = st.recursive(
    predicates,
    lambda parts: st.one_of(
        st.builds(And, st.lists(parts, max_size=3).map(tuple)),
        st.builds(Or, st.lists(parts, max_size=3).map(tuple)),
        st.builds(Not, parts),
    ),
    max_leaves=6,
)


def passes(filter: Filter, photo_id: str, known: Mapping[str, Any]) -> bool:
    """The meaning of a filter, photo by photo."""
    match filter:
        case Equals(field, value):
            return field in known and known[field] == value
        case OneOf(field, values):
            return field in known and known[field] in values
        case Range(field, least, most):
            value = known.get(field)
            return value is not None and (least is None or value >= least) and (most is None or value <= most)
        case HasTag(field, tag):
            return tag in known.get(field, ())
        case Ids(photo_ids):
            return photo_id in photo_ids
        case And(parts):
            return all(passes(part, photo_id, known) for part in parts)
        case Or(parts):
            return any(passes(part, photo_id, known) for part in parts)
        case Not(part):
            return not passes(part, photo_id, known)


def attributes_of(known: list[dict[str, Any]]) -> Attributes:
    return Attributes.build(KINDS, len(known), ((row, to_json(values)) for row, values in enumerate(known)))


@settings(deadline=None, max_examples=300)
@given(known=photos, filter=filters)
def test_a_mask_is_what_each_photo_alone_would_give(known: list[dict[str, Any]], filter: Filter) -> None:
    check_size(filter)
    check_fields(filter, KINDS)
    rows = {str(row): row for row in range(len(known))}
    mask = attributes_of(known).passing(filter, lambda ids: [rows[i] for i in ids if i in rows])
    assert mask.dtype == np.bool_
    assert mask.tolist() == [passes(filter, str(row), values) for row, values in enumerate(known)]


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        (
            And((Equals("hair", "red"), Not(Equals("hat", "red")))),
            "no metadata field is named 'hat'; the gallery has: age (number), beard (bool), hair (string),",
        ),
        (Equals("age", "30"), "field age is a number: the value must be a number, got '30'"),
        (Equals("age", True), "field age is a number: the value must be a number, got 'True'"),
        (Equals("age", float("nan")), "field age is a number: a number must be finite, got nan"),
        (
            OneOf("hair", ("red", 7.0)),
            "field hair is a string: the value must be a string, got '7.0'; write it in quotes: hair=\"...\"",
        ),
        (Equals("beard", 1.0), "field beard is a bool: the value must be a bool, got '1.0'"),
        (Equals("seen", "2020-01-01"), "field seen is a date: the value must be a date, got '2020-01-01'"),
        (Range("seen", 3.0), "field seen is a date: the value must be a date, got '3.0'"),
        (Range("hair", 3.0), "field hair is a string: only numbers and dates have a range"),
        (Range("age"), "a range of age needs a least or a most value"),
        (Equals("marks", "scar"), "field marks holds tags: ask whether it has one (marks:TAG), not what it equals"),
        (HasTag("hair", "red"), "field hair is a string and has no tags"),
    ],
)
def test_a_filter_that_does_not_fit_the_fields_is_refused(filter: Filter, message: str) -> None:
    with pytest.raises(QueryError) as refused:
        check_fields(filter, KINDS)
    assert str(refused.value).startswith(message)


def nested(depth: int) -> Filter:
    filter: Filter = Equals("age", 1.0)
    for _ in range(depth - 1):
        filter = Not(filter)
    return filter


def test_filters_that_are_too_large_are_refused() -> None:
    check_size(nested(16))
    for deep in (nested(17), nested(100_000)):
        with pytest.raises(QueryError, match="a filter may be nested 16 deep, this one is deeper"):
            check_size(deep)
    check_size(And((Equals("age", 1.0),) * 999))
    check_size(Ids(tuple(map(str, range(10_000)))))
    wide = And((Equals("age", 1.0),) * 1000), Ids(tuple(map(str, range(10_001))))
    for filter in (*wide, Or((wide[1], Equals("age", 1.0)))):
        with pytest.raises(QueryError, match="a filter may have 1000 predicates and 10000 values, this one has more"):
            check_size(filter)
    with pytest.raises(QueryError, match="a text in a filter may have 1000 characters"):
        check_size(HasTag("marks", "x" * 1001))


@pytest.mark.parametrize("kind", [And, Or])
def test_a_filter_of_very_many_predicates_takes_the_memory_of_a_few(kind: type[And | Or]) -> None:
    photos, few = 100_000, 10
    columns = Attributes.build({"age": Kind.NUMBER}, photos, ())
    filter = kind(tuple(Range("age", float(number)) for number in range(300)))
    tracemalloc.start()
    columns.passing(filter, list)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < few * photos


def test_a_filter_is_evaluated_once_while_it_is_among_the_latest() -> None:
    seen: list[Filter] = []

    def evaluate(filter: Filter) -> np.ndarray:
        seen.append(filter)
        return np.zeros(3, bool)

    masks = Masks()
    filters = [Equals("age", float(number)) for number in range(33)]
    for filter in (*filters[:32], filters[0], filters[32], filters[0], Equals("age", 0.0)):
        masks.of(filter, evaluate)
    assert seen == filters
    masks.of(filters[1], evaluate)
    assert seen == [*filters, filters[1]], "the one that was asked for longest ago was given up"
