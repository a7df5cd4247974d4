"""Metadata and filters: wire types to domain types and back. `service.convert` does the rest."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Final

from indexer.errors import QueryError, blaming
from indexer.filters import And, Equals, Filter, HasTag, Ids, Not, OneOf, Or, Range, Scalar
from indexer.metadata import Kind, Value, as_date
from mgrl.v1 import metadata_pb2

_KINDS: "Final[Mapping[metadata_pb2.MetadataKind.ValueType, Kind]]" = {
    metadata_pb2.MetadataKind.Value(f"METADATA_KIND_{kind.name}"): kind for kind in Kind
}


def fields_to_wire(kinds: Mapping[str, Kind]) -> list[metadata_pb2.MetadataField]:
    """The messages for a gallery's fields."""
    return [
        metadata_pb2.MetadataField(name=name, kind=metadata_pb2.MetadataKind.Value(f"METADATA_KIND_{kind.name}"))
        for name, kind in kinds.items()
    ]


def fields_from_wire(fields: Iterable[metadata_pb2.MetadataField]) -> dict[str, Kind]:
    """A gallery's fields; kinds of a later contract than ours are left out."""
    return {field.name: _KINDS[field.kind] for field in fields if field.kind in _KINDS}


def asked_fields(fields: Sequence[metadata_pb2.MetadataField]) -> dict[str, Kind]:
    """The fields that a gallery shall have.

    Raises:
        QueryError: one without a kind, or of a later contract than ours; or two of one name.
    """
    kinds: dict[str, Kind] = {}
    for place, field in enumerate(fields):
        with blaming(f"fields[{place}]"):
            if field.kind not in _KINDS:
                raise QueryError(f"field {field.name[:80]!r} must have a kind, got number {field.kind}", field="kind")
            if field.name in kinds:
                raise QueryError(f"fields must have different names, two are named {field.name[:80]!r}", field="name")
            kinds[field.name] = _KINDS[field.kind]
    return kinds


def metadata_to_wire(metadata: Mapping[str, Value]) -> dict[str, metadata_pb2.MetadataValue]:
    """The messages for a photo's values.

    Raises:
        QueryError: one is of a type that no field has.
    """
    return {field: _value_to_wire(value) for field, value in metadata.items()}


def metadata_from_wire(metadata: Mapping[str, metadata_pb2.MetadataValue]) -> dict[str, Value]:
    """A photo's values."""
    return {field: _value_from_wire(value) for field, value in metadata.items()}


def filter_to_wire(filter: Filter) -> metadata_pb2.Filter:
    """The message for a filter, which `indexer.filters.check_size` let through."""
    match filter:
        case Equals(field, value):
            return metadata_pb2.Filter(equals=metadata_pb2.EqualsFilter(field=field, value=_value_to_wire(value)))
        case OneOf(field, values):
            one_of = metadata_pb2.OneOfFilter(field=field, values=map(_value_to_wire, values))
            return metadata_pb2.Filter(one_of=one_of)
        case Range(field, least, most):
            ends = (None if end is None else _value_to_wire(end) for end in (least, most))
            return metadata_pb2.Filter(range=metadata_pb2.RangeFilter(field=field, least=next(ends), most=next(ends)))
        case HasTag(field, tag):
            return metadata_pb2.Filter(has_tag=metadata_pb2.TagFilter(field=field, tag=tag))
        case Ids(photo_ids):
            return metadata_pb2.Filter(ids=metadata_pb2.IdFilter(photo_ids=photo_ids))
        case And(parts):
            return metadata_pb2.Filter(all_of=metadata_pb2.FilterList(filters=map(filter_to_wire, parts)))
        case Or(parts):
            return metadata_pb2.Filter(any_of=metadata_pb2.FilterList(filters=map(filter_to_wire, parts)))
        case Not(part):
            return metadata_pb2.Filter(negated=filter_to_wire(part))


def filter_from_wire(message: metadata_pb2.Filter) -> Filter:
    """A filter; protobuf itself refuses messages that are nested more than 100 deep.

    Raises:
        QueryError: a part without predicate, a value without content, or no date.
    """
    match message.WhichOneof("predicate"):
        case "equals":
            return Equals(message.equals.field, _scalar_from_wire(message.equals.value))
        case "one_of":
            return OneOf(message.one_of.field, tuple(map(_scalar_from_wire, message.one_of.values)))
        case "range":
            return _range_from_wire(message.range)
        case "has_tag":
            return HasTag(message.has_tag.field, message.has_tag.tag)
        case "ids":
            return Ids(tuple(message.ids.photo_ids))
        case "all_of":
            return And(tuple(map(filter_from_wire, message.all_of.filters)))
        case "any_of":
            return Or(tuple(map(filter_from_wire, message.any_of.filters)))
        case "negated":
            return Not(filter_from_wire(message.negated))
    raise QueryError("a filter must hold a predicate, this one holds nothing")


def _range_from_wire(message: metadata_pb2.RangeFilter) -> Range:
    ends: list[Scalar | None] = [
        _scalar_from_wire(message.least) if message.HasField("least") else None,
        _scalar_from_wire(message.most) if message.HasField("most") else None,
    ]
    for end in ends:
        if isinstance(end, str):
            raise QueryError(f"a range must lie between numbers or dates, got {end[:80]!r}")
    return Range(message.field, *ends)  # type: ignore[arg-type]  # no strings, see above


def _scalar_from_wire(message: metadata_pb2.MetadataValue) -> Scalar:
    value = _value_from_wire(message)
    if isinstance(value, tuple):
        raise QueryError("a filter compares with one value, got tags; ask for one with has_tag")
    return value


def _value_to_wire(value: Value) -> metadata_pb2.MetadataValue:
    match value:
        case str():
            return metadata_pb2.MetadataValue(text=value)
        case bool():
            return metadata_pb2.MetadataValue(flag=value)
        case int() | float():
            return metadata_pb2.MetadataValue(number=value)
        case tuple() if all(isinstance(tag, str) for tag in value):
            return metadata_pb2.MetadataValue(tags=metadata_pb2.TagList(tags=value))
        case date():
            return metadata_pb2.MetadataValue(date=value.isoformat())
    raise QueryError(
        f"a value must be a text, a number, true or false, a date, or tags as a tuple of texts, got {str(value)[:80]} "
        f"({type(value).__name__})"
    )


def _value_from_wire(message: metadata_pb2.MetadataValue) -> Value:
    match message.WhichOneof("value"):
        case "text":
            return message.text
        case "number":
            return message.number
        case "flag":
            return message.flag
        case "tags":
            return tuple(message.tags.tags)
        case "date":
            if (day := as_date(message.date)) is None:
                raise QueryError(f"a date must be YYYY-MM-DD, got {message.date[:80]!r}")
            return day
    raise QueryError("a value must hold text, a number, a flag, a date or tags, this one holds nothing")
