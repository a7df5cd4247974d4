"""Read all of a gallery and say whether it is whole: every checksum, every count, every file.

It may be served and written meanwhile. --repair removes what killed jobs have left, and a damaged layout of approximate
search, and makes the ledger's own indices anew. Nothing that was ingested is removed. Where vectors are damaged their
photos are listed, for they are nowhere else: restore the gallery from a backup, or `mgrl delete` them, `mgrl compact`,
and ingest them again.

Exit status: 0 the gallery is whole, or was made so; 1 it could not be looked at; 3 something is wrong with it.

examples:
  mgrl verify ./gallery
  mgrl verify ./gallery --repair
  mgrl verify ./gallery --json verified.json      for scripts: every fault, with the photos that are lost
"""

import argparse
from pathlib import Path
from typing import Final

from service.commands.waiting import add_wait

DAMAGED: Final = 3
_LISTED: Final = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `mgrl verify`."""
    parser.add_argument("gallery", metavar="GALLERY", type=Path, help="a folder written by `mgrl ingest`")
    parser.add_argument("--repair", action="store_true", help="make whole again what can be")
    add_wait(parser)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write what was found as JSON")


def run(args: argparse.Namespace) -> int:
    """Look, and say what was found."""
    from dataclasses import asdict

    from indexer.console import printable, write_json
    from indexer.ledger import folder_name
    from indexer.verification import verify

    found = verify(args.gallery, repair=args.repair, wait_s=args.wait)
    write_json(args.json, {"is_whole": not found.faults, **asdict(found)})
    name = folder_name(args.gallery)
    for fault in found.repaired:
        print(printable(f"repaired: {fault.what}"))
    for fault in found.faults:
        some = ", ".join(fault.photo_ids[:_LISTED])
        more = f" and {len(fault.photo_ids) - _LISTED} more (--json FILE lists all)"
        lost = f"; photos: {some}{more if len(fault.photo_ids) > _LISTED else ''}" if some else ""
        print(printable(f"fault: {fault.what}{lost}"))
    if found.faults:
        print(f"gallery {name} is damaged: {len(found.faults)} faults")
        return DAMAGED
    print(f"gallery {name} is whole: {found.photos} photos in {found.segments} segments")
    return 0
