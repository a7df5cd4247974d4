"""Delete photos from a gallery: thumbnail, source and metadata at once, all of the photos or none.

A running `mgrl serve` ranks them no more within a second; drawings that have begun keep the gallery they began with.
The photos' region vectors stay in the gallery's files, as rows that nothing names and no search returns, until `mgrl
compact`; `mgrl forget` erases them at once. A photo goes with all its names. The photo files that were ingested are not
touched: `mgrl ingest` would add them again.

examples:
  mgrl delete ./gallery anna/front
  mgrl delete ./gallery anna/front anna/side --json deleted.json
"""

import argparse

from service.commands.waiting import add_photos as add_arguments

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> int:
    """Delete and say so."""
    from indexer.console import write_json
    from indexer.deleting import delete
    from indexer.store import StoreWriter

    photo_ids = list(dict.fromkeys(args.photo_ids))
    with StoreWriter.open(args.gallery, wait_s=args.wait) as store:
        before = store.count()
        delete(store, photo_ids)
        left = store.count()
    write_json(args.json, {"deleted": photo_ids, "photos": left})
    print(f"deleted {before - left} of {before} photos from gallery {store.name}")
    return 0
