"""What a service tells whoever runs it: metrics, probes, health, logs and traces."""

import asyncio
import json
import logging
import re
import sys
import urllib.error
import urllib.request
from contextvars import copy_context

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from indexer.errors import ConfigError, QueryError, SketchError
from indexer.store import StoreWriter
from mgrl.v1 import search_pb2, search_pb2_grpc
from service.client import Client
from service.config import ServerConfig
from service.galleries import Galleries
from service.health import health_name
from service.logs import set_up_logging
from service.metrics import PHASES
from service.observing import _tell_request_id
from service.server import build_server
from service.telemetry import Telemetry, exported_traces
from tests.service.conftest import line, make_gallery, serving

ANYWHERE = "127.0.0.1:0"


def get(address, path):
    """(status, text) of an HTTP answer."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def value(page, name, **labels):
    """Of one sample on a metrics page; 0 when it is not there."""
    for row in page.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", row)
        if found and found[1] == name and dict(re.findall(r'(\w+)="([^"]*)"', found[2] or "")) == labels:
            return float(found[3])
    return 0.0


@pytest.fixture
def probed(gallery, encoder):
    with serving([gallery], encoder, metrics_address=ANYWHERE) as running:
        yield running


def test_metrics_count_what_was_asked(probed):
    with Client(probed.address) as client:
        client.search(strokes=[line()])
        with client.draw() as drawing:
            drawing.strokes([line()])
            first = drawing.send_strokes([line(y0=0.5, y1=0.5)])
            drawing.answer(first)
            with pytest.raises(SketchError):
                drawing.undo(99)
        with pytest.raises(QueryError):
            client.search(raster=None, strokes=[line()], k=1, weights={1: 0.0, 2: 0.0, 3: 0.0})
    _, page = get(probed.server.metrics_address, "/metrics")
    assert value(page, "mgrl_calls_total", method="Search", code="OK") == 1
    assert value(page, "mgrl_calls_total", method="Draw", code="OK") == 1
    assert value(page, "mgrl_errors_total", method="Draw", reason="SKETCH_ERROR") == 1
    assert value(page, "mgrl_gallery_photos", gallery="faces") == 24
    assert value(page, "mgrl_gallery_version", gallery="faces") >= 1
    assert value(page, "mgrl_accepting") == 1
    assert value(page, "mgrl_queue_depth") == 0
    counts = {phase: value(page, "mgrl_answer_seconds_count", gallery="faces", phase=phase) for phase in PHASES}
    # Five rankings: the search, and of the drawing its empty canvas, two strokes and the end, which changes nothing.
    assert counts == {"queue": 5, "total": 5, "raster": 4, "encode": 3, "search": 3}
    assert value(page, "mgrl_cache_lookups_total", result="hit") == 1
    assert value(page, "mgrl_cache_lookups_total", result="miss") == 4
    total = value(page, "mgrl_answer_seconds_sum", gallery="faces", phase="total")
    parts = [value(page, "mgrl_answer_seconds_sum", gallery="faces", phase=phase) for phase in PHASES[:-1]]
    assert sum(parts) == pytest.approx(total, rel=1e-3)


def test_refused_calls_are_counted_by_reason_and_open_ones_as_open(probed):
    with grpc.insecure_channel(probed.address) as channel:
        stub = search_pb2_grpc.SketchSearchServiceStub(channel)
        with pytest.raises(grpc.RpcError):
            stub.Search(search_pb2.SearchRequest(gallery="places"), timeout=5)
    with Client(probed.address) as client, client.draw() as drawing:
        drawing.strokes([line()])
        _, page = get(probed.server.metrics_address, "/metrics")
    assert value(page, "mgrl_calls_total", method="Search", code="NOT_FOUND") == 1
    assert value(page, "mgrl_errors_total", method="Search", reason="UNKNOWN_GALLERY_ERROR") == 1
    assert value(page, "mgrl_calls_open", method="Draw") == 1


def test_probes_tell_alive_from_ready(gallery, encoder):
    with serving([gallery], encoder, metrics_address=ANYWHERE, grace_s=5.0) as running:
        address = running.server.metrics_address
        assert get(address, "/livez") == (200, "alive\n")
        assert get(address, "/readyz") == (200, "ready\n")
        assert get(address, "/else")[0] == 404
        with Client(running.address) as client, client.draw() as drawing:
            stopping = running.start(running.server.stop())
            while get(address, "/readyz")[0] == 200:
                pass
            assert get(address, "/livez") == (200, "alive\n")
            assert drawing.strokes([line()]).hits, "a drawing that is open goes on while the service drains"
        stopping.result(5)
        with pytest.raises(urllib.error.URLError):
            get(address, "/livez")


def test_a_service_whose_event_loop_stands_still_is_not_alive(probed, monkeypatch):
    monkeypatch.setattr("service.probes._ALIVE_WITHIN_S", 0.05)
    assert get(probed.server.metrics_address, "/livez")[0] == 200
    blocked = probed.block()
    assert get(probed.server.metrics_address, "/livez")[0] == 503
    blocked.set()


def test_a_metrics_address_that_is_taken_is_named(probed, gallery, encoder):
    taken = probed.server.metrics_address

    async def second():
        await build_server(ServerConfig(ANYWHERE, metrics_address=taken), Galleries([gallery], encoder)).start()

    with pytest.raises(ConfigError, match="cannot listen for metrics on "):
        probed.on_loop(second())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics_address": "9090"}, "an address must be HOST:PORT"),
        ({"log_format": "xml"}, "log_format must be one of human, json, got 'xml'"),
        ({"max_load": 0}, "max_load and max_wait_s must be above 0 and max_drawings at least 1, got 0"),
        ({"max_wait_s": float("nan")}, "max_load and max_wait_s must be above 0"),
        ({"max_drawings": 0}, "max_drawings at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ServerConfig(**settings)


def test_health_is_told_for_each_gallery(tmp_path, encoder):
    galleries = [make_gallery(tmp_path / name, encoder) for name in ("staff", "guests")]
    with (
        serving(galleries, encoder, refresh_s=0.02) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)

        def status(name):
            return stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status

        serving_now, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        assert [status(name) for name in ("", "gallery/staff", health_name("guests"))] == [serving_now] * 3
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            status(health_name("places"))
        with StoreWriter.open(tmp_path / "guests") as writer:
            writer.delete(galleries[1].photo_ids)
        while status("gallery/guests") == serving_now:
            pass
        assert (status("gallery/guests"), status("gallery/staff"), status("")) == (
            not_serving,
            serving_now,
            serving_now,
        )
    for gallery in galleries:
        gallery.close()


@pytest.fixture
def log(capsys):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    def begin(form):
        root.handlers.clear()
        set_up_logging(form)
        return lambda: capsys.readouterr().err.splitlines()

    yield begin
    root.handlers[:], root.level = before, level


def test_json_lines_hold_request_method_code_and_time(log, gallery, encoder):
    read = log("json")
    with serving([gallery], encoder) as running, grpc.insecure_channel(running.address) as channel:
        stub = search_pb2_grpc.SketchSearchServiceStub(channel)
        with pytest.raises(grpc.RpcError):
            stub.Search(search_pb2.SearchRequest(), timeout=5, metadata=(("x-request-id", "case-7.a"),))
        with pytest.raises(grpc.RpcError):
            stub.Search(search_pb2.SearchRequest(), timeout=5, metadata=(("x-request-id", "forged level=ERROR"),))
    calls = [row for row in map(json.loads, read()) if row["logger"] == "service.observing"]
    assert [(row["method"], row["code"]) for row in calls] == [("Search", "INVALID_ARGUMENT")] * 2
    assert calls[0]["request_id"] == "case-7.a"
    assert re.fullmatch("[0-9a-f]{12}", calls[1]["request_id"])
    assert all(row["ms"] > 0 and row["level"] == "INFO" and row["time"].endswith("+00:00") for row in calls)


def test_a_fault_of_ours_is_found_in_the_log_by_the_id_that_the_caller_got(log, gallery, encoder, monkeypatch):
    read = log("json")
    monkeypatch.setattr("service.drawing.ink_mask", lambda pixels: 1 / 0)
    with serving([gallery], encoder) as running, grpc.insecure_channel(running.address) as channel:
        stub = search_pb2_grpc.SketchSearchServiceStub(channel)
        request = search_pb2.SearchRequest()
        request.strokes.strokes.add(x=[0.5], y=[0.5])
        with pytest.raises(grpc.RpcError, match="internal error case-8") as failed:
            stub.Search(request, timeout=5, metadata=(("x-request-id", "case-8"),))
    assert "ZeroDivision" not in failed.value.details()
    (fault,) = [row for row in map(json.loads, read()) if "exception" in row]
    assert fault["request_id"] == "case-8"
    assert "ZeroDivisionError" in fault["exception"]


@pytest.mark.parametrize("form", ["human", "json"])
def test_no_line_holds_a_photo_a_stroke_or_a_path(log, tmp_path, encoder, form):
    read = log(form)
    gallery = make_gallery(tmp_path / "faces", encoder)
    with serving([gallery], encoder, refresh_s=0.02) as running, Client(running.address) as client:
        photo = client.search(strokes=[line(0.123, 0.456)]).hits[0].photo_id
        client.photo("", photo)
        with client.draw() as drawing:
            drawing.strokes([line(0.123, 0.456)])
            with pytest.raises(SketchError):
                drawing.undo(9)
    gallery.close()
    rows = read()
    assert sum("Draw" in row for row in rows) == 1
    for row in rows:
        assert not re.search(r"photo\d|0\.123|0\.456|\.jpg", row), row
        assert str(tmp_path) not in row


@pytest.fixture
def spans():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("test"), exporter.get_finished_spans
    provider.shutdown()


def test_every_stroke_has_a_span_and_so_has_every_phase(gallery, encoder, spans):
    tracer, finished = spans
    trace = "0af7651916cd43dd8448eb211c80319c"
    with (
        serving([gallery], encoder, telemetry=Telemetry(tracer=tracer)) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        requests = [search_pb2.DrawRequest(sequence=1, begin=search_pb2.DrawBegin())]
        requests.append(search_pb2.DrawRequest(sequence=2))
        requests[1].strokes.strokes.add(x=[0.2, 0.8], y=[0.5, 0.5])
        requests.append(search_pb2.DrawRequest(sequence=3, finish=search_pb2.DrawFinish()))
        stub = search_pb2_grpc.SketchSearchServiceStub(channel)
        parent = (("traceparent", f"00-{trace}-b7ad6b7169203331-01"),)
        list(stub.Draw(iter(requests), timeout=5, metadata=parent))
    found = finished()
    (call,) = [span for span in found if span.name == "mgrl.v1.SketchSearchService/Draw"]
    assert f"{call.context.trace_id:032x}" == trace
    assert call.attributes["rpc.grpc.status_code"] == "OK"
    answers = [span for span in found if span.name == "answer"]
    assert answers
    assert all(span.parent.span_id == call.context.span_id for span in answers)
    ranked = [
        answer
        for answer in answers
        if {s.name for s in found if s.parent and s.parent.span_id == answer.context.span_id}
        >= {"queue", "raster", "encode", "search"}
    ]
    assert len(ranked) == 1, "one stroke was ranked"
    phases = [span for span in found if span.parent and span.parent.span_id == ranked[0].context.span_id]
    assert sum(span.end_time - span.start_time for span in phases) == pytest.approx(
        ranked[0].end_time - ranked[0].start_time, rel=1e-3
    )
    assert ranked[0].attributes["mgrl.gallery"] == "faces"


def test_a_stream_that_its_client_left_and_another_task_closes_has_its_span_and_is_no_fault(spans, caplog):
    tracer, finished = spans
    call = Telemetry(tracer=tracer).call("/mgrl.v1.SketchSearchService/Draw", {})
    copy_context().run(call.__enter__)
    copy_context().run(call.__exit__, None, None, None)
    assert [span.name for span in finished()] == ["mgrl.v1.SketchSearchService/Draw"]
    assert not caplog.records


def test_traces_go_nowhere_unless_a_collector_is_named(monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    with exported_traces() as tracer:
        assert tracer is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with exported_traces() as tracer:
        assert tracer is not None


def test_a_collector_without_the_extra_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"pip install 'mgrl\[traces\]'"), exported_traces():
        pass


def test_a_client_that_is_gone_before_the_call_begins_is_no_fault_of_the_service():
    class Gone:
        async def send_initial_metadata(self, _metadata):
            raise grpc.aio.InternalError('Failed "execute_batch"')

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(_tell_request_id(Gone()))
