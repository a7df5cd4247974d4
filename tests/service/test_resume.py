"""Drawings whose connection, client or service dies under them."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest

from indexer.errors import GalleryError, SketchError
from mgrl.v1 import search_pb2, search_pb2_grpc
from service.async_client import AsyncClient
from service.client import Client
from service.config import Config
from service.config_access import MAX_MESSAGE_BYTES, LimitsConfig
from service.drawing import Drawing
from service.errors import LateError, LimitError, ServiceError, status_of
from service.journal import Journal, pauses
from tests.service.cable import Cable
from tests.service.conftest import GatedEncoder, ids, line, make_gallery, serving

ROOT = Path(__file__).parents[2]

SERVER = """
import signal, sys
from pathlib import Path
from indexer.gallery import Gallery
from tests.conftest import PixelEncoder
from tests.service.conftest import serving
with serving([Gallery.open(Path(sys.argv[1]))], PixelEncoder(), address=sys.argv[2]) as running:
    print(running.address, flush=True)
    signal.pause()
"""

CLIENT = """
import sys, time
from service.client import Client
from tests.service.conftest import line
with Client(sys.argv[1]) as client, client.draw() as drawing:
    drawing.strokes([line(), line(0.5, 0.1, 0.5, 0.9)])
    print(drawing._journal.resume().resume.token, flush=True)
    while True:
        drawing.extend([(0.5, 0.5)])
"""


def child(script, *arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto")])}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@contextmanager
def killed_in_the_end(process):
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def cable(service):
    laid = Cable(service.address)
    yield laid
    laid.close()


DRAWN = [line(), line(0.5, 0.1, 0.5, 0.9), line(y0=0.7, y1=0.7)]


def test_a_drawing_goes_on_after_its_connection_broke(cable, client, service):
    with Client(cable.address) as far, far.draw(k=24) as drawing:
        drawing.strokes(DRAWN[:1])
        drawing.strokes(DRAWN[1:2])
        (before,) = service.server._sketches._sessions
        cable.pull()
        threading.Timer(0.3, cable.put_back).start()
        answer = drawing.strokes(DRAWN[2:])
        (after,) = service.server._sketches._sessions
        assert after is not before
        assert after._drawing is before._drawing  # resumed, not drawn again
        assert (answer.strokes, answer.state.undo_steps) == (3, 3)
        assert ids(answer) == ids(client.search(strokes=DRAWN, k=24))
        assert drawing.undo(3).strokes == 0


def test_strokes_sent_into_a_broken_connection_arrive_once(cable):
    with Client(cable.address) as far, far.draw() as drawing:
        sent = [drawing.send_strokes([line()]) for _ in range(20)]
        cable.pull()
        sent += [drawing.send_strokes([line()]) for _ in range(20)]
        cable.put_back()
        assert drawing.answer(sent[-1]).strokes == 40


def test_refusals_survive_a_broken_connection(cable):
    with Client(cable.address) as far, far.draw() as drawing:
        cable.pull()
        cable.put_back()
        with pytest.raises(SketchError, match="undo must take back 1 to 0 steps"):
            drawing.undo()
        assert drawing.strokes([line()]).strokes == 1


def test_the_async_drawing_goes_on_too(cable, client):
    async def draw():
        async with AsyncClient(cable.address) as far, far.draw(k=24) as drawing:
            await drawing.strokes(DRAWN[:2])
            cable.pull()
            asyncio.get_running_loop().call_later(0.3, cable.put_back)
            return await drawing.strokes(DRAWN[2:])

    answer = asyncio.run(draw())
    assert answer.strokes == 3
    assert ids(answer) == ids(client.search(strokes=DRAWN, k=24))


@pytest.fixture(params=[RuntimeError("the disk has failed"), GalleryError("no photos yet")], ids=["fault", "empty"])
def failing_once(monkeypatch, request):
    """Makes the next ranking fail."""
    rank, asked = Drawing.rank, []

    def fail(drawing, *arguments):
        if asked:
            asked.clear()
            raise request.param
        return rank(drawing, *arguments)

    monkeypatch.setattr(Drawing, "rank", fail)
    return lambda: asked.append(True)


def test_a_drawing_whose_first_ranking_fails_when_it_is_resumed_goes_on(cable, failing_once):
    def draw():
        with Client(cable.address) as far, far.draw() as drawing:
            drawing.strokes(DRAWN[:2])
            cable.pull()
            failing_once()
            cable.put_back()
            answers.append(drawing.strokes(DRAWN[2:]).strokes)

    answers = []
    drawing = threading.Thread(target=draw, daemon=True)
    drawing.start()
    drawing.join(20)
    assert answers == [3]


def test_an_async_drawing_whose_first_ranking_fails_goes_on_too(cable, failing_once):
    async def draw():
        async with AsyncClient(cable.address) as far, far.draw() as drawing:
            await drawing.strokes(DRAWN[:2])
            cable.pull()
            failing_once()
            cable.put_back()
            return await asyncio.wait_for(drawing.strokes(DRAWN[2:]), 20)

    assert asyncio.run(draw()).strokes == 3


def test_an_edit_that_its_caller_stops_waiting_for_is_made_and_the_drawing_goes_on(tmp_path):
    encoder = GatedEncoder()
    gallery = make_gallery(tmp_path / "faces", encoder)

    async def draw(address):
        async with AsyncClient(address) as client, client.draw() as drawing:
            await drawing.strokes(DRAWN[:1])
            encoder.gate.clear()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(drawing.strokes(DRAWN[1:2]), 0.2)
            encoder.gate.set()
            assert (await drawing.strokes(DRAWN[2:])).strokes == 3
            assert (await drawing.undo()).strokes == 2

    with serving([gallery], encoder) as running:
        asyncio.run(draw(running.address))


def test_an_edit_given_up_while_a_stream_is_being_opened_is_made_all_the_same(cable):
    async def draw():
        async with AsyncClient(cable.address) as far, far.draw() as drawing:
            await drawing.strokes(DRAWN[:1])
            cable.flows.clear()
            cable.pull()
            cable.put_back()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(drawing.strokes(DRAWN[1:2]), 0.5)
            cable.flows.set()
            return await drawing.strokes(DRAWN[2:])

    assert asyncio.run(draw()).strokes == 3


def test_a_connection_that_stays_broken_is_given_up(cable):
    with Client(cable.address) as far, far.draw(resume_s=0.3) as drawing:
        cable.pull()
        began = time.monotonic()
        with pytest.raises(ServiceError):
            drawing.strokes([line()])
        assert time.monotonic() - began >= 0.3
        with pytest.raises(ServiceError):
            drawing.strokes([line()])


@pytest.mark.e2e
def test_a_service_killed_in_mid_stroke_is_told_the_drawing_again(tmp_path, encoder):
    folder = tmp_path / "faces"
    gallery = make_gallery(folder, encoder)
    gallery.close()
    service = child(SERVER, folder, "127.0.0.1:0")
    with killed_in_the_end(service) as address, Client(address) as client, client.draw(k=24) as drawing:
        drawing.strokes(DRAWN[:1])
        drawing.options(k=24, weights={1: 0.0, 2: 1.0, 3: 1.0})
        drawing.strokes([line(y0=0.9, y1=0.9)])
        drawing.undo()
        sequence = drawing.send_strokes(DRAWN[1:2])
        service.kill()
        service.wait()
        with killed_in_the_end(child(SERVER, folder, address)):
            drawing.answer(sequence)
            answer = drawing.strokes(DRAWN[2:])
            whole = client.search(strokes=DRAWN, k=24, weights={1: 0.0, 2: 1.0, 3: 1.0})
            assert (answer.strokes, ids(answer)) == (3, ids(whole))
            assert drawing.finish().strokes == 3


def test_a_drawing_that_a_service_takes_no_longer_ends_and_is_not_ranked_in_part(gallery, encoder):
    with serving([gallery], encoder) as running:
        address = running.address
        client = Client(address)
        drawing = client.draw()
        drawing.__enter__()
        assert drawing.strokes(DRAWN[:2]).strokes == 2
        assert drawing.strokes(DRAWN[2:]).strokes == 3
    with (
        serving([gallery], encoder, access=Config(limits=LimitsConfig(strokes_per_s=1)), address=address),
        client,
    ):
        with pytest.raises(ServiceError, match=r"takes the drawing no longer \(anyone may ask for 1 strokes a second"):
            drawing.strokes([line()])
        with pytest.raises(ServiceError, match="the drawing has ended; begin another"):
            drawing.options(k=3)
        drawing.__exit__(None, None, None)


@pytest.mark.e2e
def test_a_client_killed_in_mid_stroke_leaves_its_drawing_for_a_while(service):
    process = child(CLIENT, service.address)
    with killed_in_the_end(process) as token:
        time.sleep(0.1)
        process.kill()
        process.wait()
    limit = time.monotonic() + 5
    while len(service.server._sketches._resumption) != 1:
        assert time.monotonic() < limit
        time.sleep(0.01)
    with grpc.insecure_channel(service.address) as channel:
        resume = search_pb2.DrawRequest(resume=search_pb2.DrawResume(token=token))
        finish = search_pb2.DrawRequest(sequence=1_000_000, finish=search_pb2.DrawFinish())
        replies = list(search_pb2_grpc.SketchSearchServiceStub(channel).Draw(iter([resume, finish]), timeout=5))
    assert replies[-1].result.strokes == 2
    assert len(service.server._sketches._resumption) == 0


def test_late_answers_are_told_as_such(tmp_path):
    encoder = GatedEncoder()
    gallery = make_gallery(tmp_path / "faces", encoder)
    with (
        serving([gallery], encoder) as running,
        Client(running.address) as client,
        client.draw(deadline_ms=300) as drawing,
    ):
        encoder.gate.clear()
        with pytest.raises(LateError, match="no answer within deadline_ms"):
            drawing.strokes([line()])
        threading.Timer(0.02, encoder.gate.set).start()
        with suppress(LateError):  # the machine may be busy
            drawing.strokes([line()])
        assert drawing.finish().strokes == 2


def streaming_threads():
    """gRPC's own: one sends a stream's messages, and one per channel, begun anew after a rest, takes what comes."""
    return {thread for thread in threading.enumerate() if thread.name.endswith("(_run)")}


def test_a_drawing_whose_last_answer_is_late_leaves_no_thread(tmp_path):
    encoder = GatedEncoder()
    gallery = make_gallery(tmp_path / "faces", encoder)
    with serving([gallery], encoder) as running, Client(running.address) as client:
        with client.draw():
            before = streaming_threads()
        drawing = client.draw(deadline_ms=300)
        drawing.__enter__()
        started = streaming_threads() - before
        assert started
        encoder.gate.clear()
        drawing.send_strokes([line()])
        with pytest.raises(LateError):
            drawing.__exit__(None, None, None)
        encoder.gate.set()
        for thread in started:
            thread.join(5)
        assert not started & streaming_threads()


def test_a_drawing_that_cannot_begin_leaves_no_thread_and_no_stream(service, client, monkeypatch):
    def fail(*_):
        raise OSError("the disk is gone")

    with client.draw():
        before = streaming_threads()
    monkeypatch.setattr(Drawing, "rank", fail)
    with pytest.raises(ServiceError, match="internal error"), client.draw():
        pass
    monkeypatch.undo()
    limit = time.monotonic() + 5
    while service.server._sketches._sessions or streaming_threads() - before:
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_message_above_the_limit_is_not_sent_and_the_drawing_goes_on(client):
    with client.draw() as drawing:
        with pytest.raises(SketchError, match=r"a message may have 4194304 bytes, .* scale the picture down"):
            drawing.raster(bytes(MAX_MESSAGE_BYTES))
        assert drawing.strokes([line()]).strokes == 1


def request(sequence, **action):
    return search_pb2.DrawRequest(sequence=sequence, **action)


def accepted(sequence):
    return search_pb2.DrawResponse(sequence=sequence, result=search_pb2.DrawResult())


def test_a_journal_forgets_what_a_clear_made_irrelevant():
    journal = Journal()
    begin = request(1, begin=search_pb2.DrawBegin())
    few, many = (request(n, options=search_pb2.SearchOptions(k=k)) for n, k in ((3, 3), (5, 5)))
    strokes = [request(n, strokes=search_pb2.DrawStrokes()) for n in (2, 4, 6, 8)]
    clear = request(7, clear=search_pb2.DrawClear())
    for message in sorted([begin, few, many, clear, *strokes], key=lambda message: message.sequence):
        journal.send(message)
    assert [message.sequence for message in journal.sent] == list(range(1, 9)), "the clear may be refused"
    journal.receive(accepted(6))
    assert [message.sequence for message in journal.sent] == list(range(1, 9))
    journal.receive(accepted(7))
    assert [message.sequence for message in journal.sent] == [1, 5, 7, 8]
    assert [message.sequence for message in journal.after(5)] == [7, 8]


def test_a_clear_that_was_refused_makes_nothing_irrelevant():
    journal = Journal()
    strokes = [request(n, strokes=search_pb2.DrawStrokes()) for n in (2, 4)]
    for message in (request(1, begin=search_pb2.DrawBegin()), strokes[0], request(3, clear=search_pb2.DrawClear())):
        journal.send(message)
    journal.receive(search_pb2.DrawResponse(sequence=3, error=status_of(LimitError("too many"))))
    journal.send(strokes[1])
    journal.receive(accepted(4))
    assert [message.sequence for message in journal.sent] == [1, 2, 4]


@pytest.mark.parametrize(
    ("error", "left"), [(SketchError("no"), [1]), (LimitError("too many"), [1]), (LateError("made, and late"), [1, 2])]
)
def test_a_journal_forgets_what_was_refused(error, left):
    journal = Journal()
    journal.send(request(1, begin=search_pb2.DrawBegin()))
    journal.send(request(2, strokes=search_pb2.DrawStrokes()))
    journal.receive(search_pb2.DrawResponse(sequence=2, error=status_of(error)))
    assert [message.sequence for message in journal.sent] == left


@pytest.mark.parametrize("attempt_s", [0.0, 8.0])
def test_pauses_grow_and_end(attempt_s):
    waits, now = [], [100.0]
    for wait in pauses(20.0, lambda: now[-1]):
        waits.append(wait)
        now.append(now[-1] + wait + attempt_s)
    assert 120.0 <= now[-1] <= 120.0 + attempt_s + 1e-6, "what the attempts take counts, too"
    assert 0.02 <= waits[0] <= 0.05
    assert max(waits) <= 5.0
    assert len(waits) < 20
    assert list(pauses(0.0)) == []
