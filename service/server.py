"""The gRPC server: our services, health, reflection, the HTTP side door, and a stop that lets drawings finish."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Self

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from indexer.errors import ConfigError
from mgrl.v1 import admin_pb2, admin_pb2_grpc, gallery_pb2, gallery_pb2_grpc, search_pb2, search_pb2_grpc
from service.access import Access
from service.administration import AdminServicer
from service.admission import Admission
from service.cataloguing import GalleryServicer
from service.config import Config, ServerConfig, split_address
from service.config_access import MAX_MESSAGE_BYTES
from service.creating import GalleryMaker
from service.engine import Engine
from service.galleries import Galleries
from service.health import Health
from service.observing import CallObserver
from service.probes import Probes, is_turning
from service.retrieval import SketchSearchServicer
from service.telemetry import Telemetry
from service.watch import GalleryWatch
from service.workers import Workers
from service.writing import GalleryWriters

SERVICES: Final = (
    search_pb2.DESCRIPTOR.services_by_name["SketchSearchService"].full_name,
    gallery_pb2.DESCRIPTOR.services_by_name["GalleryService"].full_name,
    admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
)

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # People pause for minutes while they draw. Clients may ping every 10 s, strokes or not (the default, 5 minutes,
    # would cut them off), and the server looks for dead ones every 2 minutes.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 120_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


class SketchServer:
    """A server that is built, started and stopped on one event loop. Make it with `build_server`."""

    def __init__(
        self,
        config: ServerConfig,
        server: grpc.aio.Server,
        sketches: SketchSearchServicer,
        health: Health,
        workers: Workers,
        watch: GalleryWatch,
        catalogue: GalleryServicer,
        telemetry: Telemetry,
        access: Access,
    ) -> None:
        self._config = config
        self._server = server
        self._sketches = sketches
        self._health = health
        self._workers = workers
        self._watch = watch
        self._catalogue = catalogue
        self._telemetry = telemetry
        self._access = access
        self._probes: Probes | None = None
        self._port = 0
        self._metrics_address = ""
        self._stopping: asyncio.Task[None] | None = None
        self._is_drained = asyncio.Event()

    @property
    def address(self) -> str:
        """HOST:PORT that it listens on, with the real port once started."""
        host, _ = split_address(self._config.address)
        return f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    @property
    def metrics_address(self) -> str:
        """HOST:PORT of the HTTP side door once started, empty without one."""
        return self._metrics_address

    @property
    def writers(self) -> GalleryWriters:
        """Who writes what is served."""
        return self._catalogue.writers

    async def start(self) -> None:
        """Listen and answer.

        Raises:
            ConfigError: the address cannot be had.
        """
        if self._config.metrics_address:
            loop = asyncio.get_running_loop()
            self._probes = Probes(self._telemetry.metrics.registry, lambda: is_turning(loop), self._health.is_ready)
            self._metrics_address = self._probes.start(self._config.metrics_address)
        try:
            if (certificates := self._access.certificates) is None:
                self._port = self._server.add_insecure_port(self._config.address)
            else:
                self._port = self._server.add_secure_port(self._config.address, certificates.credentials())
        except RuntimeError as error:
            self._stop_probes()
            raise ConfigError(
                f"cannot listen on {self._config.address}: the port is in use, or the address is not this machine's; "
                "stop the other server or choose another address"
            ) from error
        await self._server.start()
        await self._health.start()
        self._watch.start(self._health.look)

    async def stop(self, grace_s: float | None = None) -> None:
        """Turn new calls away, let open ones finish for a while, end the rest; asked again, wait for the same.

        Args:
            grace_s: seconds; None takes the configured ones.
        """
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(self._config.grace_s if grace_s is None else grace_s))
        await asyncio.shield(self._stopping)

    def is_stopping(self) -> bool:
        """Whether it has begun to stop."""
        return self._stopping is not None

    def drain(self, ask: Callable[[], None] | None = None) -> None:
        """Begin to stop, unless it has begun, and let `serve_until_signal` end.

        With `ask` somebody else is asked to stop this server, and others with it.
        """
        if self._stopping is not None:
            return
        if ask is not None:
            ask()
            return
        self._stopping = asyncio.create_task(self._stop(self._config.grace_s))
        self._is_drained.set()

    async def _stop(self, grace_s: float) -> None:
        await self._watch.stop()
        await self._health.stop()
        refusing = asyncio.create_task(self._server.stop(grace_s + 2))
        # At once: drawings must hear of it before gRPC ends them.
        await asyncio.gather(self._catalogue.drain(), self._sketches.drain(grace_s))
        # Only watchers of the health service can be left; they need no grace.
        await self._server.stop(0)
        await refusing
        self._workers.close()
        await self._access.close()
        self._stop_probes()

    async def serve_until_signal(self, announce: Callable[[], None] = lambda: None) -> None:
        """Answer until SIGTERM, SIGINT or `drain`, then stop gracefully; a further signal stops at once.

        Args:
            announce: called once signals are heeded: whoever hears of it may send one.
        """
        loop = asyncio.get_running_loop()
        signals: asyncio.Queue[None] = asyncio.Queue()
        for number in (signal.SIGTERM, signal.SIGINT):
            with suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(number, signals.put_nowait, None)
        announce()
        signalled, drained = (asyncio.create_task(wait) for wait in (signals.get(), self._is_drained.wait()))
        await asyncio.wait({signalled, drained}, return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        again = asyncio.create_task(signals.get()) if signalled.done() else signalled
        stopping = asyncio.create_task(self.stop())
        await asyncio.wait({stopping, again}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            await self._server.stop(0)
            stopping.cancel()
            if self._stopping is not None:
                self._stopping.cancel()
        again.cancel()

    def _stop_probes(self) -> None:
        if self._probes is not None:
            self._probes.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def build_server(
    config: ServerConfig,
    galleries: Galleries,
    telemetry: Telemetry | None = None,
    access: Access | None = None,
    *,
    shares_port: bool = False,
    reload: Callable[[], Awaitable[bool]] | None = None,
    stop_all: Callable[[], None] | None = None,
    maker: GalleryMaker | None = None,
) -> SketchServer:
    """A server with every service in place, not yet listening; call it on the event loop that will run it.

    `reload` and `maker` are what an admin may call for: see `service.reloading` and `service.creating`. Without
    `access` nobody is asked who calls, nothing is encrypted and nothing put on record. Other processes may answer at a
    port that is shared, and `stop_all` then asks for the end of all of them; at any other a second server is refused.
    """
    telemetry = telemetry or Telemetry()
    access = access or Access.open(Config(config), galleries)
    engine = Engine(galleries.encoders, config.threads, batches=config.batches)
    admission = Admission(engine.slot, config.max_load, config.max_wait_s, config.max_drawings)
    workers = Workers(admission, telemetry.metrics)
    options = (*_OPTIONS, ("grpc.so_reuseport", int(shares_port)))
    server = grpc.aio.server(interceptors=[CallObserver(telemetry), *access.interceptors], options=options)
    sketches = SketchSearchServicer(galleries, engine, workers, telemetry, config.idle_timeout_s)
    search_pb2_grpc.add_SketchSearchServiceServicer_to_server(sketches, server)
    watch = GalleryWatch(galleries, config.refresh_s)
    writers = GalleryWriters(galleries.encoders, lambda name: config.writable or galleries.settings(name).writable)
    catalogue = GalleryServicer(galleries, workers, writers, watch, maker)
    gallery_pb2_grpc.add_GalleryServiceServicer_to_server(catalogue, server)
    statuses: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]  # missing in its stubs
    health_pb2_grpc.add_HealthServicer_to_server(statuses, server)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    states = Health(statuses, SERVICES, galleries, admission, telemetry.metrics)
    built = SketchServer(config, server, sketches, states, workers, watch, catalogue, telemetry, access)
    admin = AdminServicer(galleries, config.backups, reload, built.is_stopping, partial(built.drain, stop_all))
    admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, server)
    return built
