"""Drawings that outlast their streams, and streams that misbehave."""

import asyncio
import gc
import shutil
import threading
import time
import weakref

import grpc
import pytest

from indexer.erasing import Eraser
from mgrl.v1 import search_pb2, search_pb2_grpc
from service import patience, session
from service.client import Client
from service.convert import stroke_to_wire
from service.drawing import Drawing
from service.engine import Engine
from service.errors import UnknownTokenError, error_from_rpc
from service.memory import Tidying
from service.resumption import Ongoing, Resumption
from tests.service.conftest import GatedEncoder, line, make_gallery, serving
from tests.service.test_server import RawDrawing

LINE = stroke_to_wire(line())


@pytest.fixture
def channel(service):
    with grpc.insecure_channel(service.address) as channel:
        yield channel


@pytest.fixture
def draw():
    opened = []

    def open_drawing(channel, **begin):
        opened.append(RawDrawing(channel, **begin))
        return opened[-1]

    yield open_drawing
    for drawing in opened:
        drawing.call.cancel()
        drawing.close()


class Gated:
    """A drawing that has begun, on a service whose encodings can be held at a gate."""

    def __init__(self, draw, channel, running, encoder, gallery):
        self.channel, self.running, self.encoder, self.gallery = channel, running, encoder, gallery
        self.drawing = draw(channel, gallery="faces")
        self.token = self.drawing.result().result.session.resume_token
        (self.session,) = running.server._sketches._sessions


@pytest.fixture
def gated(draw, tmp_path):
    encoder = GatedEncoder()
    gallery = make_gallery(tmp_path / "faces", encoder)
    with serving([gallery], encoder) as running, grpc.insecure_channel(running.address) as channel:
        yield Gated(draw, channel, running, encoder, gallery)


def resume(draw, channel, token, answered=0):
    drawing = draw(channel)
    drawing.send(0, resume=search_pb2.DrawResume(token=token, answered=answered))
    return drawing


def ended(drawing):
    """How the stream ended, once it has."""
    with pytest.raises(grpc.RpcError) as error:
        list(drawing.call)
    return error.value.code(), error_from_rpc(error.value, "")


def until(holds, timeout_s=5.0):
    limit = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.01)


def kept(service):
    return len(service.server._sketches._resumption)


def test_the_first_answer_of_a_stream_alone_says_how_to_come_back(draw, channel):
    drawing = draw(channel, gallery="faces")
    first = drawing.result().result.session
    assert len(first.resume_token) == 32
    assert (first.resumable_s, first.idle_timeout_s) == (300, 3600)
    drawing.strokes(2)
    assert not drawing.result().result.HasField("session")


def test_a_broken_drawing_goes_on_where_it_was(draw, channel, service):
    drawing = draw(channel, gallery="faces", include_canvas=True)
    token = drawing.result().result.session.resume_token
    drawing.strokes(5, LINE, LINE)
    before = drawing.result().result
    drawing.call.cancel()
    until(lambda: kept(service) == 1)
    again = resume(draw, channel, token)
    state = again.result()
    assert state.sequence == 5
    assert state.result.session.resume_token == token
    assert (state.result.strokes, state.result.undo_steps) == (2, 2)
    assert state.result.gallery_version == before.gallery_version
    assert [hit.photo_id for hit in state.result.ranking.hits] == [hit.photo_id for hit in before.ranking.hits]
    assert [each.number for each in state.result.canvas.strokes] == [0, 1]
    again.send(6, undo=search_pb2.DrawUndo())
    assert again.result().result.strokes == 1
    again.send(7, finish=search_pb2.DrawFinish())
    assert again.result().sequence == 7
    assert list(again.call) == []
    assert kept(service) == 0
    code, error = ended(resume(draw, channel, token))
    assert (code, type(error), error.field) == (grpc.StatusCode.NOT_FOUND, UnknownTokenError, "resume.token")


def test_a_drawing_whose_old_stream_hangs_is_taken_from_it(draw, channel):
    old = draw(channel, gallery="faces")
    token = old.result().result.session.resume_token
    old.strokes(2)
    old.result()
    new = resume(draw, channel, token)
    assert new.result().result.strokes == 1
    code, error = ended(old)
    assert (code, str(error)) == (grpc.StatusCode.ABORTED, "the drawing was resumed on another stream")
    new.strokes(3)
    assert new.result().result.strokes == 2


def test_refusals_that_were_lost_are_told_again(draw, channel, service):
    drawing = draw(channel, gallery="faces")
    token = drawing.result().result.session.resume_token
    drawing.send(2, undo=search_pb2.DrawUndo())
    drawing.error()
    drawing.send(3, redo=search_pb2.DrawRedo())
    drawing.error()
    drawing.call.cancel()
    until(lambda: kept(service) == 1)
    again = resume(draw, channel, token, answered=2)
    refused = again.error()
    assert (refused.sequence, refused.error.message[:4]) == (3, "redo")
    assert again.result().sequence == 3


def test_a_ranking_of_the_broken_stream_does_not_meet_that_of_the_next(draw, gated):
    gated.encoder.gate.clear()
    gated.drawing.strokes(2)
    assert gated.encoder.entered.acquire(timeout=5)
    again = resume(draw, gated.channel, gated.token)
    again.strokes(3)
    assert not gated.encoder.entered.acquire(timeout=0.1)
    gated.encoder.gate.set()
    assert again.result().sequence in (2, 3)


def test_what_is_refused_while_an_earlier_ranking_runs_is_told_before_the_next_result(draw, gated):
    gated.encoder.gate.clear()
    gated.drawing.strokes(2)
    assert gated.encoder.entered.acquire(timeout=5)
    again = resume(draw, gated.channel, gated.token)
    again.send(3, undo=search_pb2.DrawUndo(count=9))
    again.strokes(4)
    ongoing = gated.session._ongoing
    until(lambda: ongoing.sequence == 4)
    gated.encoder.gate.set()
    assert again.error().sequence == 3
    assert again.result().sequence == 4


def test_rankings_of_streams_that_take_a_drawing_from_each_other_do_not_meet(draw, tmp_path, monkeypatch):
    encoder, rank, running_now, met = GatedEncoder(), Drawing.rank, [], []

    def watched(*arguments):
        running_now.append(1)
        met.append(len(running_now))
        time.sleep(0.05)
        try:
            return rank(*arguments)
        finally:
            running_now.pop()

    gallery = make_gallery(tmp_path / "faces", encoder)
    with serving([gallery], encoder) as running, grpc.insecure_channel(running.address) as channel:
        first = draw(channel, gallery="faces")
        token = first.result().result.session.resume_token
        monkeypatch.setattr(Drawing, "rank", watched)
        encoder.gate.clear()
        first.strokes(2)
        assert encoder.entered.acquire(timeout=5)
        (open_session,) = running.server._sketches._sessions
        ongoing = open_session._ongoing
        for _ in range(2):
            before, last = ongoing.stream, resume(draw, channel, token)
            until(lambda before=before: ongoing.stream is not before and ongoing.stream._reader is not None)
        encoder.gate.set()
        assert last.result().sequence == 2
    assert (len(met), max(met)) == (3, 1)


def test_a_drawing_is_kept_for_a_while_by_a_clock_that_nobody_sets(draw, channel, service, monkeypatch):
    service.server._sketches._resumption.resumable_s = 0.2
    drawing = draw(channel, gallery="faces")
    token = drawing.result().result.session.resume_token
    for skew_s in (-1e6, 1e6):  # the wall clock is set, back and forth
        monkeypatch.setattr(time, "time", lambda skew_s=skew_s: 1.8e9 + skew_s)
        drawing.call.cancel()
        until(lambda: kept(service) == 1)
        drawing = resume(draw, channel, token)
        assert drawing.result().sequence == 1
    drawing.call.cancel()
    until(lambda: kept(service) == 1)
    until(lambda: kept(service) == 0)
    assert ended(resume(draw, channel, token))[0] is grpc.StatusCode.NOT_FOUND


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(gallery, encoder):
    async def keep():
        resumption = Resumption(most=3, most_bytes=200_000)
        ongoing = [Ongoing(Drawing(gallery, Engine(encoder)), 1) for _ in range(6)]
        ongoing[5].drawing.add([line()] * 220)
        for each in ongoing:
            resumption.put(each, None)
            resumption.keep(each)
        found = []
        for each in ongoing:
            try:
                found.append(resumption.find(each.token) is each)
            except UnknownTokenError:
                found.append(None)
        resumption.close()
        return found, len(resumption)

    assert asyncio.run(keep()) == ([None, None, None, True, True, True], 0)

    async def keep_large():
        resumption = Resumption(most_bytes=200_000)
        ongoing = [Ongoing(Drawing(gallery, Engine(encoder)), 1) for _ in range(2)]
        for each in ongoing:
            each.drawing.add([line()] * 200)  # 159 KB
            resumption.put(each, None)
            resumption.keep(each)
        with pytest.raises(UnknownTokenError, match="no drawing has this token here; it is kept for 300 s"):
            resumption.find(ongoing[0].token)
        kept = resumption.find(ongoing[1].token)
        resumption.close()
        return kept is ongoing[1]

    assert asyncio.run(keep_large())


def test_an_answer_that_comes_too_late_is_given_up(gated):
    gated.encoder.gate.clear()
    gated.drawing.send(2, strokes=search_pb2.DrawStrokes(strokes=[LINE]), deadline_ms=30)
    late = gated.drawing.error()
    assert (late.sequence, late.error.code) == (2, grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
    gated.encoder.gate.set()
    gated.drawing.send(3, strokes=search_pb2.DrawStrokes(strokes=[LINE]), deadline_ms=600_000)
    answer = gated.drawing.result()
    assert (answer.sequence, answer.result.strokes, answer.result.skipped) == (3, 2, 1)
    assert gated.gallery.searches == 1  # the ranking that nobody waited for stopped before it searched


def test_those_who_can_wait_are_answered_when_others_give_up(gated):
    wait_for_company(gated.session)
    gated.encoder.gate.clear()
    gated.drawing.strokes(2)
    gated.drawing.send(3, strokes=search_pb2.DrawStrokes(strokes=[LINE]), deadline_ms=50)
    late = gated.drawing.error()
    assert (late.sequence, late.error.code) == (3, grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
    gated.encoder.gate.set()
    answer = gated.drawing.result()
    assert (answer.sequence, answer.result.strokes) == (3, 2)


def wait_for_company(open_session):
    """Make the next ranking begin when two messages wait for it."""
    rank = open_session._rank

    async def later():
        while len(open_session._unanswered) < 2:
            await asyncio.sleep(0.001)
        async for response in rank():
            yield response

    open_session._rank = later


@pytest.mark.parametrize("deadline_ms", [0, 600_001])
def test_a_deadline_out_of_range_is_refused(draw, channel, deadline_ms):
    drawing = draw(channel, gallery="faces")
    drawing.result()
    drawing.send(2, strokes=search_pb2.DrawStrokes(strokes=[LINE]), deadline_ms=deadline_ms)
    assert drawing.error().error.message.startswith("deadline_ms must be from 1 to 600000")
    drawing.send(3, finish=search_pb2.DrawFinish())
    assert drawing.result().result.strokes == 0


def test_a_stream_that_sends_nothing_is_ended_and_its_drawing_kept(draw, gallery, encoder):
    with serving([gallery], encoder, idle_timeout_s=1.0) as running, grpc.insecure_channel(running.address) as channel:
        silent, drawing = draw(channel), draw(channel, gallery="faces")
        first = drawing.result().result.session
        assert first.idle_timeout_s == 1
        drawing.strokes(2)
        drawing.result()
        code, error = ended(silent)
        assert (code, str(error)[:30]) == (grpc.StatusCode.DEADLINE_EXCEEDED, "the first message of a drawing")
        code, error = ended(drawing)
        assert (code, str(error)[:22]) == (grpc.StatusCode.DEADLINE_EXCEEDED, "nothing came for 1 s; ")
        assert resume(draw, channel, first.resume_token).result().result.strokes == 1


def test_a_drawing_that_rests_gives_its_canvas_back_and_goes_on(draw, channel, service, monkeypatch):
    monkeypatch.setattr(session, "_REST_S", 0.05)
    tidied = threading.Event()
    monkeypatch.setattr(service.server._workers, "tidying", Tidying(tidied.set, wait_s=0.0))
    drawing = draw(channel, gallery="faces")
    drawing.result()
    drawing.strokes(2)
    before = drawing.result().result
    (open_session,) = service.server._sketches._sessions
    until(lambda: open_session._drawing._canvas is None)
    assert tidied.wait(5)
    drawing.strokes(3)
    drawing.send(4, undo=search_pb2.DrawUndo())
    drawing.send(5, finish=search_pb2.DrawFinish())
    *_, last = drawing.call
    assert [hit.distance for hit in last.result.ranking.hits] == [hit.distance for hit in before.ranking.hits]


def test_a_drawing_that_breaks_off_while_it_is_ranked_gives_its_canvas_back_too(gated):
    gated.encoder.gate.clear()
    gated.drawing.strokes(2)
    assert gated.encoder.entered.acquire(timeout=5)
    gated.drawing.call.cancel()
    until(lambda: kept(gated.running) == 1)
    assert gated.session._drawing._canvas is not None
    gated.encoder.gate.set()
    until(lambda: gated.session._drawing._canvas is None)
    assert kept(gated.running) == 1


def test_a_client_that_never_reads_is_not_served_for_ever(service, monkeypatch, client):
    monkeypatch.setattr(patience, "_STALLED_S", 0.3)
    monkeypatch.setattr(patience, "_LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(session, "_MAX_UNANSWERED", 64)
    sessions = service.server._sketches._sessions
    stop = threading.Event()

    def flood():
        yield search_pb2.DrawRequest(sequence=1, begin=search_pb2.DrawBegin(options=search_pb2.SearchOptions(k=24)))
        for sequence in range(2, 1_000_000):
            if stop.is_set():
                return
            time.sleep(1e-4)
            yield search_pb2.DrawRequest(sequence=sequence, strokes=search_pb2.DrawStrokes(strokes=[LINE]))

    with grpc.insecure_channel(service.address, (("grpc.http2.lookahead_bytes", 16_384),)) as channel:
        call = search_pb2_grpc.SketchSearchServiceStub(channel).Draw(flood())
        until(lambda: sessions)
        (stalled,) = sessions
        assert client.search(strokes=[line()]).hits
        until(lambda: stalled not in sessions, 90)  # its answers must fill the connection first
        assert len(stalled._unanswered) <= 64
        stop.set()
        call.cancel()
    with client.draw() as drawing:
        assert drawing.strokes([line()]).hits


def test_ten_thousand_strokes_a_second_keep_nobody_else_waiting(service, client):
    answers = []

    def flood():
        yield search_pb2.DrawRequest(sequence=1, begin=search_pb2.DrawBegin())
        for sequence in range(2, 10_002):
            yield search_pb2.DrawRequest(sequence=sequence, strokes=search_pb2.DrawStrokes(strokes=[LINE]))
        yield search_pb2.DrawRequest(sequence=10_002, finish=search_pb2.DrawFinish())

    def run():
        with grpc.insecure_channel(service.address) as channel:
            answers.extend(search_pb2_grpc.SketchSearchServiceStub(channel).Draw(flood(), timeout=60))

    flooding = threading.Thread(target=run)
    flooding.start()
    served = 0
    with client.draw() as drawing:
        while flooding.is_alive():
            served += bool(drawing.strokes([line()]).hits)
            drawing.undo()
    flooding.join()
    results = [reply.result for reply in answers if reply.HasField("result")]
    assert not [reply for reply in answers if reply.HasField("error")]
    assert results[-1].strokes == 10_000
    assert sum(result.skipped for result in results) + len(results) >= 10_000
    assert served >= 3


def test_cancelling_a_replay_stops_it(tmp_path):
    encoder = GatedEncoder()
    gallery = make_gallery(tmp_path / "faces", encoder)
    with serving([gallery], encoder) as running, grpc.insecure_channel(running.address) as channel:
        strokes = [stroke_to_wire(line(y0=y / 500, y1=y / 500)) for y in range(400)]
        request = search_pb2.ReplayRequest(strokes={"strokes": strokes})
        encoder.gate.clear()
        call = search_pb2_grpc.SketchSearchServiceStub(channel).Replay(request, timeout=30)
        assert encoder.entered.acquire(timeout=5)
        call.cancel()
        until(lambda: not running.server._sketches._calls)
        encoder.gate.set()
        time.sleep(0.1)
        assert (encoder.calls, gallery.searches) == (1, 0)


def test_a_gallery_deleted_while_it_is_drawn_at_goes_on_answering(tmp_path, encoder, caplog):
    made = make_gallery(tmp_path / "faces", encoder)
    with serving([made], encoder, refresh_s=0.02) as running, Client(running.address) as client:
        with client.draw(include_thumbnails=True) as drawing:
            before = drawing.strokes([line()])
            shutil.rmtree(tmp_path / "faces")
            time.sleep(0.2)  # it is looked for every 20 ms
            after = drawing.erase(Eraser([(0.9, 0.9)], 0.01))
            assert [hit.photo_id for hit in after.hits] == [hit.photo_id for hit in before.hits]
            again = drawing.strokes([line(0.5, 0.1, 0.5, 0.9)])
            assert len(again.hits) == 10
            assert again.gallery_version == before.gallery_version
        assert len(client.search(strokes=[line()]).hits) == 10
    assert "Traceback" not in caplog.text


def test_a_finished_drawing_is_gone_before_python_looks_for_cycles(service):
    on_stream = service.server._sketches._resumption._on_stream
    until(lambda: not on_stream)
    gc.disable()
    try:
        with Client(service.address) as client, client.draw() as drawing:
            drawing.stroke([(0.2, 0.2), (0.8, 0.8)])
            (session_of_it,) = [weakref.ref(ongoing.stream) for ongoing in on_stream.values()]
        until(lambda: session_of_it() is None)
    finally:
        gc.enable()
