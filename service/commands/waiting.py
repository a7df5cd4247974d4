"""Options of commands that change a gallery, which one process may do at a time."""

import argparse
import math
from pathlib import Path


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Declare `--wait`."""
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=_seconds,
        default=0.0,
        help="how long to wait for another process that writes the gallery: seconds, or `forever` (default: not at "
        "all, and say who it is)",
    )


def _seconds(text: str) -> float:
    try:
        seconds = math.inf if text == "forever" else float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"must be seconds, 0 or more, or `forever`, got {text!r}")
    return seconds


def add_photos(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a command that takes photos out of a gallery."""
    parser.add_argument("gallery", metavar="GALLERY", type=Path, help="a folder written by `mgrl ingest`")
    parser.add_argument("photo_ids", metavar="ID", nargs="+", help="a photo's id, as rankings show it")
    add_wait(parser)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write what was done as JSON")
