"""Several processes that answer on one port, and the one that watches over them.

The kernel deals connections out (SO_REUSEPORT). Galleries are files that are mapped, so the processes share their
memory. They are started afresh, never forked: gRPC, ONNX Runtime and FAISS do not survive a fork. The one that watches
opens no gallery and answers no call; it keeps the port, starts anew what dies, passes signals on, its own and those
that a child asks for, and tells the metrics of all. It cannot keep a drawing alive whose process dies: the client
begins it again.
"""

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from indexer.errors import ConfigError
from service.config import ServerConfig, split_address
from service.probes import Probes

logger = logging.getLogger(__name__)

_METRICS_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
_LOOK_EVERY_S: Final = 0.2
_STARTS: Final = 3
"""Times in a row that a process may die before it is ready; what ends that often will not begin to work."""


class Overseer:
    """The process that watches, as its children see it.

    Args:
        pipe: to it.
    """

    def __init__(self, pipe: "connection.Connection[int | signal.Signals, None]") -> None:
        self._pipe = pipe

    def is_ready(self, photos: int) -> None:
        """Tell it that this process answers, for so many photos."""
        self._pipe.send(photos)

    def signal_all(self, number: signal.Signals) -> None:
        """Have it do what it does on this signal, which reaches every process."""
        self._pipe.send(number)

    def wait_for_end(self) -> None:
        """Wait until it is gone."""
        with suppress(EOFError, OSError):
            self._pipe.recv()


Answer = Callable[[str, Overseer], None]
"""Answers at an address until a signal, and says so once it does; run in a child."""


class _Child:
    """One process; it is started anew under the same number when it dies."""

    def __init__(self, answer: Answer, address: str) -> None:
        self._answer, self._address = answer, address
        self.failed_starts = 0
        self.wants_reload = False
        self.start()

    def start(self) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.photos: int | None = None
        # Not a daemon: those may not have children of their own, and it ends by itself with its parent.
        self.process = context.Process(target=_answer_as_child, args=(self._answer, self._address, theirs))
        self.process.start()
        theirs.close()

    @property
    def is_ready(self) -> bool:
        return self.photos is not None and self.process.is_alive()

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal, if it is there."""
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)

    def heed(self) -> list[signal.Signals]:
        """Hear whether it is ready, and which signals it asks for."""
        asked = []
        with suppress(EOFError, OSError):
            while self.pipe.poll():
                match self.pipe.recv():
                    case signal.Signals() as number:
                        asked.append(number)
                    case photos:
                        self.photos, self.failed_starts = photos, 0
        return asked


class Supervisor:
    """Runs processes until a signal. Use it from the main thread.

    Args:
        answer: what each does; it must be picklable.
        config: address, how many, and where the metrics of all are told.
    """

    def __init__(self, answer: Answer, config: ServerConfig) -> None:
        self._answer, self._config = answer, config
        self._children: list[_Child] = []
        self._signals: list[int] = []
        self._is_stopping = False

    def run(self) -> int:
        """Serve until a signal.

        Returns:
            Exit status: 0 after a signal, 1 when a process dies again and again.

        Raises:
            ConfigError: the address cannot be had.
        """
        with _reserved(self._config.address) as address, _metrics_folder() as folder:
            probes = Probes(_registry(folder, self._children), self._is_alive, self._is_ready)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, lambda which, _: self._signals.append(which))
            try:
                metrics = probes.start(self._config.metrics_address) if self._config.metrics_address else ""
                self._children += [_Child(self._answer, address) for _ in range(self._config.processes)]
                return self._watch(address, metrics, folder)
            finally:
                self._end()
                probes.stop()

    def _watch(self, address: str, metrics: str, folder: str) -> int:
        is_announced = False
        while True:
            waited_for: list[Any] = [child.process.sentinel for child in self._children]
            connection.wait(waited_for, timeout=_LOOK_EVERY_S)
            for child in self._children:
                self._signals += child.heed()
            while self._signals:
                if self._signals.pop(0) != signal.SIGHUP:
                    return 0
                for child in self._children:
                    child.wants_reload = True
            for child in self._children:
                if not child.process.is_alive() and not self._restart(child, folder):
                    return 1
                # Before it is ready SIGHUP would end it, and it may have read the settings that have changed since.
                if child.wants_reload and child.is_ready:
                    child.wants_reload = False
                    child.tell(signal.SIGHUP)
            if not is_announced and self._is_ready():
                is_announced = True
                photos = self._children[0].photos
                print(f"serving {photos} photos in {len(self._children)} processes on {address}", flush=True)
                if metrics:
                    print(f"metrics on http://{metrics}/metrics", flush=True)

    def _restart(self, child: _Child, folder: str) -> bool:
        """Start a dead child anew; False when that has been tried often enough."""
        mark_process_dead(child.process.pid, folder)  # type: ignore[no-untyped-call]
        if child.photos is None:
            child.failed_starts += 1
        if child.failed_starts >= _STARTS:
            print(f"mgrl serve: a process ended {_STARTS} times before it was ready", file=sys.stderr)
            return False
        logger.warning("a process ended with status %s and is started anew", child.process.exitcode)
        child.start()
        return True

    def _end(self) -> None:
        """Have all finish what is open; a second signal, or their time running out, ends them at once."""
        self._is_stopping = True
        self._signals.clear()
        self._stop_all()
        until = time.monotonic() + self._config.grace_s + 10.0
        while any(child.process.is_alive() for child in self._children) and time.monotonic() < until:
            if self._signals:
                self._signals.clear()
                self._stop_all()
            connection.wait([child.process.sentinel for child in self._children], timeout=_LOOK_EVERY_S)
            self._children = [child for child in self._children if child.process.is_alive()]
        for child in self._children:
            child.process.kill()
            child.process.join()

    def _stop_all(self) -> None:
        for child in self._children:
            child.tell(signal.SIGTERM)

    def _is_alive(self) -> bool:
        return True  # that it answers is the answer: the watching loop waits for nothing but its children

    def _is_ready(self) -> bool:
        return not self._is_stopping and bool(self._children) and all(child.is_ready for child in self._children)


def _answer_as_child(answer: Answer, address: str, pipe: connection.Connection) -> None:
    """What a child runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes; the parent tells us

    overseer = Overseer(pipe)

    def end_with_parent() -> None:
        overseer.wait_for_end()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_parent, daemon=True, name="mgrl-parent").start()
    answer(address, overseer)


@contextmanager
def _reserved(address: str) -> Iterator[str]:
    """The address with its real port, kept for processes that share it while the block runs.

    A socket that is bound and does not listen gets no connections.
    """
    host, port = split_address(address)
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as alone:  # somebody else's server may allow sharing, too
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(place)
            real = alone.getsockname()[1]
        kept = socket.socket(family)
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind((place[0], real, *place[2:]))
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {address}: {error.strerror or error}; stop the other server or choose another address"
        ) from error
    with kept:
        yield f"[{host}]:{real}" if ":" in host else f"{host}:{real}"


@contextmanager
def _metrics_folder() -> Iterator[str]:
    """Where the children write their counters; they find it in their environment."""
    with tempfile.TemporaryDirectory(prefix="mgrl-metrics-") as folder:
        os.environ[_METRICS_FOLDER] = folder
        try:
            yield folder
        finally:
            del os.environ[_METRICS_FOLDER]


def _registry(folder: str, children: list[_Child]) -> CollectorRegistry:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
    registry.register(_Memory(children))
    return registry


class _Memory:
    """Memory of all children; what they share, galleries above all, counts once."""

    def __init__(self, children: list[_Child]) -> None:
        self._children = children

    def collect(self) -> Iterator[GaugeMetricFamily]:
        total = sum(_own_share_bytes(child.process.pid) for child in self._children)
        yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory of all processes.", value=total)


def _own_share_bytes(pid: int | None) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return next(int(row.split()[1]) * 1024 for row in file if row.startswith("Pss:"))
    except (OSError, StopIteration):  # it has just ended, or this is no Linux
        return 0
