"""Who decodes, crops and encodes in `mgrl ingest`: a thread or a process a core, or a GPU."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from indexer.device import DEVICES, choose_device
from indexer.errors import ConfigError
from service.commands import framing

if TYPE_CHECKING:
    from indexer.encoding import OnnxEncoder
    from indexer.preparing import Preparer

_THREADS: Final = 4
"""More workers than that are processes: one in eight of a photo's instructions waits for Python's lock."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where to encode (default: a GPU if there is one)"
    )
    parser.add_argument(
        "--workers", metavar="N", type=int, help="photos that are decoded and encoded at once (default: one a core)"
    )
    parser.add_argument(
        "--processes",
        action=argparse.BooleanOptionalAction,
        default=None,
        help=f"workers are processes, not threads (default: from {_THREADS + 1} workers on)",
    )
    framing.add_arguments(parser)


@contextmanager
def workers(args: argparse.Namespace) -> "Iterator[tuple[OnnxEncoder, Preparer]]":
    """The encoder, and who uses it, while the block runs.

    Raises:
        ConfigError: an option is out of range, or the device cannot be used.
        ModelError: there is no such model.
    """
    from indexer.encoding import DEFAULT_MODEL, OnnxEncoder, default_threads
    from indexer.preparing import MAX_WORKERS, Decoding, Encoding, EncodingProcesses

    count = default_threads() if args.workers is None else args.workers
    if not 1 <= count <= MAX_WORKERS:
        raise ConfigError(f"--workers must be from 1 to {MAX_WORKERS}, got {count}")
    device, model = choose_device(args.device), Path(args.model or DEFAULT_MODEL)
    encoder = OnnxEncoder.open(model, threads=1, device=device)
    crops = framing.framing(args, encoder)
    if device != "cpu":
        yield encoder, Decoding(encoder.size_px, count, crops)
    elif count > _THREADS if args.processes is None else args.processes:
        with EncodingProcesses(partial(OnnxEncoder.open, model, threads=1), count, crops) as processes:
            yield encoder, processes
    else:
        yield encoder, Encoding(encoder, count, crops)
