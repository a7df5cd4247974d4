"""The server on the wire: bad input, the latest stroke, cancelling, stopping, health and reflection."""

import asyncio
import logging
import re
import threading
import time
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from indexer.errors import ConfigError, ModelMismatchError, SketchError
from indexer.sketch import MAX_RASTER_BYTES
from mgrl.v1 import gallery_pb2, gallery_pb2_grpc, search_pb2, search_pb2_grpc, sketch_pb2
from service import retrieval
from service.client import Client
from service.config import ServerConfig
from service.convert import stroke_to_wire
from service.errors import DETAILS_KEY, ServiceError
from service.galleries import Galleries
from service.server import build_server
from tests.conftest import PixelEncoder
from tests.service.conftest import GatedEncoder, ids, line, make_gallery, png, serving

LINE = stroke_to_wire(line())


class RawDrawing:
    """A Draw stream spoken by hand, message by message."""

    def __init__(self, channel, **begin):
        self.condition = threading.Condition()
        self.outgoing = []
        self.closed = False
        self.call = search_pb2_grpc.SketchSearchServiceStub(channel).Draw(self.messages(), timeout=10)
        if begin:
            self.send(1, begin=search_pb2.DrawBegin(**begin))

    def messages(self):
        while True:
            with self.condition:
                self.condition.wait_for(lambda: self.outgoing or self.closed)
                if not self.outgoing:
                    return
                message = self.outgoing.pop(0)
            yield message

    def send(self, sequence, **action):
        with self.condition:
            self.outgoing.append(search_pb2.DrawRequest(sequence=sequence, **action))
            self.condition.notify()

    def strokes(self, sequence, *strokes):
        self.send(sequence, strokes=search_pb2.DrawStrokes(strokes=strokes or [LINE]))

    def close(self):
        with self.condition:
            self.closed = True
            self.condition.notify()

    def result(self):
        reply = next(self.call)
        assert reply.HasField("result"), reply.error.message
        return reply

    def error(self):
        reply = next(self.call)
        assert reply.HasField("error")
        return reply


@pytest.fixture
def channel(service):
    with grpc.insecure_channel(service.address) as channel:
        yield channel


@pytest.fixture
def draw(channel):
    opened = []

    def open_drawing(**begin):
        opened.append(RawDrawing(channel, **(begin or {"gallery": "faces"})))
        return opened[-1]

    yield open_drawing
    for drawing in opened:
        drawing.call.cancel()
        drawing.close()


def search(channel, **request):
    return search_pb2_grpc.SketchSearchServiceStub(channel).Search(search_pb2.SearchRequest(**request), timeout=5)


def strokes(*strokes):
    return {"strokes": sketch_pb2.StrokeSketch(strokes=strokes)}


@pytest.mark.parametrize(
    ("request_fields", "message"),
    [
        (strokes(sketch_pb2.Stroke(x=[0.1, float("nan")], y=[0.1, 0.2])), "stroke 0: point 1 is not a finite number"),
        (strokes(LINE, sketch_pb2.Stroke(x=[64], y=[0.5])), r"stroke 1: point 0 is at \(64, 0.5\), canvas units run"),
        (strokes(sketch_pb2.Stroke(x=[0.5, 0.6], y=[0.5])), "stroke 0: a stroke must have as many y as x, got 1 y and"),
        (strokes(sketch_pb2.Stroke()), "stroke 0: a stroke must have at least one"),
        (strokes(sketch_pb2.Stroke(x=[0.5] * 10_001, y=[0.5] * 10_001)), "a stroke may have 10000 points, got 10001"),
        (strokes(sketch_pb2.Stroke(x=[0.5], y=[0.5], width=0)), "width must be above 0 and at most 0.2"),
        (strokes(sketch_pb2.Stroke(x=[0.5], y=[0.5], pressure=[2])), "pressure must lie between 0 and 1"),
        ({"raster": sketch_pb2.RasterSketch(image=png()[:100])}, "a raster sketch must be a whole PNG, JPEG or WebP"),
        ({"raster": sketch_pb2.RasterSketch(image=png(size=(5000, 6)))}, "may have 4096 px a side, got 5000x6"),
        ({"raster": sketch_pb2.RasterSketch(image=bytes(MAX_RASTER_BYTES + 1))}, "may have 3145728 bytes, got 3145729"),
        ({}, "a search must hold strokes or a raster, this one holds neither"),
        ({**strokes(LINE), "options": search_pb2.SearchOptions(k=0)}, "k must be from 1 to 1000, got 0"),
        ({**strokes(LINE), "options": search_pb2.SearchOptions(k=1001)}, "k must be from 1 to 1000, got 1001"),
        (
            {**strokes(LINE), "options": search_pb2.SearchOptions(k=101, include_thumbnails=True)},
            "k must be at most 100 with thumbnails, got 101",
        ),
        (
            {
                **strokes(LINE),
                "options": search_pb2.SearchOptions(weights=search_pb2.GranularityWeights(granularity_2=-1)),
            },
            "the weight of granularity 2 must be finite and >= 0, got -1",
        ),
        (
            {
                **strokes(LINE),
                "options": search_pb2.SearchOptions(weights=search_pb2.GranularityWeights(granularity_1=float("nan"))),
            },
            "the weight of granularity 1 must be finite and >= 0, got nan",
        ),
        (
            {
                **strokes(LINE),
                "options": search_pb2.SearchOptions(
                    weights={"granularity_1": 0, "granularity_2": 0, "granularity_3": 0}
                ),
            },
            "at least one weight must be above 0, got 0 for every granularity",
        ),
    ],
)
def test_bad_search_is_invalid_and_says_why(channel, request_fields, message):
    with pytest.raises(grpc.RpcError) as refused:
        search(channel, **request_fields)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert re.search(message, refused.value.details())
    assert "/" not in refused.value.details()
    assert search(channel, **strokes(LINE)).ranking.hits


def test_absent_options_have_the_defaults_of_the_contract(channel):
    plain = search(channel, **strokes(LINE))
    assert len(plain.ranking.hits) == 10
    weights = search_pb2.GranularityWeights(granularity_1=1, granularity_2=1, granularity_3=1)
    assert (
        plain.ranking.hits
        == search(channel, **strokes(LINE), options=search_pb2.SearchOptions(k=10, weights=weights)).ranking.hits
    )
    zeroed = search(
        channel,
        **strokes(LINE),
        options=search_pb2.SearchOptions(weights=search_pb2.GranularityWeights(granularity_3=0)),
    )
    assert zeroed.ranking.hits[0].distance == pytest.approx(sum(zeroed.ranking.hits[0].granularity_distances[:2]))


def test_unknown_names_are_not_found(channel):
    with pytest.raises(grpc.RpcError) as refused:
        search(channel, gallery="places", **strokes(LINE))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    stub = gallery_pb2_grpc.GalleryServiceStub(channel)
    with pytest.raises(grpc.RpcError) as refused:
        stub.GetPhoto(gallery_pb2.GetPhotoRequest(photo_id="nobody"), timeout=5)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert refused.value.details() == "gallery faces has no photo 'nobody'"


def test_a_stroke_of_a_million_points_is_refused_by_size(channel, client):
    many = [0.5] * 1_000_000
    with pytest.raises(grpc.RpcError) as refused:
        search(channel, **strokes(sketch_pb2.Stroke(x=many, y=many)))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in refused.value.details()
    with pytest.raises(SketchError, match="a stroke may have 10000 points, got 1000000; thin it out or split it"):
        client.search(strokes=[np.full((1_000_000, 2), 0.5)])
    with pytest.raises(SketchError, match="the message is above the service's limit"):
        client.search(raster=bytes(5 * 1024 * 1024))


def test_one_bad_stroke_does_not_end_the_drawing(draw):
    drawing = draw()
    assert drawing.result().result.no_ink
    drawing.strokes(2)
    before = drawing.result()
    drawing.strokes(3, LINE, sketch_pb2.Stroke(x=[float("inf")], y=[0.5]))
    refused = drawing.error()
    assert (refused.sequence, refused.error.code) == (3, grpc.StatusCode.INVALID_ARGUMENT.value[0])
    assert refused.error.message == "stroke 1: point 0 is not a finite number; drop it"
    drawing.strokes(4, stroke_to_wire(line(0.5, 0.1, 0.5, 0.9)))
    after = drawing.result()
    assert (before.result.strokes, after.result.strokes, after.sequence) == (1, 2, 4)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"undo": search_pb2.DrawUndo(count=2)}, "undo must take back 1 to 1 steps (all there are), got 2"),
        ({"undo": search_pb2.DrawUndo(count=0)}, "undo must take back 1 to 1 steps (all there are), got 0"),
        ({"strokes": search_pb2.DrawStrokes()}, "adding strokes needs at least one stroke, got none"),
        ({"raster": sketch_pb2.RasterSketch(image=b"x")}, "a raster sketch must be a whole PNG, JPEG or WebP file"),
        ({"begin": search_pb2.DrawBegin()}, "`begin` must be the first message of a drawing only"),
        ({}, "a message must hold one action, such as strokes or finish"),
    ],
)
def test_refused_messages_leave_the_drawing_as_it_was(draw, action, message):
    drawing = draw()
    drawing.result()
    drawing.strokes(2)
    before = drawing.result().result
    drawing.send(3, **action)
    refused = drawing.error()
    assert refused.sequence == 3
    assert refused.error.message.startswith(message)
    drawing.send(4, finish=search_pb2.DrawFinish())
    after = drawing.result().result
    assert [hit.distance for hit in after.ranking.hits] == [hit.distance for hit in before.ranking.hits]
    assert after.strokes == 1
    assert list(drawing.call) == []


def test_sequence_numbers_must_climb(draw):
    drawing = draw()
    drawing.result()
    drawing.strokes(7)
    assert drawing.result().sequence == 7
    drawing.strokes(7)
    assert drawing.error().error.message.startswith("sequence numbers must climb, got 7 after 7")


@pytest.mark.parametrize(
    ("first", "code", "message"),
    [
        ({"strokes": search_pb2.DrawStrokes(strokes=[LINE])}, "INVALID_ARGUMENT", "must be `begin`"),
        ({"begin": search_pb2.DrawBegin(gallery="places")}, "NOT_FOUND", "no gallery is named 'places'"),
        (
            {"begin": search_pb2.DrawBegin(options=search_pb2.SearchOptions(k=-3))},
            "INVALID_ARGUMENT",
            "k must be from 1 to 1000, got -3",
        ),
    ],
)
def test_a_bad_beginning_ends_the_call(channel, first, code, message):
    drawing = RawDrawing(channel)
    drawing.send(1, **first)
    with pytest.raises(grpc.RpcError) as refused:
        next(drawing.call)
    drawing.close()
    assert refused.value.code().name == code
    assert message in refused.value.details()


def test_closing_the_sending_side_finishes_the_drawing(draw):
    drawing = draw()
    drawing.strokes(2)
    drawing.close()
    assert list(drawing.call)[-1].sequence == 2
    assert drawing.call.code() is grpc.StatusCode.OK


@pytest.fixture
def gated(tmp_path):
    """A drawing whose encoder waits for us."""
    encoder = GatedEncoder()
    gallery = make_gallery(tmp_path / "faces", encoder)
    with (
        serving([gallery], encoder, threads=1, grace_s=0.1) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        drawing = RawDrawing(channel, gallery="faces")
        drawing.result()
        yield drawing, encoder, gallery, running
        encoder.gate.set()
        drawing.call.cancel()
        drawing.close()


def wait_until(condition, timeout_s=5.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_latest_stroke_wins(gated):
    drawing, encoder, _, running = gated
    encoder.gate.clear()
    drawing.strokes(2)
    assert encoder.entered.acquire(timeout=5)
    for sequence in range(3, 10):
        drawing.strokes(sequence, stroke_to_wire(line(0.1, sequence / 10, 0.9, sequence / 10)))
    drawing.send(10)
    (session,) = running.server._sketches._sessions
    wait_until(lambda: not session._errors.empty())  # message 10 is refused, so 3 to 9 have been read
    encoder.gate.set()
    first, refused, last = drawing.result(), drawing.error(), drawing.result()
    assert (first.sequence, first.result.strokes, first.result.skipped) == (2, 1, 0)
    assert refused.sequence == 10
    assert (last.sequence, last.result.strokes, last.result.skipped) == (9, 8, 6)
    assert encoder.calls == 2


def test_cancelling_stops_the_work(gated):
    drawing, encoder, gallery, running = gated
    encoder.gate.clear()
    drawing.strokes(2)
    assert encoder.entered.acquire(timeout=5)
    drawing.call.cancel()
    wait_until(lambda: not running.server._sketches._sessions)
    encoder.gate.set()
    wait_until(lambda: not running.server._workers.admission.depth)
    assert (encoder.calls, gallery.searches) == (1, 0)


def test_a_search_that_is_cancelled_while_it_waits_is_not_begun(gallery, encoder, monkeypatch):
    read, read_raster = [], retrieval.read_raster

    def counted(data, size_px):
        read.append(data)
        return read_raster(data, size_px)

    monkeypatch.setattr(retrieval, "read_raster", counted)
    with serving([gallery], encoder, threads=1) as running, grpc.insecure_channel(running.address) as channel:
        stub, pictures = search_pb2_grpc.SketchSearchServiceStub(channel), [png(size=(120, 300)), png()]
        requests = [search_pb2.SearchRequest(raster=sketch_pb2.RasterSketch(image=each)) for each in pictures]
        admission = running.server._workers.admission
        with running.server._sketches._engine.slot:
            gone = stub.Search.future(requests[0])
            wait_until(lambda: admission.depth == 1)
            time.sleep(0.05)  # its thread waits for the slot
            gone.cancel()
            wait_until(lambda: admission.depth == 0)
            stays = stub.Search.future(requests[1])
            wait_until(lambda: admission.depth == 1)
        assert stays.result(5).ranking.hits
    assert read == [pictures[1]]


def test_a_failed_ranking_answers_every_message_and_tells_nothing(gated, monkeypatch, caplog):
    drawing, _, gallery, _ = gated
    with caplog.at_level(logging.ERROR, "service.errors"):
        monkeypatch.setattr(gallery, "search", lambda *_, **__: 1 / 0)
        drawing.strokes(2)
        refused = drawing.error()
    assert (refused.sequence, refused.error.code) == (2, grpc.StatusCode.INTERNAL.value[0])
    request_id = re.fullmatch(
        r"internal error ([0-9a-f]{12}); the service's log tells more under this id", refused.error.message
    )
    assert request_id
    assert "ZeroDivisionError" not in str(refused)
    assert request_id[1] in caplog.text
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    drawing.strokes(3)
    assert drawing.result().result.strokes == 2


def test_nothing_internal_crosses_the_wire(channel, gallery, monkeypatch, caplog):
    def fail(*_, **__):
        raise OSError("/srv/secret/faces.index is gone")

    monkeypatch.setattr(gallery, "search", fail)
    with pytest.raises(grpc.RpcError) as failed:
        search(channel, **strokes(LINE))
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    sent = failed.value.details() + repr(failed.value.trailing_metadata())
    assert "secret" not in sent
    assert "OSError" not in sent
    assert "Traceback" not in sent
    assert "/srv/secret/faces.index" in caplog.text


def test_failed_calls_carry_a_status_for_other_languages(channel):
    with pytest.raises(grpc.RpcError) as refused:
        search(channel)
    details = dict(refused.value.trailing_metadata())[DETAILS_KEY]
    assert b"QUERY_ERROR" in details


def test_health_and_reflection_answer(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "mgrl.v1.SketchSearchService", "mgrl.v1.GalleryService"):
        status = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status
        assert status == health_pb2.HealthCheckResponse.SERVING
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    reply = next(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5))
    assert {service.name for service in reply.list_services_response.service} == {
        "mgrl.v1.SketchSearchService",
        "mgrl.v1.GalleryService",
        "mgrl.v1.AdminService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@contextmanager
def stopping(running, grace_s):
    """Begin a stop and wait for it at the end of the block."""
    stop = asyncio.run_coroutine_threadsafe(running.server.stop(grace_s), running.loop)
    yield
    stop.result(10)


def test_a_stop_lets_drawings_finish(gallery, encoder):
    with serving([gallery], encoder) as running, grpc.insecure_channel(running.address) as channel:
        drawing = RawDrawing(channel, gallery="faces")
        drawing.result()
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        with stopping(running, grace_s=5):
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.RpcError) as refused:
                search(channel, **strokes(LINE))
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            drawing.strokes(2)
            assert drawing.result().result.ranking.hits
            drawing.send(3, finish=search_pb2.DrawFinish())
            assert [reply.sequence for reply in drawing.call] == [3]
            began = time.monotonic()
        assert time.monotonic() - began < 2  # nobody waits out the grace once the drawings are done


def test_drawings_that_outlast_the_grace_are_told(gallery, encoder):
    with (
        serving([gallery], encoder) as running,
        Client(running.address) as client,
        client.draw(resume_s=0.2) as drawing,
    ):
        drawing.strokes([line()])
        stopped = "the service is stopping; send the drawing again to another one"
        with stopping(running, grace_s=0.05), pytest.raises(ServiceError, match=stopped) as ended:
            drawing.answer(99)
        assert ended.value.retry_after_s == 1.0
        with pytest.raises(ServiceError):
            drawing.strokes([line()])


def test_a_port_in_use_is_refused(service, gallery, encoder):
    async def start():
        await build_server(ServerConfig(address=service.address), Galleries([gallery], encoder)).start()

    with pytest.raises(ConfigError, match=rf"cannot listen on {service.address}: the port is in use"):
        asyncio.run(start())


def test_many_drawings_at_once_keep_their_answers_apart(service, encoder):
    expected = {}
    with Client(service.address) as client:
        for y in (0.2, 0.4, 0.6, 0.8):
            expected[y] = ids(client.search(strokes=[line(0.1, y, 0.9, y)]))
        answers = {}

        def draw(y):
            with client.draw() as drawing:
                drawing.strokes([line(0.5, 0.1, 0.5, 0.9)])
                drawing.undo()
                answers[y] = ids(drawing.strokes([line(0.1, y, 0.9, y)]))

        threads = [threading.Thread(target=draw, args=(y,)) for y in expected]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == expected
    assert len({tuple(names) for names in expected.values()}) > 1


def test_galleries_are_checked_before_serving(tmp_path, gallery, encoder):
    with pytest.raises(ConfigError, match="two are named faces; rename one"):
        Galleries([gallery, make_gallery(tmp_path / "other" / "faces", encoder)], encoder)
    with pytest.raises(ModelMismatchError, match="gallery faces was made by model"):
        Galleries([gallery], PixelEncoder(seed=9))


@pytest.mark.parametrize("address", ["50051", "localhost", ":50051", "::1:50051", "host:port", "host:70000", ""])
def test_addresses_must_be_host_and_port(address):
    with pytest.raises(ConfigError, match="an address must be HOST:PORT, such as"):
        ServerConfig(address=address)


def test_only_loopback_is_private():
    private = ("127.0.0.1:1", "localhost:1", "[::1]:1", "127.3.2.1:1")
    assert [ServerConfig(address=address).is_loopback for address in private] == [True] * 4
    assert not ServerConfig(address="0.0.0.0:1").is_loopback
    assert not ServerConfig(address="[::]:1").is_loopback
