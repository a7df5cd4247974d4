"""How the service is: its gRPC health, over all and for each gallery, whether it is ready, and the gauges that say so.

Alive and ready are two questions. A service that drains is alive and takes in nobody; one in overload is ready, because
sending its callers elsewhere would only move the load.
"""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from grpc_health.v1 import health_pb2

from service.admission import Admission
from service.galleries import Galleries
from service.metrics import Metrics

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health_name(gallery: str) -> str:
    """What a health check asks for to hear of one gallery.

    Example:
        >>> health_name("staff")
        'gallery/staff'
    """
    return f"gallery/{gallery}"


class Health:
    """Start, look at and stop it on one event loop.

    Args:
        statuses: gRPC's own health servicer.
        services: names of ours.
        galleries: what is served.
        admission: whether a drawing would be let in.
        metrics: told what was seen.
    """

    def __init__(
        self, statuses: Any, services: Iterable[str], galleries: Galleries, admission: Admission, metrics: Metrics
    ) -> None:
        self._statuses, self._services, self._galleries = statuses, tuple(services), galleries
        self._admission, self._metrics = admission, metrics
        self._is_ready = False
        self._known: set[str] = set()

    def is_ready(self) -> bool:
        """Whether new calls are welcome; safe to ask from any thread."""
        return self._is_ready

    async def start(self) -> None:
        """Say that all is well."""
        models = {gallery.model_hash[:12] for gallery in self._galleries}
        for model in models:
            self._metrics.info.labels(_release(), model).set(1)
        await self.look()
        for name in ("", *self._services):
            await self._statuses.set(name, _SERVING)
        self._is_ready = True

    async def look(self) -> None:
        """Say how the galleries are: one without photos, or that is not served (any longer), cannot be searched."""
        serving = {gallery.name: gallery for gallery in self._galleries}
        for name, gallery in serving.items():
            self._metrics.photos.labels(name).set(gallery.photos)
            self._metrics.version.labels(name).set(gallery.version)
            await self._statuses.set(health_name(name), _SERVING if gallery.photos else _NOT_SERVING)
        for name in (self._known | self._galleries.broken.keys()) - serving.keys():
            self._metrics.photos.labels(name).set(0)
            await self._statuses.set(health_name(name), _NOT_SERVING)
        self._known = set(serving)
        self._metrics.accepting.set(self._admission.has_room())

    async def stop(self) -> None:
        """Say that nobody new is welcome; what is open may finish."""
        self._is_ready = False
        await self._statuses.enter_graceful_shutdown()


def _release() -> str:
    try:
        return version("mgrl")
    except PackageNotFoundError:  # run from a checkout
        return "unknown"
