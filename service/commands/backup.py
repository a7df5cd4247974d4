"""Copy a gallery while it is served and written: what it holds at one moment, every checksum verified.

DEST is a new folder, and then a gallery like any other: it can be verified, served, searched, and copied back by `mgrl
restore`. Stop the command and run it again: it goes on where it was. Backups keep what is deleted from the gallery
afterwards: to forget a photo, forget it in them as well, or delete them.

examples:
  mgrl backup ./gallery ./backups/monday
  mgrl backup ./gallery ./backups/monday --links       at once and without room, on the same file system
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `mgrl backup`."""
    parser.add_argument("gallery", metavar="GALLERY", type=Path, help="a folder written by `mgrl ingest`")
    parser.add_argument("dest", metavar="DEST", type=Path, help="a new folder")
    parser.add_argument(
        "--links",
        action="store_true",
        help="further names of the same files where the file system can; damage to one is then damage to both",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write what was done as JSON")


def run(args: argparse.Namespace) -> int:
    """Copy, verify, and say so."""
    from dataclasses import asdict

    from indexer.backup import copy_gallery
    from indexer.console import progress, write_json
    from indexer.ledger import folder_name, megabytes

    with progress("copying", None, "segments") as show:
        done = copy_gallery(args.gallery, args.dest, links=args.links, on_progress=show)
    write_json(args.json, asdict(done))
    what = f"{done.photos} photos in {done.segments} segments, {megabytes(done.copied_bytes)} written"
    print(f"copied gallery {folder_name(args.gallery)} to {folder_name(args.dest)}: {what}, verified")
    return 0
