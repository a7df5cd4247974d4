"""Copy a backup back to where a gallery was, every checksum verified.

GALLERY must not be there: move away what is left of the damaged one first. A running `mgrl serve` takes the restored
one up by itself.

examples:
  mgrl restore ./backups/monday ./gallery
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `mgrl restore`."""
    parser.add_argument("backup", metavar="BACKUP", type=Path, help="a folder written by `mgrl backup`")
    parser.add_argument("gallery", metavar="GALLERY", type=Path, help="a folder that is not there")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write what was done as JSON")


def run(args: argparse.Namespace) -> int:
    """Copy, verify, and say so."""
    from dataclasses import asdict

    from indexer.backup import copy_gallery
    from indexer.console import progress, write_json
    from indexer.ledger import folder_name, megabytes

    with progress("copying", None, "segments") as show:
        done = copy_gallery(args.backup, args.gallery, on_progress=show)
    write_json(args.json, asdict(done))
    what = f"{done.photos} photos in {done.segments} segments, {megabytes(done.copied_bytes)} written"
    print(f"restored gallery {folder_name(args.gallery)} from {folder_name(args.backup)}: {what}, verified")
    return 0
