"""Draw in the browser and watch the ranking change after every stroke.

Example:
    mgrl sketchpad ./gallery
    mgrl sketchpad ./staff ./visitors --port 0
    mgrl sketchpad --service 127.0.0.1:50051       the page alone, for a service that runs already

Needs the extra: pip install 'mgrl[web]'. The page is for this machine alone, http://127.0.0.1:8642/, loads nothing from
elsewhere, and keeps its drawing when the service goes away. Ctrl-C stops it. A result is a lead, not an identification.
"""

import argparse
import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from indexer.device import DEVICES, choose_device
from indexer.encoding import DEFAULT_MODEL, OnnxEncoder, default_threads
from indexer.errors import ConfigError
from indexer.gallery import Gallery
from service.commands.credentials import add_credentials, credentials_of
from service.config import ServerConfig, split_address
from service.credentials import NO_CREDENTIALS, Credentials
from service.galleries import Galleries
from service.server import build_server

DEFAULT_PORT: Final = 8642


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mgrl sketchpad`."""
    parser.add_argument("galleries", metavar="GALLERY", type=Path, nargs="*", help="a folder written by `mgrl ingest`")
    parser.add_argument("--service", metavar="HOST:PORT", help="a running service to draw for, in place of galleries")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="of the page; 0 takes a free one (default: %(default)s)"
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser, too")
    parser.add_argument(
        "--model", type=Path, default=DEFAULT_MODEL, help="an ONNX file that made the galleries (default: the built-in)"
    )
    parser.add_argument("--threads", type=int, default=default_threads(), help="cores to use (default: all)")
    add_credentials(parser)
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where to encode and search (default: a GPU if there is one)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until a signal."""
    import service.web.run  # noqa: F401  # what is missing is told before galleries are opened

    if bool(arguments.galleries) == bool(arguments.service):
        raise ConfigError("name galleries, or a running service with --service HOST:PORT, and not both")
    if arguments.service:
        split_address(arguments.service)
        asyncio.run(_page(arguments.service, arguments.port, arguments.open, credentials_of(arguments)))
        return 0
    device = choose_device(arguments.device)
    opened = [Gallery.open(path, device=device) for path in arguments.galleries]
    encoder = OnnxEncoder.open(arguments.model, threads=arguments.threads, device=device, spins=False)
    asyncio.run(serve_with_page(Galleries(opened, encoder), arguments.threads, arguments.port, arguments.open))
    return 0


async def serve_with_page(galleries: Galleries, threads: int, port: int, opens_browser: bool = False) -> None:
    """A service for this machine alone and its page, until SIGTERM or SIGINT."""
    async with build_server(ServerConfig("127.0.0.1:0", threads, grace_s=1.0), galleries) as server:
        await _page(server.address, port, opens_browser)


async def _page(service: str, port: int, opens_browser: bool, credentials: Credentials = NO_CREDENTIALS) -> None:
    import webbrowser

    from service.web.run import serving_page

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving_page(service, port, credentials) as address:
        print(f"sketchpad on {address} (Ctrl-C stops it)", flush=True)
        if opens_browser:
            await asyncio.to_thread(webbrowser.open, address)
        await stop.wait()
