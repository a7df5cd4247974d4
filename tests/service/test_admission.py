"""Who is let in: measured by a clock that stands still unless it is moved."""

import threading
import time
from contextlib import ExitStack, closing, contextmanager
from itertools import pairwise
from types import SimpleNamespace

import grpc
import pytest

from service import admission, client_drawing
from service.admission import Admission, Seat, Slots
from service.client import Client
from service.errors import OverloadedError
from tests.service.conftest import GatedEncoder, line, make_gallery, serving
from tests.service.test_resume import Cable


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(admission, "time", clock)
    return clock


def ranked(gate: Admission, slots: Slots, clock: Clock, cost_s: float, times: int = 10) -> None:
    """So many rankings that took so long, one after the other."""
    for _ in range(times):
        with gate.ranking(), slots:
            clock.now += cost_s


def test_time_is_busy_while_one_runs_however_many_do(clock):
    slots = Slots(2)
    with slots:
        clock.now += 1
        with slots:
            clock.now += 2
    clock.now += 4
    assert slots.busy_s() == 3


def test_no_more_run_at_once_than_there_are_slots():
    slots, second = Slots(1), threading.Event()
    thread = threading.Thread(target=lambda: slots.__enter__() or second.set())
    with slots:
        thread.start()
        assert not second.wait(0.05)
    assert second.wait(5)
    thread.join()


def test_a_drawing_counts_as_two_strokes_a_second_until_it_falls_idle(clock):
    seat = Seat()
    assert seat.per_s() == 2
    for _ in range(40):
        seat.answered()
    assert seat.per_s() == 2, "somebody who asks for more is counted as one who draws"
    clock.now += 60
    assert seat.per_s() < 0.01
    seat.answered()
    assert 0.1 < seat.per_s() < 0.3


def test_as_many_drawings_are_let_in_at_once_as_the_cost_of_a_ranking_allows(clock):
    slots = Slots(2)
    gate = Admission(slots, most_load=0.8, most_wait_s=1.0, most_open=100)
    ranked(gate, slots, clock, cost_s=0.05)
    with ExitStack() as opened:
        # 2 strokes a second x 0.05 s: a tenth of the time for each.
        seats = [opened.enter_context(gate.drawing()) for _ in range(8)]
        assert not gate.has_room()
        with pytest.raises(OverloadedError, match="take 80% of the time; others are let in below 80%") as refused:
            opened.enter_context(gate.drawing())
        assert refused.value.retry_after_s == 1.0
        clock.now += 10  # half of them stop, the others go on
        for _ in range(20):
            for seat in seats[:4]:
                gate.drew(seat)
        assert gate.has_room()
        opened.enter_context(gate.drawing())
    clock.now += 1
    assert gate.has_room()


def test_one_who_asks_without_end_keeps_nobody_out(clock):
    slots = Slots(1)
    gate = Admission(slots, most_load=0.8, most_wait_s=1.0, most_open=100)
    with gate.drawing() as greedy:
        for _ in range(400):
            ranked(gate, slots, clock, cost_s=0.02, times=1)
            gate.drew(greedy)
        assert gate.has_room()


def test_a_gallery_that_is_slow_for_everybody_still_takes_one_drawing(clock):
    slots = Slots(1)
    gate = Admission(slots, most_load=0.8, most_wait_s=1.0, most_open=100)
    ranked(gate, slots, clock, cost_s=3.0)
    with gate.drawing(), pytest.raises(OverloadedError), gate.drawing():
        pass


def test_a_long_queue_turns_searches_away(clock):
    slots = Slots(1)
    gate = Admission(slots, most_load=0.8, most_wait_s=0.1, most_open=100)
    ranked(gate, slots, clock, cost_s=0.03)
    with ExitStack() as waiting:
        for _ in range(3):
            gate.check_wait()
            waiting.enter_context(gate.ranking())
        gate.check_wait()
        waiting.enter_context(gate.ranking())
        with pytest.raises(OverloadedError, match=r"4 rankings wait, for 0\.12 s; try again in 1 s"):
            gate.check_wait()
        assert not gate.has_room()
    gate.check_wait()


def test_drawings_that_lie_open_are_limited_and_counted_out(clock):
    gate = Admission(Slots(1), most_load=0.8, most_wait_s=0.1, most_open=2)
    with gate.drawing():
        with gate.drawing():
            with pytest.raises(OverloadedError, match="2 drawings are open and no more may be"), gate.drawing():
                pass
            assert not gate.has_room()
        with gate.drawing():
            clock.now += 1000


def test_in_overload_what_is_new_is_refused_and_what_runs_goes_on(tmp_path):
    encoder = GatedEncoder()
    gallery = make_gallery(tmp_path / "faces", encoder)
    with serving([gallery], encoder, max_drawings=1) as running, Client(running.address) as client:
        with client.draw() as drawing:
            with pytest.raises(OverloadedError, match="1 drawings are open") as refused, client.draw():
                pass
            assert refused.value.retry_after_s == 1.0
            assert isinstance(refused.value.__cause__, grpc.RpcError)
            assert refused.value.__cause__.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert drawing.strokes([line()]).hits
        with client.draw() as next_one:
            assert next_one.strokes([line()]).hits
    gallery.close()


def test_a_drawing_that_lost_its_seat_comes_back_no_sooner_than_it_is_told(tmp_path, encoder, monkeypatch):
    gallery = make_gallery(tmp_path / "faces", encoder)
    refused, slept, drawing_seat = [], [], Admission.drawing

    @contextmanager
    def counted(self):
        try:
            with drawing_seat(self) as seat:
                yield seat
        except OverloadedError as error:
            refused.append(error)
            raise

    with (
        serving([gallery], encoder, max_drawings=1) as running,
        closing(Cable(running.address)) as cable,
        Client(cable.address) as far,
        Client(running.address) as near,
        far.draw() as drawing,
        ExitStack() as seats,
    ):
        cable.pull()
        while running.server._sketches._sessions:
            time.sleep(0.01)
        seats.enter_context(near.draw())

        def sleep(seconds):
            slept.append((len(refused), seconds))
            if len(refused) >= 2:
                seats.close()
            time.sleep(min(seconds, 0.05))

        monkeypatch.setattr(Admission, "drawing", counted)
        monkeypatch.setattr(client_drawing, "time", SimpleNamespace(sleep=sleep))
        cable.put_back()
        assert drawing.strokes([line()]).strokes == 1
    told = [pause for (before, _), (now, pause) in pairwise(slept) if now > before]
    assert len(told) >= 2
    assert min(told) >= refused[0].retry_after_s == 1.0
    gallery.close()
