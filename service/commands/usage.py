"""Say what a gallery takes of its disk, by kind, and what of it `mgrl compact` would give back.

examples:
  mgrl usage ./gallery
  mgrl usage ./gallery --json usage.json
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `mgrl usage`."""
    parser.add_argument("gallery", metavar="GALLERY", type=Path, help="a folder written by `mgrl ingest`")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write it as JSON, in bytes")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from dataclasses import asdict

    from indexer.console import print_table, write_json
    from indexer.ledger import folder_name, megabytes
    from indexer.usage import usage

    used = usage(args.gallery)
    write_json(args.json, {**asdict(used), "reclaimable": used.reclaimable, "total": used.total})
    rows = (
        ("vectors", used.vectors),
        ("vectors of deleted photos", used.deleted_vectors),
        ("thumbnails", used.thumbnails),
        ("metadata", used.metadata),
        ("the rest of the ledger", used.ledger),
        ("the ledger's free pages", used.ledger_free),
        ("the ledger's log", used.log),
        ("index, derived", used.index),
        ("left by killed jobs", used.strays),
        ("versions of earlier models", used.superseded),
        ("a version in the making", used.unfinished),
        ("total", used.total),
    )
    named = f"{used.photos} photos, {used.aliases} further names, {used.deleted} deleted"
    if used.crop:
        named += f", taken with --crop {used.crop}"
    title = f"gallery {folder_name(args.gallery)}: {named}"
    print_table(title, ("kind", "size"), [(kind, megabytes(count)) for kind, count in rows])
    if used.reclaimable:
        print(f"`mgrl compact` would give back {megabytes(used.reclaimable)}")
    return 0
