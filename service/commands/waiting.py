"""The option of every command that changes a gallery, which one process may do at a time."""

import argparse


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Declare `--wait`."""
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=float,
        default=0.0,
        help="how long to wait while another process writes the gallery (default: not at all, and say who it is)",
    )
