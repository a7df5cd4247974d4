"""Encode a gallery's photos with another model, and switch to it when all of them are done.

SOURCE names where the photos are, as for `mgrl ingest`: a gallery keeps no photos that could be encoded again. They are
known by their content, whatever they are called now; other photos in there are passed over. The gallery is served and
written meanwhile. The new version lies in GALLERY/versions/, a gallery folder that can be served by its own path. Stop
the command and run it again: it goes on where it was.

When the new version has every photo, it becomes the gallery in one step, with all that is known about the photos. A
running `mgrl serve` that has the new model too goes over to it; another goes on with the version it has. The earlier
version stays on the disk for it until `mgrl compact`.

Exit status: 0 the gallery is of the new model now; 3 photos are missing, nothing was switched; 1 refused.

examples:
  mgrl reindex ./gallery ./photos --model mine.onnx
  mgrl reindex ./gallery ./photos /archive/2023 --model mine.onnx --json done.json
  mgrl reindex ./gallery ./photos --model mine.onnx --leave-out      without the photos that are nowhere any more
"""

import argparse
import warnings
from pathlib import Path
from typing import Final

from service.commands import workers
from service.commands.waiting import add_wait

INCOMPLETE: Final = 3
_LISTED: Final = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `mgrl reindex`."""
    parser.add_argument("gallery", metavar="GALLERY", type=Path, help="a folder written by `mgrl ingest`")
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="where its photos are, see `mgrl ingest`")
    parser.add_argument("--model", metavar="FILE", type=Path, required=True, help="the new encoder: `mgrl export`")
    parser.add_argument(
        "--leave-out", action="store_true", help="switch although photos are missing: they leave the gallery"
    )
    parser.add_argument("--batch", metavar="N", type=int, default=64, help="photos stored at once (64)")
    workers.add_arguments(parser)
    add_wait(parser)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write what was done as JSON")


def run(args: argparse.Namespace) -> int:
    """Encode, switch if all is there, and say so."""
    from dataclasses import asdict

    from indexer.console import printable, progress, write_json
    from indexer.ledger import folder_name
    from indexer.reindex import reindex

    with (
        workers.workers(args) as (encoder, prepare),
        progress("encoding anew", None) as show,
        warnings.catch_warnings(action="ignore"),
    ):
        done = reindex(
            args.gallery,
            args.sources,
            encoder,
            batch=args.batch,
            prepare=prepare,
            leaves_out=args.leave_out,
            wait_s=args.wait,
            on_progress=show,
        )
    write_json(args.json, asdict(done))
    name, model = folder_name(args.gallery), encoder.model_hash[:12]
    for file, reason in done.skipped[:_LISTED]:
        print(printable(f"skipped {file}: {reason}"))
    if done.missing:
        some = ", ".join(printable(photo_id) for photo_id in done.lacks[:_LISTED])
        print(f"{done.missing} photos of gallery {name} are in none of the sources: {some}")
    if done.switched:
        print(f"gallery {name} is of model {model} now: {done.photos} photos, {done.encoded} encoded in this run")
    elif done.missing:
        print("nothing was switched; name the sources that have them and run it again, or --leave-out")
        return INCOMPLETE
    else:
        print(f"gallery {name} is of model {model} already")
    return 0
