"""Options of commands that change a gallery, which one process may do at a time."""

import argparse
from pathlib import Path


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Declare `--wait`."""
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=float,
        default=0.0,
        help="how long to wait while another process writes the gallery (default: not at all, and say who it is)",
    )


def add_photos(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a command that takes photos out of a gallery."""
    parser.add_argument("gallery", metavar="GALLERY", type=Path, help="a folder written by `mgrl ingest`")
    parser.add_argument("photo_ids", metavar="ID", nargs="+", help="a photo's id, as rankings show it")
    add_wait(parser)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write what was done as JSON")
