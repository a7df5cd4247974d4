"""Forget the photos of a gallery that are older than a number of days: erased as by `mgrl forget`. For cron.

A photo's age counts from when it was stored, or replaced; of a gallery that older versions of mgrl wrote, from when a
version that knows of ages first wrote to it. A clock that was put back makes photos look younger, never older.

examples:
  mgrl retention ./gallery --days 365 --dry-run
  mgrl retention ./gallery --days 365 --wait 60 --json forgotten.json
"""

import argparse
from pathlib import Path

from service.commands.waiting import add_wait


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mgrl retention`."""
    parser.add_argument("gallery", metavar="GALLERY", type=Path, help="a folder written by `mgrl ingest`")
    parser.add_argument("--days", metavar="N", type=float, required=True, help="how long photos are kept")
    parser.add_argument("--dry-run", action="store_true", help="only say how many would be forgotten")
    add_wait(parser)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write what was done as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Forget and say how many."""
    from indexer.console import write_json
    from indexer.retention import photos_older_than, retain
    from indexer.store import Store, StoreWriter

    if arguments.dry_run:
        store = Store.open(arguments.gallery)
        old, photos = len(photos_older_than(store, arguments.days)), store.count()
        store.close()
        print(f"{old} of {photos} photos of gallery {store.name} are older than {arguments.days:g} days")
        write_json(arguments.json, {"forgotten": 0, "older": old, "photos": photos})
        return 0
    with StoreWriter.open(arguments.gallery, wait_s=arguments.wait) as writer:
        done = retain(writer, arguments.days)
        name = writer.name
    write_json(arguments.json, {"forgotten": done.forgotten, "older": done.forgotten, "photos": done.kept})
    print(f"forgot {done.forgotten} photos of gallery {name} older than {arguments.days:g} days, {done.kept} are left")
    return 0
