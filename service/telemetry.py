"""Where an answer's time went, told to whoever listens: the metrics, and traces where a collector is configured.

Spans are written after the fact, from the times that the answer carries anyway: a stroke pays nothing for them while it
is computed, and nothing at all without a collector.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from indexer.errors import ConfigError
from service.answers import Timings
from service.metrics import Metrics

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""OpenTelemetry's own variables; without either nothing is traced."""


@dataclass(frozen=True, eq=False)
class Telemetry:
    """What one service tells about itself.

    Args:
        metrics: always kept.
        tracer: where spans go; None for nowhere.
    """

    metrics: Metrics = field(default_factory=Metrics)
    tracer: "Tracer | None" = None

    def answered(self, gallery: str, since_s: float, timings: Timings, skipped: int = 0) -> None:
        """One ranking is ready.

        Args:
            gallery: its name.
            since_s: when the oldest message that it answers had arrived, by `time.perf_counter`.
            timings: of the ranking; all 0 when the previous answer still held.
            skipped: changes that got no ranking of their own.
        """
        total_s = time.perf_counter() - since_s
        worked = {"raster": timings.raster_ms, "encode": timings.encode_ms, "search": timings.search_ms}
        phases = {name: ms / 1e3 for name, ms in worked.items() if ms > 0}
        self.metrics.cache.labels("miss" if phases else "hit").inc()
        waited_s = max(0.0, total_s - sum(phases.values()))
        for name, seconds in {"queue": waited_s, **phases, "total": total_s}.items():
            self.metrics.answer_seconds.labels(gallery, name).observe(seconds)
        if skipped:
            self.metrics.skipped.labels(gallery).inc(skipped)
        if self.tracer is not None:
            self._trace(self.tracer, gallery, total_s, {"queue": waited_s, **phases}, skipped)

    @contextmanager
    def call(self, method: str, headers: dict[str, str]) -> Iterator[Any]:
        """The span of a call, below the caller's own where it sent one (`traceparent`); None when nothing is traced."""
        if self.tracer is None:
            yield None
            return
        from opentelemetry.context import attach
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, set_span_in_context

        service, _, name = method.removeprefix("/").rpartition("/")
        about = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        span = self.tracer.start_span(f"{service}/{name}", extract(headers), SpanKind.SERVER, about)
        # For good, as with the request's id: the task ends with the call, and a stream that its client left is closed
        # in another context, where it could not be detached.
        attach(set_span_in_context(span))
        try:
            yield span
        finally:
            span.end()

    @staticmethod
    def _trace(tracer: "Tracer", gallery: str, total_s: float, phases: dict[str, float], skipped: int) -> None:
        """A span for the answer and one for each phase; all waiting is drawn first, wherever it happened."""
        from opentelemetry.trace import set_span_in_context

        ended = time.time_ns()
        started = ended - int(total_s * 1e9)
        about: dict[str, str | int] = {"mgrl.gallery": gallery, "mgrl.skipped": skipped}
        answer = tracer.start_span("answer", start_time=started, attributes=about)
        below = set_span_in_context(answer)
        for name, seconds in phases.items():
            span = tracer.start_span(name, below, start_time=started)
            started += int(seconds * 1e9)
            span.end(started)
        answer.end(ended)


@contextmanager
def exported_traces() -> "Iterator[Tracer | None]":
    """A tracer whose spans go to the collector that OpenTelemetry's variables name; None where they name none.

    Raises:
        ConfigError: they name one, and the extra `traces` is not installed.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{' or '.join(_ENDPOINTS)} is set, and {error.name} is not installed; unset it, or: "
            "pip install 'mgrl[traces]'"
        ) from error
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "mgrl")})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider.get_tracer("mgrl")
    finally:
        provider.shutdown()
