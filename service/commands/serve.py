"""Answer sketches over gRPC, from one or several galleries.

Example:
    mgrl serve ./gallery
    mgrl serve ./staff ./visitors --address 127.0.0.1:0 --threads 1
    mgrl serve --galleries ./galleries      all galleries in a folder; admins may make more (CreateGallery)
    mgrl serve ./gallery --approximate      then: mgrl query sketch.png --recall 0.99
    mgrl serve ./gallery --web              with a page to draw on, http://127.0.0.1:8642/
    mgrl serve --config mgrl.toml           keys, certificates, several galleries: see `mgrl config schema`

Prints one line when it answers. SIGTERM and Ctrl-C stop it: new calls are turned away, open drawings may finish.
SIGHUP reads the settings again.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from indexer.device import DEVICES
from indexer.errors import ConfigError, PublicError
from indexer.ledger import folder_name
from service.access import Access
from service.commands.sketchpad import DEFAULT_PORT
from service.config import DEFAULT_ADDRESS, Config
from service.creating import GalleryMaker, sweep, with_created
from service.galleries import Galleries
from service.keeping import Keeper
from service.logs import FORMATS, set_up_logging
from service.memory import share_heaps
from service.opening import Opener
from service.processes import Overseer, Supervisor
from service.reloading import Reloader
from service.server import SketchServer, build_server
from service.settings import Loaded, assignments, load_settings
from service.telemetry import Telemetry, exported_traces

Use = Callable[[SketchServer, Galleries], Awaitable[None]]
"""What is done with a server that answers; it stops when this is done."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mgrl serve`; what is not given is None, so that the settings file may say it."""
    parser.add_argument("galleries", metavar="GALLERY", type=Path, nargs="*", help="a folder written by `mgrl ingest`")
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings (default: MGRL_CONFIG, or none)")
    parser.add_argument("--set", metavar="SECTION.KEY=VALUE", action="append", default=[], help="any setting")
    parser.add_argument("--address", help=f"HOST:PORT; port 0 takes a free one (default: {DEFAULT_ADDRESS})")
    parser.add_argument("--model", type=Path, help="an ONNX file that made the galleries (default: the built-in)")
    parser.add_argument("--threads", help="cores to use (default: all)")
    parser.add_argument(
        "--device", choices=DEVICES, help="where to encode and search (default: auto, a GPU if there is one)"
    )
    parser.add_argument(
        "--approximate",
        action="store_true",
        default=None,
        help="also prepare galleries of 10,000 photos and more for approximate searches; the first start with "
        "new photos takes longer by some 30 s a million",
    )
    parser.add_argument(
        "--metrics-address",
        metavar="HOST:PORT",
        help="answer /metrics, /livez and /readyz over HTTP there (default: nowhere)",
    )
    parser.add_argument(
        "--web",
        metavar="PORT",
        type=int,
        nargs="?",
        const=DEFAULT_PORT,
        help=f"also serve the sketchpad, to this machine alone (default of PORT: {DEFAULT_PORT})",
    )
    parser.add_argument("--log-format", choices=FORMATS, help="of the lines on stderr (default: human)")
    parser.add_argument("--processes", metavar="N", help="that answer on the address, sharing the cores (default: 1)")
    parser.add_argument("--grace", metavar="SECONDS", help="for open drawings at a stop (default: 10)")
    parser.add_argument(
        "--writable", action="store_true", default=None, help="let clients store and delete photos over gRPC"
    )
    parser.add_argument(
        "--galleries",
        metavar="DIR",
        dest="created",
        type=Path,
        help="also serve every gallery in this folder, and let admins make galleries in it over gRPC",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        default=None,
        help="listen beyond this machine without authentication or without encryption",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal."""
    loaded = read_settings(arguments)
    config = loaded.config
    if arguments.web is not None:
        import service.web.run  # noqa: F401  # what is missing is told before galleries are opened

        if config.asks_who_calls or config.tls.is_on:
            raise ConfigError(
                "--web would let whoever sits at this machine search without a key; start the page apart, with a key "
                "of its own: mgrl sketchpad --service HOST:PORT"
            )
        if config.server.processes > 1:
            raise ConfigError("--web serves the page from one process; start it apart: mgrl sketchpad")
    set_up_logging(config.server.log_format)
    if config.server.processes > 1:
        return Supervisor(partial(_answer_as_one_of_several, arguments), config.server).run()
    _answer(lambda: with_created(read_settings(arguments).config), partial(_until_signal, arguments.web))
    return 0


def _answer(read: Callable[[], Config], use: Use, overseer: Overseer | None = None) -> None:
    """Open what is to be served, answer, and use it."""
    config = read()
    share_heaps(config.server.threads)
    sweep(config)
    opener = Opener(config)
    galleries = opener.open_all(config)
    _name_empty(galleries)
    if config.server.approximate:
        _lay_out(galleries)
    with exported_traces() as tracer:
        telemetry = Telemetry(tracer=tracer)
        access = Access.open(config, galleries)
        reloader = Reloader(read, opener, config, galleries, access)
        maker = GalleryMaker(galleries, opener, lambda: reloader.config)
        asyncio.run(_serve(reloader, galleries, telemetry, access, maker, use, overseer))


def _answer_as_one_of_several(arguments: argparse.Namespace, address: str, overseer: Overseer) -> None:
    """In a process of its own; see `service.processes`."""

    async def until_signal(server: SketchServer, galleries: Galleries) -> None:
        await server.serve_until_signal(lambda: overseer.is_ready(sum(gallery.photos for gallery in galleries)))

    def read() -> Config:
        config = read_settings(arguments).config
        threads = max(1, config.server.threads // config.server.processes)
        own = replace(config.server, address=address, threads=threads, processes=1, metrics_address="")
        return replace(config, server=own)

    try:
        set_up_logging(read().server.log_format)
        _answer(read, until_signal, overseer)
    except PublicError as error:
        print(f"mgrl serve: {error}", file=sys.stderr)
        sys.exit(1)


def read_settings(arguments: argparse.Namespace) -> Loaded:
    """The settings of file, environment and flags.

    Raises:
        ConfigError: see `load_settings`; or two galleries of the same name.
    """
    flags = assignments(arguments.set)
    for key, value, flag in (
        ("server.address", arguments.address, "--address"),
        ("server.model", arguments.model, "--model"),
        ("server.threads", arguments.threads, "--threads"),
        ("server.device", arguments.device, "--device"),
        ("server.approximate", arguments.approximate, "--approximate"),
        ("server.grace_s", arguments.grace, "--grace"),
        ("server.metrics_address", arguments.metrics_address, "--metrics-address"),
        ("server.processes", arguments.processes, "--processes"),
        ("server.log_format", arguments.log_format, "--log-format"),
        ("server.writable", arguments.writable, "--writable"),
        ("server.insecure", arguments.insecure, "--insecure"),
        ("created.folder", arguments.created, "--galleries"),
    ):
        if value is not None:
            flags[key] = (value, flag)
    named: dict[str, tuple[Any, str]] = {}
    for path in arguments.galleries:
        key = f"galleries.{folder_name(path)}.path"
        if key in named:
            raise ConfigError(f"galleries must have different names, two are named {folder_name(path)}; rename one")
        named[key] = (path, "GALLERY")
    file = arguments.config or (Path(os.environ["MGRL_CONFIG"]) if os.environ.get("MGRL_CONFIG") else None)
    return load_settings(file, os.environ, {**flags, **named})


def _name_empty(galleries: Galleries) -> None:
    for gallery in galleries:
        if not gallery.photos:
            print(
                f"mgrl serve: gallery {gallery.name} has no photos yet and refuses searches until some come "
                "(`mgrl ingest`, UpsertPhotos)",
                file=sys.stderr,
            )


def _lay_out(galleries: Galleries) -> None:
    for gallery in galleries:
        if not gallery.build_approximate():
            print(
                f"mgrl serve: gallery {gallery.name} is always searched exactly: approximate searches need a CPU, "
                "10,000 photos and the extra: pip install 'mgrl[fast]'",
                file=sys.stderr,
            )


async def _serve(
    reloader: Reloader,
    galleries: Galleries,
    telemetry: Telemetry,
    access: Access,
    maker: GalleryMaker,
    use: Use,
    overseer: Overseer | None,
) -> None:
    async def reload_all() -> bool:
        can_be_used = await reloader.reload()
        if can_be_used and overseer is not None:
            overseer.signal_all(signal.SIGHUP)
        return can_be_used

    server = build_server(
        reloader.config.server,
        galleries,
        telemetry,
        access,
        shares_port=overseer is not None,
        reload=reload_all,
        stop_all=None if overseer is None else partial(overseer.signal_all, signal.SIGTERM),
        maker=maker,
    )
    keeper = Keeper(galleries, server.writers)
    await server.start()
    _reload_on_sighup(reloader)
    keeper.start()
    try:
        await use(server, galleries)
    except PublicError:
        await server.stop(0.0)
        raise
    finally:
        await keeper.stop()


async def _until_signal(web: int | None, server: SketchServer, galleries: Galleries) -> None:
    """Say what is served where, and serve it."""
    photos = sum(gallery.photos for gallery in galleries)
    kind = "gallery" if len(galleries) == 1 else "galleries"
    said = [f"serving {len(galleries)} {kind}, {photos} photos, on {server.address}"]
    if server.metrics_address:
        said.append(f"metrics on http://{server.metrics_address}/metrics")
    async with AsyncExitStack() as beside:
        if web is not None:
            from service.web.run import serving_page

            page = await beside.enter_async_context(serving_page(server.address, web))
            said.append(f"sketchpad on {page}")
        await server.serve_until_signal(lambda: print("\n".join(said), flush=True))


def _reload_on_sighup(reloader: Reloader) -> None:
    loop, reloads = asyncio.get_running_loop(), set[asyncio.Task[bool]]()

    def reload() -> None:
        task = loop.create_task(reloader.reload())
        reloads.add(task)  # a task that nobody holds may be collected while it runs
        task.add_done_callback(reloads.discard)

    if hasattr(signal, "SIGHUP"):  # not on Windows
        loop.add_signal_handler(signal.SIGHUP, reload)
