"""Delete photos from a gallery: thumbnail, source and metadata at once, all of the photos or none.

A running `mgrl serve` ranks them no more within a second; drawings that have begun keep the gallery they began with.
The photos' region vectors stay in the gallery's files, as rows that nothing names and no search returns. The photo
files that were ingested are not touched: `mgrl ingest` would add them again.

examples:
  mgrl delete ./gallery anna/front
  mgrl delete ./gallery anna/front anna/side --json deleted.json
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `mgrl delete`."""
    parser.add_argument("gallery", metavar="GALLERY", type=Path, help="a folder written by `mgrl ingest`")
    parser.add_argument("photo_ids", metavar="ID", nargs="+", help="a photo's id, as rankings show it")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write what was done as JSON")


def run(args: argparse.Namespace) -> int:
    """Delete and say so."""
    from indexer.console import write_json
    from indexer.store import StoreWriter

    photo_ids = list(dict.fromkeys(args.photo_ids))
    with StoreWriter.open(args.gallery) as store:
        store.delete(photo_ids)
        left = store.count()
    write_json(args.json, {"deleted": photo_ids, "photos": left})
    print(f"deleted {len(photo_ids)} of {len(photo_ids) + left} photos from gallery {store.name}")
    return 0
