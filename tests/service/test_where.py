"""Conditions of the command line, and filters over the wire."""

from datetime import date

import pytest
from hypothesis import given, settings

from indexer.errors import QueryError
from indexer.filters import And, Equals, Filter, HasTag, Ids, Not, OneOf, Range
from mgrl.v1 import metadata_pb2
from service.convert_metadata import (
    fields_from_wire,
    fields_to_wire,
    filter_from_wire,
    filter_to_wire,
    metadata_from_wire,
    metadata_to_wire,
)
from service.where import filter_of
from tests.indexer.test_filters import KINDS, filters


@pytest.mark.parametrize(
    ("condition", "filter"),
    [
        ("sex=female", Equals("sex", "female")),
        ("  sex = Light Brown ", Equals("sex", "Light Brown")),
        ("age=30", Equals("age", 30.0)),
        ("age=-1.5e1", Equals("age", -15.0)),
        ("beard=True", Equals("beard", True)),
        ("seen=2024-02-29", Equals("seen", date(2024, 2, 29))),
        ("seen=2023-02-29", Equals("seen", "2023-02-29")),
        ('badge="007"', Equals("badge", "007")),
        ('note=""', Equals("note", "")),
        ('note="a, ""b"""', Equals("note", 'a, "b"')),
        ("note=a=b>=c", Equals("note", "a=b>=c")),
        ('sex=female, male ,"true"', OneOf("sex", ("female", "male", "true"))),
        ("sex!=female", Not(Equals("sex", "female"))),
        ("age>=30", Range("age", 30.0)),
        ("seen<=2024-02-29", Range("seen", None, date(2024, 2, 29))),
        ("marks:scar on the left", HasTag("marks", "scar on the left")),
        ("marks!:scar", Not(HasTag("marks", "scar"))),
        ('marks:"scar, ""left"""', HasTag("marks", 'scar, "left"')),
        ('marks:scar, "left"', HasTag("marks", 'scar, "left"')),
        ("photo_id=1,a/b", Ids(("1", "a/b"))),
        ('photo_id!="a,b"', Not(Ids(("a,b",)))),
    ],
)
def test_a_condition_is_read_as_it_is_meant(condition: str, filter: Filter) -> None:
    assert filter_of([condition]) == filter
    assert filter_of([condition, "age>=1"]) == And((filter, Range("age", 1.0)))


def test_without_conditions_there_is_no_filter() -> None:
    assert filter_of([]) is None


@pytest.mark.parametrize("condition", ["", "sex", "=female", "age>30", "1age=3", "hair colour=red", "\x1b[2J=a"])
def test_what_is_no_condition_is_refused(condition: str) -> None:
    with pytest.raises(QueryError, match=r"a condition must be FIELD=VALUE"):
        filter_of([condition])


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("marks:", "a condition on tags needs a tag, got 'marks:'"),
        ('marks!:""', "a condition on tags needs a tag"),
        ('marks:"a","b"', "a condition on tags names one of them"),
        ('marks:"a"b', "a quote that is opened must be closed before the next comma"),
        ("sex=", 'a condition needs a value, "" for an empty text'),
        ("sex=a,,b", 'a condition needs a value, "" for an empty text'),
        ("age>=old", ">= compares with one number or one date, got 'age>=old'"),
        ("age<=1,2", "<= compares with one number or one date"),
        ("age>=true", ">= compares with one number or one date"),
        ('sex="a', "a quote that is opened must be closed before the next comma"),
        ('sex="a"b', "a quote that is opened must be closed before the next comma"),
    ],
)
def test_a_value_that_cannot_be_read_is_refused(condition: str, message: str) -> None:
    with pytest.raises(QueryError) as refused:
        filter_of([condition])
    assert str(refused.value).startswith(message)


@settings(deadline=None, max_examples=200)
@given(filter=filters)
def test_filters_survive_the_wire(filter: Filter) -> None:
    sent = filter_to_wire(filter).SerializeToString()
    assert filter_from_wire(metadata_pb2.Filter.FromString(sent)) == filter


def test_metadata_and_fields_survive_the_wire() -> None:
    known = {"hair": "red", "age": 3.5, "beard": False, "seen": date(2024, 2, 29), "marks": ("mole", "scar")}
    received = metadata_from_wire(metadata_to_wire(known))
    assert received == known
    assert received["beard"] is False
    assert fields_from_wire(fields_to_wire(KINDS)) == KINDS
    assert fields_from_wire([metadata_pb2.MetadataField(name="new", kind=99)]) == {}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (metadata_pb2.Filter(), "a filter must hold a predicate, this one holds nothing"),
        (
            metadata_pb2.Filter(negated=metadata_pb2.Filter(all_of={"filters": [metadata_pb2.Filter()]})),
            "a filter must hold a predicate",
        ),
        (metadata_pb2.Filter(equals={"field": "age"}), "a value must hold text, a number, a flag, a date or tags"),
        (metadata_pb2.Filter(equals={"field": "x", "value": {"date": "2024-2-1"}}), "a date must be YYYY-MM-DD"),
        (metadata_pb2.Filter(equals={"field": "x", "value": {"tags": {"tags": ["a"]}}}), "a filter compares with one"),
        (
            metadata_pb2.Filter(range={"field": "x", "least": {"text": "a"}}),
            "a range must lie between numbers or dates, got",
        ),
    ],
)
def test_filters_that_say_nothing_are_refused(message: metadata_pb2.Filter, said: str) -> None:
    with pytest.raises(QueryError) as refused:
        filter_from_wire(message)
    assert str(refused.value).startswith(said)
