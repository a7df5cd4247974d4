"""Serves the sketchpad on this machine alone, on the event loop that it is called on."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import uvicorn
import websockets  # noqa: F401  # without it uvicorn serves, and refuses every drawing

from indexer.errors import ConfigError
from service.async_client import AsyncClient
from service.credentials import NO_CREDENTIALS, Credentials
from service.web.app import build_app

_HOST: Final = "127.0.0.1"
_MAX_MESSAGE_BYTES: Final = 6 << 20
"""Of the page: a message of the service's 4 MiB, and a picture of 3 MiB as base64."""


@asynccontextmanager
async def serving_page(service: str, port: int, credentials: Credentials = NO_CREDENTIALS) -> AsyncIterator[str]:
    """The page for a service; yields its address, http://127.0.0.1:PORT/.

    Args:
        service: HOST:PORT of the gRPC service, which may come and go.
        port: of the page; 0 takes a free one.
        credentials: the page's own, by which the service knows it.

    Raises:
        ConfigError: the port cannot be had; or see `Credentials.channel`.
    """
    with _listening(port) as listener:
        async with AsyncClient(service, credentials=credentials) as client:
            port = listener.getsockname()[1]
            config = uvicorn.Config(
                build_app(client, hosts_of(port)), http="h11", ws="websockets-sansio", lifespan="off",
                # Access logs would hold photo ids.
                log_config=None, access_log=False, server_header=False, proxy_headers=False,
                ws_max_size=_MAX_MESSAGE_BYTES, ws_per_message_deflate=False, timeout_graceful_shutdown=1,
            )  # fmt: skip
            server = _Server(config)
            running = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                while not server.started and not running.done():
                    await asyncio.sleep(0.01)
                yield f"http://{_HOST}:{port}/"
            finally:
                server.should_exit = True
                await running


def hosts_of(port: int) -> list[str]:
    """How a browser calls who serves a page on a port of this machine: port 80 goes without saying.

    Example:
        >>> hosts_of(8642), hosts_of(80)
        (['127.0.0.1:8642', 'localhost:8642'], ['127.0.0.1', 'localhost'])
    """
    return [name if port == 80 else f"{name}:{port}" for name in (_HOST, "localhost")]


class _Server(uvicorn.Server):
    """Leaves signals to the service beside it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"the page cannot have port {port}: {error}; choose another one, or 0 for a free one"
        ) from error
    return listener
