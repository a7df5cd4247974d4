"""Erase what was deleted from a gallery, and put its many small files together, while it is served.

`mgrl delete` leaves the vectors of deleted photos in the gallery's files, unnamed. This writes these files anew without
them, in one step: a crash leaves the gallery as it was. Rankings stay the same. A running `mgrl serve` takes the files
up by itself. It needs room for a copy of the files that it writes anew, and says how much where there is not enough.

examples:
  mgrl compact ./gallery
  mgrl compact ./gallery --wait 600 --json compacted.json      for a scheduler, after a night's ingestion
"""

import argparse
from pathlib import Path

from service.commands.waiting import add_wait


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `mgrl compact`."""
    parser.add_argument("gallery", metavar="GALLERY", type=Path, help="a folder written by `mgrl ingest`")
    add_wait(parser)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write what was done as JSON")


def run(args: argparse.Namespace) -> int:
    """Compact and say what that changed."""
    from dataclasses import asdict

    from indexer.compaction import compact
    from indexer.console import write_json
    from indexer.ledger import megabytes
    from indexer.store import StoreWriter

    with StoreWriter.open(args.gallery, wait_s=args.wait) as store:
        done = compact(store)
    write_json(args.json, asdict(done))
    print(
        f"gallery {store.name}: vectors of {done.removed} deleted photos erased, "
        f"{done.segments_before} segments are now {done.segments_after}, {megabytes(done.freed_bytes)} freed"
    )
    return 0
