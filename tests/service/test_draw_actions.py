"""Every action of a drawing and a whole replay, through the client and a real server."""

import asyncio
import re

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2

from indexer.erasing import Eraser
from indexer.errors import GalleryError, QueryError, SketchError
from indexer.fusion import fused_distance
from indexer.regions import ink_mask
from indexer.sketch import Stroke, rasterise
from mgrl.v1 import search_pb2, search_pb2_grpc, sketch_pb2
from service.answers import MAX_WEIGHT
from service.async_client import AsyncClient
from service.client import Client
from service.convert import strokes_to_wire
from service.errors import UnknownGalleryError, error_from_rpc
from tests.service.conftest import ids, line, make_gallery, serving

DOWN = line(0.5, 0.1, 0.5, 0.9)


def order(gallery, encoder, strokes, weights=None):
    canvas = rasterise(strokes)
    probe = encoder.encode_sketches(canvas[None])[0]
    distances = fused_distance(probe, gallery.rows, ink_mask(canvas), weights or {1: 1.0, 2: 1.0, 3: 1.0})
    return [f"photo{row:04d}" for row in np.argsort(distances, kind="stable")]


def test_a_stroke_sent_point_by_point_ranks_as_the_whole(client, gallery, encoder):
    with client.draw(k=24) as drawing:
        drawing.strokes([DOWN])
        drawing.stroke(line().points[:1])
        for point in line().points[1:]:
            answer = drawing.extend([point])
    assert ids(answer) == order(gallery, encoder, [DOWN, line()])
    assert (answer.strokes, answer.state.undo_steps, answer.state.next_stroke) == (2, 2, 2)


def test_redo_is_undo_undone(client):
    with client.draw(k=24) as drawing:
        drawing.strokes([line()])
        both = drawing.strokes([DOWN])
        undone = drawing.undo()
        assert (undone.strokes, undone.state.redo_steps) == (1, 1)
        redone = drawing.redo()
        assert [hit.distance for hit in redone.hits] == [hit.distance for hit in both.hits]
        with pytest.raises(SketchError, match="redo must repeat 1 to 0 steps") as refused:
            drawing.redo()
        assert refused.value.field == "redo.count"
        drawing.undo()
        assert drawing.strokes([line()]).state.redo_steps == 0


def test_erased_strokes_rank_as_never_drawn(client, gallery, encoder):
    with client.draw(k=24) as drawing:
        drawing.strokes([line(), DOWN, line(y0=0.7, y1=0.7)])
        answer = drawing.erase([0, 2])
        assert ids(answer) == order(gallery, encoder, [DOWN])
        assert drawing.undo().strokes == 3


def test_an_eraser_cuts_strokes_and_the_canvas_says_what_is_left(client, gallery, encoder):
    with client.draw(k=24, include_canvas=True) as drawing:
        assert drawing.strokes([Stroke([(0, 0.25), (1, 0.25)]), DOWN]).state.canvas is None
        answer = drawing.erase(Eraser([(0.5, 0.25)], 0.125))
        canvas = answer.state.canvas
    assert sorted(canvas) == [2, 3, 4, 5]
    assert canvas[2].points.tolist() == [[0, 0.25], [0.375, 0.25]]
    assert ids(answer) == order(gallery, encoder, list(canvas.values()))


def test_what_is_as_large_as_it_may_be_is_taken(client):
    with client.draw(weights=dict.fromkeys((1, 2, 3), MAX_WEIGHT)) as drawing:
        assert drawing.stroke([(0.1, 0.5), (0.9, 0.5)], width=0.2, pressure=np.ones(2, np.float32)).strokes == 1
        assert drawing.erase(Eraser([(0.5, 0.5)], radius=0.2)).strokes == 2
    with pytest.raises(SketchError, match=r"at most 0\.2 of the canvas, got 0\.201"):
        Stroke(np.zeros((1, 2), np.float32), width=0.201)


def test_what_cannot_be_sent_is_refused_as_what_cannot_be_drawn(client, service):
    ragged = [(0.1, 0.2), (0.3,)]
    wrong = {
        "strokes are numbered from 0": [lambda drawing: drawing.erase([-1]), lambda drawing: drawing.erase([2**32])],
        "undo must be of 1 to 20000 steps, got 1099511627776": [lambda drawing: drawing.undo(2**40)],
        "redo must be of 1 to 20000 steps, got 0": [lambda drawing: drawing.redo(0)],
        "numbers only": [
            lambda drawing: drawing.stroke(ragged),
            lambda drawing: drawing.strokes([ragged]),
            lambda drawing: drawing.extend(ragged),
            lambda drawing: drawing.stroke([(0.1, 0.2)], pressure=[[0.1], [0.2, 0.3]]),
        ],
    }

    async def use():
        async with AsyncClient(service.address) as client, client.draw() as drawing:
            for message, edits in wrong.items():
                for edit in edits:
                    with pytest.raises(SketchError, match=message):
                        await edit(drawing)
            return await drawing.stroke([(0.1, 0.2)])

    with client.draw() as drawing:
        for message, edits in wrong.items():
            for edit in edits:
                with pytest.raises(SketchError, match=message):
                    edit(drawing)
        assert drawing.stroke([(0.1, 0.2)]).strokes == 1
    assert asyncio.run(use()).strokes == 1


def test_options_change_in_mid_drawing(client, gallery, encoder):
    weights = {1: 0.0, 2: 0.5, 3: 2.0}
    with client.draw() as drawing:
        drawing.strokes([line()])
        answer = drawing.options(k=24, weights=weights)
        assert ids(answer) == order(gallery, encoder, [line()], weights)
        with pytest.raises(QueryError, match="k must be from 1 to 1000, got 0"):
            drawing.options(k=0)
        assert ids(drawing.strokes([DOWN])) == order(gallery, encoder, [line(), DOWN], weights)


def test_every_answer_names_the_version_it_searched(client, gallery):
    assert client.search(strokes=[line()]).gallery_version == gallery.version > 0
    with client.draw() as drawing:
        assert drawing.strokes([line()]).gallery_version == gallery.version
        assert drawing.finish().gallery_version == gallery.version


def test_the_async_client_has_the_same_actions(service):
    async def use():
        async with AsyncClient(service.address) as client, client.draw(include_canvas=True) as drawing:
            await drawing.stroke([(0.2, 0.3), (0.4, 0.3)])
            await drawing.extend([(0.8, 0.3)])
            await drawing.undo()
            drawn = await drawing.redo()
            erased = await drawing.erase([0])
            few = await drawing.options(k=3)
            return drawn, erased, few

    drawn, erased, few = asyncio.run(use())
    assert drawn.state.canvas[0].points.shape == (3, 2)
    assert (erased.no_ink, erased.state.canvas, few.no_ink) == (True, {}, True)


@pytest.fixture
def stub(service):
    with grpc.insecure_channel(service.address) as channel:
        yield search_pb2_grpc.SketchSearchServiceStub(channel)


def test_a_replay_answers_every_stage_as_a_drawing_does(stub, client):
    strokes = [line(y0=y, y1=y) for y in (0.2, 0.3, 0.4, 0.5)]
    request = search_pb2.ReplayRequest(
        strokes=sketch_pb2.StrokeSketch(strokes=strokes_to_wire(strokes)), stage_ends=[1, 3, 4]
    )
    replies = list(stub.Replay(request, timeout=5))
    assert [reply.stage for reply in replies] == [0, 1, 2]
    with client.draw() as drawing:
        for reply, added in zip(replies, (strokes[:1], strokes[1:3], strokes[3:]), strict=True):
            answer = drawing.strokes(added)
            assert [hit.photo_id for hit in reply.result.ranking.hits] == ids(answer)
            assert [hit.rank_change for hit in reply.result.ranking.hits] == [
                hit.rank_change or 0 for hit in answer.hits
            ]
            assert (reply.result.strokes, reply.result.skipped) == (answer.strokes, 0)
    request.ClearField("stage_ends")
    assert len(list(stub.Replay(request, timeout=5))) == 4


def test_both_clients_replay(service, client):
    strokes = [line(y0=y, y1=y) for y in (0.2, 0.3, 0.4, 0.5)]
    stages = list(client.replay(strokes, stage_ends=[1, 3, 4], k=5, weights={1: 0, 2: 0, 3: 1}))
    assert [(stage.stage, stage.answer.strokes, stage.error) for stage in stages] == [
        (0, 1, None),
        (1, 3, None),
        (2, 4, None),
    ]
    assert ids(stages[-1].answer) == ids(client.search(strokes=strokes, k=5, weights={1: 0, 2: 0, 3: 1}))
    with pytest.raises(SketchError, match="stage ends must climb"):
        next(client.replay(strokes, stage_ends=[9]))
    with pytest.raises(UnknownGalleryError):
        next(client.replay(strokes, "nowhere"))

    async def use():
        async with AsyncClient(service.address) as connected:
            replayed = connected.replay(strokes, stage_ends=[1, 3, 4], k=5, weights={1: 0, 2: 0, 3: 1})
            found = [stage async for stage in replayed]
            with pytest.raises(SketchError, match="stage ends must climb"):
                await anext(connected.replay(strokes, stage_ends=[9]))
            return found

    assert [ids(stage.answer) for stage in asyncio.run(use())] == [ids(stage.answer) for stage in stages]


def test_a_stage_that_fails_says_so_and_the_replay_goes_on(tmp_path, encoder):
    empty = make_gallery(tmp_path / "empty", encoder, photos=0)
    with serving([empty], encoder) as running, Client(running.address) as client:
        stages = list(client.replay([line(), line(y0=0.6, y1=0.6)]))
    assert [(stage.stage, stage.answer, type(stage.error)) for stage in stages] == [
        (0, None, GalleryError),
        (1, None, GalleryError),
    ]
    empty.close()


WIRE_LINE = strokes_to_wire([line()])


@pytest.mark.parametrize(
    ("fields", "message", "field"),
    [
        ({}, "a replay needs at least one stroke", "strokes.strokes"),
        (
            {"strokes": {"strokes": [sketch_pb2.Stroke(x=[2], y=[0])]}},
            "stroke 0: point 0 is at",
            "strokes.strokes[0].x[0]",
        ),
        ({"strokes": {"strokes": WIRE_LINE}, "stage_ends": [0]}, "stage ends must climb", "stage_ends"),
        ({"strokes": {"strokes": WIRE_LINE}, "stage_ends": [1, 1]}, "stage ends must climb", "stage_ends"),
        ({"strokes": {"strokes": WIRE_LINE}, "stage_ends": [2]}, "stage ends must climb", "stage_ends"),
        ({"strokes": {"strokes": WIRE_LINE}, "options": {"k": 0}}, "k must be from 1", "options.k"),
        ({"strokes": {"strokes": WIRE_LINE}, "gallery": "no"}, "no gallery is named 'no'", ""),
    ],
)
def test_a_bad_replay_is_refused_before_its_first_answer(stub, fields, message, field):
    with pytest.raises(grpc.RpcError) as ended:
        list(stub.Replay(search_pb2.ReplayRequest(**fields), timeout=5))
    error = error_from_rpc(ended.value, "")
    assert str(error).startswith(message)
    assert error.field == field


@pytest.mark.parametrize(
    ("action", "message", "field"),
    [
        ({"strokes": {"strokes": [{"x": [0.5], "y": [0.5], "width": 1}]}}, "stroke 0: a stroke's width must be above 0",
         "strokes.strokes[0].width"),
        ({"strokes": {"strokes": [{"x": [0.5], "y": [0.5], "pressure": [2]}]}}, "stroke 0: pressure must lie between",
         "strokes.strokes[0].pressure"),
        ({"strokes": {"strokes": [{"x": [0.5], "y": [0.5, 0.5]}]}}, "stroke 0: a stroke must have as many y as x",
         "strokes.strokes[0].y"),
        ({"strokes": {}}, "adding strokes needs at least one", "strokes.strokes"),
        ({"extend": {}}, "a stroke must have at least one", "extend.x"),
        ({"extend": {"x": [0.5], "y": [1.5]}}, "point 0 is at (0.5, 1.5)", "extend.y[0]"),
        ({"extend": {"x": [0.5], "y": [0.5], "pressure": [0.5]}}, "the stroke was begun with no pressure",
         "extend.pressure"),
        ({"undo": {"count": 0}}, "undo must take back 1 to 1 steps", "undo.count"),
        ({"redo": {"count": 1}}, "redo must repeat 1 to 0 steps", "redo.count"),
        ({"erase": {}}, "erasing needs stroke numbers or an eraser's path", "erase.target"),
        ({"erase": {"strokes": {}}}, "erasing takes 1 to 20000 stroke numbers, got 0", "erase.strokes.numbers"),
        ({"erase": {"strokes": {"numbers": [7]}}}, "no stroke 7 is on the canvas", "erase.strokes.numbers"),
        ({"erase": {"path": {"x": [0.5], "y": [0.5], "radius": 0.3}}}, "an eraser's radius must be",
         "erase.path.radius"),
        ({"erase": {"path": {"x": [0.5] * 1001, "y": [0.5] * 1001}}}, "an eraser's path may have 1000", "erase.path.x"),
        ({"raster": {"image": b"no picture"}}, "a raster sketch must be a whole", "raster"),
        ({"options": {"k": 1001}}, "k must be from 1 to 1000", "options.k"),
        ({"options": {"weights": {"granularity_2": -1}}}, "the weight of granularity 2",
         "options.weights.granularity_2"),
        ({"options": {"weights": {"granularity_2": 2e6}}}, "weights must be at most 1000000",
         "options.weights.granularity_2"),
        ({"options": {"budget_ms": -1}}, "budget_ms must be above 0", "options.budget_ms"),
        ({"options": {"approximate": {"recall": 2}}}, "recall must be above 0", "options.approximate.recall"),
        ({"options": {"filter": {"has_tag": {"field": "no", "tag": "x"}}}}, "no metadata field is named",
         "options.filter"),
        ({}, "a message must hold one action", "action"),
    ],
)  # fmt: skip
def test_every_field_out_of_range_is_named_and_changes_nothing(stub, action, message, field):
    def requests():
        yield search_pb2.DrawRequest(sequence=1, begin=search_pb2.DrawBegin())
        yield search_pb2.DrawRequest(sequence=2, strokes=search_pb2.DrawStrokes(strokes=WIRE_LINE))
        yield search_pb2.DrawRequest(sequence=3, **action)
        yield search_pb2.DrawRequest(sequence=4, finish=search_pb2.DrawFinish())

    replies = list(stub.Draw(requests(), timeout=5))
    (refused,) = [reply for reply in replies if reply.HasField("error")]
    assert refused.sequence == 3
    assert refused.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert refused.error.message.startswith(message)
    blamed = error_details_pb2.BadRequest()
    assert any(detail.Unpack(blamed) for detail in refused.error.details)
    assert [violation.field for violation in blamed.field_violations] == [field]
    assert (replies[-1].result.strokes, replies[-1].result.undo_steps) == (1, 1)


@pytest.mark.parametrize(
    ("given", "echoed"), [("case-7.a", "case-7.a"), ("", r"[0-9a-f]{12}"), ("x" * 999, r"[0-9a-f]{12}")]
)
def test_every_call_says_its_request_id(stub, given, echoed):
    metadata = (("x-request-id", given),) if given else ()
    search = search_pb2.SearchRequest(strokes={"strokes": WIRE_LINE})
    _, call = stub.Search.with_call(search, metadata=metadata, timeout=5)
    replay = stub.Replay(search_pb2.ReplayRequest(strokes={"strokes": WIRE_LINE}), metadata=metadata, timeout=5)
    assert len(list(replay)) == 1
    refused = stub.Search.future(search_pb2.SearchRequest(), metadata=metadata, timeout=5)
    with pytest.raises(grpc.RpcError):
        refused.result()
    for ended in (call, replay, refused):
        assert re.fullmatch(echoed, dict(ended.initial_metadata())["x-request-id"])
