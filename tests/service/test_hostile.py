"""Generated messages and clients that misbehave: never a fault of ours, never a hang, and the next caller is served."""

import logging

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.gallery import Gallery
from indexer.metadata import Kind
from indexer.sketch import MAX_STROKE_POINTS
from indexer.store import StoreWriter
from mgrl.v1 import metadata_pb2, search_pb2, search_pb2_grpc, sketch_pb2
from service.client import Client
from service.convert import stroke_to_wire
from tests.conftest import PixelEncoder
from tests.service.conftest import line, make_gallery, png, serving

LINE = stroke_to_wire(line())

numbers = st.one_of(st.floats(0, 1, width=32), st.floats(width=32))
coordinates = st.lists(numbers, max_size=6)
optional_number = st.one_of(st.none(), numbers)
pictures = st.one_of(
    st.just(png()),
    st.binary(max_size=60),
    st.integers(0, len(png())).map(lambda end: png()[:end]),
    st.tuples(st.integers(8, len(png()) - 1), st.integers(0, 255)).map(
        lambda change: png()[: change[0]] + bytes([change[1]]) + png()[change[0] + 1 :]
    ),
    st.just(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
)
strokes = st.lists(
    st.one_of(
        st.just(LINE),
        st.builds(sketch_pb2.Stroke, x=coordinates, y=coordinates, width=optional_number, pressure=coordinates),
    ),
    max_size=4,
)
names = st.one_of(st.just(""), st.just("faces"), st.text(max_size=12))
ranking = st.builds(
    search_pb2.SearchOptions,
    k=st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1), st.integers(1, 99)),
    weights=st.builds(
        search_pb2.GranularityWeights,
        granularity_1=optional_number,
        granularity_2=optional_number,
        granularity_3=optional_number,
    ),
    include_thumbnails=st.booleans(),
)
modes = st.one_of(
    st.just(search_pb2.SearchOptions()),
    st.builds(search_pb2.SearchOptions, budget_ms=st.floats()),
    st.builds(search_pb2.SearchOptions, approximate=st.builds(search_pb2.ApproximateMode, recall=st.floats())),
)


def merged(*parts: search_pb2.SearchOptions) -> search_pb2.SearchOptions:
    whole = search_pb2.SearchOptions()
    for part in parts:
        whole.MergeFrom(part)
    return whole


fields = st.one_of(st.sampled_from(["age", "name", ""]), st.text(max_size=5))
wire_values = st.one_of(
    st.builds(metadata_pb2.MetadataValue),
    st.builds(metadata_pb2.MetadataValue, text=st.text(max_size=5)),
    st.builds(metadata_pb2.MetadataValue, number=st.floats()),
    st.builds(metadata_pb2.MetadataValue, date=st.one_of(st.just("2024-02-29"), st.text(max_size=11))),
    st.builds(metadata_pb2.MetadataValue, tags=st.builds(metadata_pb2.TagList, tags=st.lists(st.text(max_size=3)))),
)
filters = st.recursive(
    st.one_of(
        st.builds(metadata_pb2.Filter),
        st.builds(metadata_pb2.Filter, equals=st.builds(metadata_pb2.EqualsFilter, field=fields, value=wire_values)),
        st.builds(
            metadata_pb2.Filter,
            range=st.builds(metadata_pb2.RangeFilter, field=fields, least=st.one_of(st.none(), wire_values)),
        ),
        st.builds(metadata_pb2.Filter, has_tag=st.builds(metadata_pb2.TagFilter, field=fields, tag=st.text())),
        st.builds(metadata_pb2.Filter, ids=st.builds(metadata_pb2.IdFilter, photo_ids=st.lists(st.text()))),
    ),
    lambda parts: st.one_of(
        st.builds(metadata_pb2.Filter, negated=parts),
        st.builds(metadata_pb2.Filter, any_of=st.builds(metadata_pb2.FilterList, filters=st.lists(parts, max_size=3))),
    ),
    max_leaves=5,
)
filtered = st.one_of(st.just(search_pb2.SearchOptions()), st.builds(search_pb2.SearchOptions, filter=filters))
options = st.builds(merged, ranking, modes, filtered)
rasters = st.builds(sketch_pb2.RasterSketch, image=pictures)
searches = st.one_of(
    st.builds(
        search_pb2.SearchRequest,
        gallery=names,
        strokes=st.builds(sketch_pb2.StrokeSketch, strokes=strokes),
        options=options,
    ),
    st.builds(search_pb2.SearchRequest, gallery=names, raster=rasters, options=options),
)
erasures = st.one_of(
    st.builds(search_pb2.DrawErase),
    st.builds(
        search_pb2.DrawErase,
        strokes=st.builds(search_pb2.StrokeNumbers, numbers=st.lists(st.integers(0, 4), max_size=3)),
    ),
    st.builds(
        search_pb2.DrawErase,
        path=st.builds(
            search_pb2.EraserPath, x=coordinates, y=coordinates, radius=optional_number, whole_strokes=st.booleans()
        ),
    ),
)
actions = st.one_of(
    st.builds(search_pb2.DrawRequest, strokes=st.builds(search_pb2.DrawStrokes, strokes=strokes)),
    st.builds(search_pb2.DrawRequest, undo=st.builds(search_pb2.DrawUndo, count=st.integers(0, 2**32 - 1))),
    st.builds(search_pb2.DrawRequest, undo=st.builds(search_pb2.DrawUndo)),
    st.builds(
        search_pb2.DrawRequest,
        extend=st.builds(search_pb2.DrawExtend, x=coordinates, y=coordinates, pressure=coordinates),
    ),
    st.builds(search_pb2.DrawRequest, redo=st.builds(search_pb2.DrawRedo, count=st.integers(0, 3))),
    st.builds(search_pb2.DrawRequest, erase=erasures),
    st.builds(search_pb2.DrawRequest, options=options),
    st.builds(search_pb2.DrawRequest, clear=st.builds(search_pb2.DrawClear)),
    st.builds(search_pb2.DrawRequest, raster=rasters),
    st.builds(search_pb2.DrawRequest, begin=st.builds(search_pb2.DrawBegin, gallery=names, options=options)),
    st.builds(search_pb2.DrawRequest),
)
generated = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    encoder = PixelEncoder()
    folder = tmp_path_factory.mktemp("galleries") / "faces"
    make_gallery(folder, encoder).close()
    with StoreWriter.open(folder) as writer:
        writer.declare_fields({"age": Kind.NUMBER, "name": Kind.STRING})
        writer.describe({"photo0001": {"age": 3.0, "name": "a"}})
    gallery = Gallery.open(folder)
    with serving([gallery], encoder) as running:
        yield running.address
    gallery.close()


@pytest.fixture(scope="module")
def stub(address):
    with grpc.insecure_channel(address) as channel:
        yield search_pb2_grpc.SketchSearchServiceStub(channel)


@generated
@given(request=searches)
def test_any_search_is_answered_or_refused(stub, request):
    try:
        response = stub.Search(request, timeout=5)
    except grpc.RpcError as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert refused.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND), refused.details()
        assert refused.details()
        return
    assert response.no_ink == (not response.HasField("ranking"))
    distances = [hit.distance for hit in response.ranking.hits]
    assert distances == sorted(distances)
    assert all(0 <= distance < float("inf") for distance in distances)


@generated
@given(edits=st.lists(actions, max_size=8))
def test_every_message_of_any_drawing_is_answered(stub, edits):
    for sequence, edit in enumerate(edits, start=2):
        edit.sequence = sequence
    begin = search_pb2.DrawRequest(sequence=1, begin=search_pb2.DrawBegin())
    finish = search_pb2.DrawRequest(sequence=len(edits) + 2, finish=search_pb2.DrawFinish())
    replies = list(stub.Draw(iter([begin, *edits, finish]), timeout=5))
    refused = {reply.sequence for reply in replies if reply.HasField("error")}
    results = [reply.sequence for reply in replies if reply.HasField("result")]
    assert results == sorted(set(results))
    assert results[-1] == finish.sequence
    assert refused <= set(range(2, finish.sequence))
    invalid = grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert {reply.error.code for reply in replies if reply.HasField("error")} <= {invalid}
    # What was accepted is on the canvas: the same edits without the refused ones end in the same place.
    accepted = [edit for edit in edits if edit.sequence not in refused]
    again = list(stub.Draw(iter([begin, *accepted, finish]), timeout=5))
    assert not any(reply.HasField("error") for reply in again)
    assert [hit.photo_id for hit in again[-1].result.ranking.hits] == [
        hit.photo_id for hit in replies[-1].result.ranking.hits
    ]
    assert again[-1].result.strokes == replies[-1].result.strokes


def test_a_message_above_the_limit_ends_only_its_own_drawing(stub):
    begin = search_pb2.DrawRequest(sequence=1, begin=search_pb2.DrawBegin())
    huge = sketch_pb2.Stroke(x=[0.5] * 600_000, y=[0.5] * 600_000)
    message = search_pb2.DrawRequest(sequence=2, strokes=search_pb2.DrawStrokes(strokes=[huge]))
    with pytest.raises(grpc.RpcError) as ended:
        list(stub.Draw(iter([begin, message]), timeout=5))
    assert ended.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.Search(search_pb2.SearchRequest(raster=sketch_pb2.RasterSketch(image=png())), timeout=5).ranking.hits


def test_a_drawing_that_begins_with_what_is_no_message_is_refused(address, caplog):
    deep = metadata_pb2.Filter(any_of=metadata_pb2.FilterList()).SerializeToString()
    while len(deep) < 10_000:
        deep = b"\x42" + _varint(len(deep)) + deep  # field 8, negated
    options = b"\x3a" + _varint(len(deep)) + deep
    begin = b"\x12" + _varint(len(options)) + options
    messages = b"\x08\x01\x12" + _varint(len(begin)) + begin, b"\xff" * 9
    with grpc.insecure_channel(address) as channel:
        raw = channel.stream_stream("/mgrl.v1.SketchSearchService/Draw", bytes, bytes)
        for message in messages:
            with pytest.raises(grpc.RpcError) as ended:
                list(raw(iter([message]), timeout=5))
            assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert ended.value.details().startswith("a message cannot be decoded")
    assert "Traceback" not in caplog.text


def _varint(number):
    low, high = number & 127, number >> 7
    return bytes([low | 128]) + _varint(high) if high else bytes([low])


def test_a_large_message_is_read_beside_the_event_loop(stub):
    begin = search_pb2.DrawRequest(sequence=1, begin=search_pb2.DrawBegin())
    long = sketch_pb2.Stroke(x=[0.5] * MAX_STROKE_POINTS, y=[0.5] * MAX_STROKE_POINTS)
    large = search_pb2.DrawRequest(sequence=2, strokes=search_pb2.DrawStrokes(strokes=[long] * 5))
    small = search_pb2.DrawRequest(sequence=3, strokes=search_pb2.DrawStrokes(strokes=[LINE]))
    replies = list(stub.Draw(iter([begin, large, small]), timeout=5))
    assert (replies[-1].sequence, replies[-1].result.strokes) == (3, 6)


def test_errors_that_nobody_reads_hold_the_reader_back(stub):
    begin = search_pb2.DrawRequest(sequence=1, begin=search_pb2.DrawBegin())
    empty = [search_pb2.DrawRequest(sequence=sequence) for sequence in range(2, 502)]
    replies = list(stub.Draw(iter([begin, *empty]), timeout=5))
    assert [reply.sequence for reply in replies if reply.HasField("error")] == list(range(2, 502))


def test_clients_that_vanish_leave_nothing_behind(service, caplog):
    sessions = service.server._sketches._sessions
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            client = Client(service.address)
            drawing = client.draw().__enter__()
            drawing.send_strokes([line()])
            client.close()
        with Client(service.address) as client:
            assert client.search(strokes=[line()]).hits
            with client.draw() as drawing:
                drawing.strokes([line()])
                drawing.finish()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    service.on_loop(service.server._sketches.drain(2))
    assert not sessions
