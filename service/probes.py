"""The HTTP side door for whoever runs the service: /metrics, /livez and /readyz, on an address of its own.

It runs on threads, so that it can tell when the event loop, where all calls are handled, has stopped turning.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from indexer.errors import ConfigError
from service.config import split_address

_ALIVE_WITHIN_S: Final = 5.0
"""Nothing computes on the event loop; one that does not answer for this long never will."""


class Probes:
    """An HTTP server beside the gRPC one.

    Args:
        registry: what /metrics shows.
        is_alive: whether /livez says so; a service that is not alive should be restarted.
        is_ready: whether /readyz says so; one that is not ready should get no new calls.
    """

    def __init__(self, registry: CollectorRegistry, is_alive: Callable[[], bool], is_ready: Callable[[], bool]) -> None:
        self._registry, self._is_alive, self._is_ready = registry, is_alive, is_ready
        self._server: ThreadingHTTPServer | None = None

    def start(self, address: str) -> str:
        """Listen, and return HOST:PORT with the real port.

        Raises:
            ConfigError: the address cannot be had.
        """
        host, port = split_address(address)
        family = _SixServer if ":" in host else ThreadingHTTPServer
        try:
            self._server = family((host, port), self._handler())
        except OSError as error:
            raise ConfigError(
                f"cannot listen for metrics on {address}: {error.strerror or error}; choose another address"
            ) from error
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="mgrl-probes", daemon=True).start()
        real = self._server.server_address[1]
        return f"[{host}]:{real}" if ":" in host else f"{host}:{real}"

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        probes = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # a client that sends nothing
            server_version = "mgrl"
            sys_version = ""

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                    self._send(200, encode(probes._registry), content_type)
                elif path == "/livez":
                    self._say(probes._is_alive(), "alive", "the event loop does not answer")
                elif path == "/readyz":
                    self._say(probes._is_ready(), "ready", "starting or stopping")
                else:
                    self._send(404, b"there are /metrics, /livez and /readyz\n")

            def _say(self, holds: bool, good: str, bad: str) -> None:
                self._send(200 if holds else 503, f"{good if holds else bad}\n".encode())

            def _send(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Probes come every few seconds; they are not worth a line each."""

        return Handler


class _SixServer(ThreadingHTTPServer):
    address_family = socket.AF_INET6


def is_turning(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether an event loop of another thread still handles what it is given."""
    turned = threading.Event()
    try:
        loop.call_soon_threadsafe(turned.set)
    except RuntimeError:  # closed
        return False
    return turned.wait(_ALIVE_WITHIN_S)
