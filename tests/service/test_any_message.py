"""Any message that the contract lets a client write, to every method: never a fault of ours, never a hang.

The messages are made from the contract's own descriptors, so that a field which is added tomorrow is tried tomorrow.
"""

import logging

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.gallery import Gallery
from indexer.metadata import Kind
from indexer.store import StoreWriter
from mgrl.v1 import admin_pb2, gallery_pb2, search_pb2
from service.config import Config
from service.config_access import CreatedConfig, GalleryConfig
from tests.conftest import PixelEncoder
from tests.service.conftest import make_gallery, png, serving

FILES = (search_pb2, gallery_pb2, admin_pb2)
METHODS = [
    method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.name != "Drain"  # ends the service that the others are tried on; its message holds nothing
]
TRIED = [method for method in METHODS if method.input_type.fields]
"""Of the others there is one message."""

BATCH = 10
SHORT, LONG = 1_500, 50_000

OURS = {code.value[0] for code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED)}
"""What no message may be answered with."""

two = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2)
LIKELY = {
    "gallery": st.sampled_from(["", "faces", "made"]),
    "purpose": st.just("a case"),
    "x": two,
    "y": two,
    "pressure": two,
    "width": st.just(0.01),
    "radius": st.just(0.05),
    "granularity_1": st.floats(0, 2, width=32),
    "granularity_2": st.floats(0, 2, width=32),
    "granularity_3": st.floats(0, 2, width=32),
    "recall": st.just(0.9),
    "budget_ms": st.just(5.0),
    "k": st.integers(1, 30),
    "filter": st.none(),
    "finish": st.none(),
    "stage_ends": st.none(),
    "deadline_ms": st.integers(1, 60_000),
    "numbers": st.lists(st.integers(0, 4), min_size=1, max_size=2, unique=True),
    "image": st.just(png()),
    "field": st.sampled_from(["age", "name", "marks"]),
}
"""Values of fields of that name with which a message gets further than its first check."""

NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: st.one_of(st.integers(0, 12), st.integers(-(2**31), 2**31 - 1)),
    FieldDescriptor.CPPTYPE_UINT32: st.one_of(st.integers(0, 12), st.integers(0, 2**32 - 1)),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.one_of(st.integers(0, 12), st.integers(0, 2**64 - 1)),
    FieldDescriptor.CPPTYPE_FLOAT: st.one_of(st.floats(0, 1, width=32), st.floats(width=32)),
    FieldDescriptor.CPPTYPE_DOUBLE: st.one_of(st.floats(0, 1), st.floats()),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
}
TEXTS = st.one_of(st.sampled_from(["faces", "photo0001", "2024-02-29"]), st.text(max_size=8))
BYTES = st.one_of(st.binary(max_size=40), st.integers(0, len(png())).map(lambda end: png()[:end]))


def value_of(draw, field, depth):
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        return draw_message(draw, field.message_type, depth + 1)
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return draw(st.integers(-1, len(field.enum_type.values)))
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return draw(BYTES if field.type == FieldDescriptor.TYPE_BYTES else TEXTS)
    return draw(NUMBERS[field.cpp_type])


def draw_message(draw, descriptor: Descriptor, depth: int = 0):
    """A message whose fields are set or not, to what is likely or to anything."""
    message = GetMessageClass(descriptor)()
    for field in chosen_fields(draw, descriptor, depth):
        if field.name in LIKELY and draw(st.integers(0, 7)):
            if (likely := draw(LIKELY[field.name])) is not None:
                fill(message, field, likely)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            entries = getattr(message, field.name)
            key, value = draw(TEXTS), value_of(draw, field.message_type.fields_by_name["value"], depth)
            entries[key].CopyFrom(value) if hasattr(value, "DESCRIPTOR") else entries.__setitem__(key, value)
        elif field.is_repeated:
            fill(message, field, [value_of(draw, field, depth) for _ in range(draw(st.integers(0, 3)))])
        else:
            fill(message, field, value_of(draw, field, depth))
    return message


def chosen_fields(draw, descriptor, depth):
    """Each field half of the time or more, of a oneof one; below a few levels none that goes deeper."""
    alone = [
        field
        for field in descriptor.fields
        if field.containing_oneof is None or (field.has_presence and len(field.containing_oneof.fields) == 1)
    ]
    chosen = [field for field in alone if draw(st.integers(0, 7 if field.name in (*LIKELY, "strokes") else 1))]
    for oneof in descriptor.oneofs:
        if len(oneof.fields) > 1 and draw(st.integers(0, 9)):
            chosen.append(draw(st.sampled_from(list(oneof.fields))))
    return [field for field in chosen if depth < 5 or field.message_type is None]


def fill(message, field, value):
    if field.is_repeated:
        getattr(message, field.name).extend(value)
    elif hasattr(value, "DESCRIPTOR"):
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)


@st.composite
def batches(draw, method):
    """Some requests; of a stream the first opens it and the numbers climb, most of the time."""
    requests = [draw_message(draw, method.input_type) for _ in range(BATCH)]
    if method.client_streaming and draw(st.integers(0, 9)):
        if "begin" in method.input_type.fields_by_name:
            requests[0].Clear()
            requests[0].begin.gallery = "faces"
        for sequence, request in enumerate(requests, start=1):
            if "sequence" in method.input_type.fields_by_name:
                request.sequence = sequence
            elif request.HasField("photo") and draw(st.integers(0, 9)):
                request.photo.sequence = sequence - 1  # `begin` has none
    return requests


@pytest.fixture(scope="module")
def channel(tmp_path_factory):
    encoder = PixelEncoder()
    folder = tmp_path_factory.mktemp("galleries") / "faces"
    make_gallery(folder, encoder).close()
    with StoreWriter.open(folder) as writer:
        writer.declare_fields({"age": Kind.NUMBER, "name": Kind.STRING, "marks": Kind.TAGS})
        writer.describe({"photo0001": {"age": 3.0, "name": "a", "marks": ("x",)}})
    gallery = Gallery.open(folder)
    made, backups = (tmp_path_factory.mktemp(name) for name in ("made", "backups"))
    access = Config(galleries={"faces": GalleryConfig(writable=True)}, created=CreatedConfig(folder=made))
    with (
        serving([gallery], encoder, access=access, backups=backups) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        yield channel
    gallery.close()


def send(channel, method, requests):
    """Every request, on one stream or call by call; the codes of all that was refused."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    kinds = GetMessageClass(method.input_type).SerializeToString, GetMessageClass(method.output_type).FromString
    if method.client_streaming:
        calls = [channel.stream_stream(path, *kinds)(iter(requests), timeout=30)]
    elif method.server_streaming:
        calls = [channel.unary_stream(path, *kinds)(request, timeout=30) for request in requests]
    else:
        calls = [channel.unary_unary(path, *kinds).future(request, timeout=30) for request in requests]
    codes = []
    for call in calls:
        try:
            replies = list(call) if method.server_streaming else [call.result()]
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED or not error.details():
                pytest.fail(f"{method.name} hangs, or does not say why it ended: {error}")
            codes.append(error.code().value[0])
        else:
            codes += [reply.error.code for reply in replies if hasattr(reply, "error") and reply.HasField("error")]
            codes += [0 for reply in replies if not (hasattr(reply, "error") and reply.HasField("error"))]
    return codes


def try_messages(channel, caplog, method, messages):
    sent = 0

    @settings(
        max_examples=-(-messages // BATCH), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(requests=batches(method))
    def run(requests):
        nonlocal sent
        codes = send(channel, method, requests)
        sent += len(requests)
        assert not OURS.intersection(codes), codes

    with caplog.at_level(logging.WARNING):
        run()
    assert sent >= messages or not method.input_type.fields
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_no_message_is_a_fault_of_ours(channel, caplog, method):
    try_messages(channel, caplog, method, SHORT // len(TRIED))


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_none_of_fifty_thousand_messages_is_a_fault_of_ours(channel, caplog, method):
    try_messages(channel, caplog, method, LONG // len(TRIED))
