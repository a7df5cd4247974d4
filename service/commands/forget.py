"""Delete photos and erase them at once: the right to erasure.

When this has ended with status 0, no byte of the photos is in the gallery's folder: vectors, thumbnails, metadata, ids,
sources and content hashes are gone from its segments, its ledger and the ledger's log, and a saved layout is gone and
made anew by whoever serves the gallery. A photo goes with all its names. What was deleted before from the same segments
is erased with it; what else was deleted, and pictures that others have replaced, also of these photos, wait for `mgrl
compact`.

A run that was stopped may have deleted the photos and not yet erased them; it names them as unknown when it runs again.
`mgrl compact` does the rest.

Not reached from here: backups (forget there as well, or delete them), the photo files that were ingested, what a
running `mgrl serve` has in memory or mapped until the drawings that have begun end, and what a disk or a file system
keeps of files that are gone.

examples:
  mgrl forget ./gallery anna/front anna/side
  mgrl forget ./gallery anna/front --wait 60 --json erased.json
"""

import argparse

from service.commands.waiting import add_photos as add_arguments

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> int:
    """Erase and say so."""
    from indexer.compaction import forget
    from indexer.console import write_json
    from indexer.store import StoreWriter

    photo_ids = list(dict.fromkeys(args.photo_ids))
    with StoreWriter.open(args.gallery, wait_s=args.wait) as store:
        before = store.count()
        forget(store, photo_ids)
        left = store.count()
    write_json(args.json, {"erased": photo_ids, "photos": left})
    print(
        f"erased {before - left} of {before} photos from gallery {store.name}: vectors, thumbnails, metadata and names"
    )
    return 0
