"""Answer sketches over gRPC, from one or several galleries.

Example:
    mgrl serve ./gallery
    mgrl serve ./staff ./visitors --address 127.0.0.1:0 --threads 1
    mgrl serve ./gallery --approximate      then: mgrl query sketch.png --recall 0.99

Prints one line when it answers. SIGTERM and Ctrl-C stop it: new calls are turned away, open drawings may finish.
"""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from indexer.device import DEVICES, choose_device
from indexer.encoding import DEFAULT_MODEL, OnnxEncoder, default_threads
from indexer.gallery import Gallery
from service.config import DEFAULT_ADDRESS, ServerConfig
from service.galleries import Galleries
from service.server import build_server


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mgrl serve`."""
    parser.add_argument("galleries", metavar="GALLERY", type=Path, nargs="+", help="a folder written by `mgrl ingest`")
    parser.add_argument(
        "--address", default=DEFAULT_ADDRESS, help="HOST:PORT; port 0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--model", type=Path, default=DEFAULT_MODEL, help="an ONNX file that made the galleries (default: the built-in)"
    )
    parser.add_argument("--threads", type=int, default=default_threads(), help="cores to use (default: all)")
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where to encode and search (default: a GPU if there is one)"
    )
    parser.add_argument(
        "--approximate",
        action="store_true",
        help="also prepare galleries of 10,000 photos and more for approximate searches; starting takes longer by "
        "some 30 s a million photos",
    )
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="for open drawings at a stop (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal."""
    config = ServerConfig(address=arguments.address, threads=arguments.threads, grace_s=arguments.grace)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    device = choose_device(arguments.device)
    opened = [Gallery.open(path, device=device) for path in arguments.galleries]
    encoder = OnnxEncoder.open(arguments.model, threads=config.threads, device=device)
    galleries = Galleries(opened, encoder)
    if arguments.approximate:
        _lay_out(galleries)
    if not config.is_loopback:
        print(
            f"mgrl serve: warning: there is no authentication and no encryption yet; whoever reaches {config.address} "
            "can search these galleries",
            file=sys.stderr,
        )
    asyncio.run(_serve(config, galleries))
    return 0


def _lay_out(galleries: Galleries) -> None:
    for gallery in galleries:
        if not gallery.build_approximate():
            print(
                f"mgrl serve: gallery {gallery.name} is always searched exactly: approximate searches need a CPU, "
                "10,000 photos and the extra: pip install 'mgrl[fast]'",
                file=sys.stderr,
            )


async def _serve(config: ServerConfig, galleries: Galleries) -> None:
    server = build_server(config, galleries)
    await server.start()
    photos = sum(gallery.photos for gallery in galleries)
    kind = "gallery" if len(galleries) == 1 else "galleries"
    print(f"serving {len(galleries)} {kind}, {photos} photos, on {server.address}", flush=True)
    await server.serve_until_signal()
