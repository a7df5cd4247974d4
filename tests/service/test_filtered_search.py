"""Metadata and filters from a client to the index and back."""

import asyncio
import json

import grpc
import pytest

from indexer.errors import QueryError
from indexer.filters import And, Equals, HasTag, Ids, Not, Range
from indexer.metadata import Kind
from indexer.store import StoreWriter
from mgrl.v1 import metadata_pb2, search_pb2, search_pb2_grpc
from service import cli
from service.async_client import AsyncClient
from service.client import Client
from service.convert import strokes_to_wire
from service.where import filter_of
from tests.service.conftest import CountingGallery, ids, line, make_gallery, png, serving

STROKES = [line(), line(0.5, 0.1, 0.5, 0.9)]
KNOWN = {
    f"photo{n:04d}": {"age": float(n), "sex": ("female", "male")[n % 2], "marks": ("scar",) if n % 3 == 0 else ()}
    for n in range(20)
}


@pytest.fixture
def gallery(tmp_path, encoder):
    make_gallery(tmp_path / "faces", encoder).close()
    with StoreWriter.open(tmp_path / "faces") as writer:
        writer.declare_fields({"age": Kind.NUMBER, "sex": Kind.STRING, "marks": Kind.TAGS})
        writer.describe(KNOWN)
    made = CountingGallery.open(tmp_path / "faces")
    yield made
    made.close()


def test_a_filtered_answer_ranks_those_that_pass_and_counts_them(client):
    everyone = ids(client.search(strokes=STROKES, k=24))
    for conditions, passes in (
        (["sex=female"], lambda n: n < 20 and n % 2 == 0),
        (["sex=female", "age>=5", "marks:scar"], lambda n: n in (6, 12, 18)),
        (["age!=3,4"], lambda n: n not in (3, 4)),
    ):
        answer = client.search(strokes=STROKES, k=24, filter=filter_of(conditions))
        expected = [photo_id for photo_id in everyone if passes(int(photo_id[5:]))]
        assert ids(answer) == expected
        assert (answer.gallery_photos, answer.exact, answer.no_ink) == (len(expected), True, False)


def test_a_filter_that_nobody_passes_is_answered_by_an_empty_ranking(client):
    filter = Ids(())
    answer = client.search(strokes=STROKES, filter=filter)
    assert (answer.hits, answer.gallery_photos, answer.no_ink) == ((), 0, False)
    assert client.search(strokes=[], filter=filter).no_ink
    with client.draw(filter=filter) as drawing:
        drawn = drawing.strokes(STROKES)
        again = drawing.finish()
    assert [(a.hits, a.gallery_photos, a.no_ink) for a in (drawn, again)] == [((), 0, False)] * 2


def test_a_drawing_keeps_its_filter(client, service):
    filter = And((HasTag("marks", "scar"), Not(Equals("sex", "male"))))
    expected = ids(client.search(strokes=STROKES, k=24, filter=filter))
    with client.draw(k=24, filter=filter) as drawing:
        assert ids(drawing.strokes(STROKES)) == expected

    async def draw():
        async with AsyncClient(service.address) as connected, connected.draw(k=24, filter=filter) as drawing:
            return await drawing.strokes(STROKES), await connected.search(strokes=STROKES, k=24, filter=filter)

    assert [ids(answer) for answer in asyncio.run(draw())] == [expected] * 2
    assert len(expected) == 4


def test_photos_and_galleries_say_what_is_known(client, service):
    photo = client.photo("faces", "photo0009")
    assert photo.metadata == KNOWN["photo0009"]
    assert client.photo("faces", "photo0023").metadata == {}
    (info,) = client.galleries()
    assert info.fields == {"age": Kind.NUMBER, "marks": Kind.TAGS, "sex": Kind.STRING}

    async def ask():
        async with AsyncClient(service.address) as connected:
            return await connected.photo("", "photo0009"), await connected.galleries()

    assert asyncio.run(ask()) == (photo, [info])


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        (
            Equals("hat", "red"),
            r"no metadata field is named 'hat'; the gallery has: age \(number\), marks \(tags\), sex",
        ),
        (Equals("age", "old"), "field age is a number: the value must be a number, got 'old'"),
    ],
)
def test_a_filter_that_does_not_fit_is_refused_before_anything_is_drawn(client, gallery, filter, message):
    for call in (
        lambda: client.search(strokes=STROKES, filter=filter),
        lambda: client.search(strokes=[], filter=filter),
        lambda: client.draw(filter=filter).__enter__(),
    ):
        with pytest.raises(QueryError, match=message):
            call()
    assert gallery.searches == 0


def test_a_filter_that_is_too_deep_never_leaves_the_client(client):
    deep = Range("age", 1.0)
    for _ in range(16):
        deep = Not(deep)
    with pytest.raises(QueryError, match="a filter may be nested 16 deep"):
        client.search(strokes=STROKES, filter=deep)


LEAF = metadata_pb2.Filter(equals={"field": "age", "value": {"number": 1.0}})
DEEP = LEAF
for _ in range(20):
    DEEP = metadata_pb2.Filter(negated=DEEP)


@pytest.mark.parametrize(
    ("message", "filter"),
    [
        ("a filter may be nested 16 deep", DEEP),
        (
            "a filter may have 1000 predicates and 10000 values",
            metadata_pb2.Filter(all_of={"filters": [LEAF] * 1001}),
        ),
        ("a filter may have 1000 predicates and", metadata_pb2.Filter(ids={"photo_ids": map(str, range(10_001))})),
        ("a text in a filter may have 1000", metadata_pb2.Filter(has_tag={"field": "marks", "tag": "x" * 1001})),
        ("a filter must hold a predicate", metadata_pb2.Filter()),
        (
            "field age is a number: a number must be finite",
            metadata_pb2.Filter(equals={"field": "age", "value": {"number": float("nan")}}),
        ),
    ],
)
def test_raw_filters_out_of_range_are_refused_by_the_service(service, message, filter):
    options = search_pb2.SearchOptions(filter=filter)
    sketch = search_pb2.SearchRequest(strokes={"strokes": strokes_to_wire(STROKES)}, options=options)
    begin = search_pb2.DrawRequest(sequence=1, begin=search_pb2.DrawBegin(options=options))
    with grpc.insecure_channel(service.address) as channel:
        stub = search_pb2_grpc.SketchSearchServiceStub(channel)
        for call in (lambda: stub.Search(sketch, timeout=5), lambda: list(stub.Draw(iter([begin]), timeout=5))):
            with pytest.raises(grpc.RpcError) as error:
                call()
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert error.value.details().startswith(message)
        assert stub.Search(search_pb2.SearchRequest(raster={"image": png()}), timeout=5).ranking.hits


def test_query_takes_conditions(service, client, tmp_path, capsys):
    (tmp_path / "sketch.png").write_bytes(png())
    common = ["query", str(tmp_path / "sketch.png"), "--address", service.address, "--json", str(tmp_path / "found")]
    assert cli.main([*common, "--where", "sex=female", "--where", "age>=10"]) == 0
    (answer,) = json.loads((tmp_path / "found").read_text())["answers"]
    filter = And((Equals("sex", "female"), Range("age", 10.0)))
    assert [hit["photo_id"] for hit in answer["hits"]] == ids(client.search(raster=png(), filter=filter))
    assert "5 photos ranked exactly" in capsys.readouterr().out
    assert cli.main([*common, "--where", "age>=100"]) == 0
    assert capsys.readouterr().out == "no photo passes the filter (--where)\n"
    assert cli.main([*common, "--where", "hat=red"]) == 1
    assert capsys.readouterr().err.startswith("mgrl query: no metadata field is named 'hat'; the gallery has: age")
    assert cli.main([*common, "--where", "hat"]) == 1
    assert capsys.readouterr().err.startswith("mgrl query: a condition must be FIELD=VALUE, FIELD!=VALUE,")


def test_a_gallery_without_metadata_says_that_it_has_no_fields(tmp_path, encoder):
    with (
        serving([make_gallery(tmp_path / "plain", encoder)], encoder) as running,
        Client(running.address) as client,
        pytest.raises(QueryError, match="no metadata field is named 'sex'; the gallery has: none"),
    ):
        client.search(strokes=STROKES, filter=Equals("sex", "male"))
