"""What a service counts, in Prometheus' terms: every name, label and bucket, in one place.

A dashboard's names are checked against this file. Labels are galleries' names, methods and codes: never a photo, a
sketch, a caller or a path. With several processes on one port each counts for itself and the process that watches over
them adds up (`prometheus_client`'s multiprocess mode), so gauges say how they are added.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

PHASES: Final = ("queue", "raster", "encode", "search", "total")
"""Of one answer. `total` runs from the message's arrival to its ranking; `queue` is what no other phase explains."""

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; close together where a stroke should be, up to 250 ms."""


class Metrics:
    """The counters of one service, in a registry of their own: two services in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.answer_seconds = Histogram(
            "mgrl_answer_seconds",
            "Time to rank one sketch or one drawing as it stands, by phase.",
            ("gallery", "phase"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.skipped = Counter(
            "mgrl_strokes_skipped",
            "Changes of a drawing that got no ranking of their own, because newer ones had arrived.",
            ("gallery",),
            registry=self.registry,
        )
        self.cache = Counter(
            "mgrl_cache_lookups",
            "Rankings asked for, by whether the drawing's previous answer still held (hit) or not (miss).",
            ("result",),
            registry=self.registry,
        )
        self.calls = Counter(
            "mgrl_calls", "Calls that have ended, by status code.", ("method", "code"), registry=self.registry
        )
        self.call_seconds = Histogram(
            "mgrl_call_seconds",
            "Duration of calls that are answered once; a drawing's is how long somebody drew.",
            ("method",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.errors = Counter(
            "mgrl_errors",
            "Calls and messages of drawings that were refused or failed, by the error's reason on the wire.",
            ("method", "reason"),
            registry=self.registry,
        )
        self.calls_open = self._gauge("mgrl_calls_open", "Calls in progress.", "livesum", ("method",))
        self.queue_depth = self._gauge("mgrl_queue_depth", "Rankings that are waiting or being computed.", "livesum")
        self.accepting = self._gauge("mgrl_accepting", "1 while new drawings are taken in, 0 in overload.", "livemin")
        self.photos = self._gauge("mgrl_gallery_photos", "Photos that a search looks at.", "livemax", ("gallery",))
        self.version = self._gauge(
            "mgrl_gallery_version", "Grows with every change of the gallery that is served.", "livemin", ("gallery",)
        )
        self.info = self._gauge("mgrl_info", "1; which release and which model.", "livemax", ("version", "model"))
        self.accepting.set(1)
        ProcessCollector(registry=self.registry)

    def _gauge(self, name: str, says: str, added_by: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(name, says, labels, registry=self.registry, multiprocess_mode=added_by)  # type: ignore[arg-type]
