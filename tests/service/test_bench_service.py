"""`mgrl bench service`: its people, its load against a real server, its search for capacity, its table and picture."""

import asyncio
import json
import xml.etree.ElementTree as ET
from collections import deque
from unittest.mock import AsyncMock, Mock

import grpc
import numpy as np
import pytest

from indexer.errors import ConfigError
from mgrl.v1 import search_pb2
from service.bench import load as load_module
from service.bench import measure
from service.bench.load import Crowd, Load, Outcome
from service.bench.people import SCHEDULES, Drawings, timeline
from service.bench.picture import picture
from service.bench.target import make_galleries, own_target
from service.cli import main
from service.config import Config
from service.config_access import CreatedConfig
from service.errors import LimitError, OverloadedError, ServiceError, status_of
from tests.service.conftest import GatedEncoder, make_gallery, serving


@pytest.fixture(scope="module")
def drawings():
    return Drawings()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_people_draw_as_often_as_is_said_and_within_their_time(schedule):
    rng = np.random.default_rng(5)
    times = np.concatenate([timeline(schedule, rng, 2.0, 100.0) for _ in range(50)])
    assert len(times) == pytest.approx(2.0 * 100 * 50, rel=0.05)
    assert times.min() >= 0
    assert times.max() < 100
    alone = timeline(schedule, rng, 2.0, 100.0)
    assert (np.diff(alone) > 0).all()


def test_people_pause_and_clocks_do_not():
    gaps = {name: np.diff(timeline(name, np.random.default_rng(1), 2.0, 500.0)) for name in SCHEDULES}
    np.testing.assert_allclose(gaps["fixed"], 0.5)
    assert np.mean(gaps["people"] > 1.2) == pytest.approx(0.1, abs=0.05), "a tenth of the gaps are pauses"
    assert np.median(gaps["people"]) == pytest.approx(0.33, abs=0.06)
    assert gaps["poisson"].std() == pytest.approx(0.5, rel=0.15)


def test_a_session_draws_on_and_on_and_clears_between_drawings(drawings):
    sent = []
    for messages, _ in zip(drawings.messages(0), range(len(drawings.strokes[0]) + 2), strict=False):
        sent += messages
    assert [message.sequence for message in sent] == list(range(2, len(sent) + 2))
    clears = [number for number, message in enumerate(sent) if message.WhichOneof("action") == "clear"]
    assert clears == [len(drawings.strokes[0])]
    assert sent[-1].strokes.strokes[0].x == list(np.float32(drawings.strokes[1][1].points[:, 0]))


def drawn(address, load, drawings, galleries=("faces",)):
    async def go():
        crowd = Crowd(address, galleries, drawings, connections=2)
        try:
            return await crowd.draw(load)
        finally:
            await crowd.close()

    return asyncio.run(go())


def test_every_stroke_of_a_load_is_answered_and_counted(service, drawings):
    load = Load(sessions=3, seconds=1.0, per_s=8.0, schedule="fixed")
    outcome = drawn(service.address, load, drawings)
    assert len(outcome.samples) == 24
    assert outcome.histogram.get_total_count() == 24
    assert (outcome.shed, sum(outcome.errors.values()), len(outcome.let_in)) == (0, 0, 3)
    row = measure.as_row(load, outcome)
    assert (row["strokes"], row["strokes_per_s"], row["errors"]) == (24, 24.0, 0)
    assert 0 < row["p50"] <= row["p90"] <= row["p99"] <= row["p99.9"] <= row["max"]
    assert row["max"] == pytest.approx(max(took for _, took in outcome.samples) * 1e3, rel=0.01)
    assert len(service.server._sketches._resumption) == 0, "they were finished, nothing is kept for them"


def test_latency_counts_from_the_moment_a_stroke_was_due(tmp_path, drawings):
    """A server that stands still for half a second: strokes that were due meanwhile waited, sent or not."""
    encoder = GatedEncoder()
    gallery = make_gallery(tmp_path / "faces", encoder)
    with serving([gallery], encoder) as running:

        async def go():
            crowd = Crowd(running.address, ("faces",), drawings, connections=1)
            task = asyncio.create_task(crowd.draw(Load(1, 1.0, 10.0, "fixed")))
            await asyncio.sleep(0.3)
            encoder.gate.clear()
            await asyncio.sleep(0.5)
            encoder.gate.set()
            outcome = await task
            await crowd.close()
            return outcome

        outcome = asyncio.run(go())
    assert len(outcome.samples) == 10
    waited = [took for _, took in outcome.samples if took > 0.05]
    assert len(waited) >= 4, "each of them, not only the one whose ranking was held back"
    assert outcome.skipped >= 2
    gallery.close()


def test_refused_drawings_come_back_when_they_were_told_to(tmp_path, encoder, drawings):
    gallery = make_gallery(tmp_path / "faces", encoder)
    with serving([gallery], encoder, max_drawings=2) as running:
        outcome = drawn(running.address, Load(3, 2.5, 2.0, "fixed"), drawings)
    assert outcome.shed >= 1
    assert len(outcome.let_in) in (2, 3)
    assert not outcome.errors
    gallery.close()


def test_a_service_that_goes_away_is_an_error_and_no_hang(tmp_path, encoder, drawings):
    gallery = make_gallery(tmp_path / "faces", encoder)
    with serving([gallery], encoder, grace_s=0.0) as running:

        async def go():
            crowd = Crowd(running.address, ("faces",), drawings, connections=1)
            task = asyncio.create_task(crowd.draw(Load(2, 3.0, 10.0, "fixed")))
            await asyncio.sleep(0.5)
            running.start(running.server.stop(0.0))
            outcome = await asyncio.wait_for(task, 10)
            await crowd.close()
            return outcome

        outcome = asyncio.run(go())
    assert outcome.samples
    assert outcome.errors["UNAVAILABLE"] >= 2
    gallery.close()


@pytest.mark.parametrize("limit", [1, 6, 23])
def test_the_highest_load_that_holds_is_found(monkeypatch, limit):
    tried = []

    async def step(crowd, load):
        tried.append(load.sessions)
        return {"p99": 100.0 if load.sessions <= limit else 300.0, "errors": 0, "shed": 0}

    monkeypatch.setattr(measure, "step", step)
    load = Load(sessions=2, seconds=1.0)
    rows, found = asyncio.run(measure.find_capacity(None, load, 250.0, lambda _: None))
    assert limit / 1.15 <= found <= limit
    assert len(rows) == len(set(tried)) == len(tried)


def test_loads_that_shed_do_not_hold(monkeypatch):
    async def step(crowd, load):
        return {"p99": 1.0, "errors": 0, "shed": int(load.sessions > 4)}

    monkeypatch.setattr(measure, "step", step)
    assert asyncio.run(measure.find_capacity(None, Load(4, 1.0), 250.0, lambda _: None))[1] == 4


def test_in_overload_those_who_draw_are_answered_and_the_rest_are_shed(tmp_path, encoder, drawings):
    gallery = make_gallery(tmp_path / "faces", encoder)
    with serving([gallery], encoder, max_drawings=3) as running:

        async def go():
            crowd = Crowd(running.address, ("faces",), drawings, connections=2)
            try:
                return await measure.overload(crowd, Load(2, 1.5, 4.0, "fixed"), 3.0, 1000.0)
            finally:
                await crowd.close()

        found = asyncio.run(go())
    assert found["joined_by"] == 4
    assert found["shed"] >= 3
    assert found["let_in"] >= 1
    assert found["errors"] == 0
    assert found["running_strokes"] >= 10
    assert 0 < found["running_p99_ms"] < 1000
    assert 0 <= found["recovery_s"] < 5
    gallery.close()


@pytest.mark.parametrize(
    ("took", "recovered_s"),
    [
        ([0.1] * 8, 0.0),
        ([0.9] * 3 + [0.1] * 5, 1.5),  # a stroke every half second; the third slow one was due after 1 s
        ([0.9] * 8, float("inf")),
    ],
)
def test_recovery_ends_with_the_first_second_of_fast_strokes(took, recovered_s):
    samples = [(90.0, 5.0), *((100 + number / 2, each) for number, each in enumerate(took))]
    found = measure._fast_again_s(samples, 100.0, 0.25)
    assert found == pytest.approx(recovered_s, abs=0.5) if recovered_s < 9 else found == recovered_s


def test_the_picture_shows_every_load_and_the_target():
    rows = [
        {"strokes_per_s": s, "p50": p, "p90": 2 * p, "p99": 4 * p} for s, p in ((40.0, 30.0), (5.0, 12.0), (20.0, 15.0))
    ]
    root = ET.fromstring(picture(rows, 250.0, "strokes of <people>"))
    lines = [node for node in root.iter() if node.tag.endswith("polyline")]
    assert len(lines) == 3
    for line in lines:
        places = [tuple(map(float, place.split(","))) for place in line.get("points").split()]
        assert places == sorted(places), "loads from left to right"
        assert [down for _, down in places] == sorted((down for _, down in places), reverse=True), "slower is higher"
    texts = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert {"p50", "p90", "p99", "target 250 ms", "strokes of <people>"} <= set(texts)


@pytest.mark.e2e
def test_the_command_measures_a_service_of_its_own(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measure, "_IDLE_FOR_S", 0.2)
    files = tmp_path / "found.json", tmp_path / "found.svg", tmp_path / "found.html"
    words = "--photos 300 --galleries 2 --sessions 2 --seconds 1 --while-ingesting --rounds 1 --idle-sessions 9"
    into = ["--soak", 4, "--folder", tmp_path / "kept", "--json", files[0], "--picture", files[1]]
    into += ["--html", files[2]]
    status = main(["bench", "service", *words.split(), *map(str, into)])
    output = capsys.readouterr()
    assert status == 0, output.err
    found = json.loads(files[0].read_text())
    assert set(found["ratios"]) == {"p50_over_in_process", "p99_over_in_process"}
    assert found["ratios"]["p50_over_in_process"] == pytest.approx(
        found["one_session"]["grpc"]["p50"] / found["one_session"]["in_process"]["p50"]
    )
    assert (found["photos"], found["galleries"], found["rows"][0]["errors"]) == (300, 2, 0)
    assert found["ready_s"] > 0
    assert found["idle"]["idle_sessions"] == 9
    assert found["soak"]["strokes"] >= 4
    assert "from start to ready" in output.out
    ET.parse(files[1])
    assert files[1].read_text().strip() in files[2].read_text()
    assert [path.name for path in make_galleries(tmp_path / "kept", 2, 300)] == ["faces0", "faces1"]
    with pytest.raises(ConfigError, match="not 5000; name another --folder"):
        make_galleries(tmp_path / "kept", 1, 5000)


def test_the_command_measures_any_address(service, capsys):
    assert main(["bench", "service", "--address", service.address, "--sessions", "2", "--seconds", "0.5"]) == 0
    assert "strokes of people, 24 photos" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sessions", "0"), "--sessions must be at least 1, got 0"),
        (("--seconds", "0"), "--seconds must be above 0, got 0.0"),
        (("--per-s", "-1"), "--per-s must be above 0, got -1.0"),
        (("--seed", "-1"), "--seed must be at least 0, got -1"),
        (("--overload", "1"), "--overload must be above 1, got 1.0"),
        (("--overload", "3", "--idle-sessions", "9"), "--idle-sessions lifts the limits that --overload tests"),
        (("--soak", "0"), "--soak must be at least 1, got 0"),
        (("--address", "127.0.0.1:1", "--soak", "9"), "give their URL (--metrics)"),
        (("--address", "127.0.0.1:1", "--while-ingesting"), "leave --address out"),
        (("--address", "127.0.0.1:1"), "no service answers at 127.0.0.1:1"),
    ],
)
def test_options_out_of_range_are_named(options, message, capsys):
    assert main(["bench", "service", *options]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--find-capacity"]])
def test_a_load_without_strokes_holds_nothing(service, capsys, more):
    options = ["--address", service.address, "--sessions", "1", "--seconds", "0.01", *more]
    assert main(["bench", "service", *options]) == 1
    assert "nobody drew a stroke in so short a time" in capsys.readouterr().err


def test_metrics_that_cannot_be_read_are_named(service, capsys):
    options = ["--address", service.address, "--sessions", "1", "--seconds", "0.3", "--soak", "1", "--metrics", "here"]
    assert main(["bench", "service", *options]) == 1
    assert "the metrics page here cannot be read" in capsys.readouterr().err


def test_drawings_that_are_turned_away_cannot_be_held(tmp_path, encoder, drawings):
    gallery = make_gallery(tmp_path / "faces", encoder)
    with serving([gallery], encoder, max_drawings=2) as running:

        async def hold():
            crowd = Crowd(running.address, ("faces",), drawings)
            try:
                await crowd.hold(3)
            finally:
                await crowd.close()

        with pytest.raises(OverloadedError, match="2 drawings are open"):
            asyncio.run(hold())
    gallery.close()


def test_a_service_without_galleries_is_no_target(tmp_path, encoder, capsys):
    with serving([], encoder, access=Config(created=CreatedConfig(folder=tmp_path))) as running:
        assert main(["bench", "service", "--address", running.address]) == 1
    assert "serves no gallery that could be searched" in capsys.readouterr().err


def test_a_service_of_our_own_that_does_not_start_says_why(tmp_path):
    with (
        pytest.raises(ServiceError, match=r"did not start; it says: .*nowhere is no gallery"),
        own_target([tmp_path / "nowhere"], 9),
    ):
        pass


def test_a_refused_stroke_is_an_error_and_no_answer(drawings):
    """Of three strokes the second is refused, before the ranking that the first has to wait for."""

    refused = search_pb2.DrawResponse(sequence=3, error=status_of(LimitError("too many")))
    ranked = search_pb2.DrawResponse(sequence=4, result=search_pb2.DrawResult(skipped=1))
    call = Mock(read=AsyncMock(side_effect=[refused, ranked, grpc.aio.EOF]))
    outcome, unanswered = Outcome(), deque([(2, 100.0), (3, 101.0), (4, 102.0)])
    asyncio.run(load_module._read(call, unanswered, outcome))
    assert [due for due, _ in outcome.samples] == [100.0, 102.0]
    assert (sum(outcome.errors.values()), outcome.skipped, len(unanswered)) == (1, 1, 0)


@pytest.mark.long
def test_memory_is_flat_over_a_hundred_thousand_strokes_and_idle_drawings_are_small(tmp_path, capsys):
    """A day's work of one drawer in miniature, and two thousand who look out of the window; some forty minutes."""
    common = ["bench", "service", "--photos", "1000", "--folder", str(tmp_path / "kept"), "--rounds", "0"]
    soaked, idle = tmp_path / "soak.json", tmp_path / "idle.json"
    load = ["--sessions", "20", "--seconds", "60", "--schedule", "fixed", "--serve=--set", "--serve=server.max_load=9"]
    assert main([*common, *load, "--soak", "100000", "--json", str(soaked)]) == 0, capsys.readouterr().err
    found = json.loads(soaked.read_text())["soak"]
    assert (found["strokes"] >= 100_000, found["errors"]) == (True, 0)
    assert found["ratio"] < 1.05
    more = ["--sessions", "1", "--seconds", "1", "--idle-sessions", "2000", "--json", str(idle)]
    assert main([*common, *more]) == 0, capsys.readouterr().err
    assert json.loads(idle.read_text())["idle"]["kb_each"] < 64


def test_a_soak_compares_what_a_warm_service_took_with_what_it_takes_in_the_end():
    mb = 1 << 20
    read = {10: 100, 15: 180, 18: 170, 20: 172, 60: 400, 95: 190, 100: 200}
    readings = [(strokes, found * mb) for strokes, found in read.items()]
    assert measure._tenth_mb(readings, 100, 2) == 172
    assert measure._tenth_mb(readings, 100, 10) == 195
    assert measure._tenth_mb([(4, 7 * mb)], 4, 2) == measure._tenth_mb([(4, 7 * mb)], 4, 10) == 7
