"""Encode photos into a gallery that `mgrl serve` can search.

SOURCE is a folder (searched recursively for JPEG, PNG, WebP, GIF, BMP and TIFF) or a single file. GALLERY is a folder;
it is made if it is not there. Photos are stored batch by batch: stop the command at any moment and run it again, and
only what is missing is done. A photo is its content, so a copy under another name is not stored twice. Its id is its
path inside the source without suffix.

--metadata names a file with what is known about the photos, for searches with `mgrl query --where`: JSON lines or CSV
with the column photo_id and one column a field, such as age, sex, seen:date or marks:tags (kinds: string, number,
bool, date, tags; guessed where not named; tags in CSV are separated by |). Photos that are there already get it too.

--embeddings takes vectors that were made elsewhere straight into the gallery: a .npz, .npy or .parquet file with
photo_id, embeddings (n, 14, dim), and one column a field. Such photos have no thumbnail.

Files that are no readable photos are skipped and listed. Exit status: 0 also when some files were skipped, 1 when
nothing could be used or the gallery refused, 130 when interrupted.

examples:
  mgrl ingest ./gallery ./photos
  mgrl ingest ./gallery ./photos/2023 ./photos/2024 ./extra/anna.jpg
  mgrl ingest ./gallery ./photos --metadata people.csv
  mgrl ingest ./gallery --embeddings faces.parquet --model mine.onnx
  mgrl ingest ./gallery ./photos --json summary.json      for scripts: counts, rate, every skipped file
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from indexer.errors import ConfigError
from service.commands import embeddings, workers

if TYPE_CHECKING:
    from rich.console import Console

    from indexer.ingest import IngestProgress, IngestReport

_LISTED: Final = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `mgrl ingest`."""
    parser.add_argument("gallery", metavar="GALLERY", type=Path, help="folder of the gallery, made if missing")
    parser.add_argument("sources", metavar="SOURCE", type=Path, nargs="*", help="folder of photos, or a photo")
    parser.add_argument("--metadata", metavar="FILE", type=Path, help="what is known about the photos: .jsonl or .csv")
    parser.add_argument("--model", metavar="FILE", type=Path, help="encoder from `mgrl export` (default: built in)")
    embeddings.add_arguments(parser)
    parser.add_argument(
        "--batch", metavar="N", type=int, help="photos stored at once (64, or 8192 embeddings of a file)"
    )
    workers.add_arguments(parser)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Ingest and report; 1 when there was nothing to use."""
    from rich.console import Console

    from indexer.console import progress, write_json

    console = Console(stderr=True)
    job = embeddings.run if args.embeddings else _photos
    try:
        # Pillow's remarks on odd files ("Corrupt EXIF data") would tear the bar; what matters is in the report.
        with progress("ingesting", None) as show, warnings.catch_warnings(action="ignore"):
            report = job(args, lambda now: show(now.done, now.total, _notes(now)))
    except KeyboardInterrupt:
        console.print("Stopped. What was counted as added is stored; run the same command again to go on.")
        raise
    write_json(args.json, _summary(report))
    _print_report(console, args.gallery, report)
    return 0 if report.added + report.already_there else 1


def _photos(args: argparse.Namespace, on_progress: Callable[["IngestProgress"], None]) -> "IngestReport":
    """Decode, encode and store the photos of the sources."""
    from indexer.ingest import ingest

    if not args.sources or args.model_hash:
        raise ConfigError("name a SOURCE of photos, or --embeddings FILE; --model-hash goes with --embeddings only")
    batch = 64 if args.batch is None else args.batch
    with workers.workers(args) as (encoder, prepare):
        return ingest(
            args.gallery,
            args.sources,
            encoder,
            batch=batch,
            prepare=prepare,
            metadata=args.metadata,
            on_progress=on_progress,
        )


def _notes(now: "IngestProgress") -> str:
    counts = {"already there": now.already_there, "skipped": now.skipped}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _summary(report: "IngestReport") -> dict[str, object]:
    return {
        "added": report.added,
        "already_there": report.already_there,
        "described": report.described,
        "skipped": [{"name": name, "reason": reason} for name, reason in report.skipped],
        "seconds": round(report.seconds, 3),
        "photos_per_s": round(report.added / max(report.seconds, 1e-9), 1),
    }


def _print_report(console: "Console", gallery: Path, report: "IngestReport") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"gallery {gallery.resolve().name}", show_header=False, title_justify="left")
    rate = f" ({report.added / max(report.seconds, 1e-9):.0f} photos/s)" if report.added else ""
    rows = (
        ("added", str(report.added)),
        ("already there", str(report.already_there)),
        ("skipped", str(len(report.skipped))),
        *([("with metadata", str(report.described))] if report.described else []),
        ("time", f"{report.seconds:.1f} s{rate}"),
    )
    for row in rows:
        table.add_row(*row)
    console.print(table)
    # Text: file names are data, not rich's markup.
    for name, reason in report.skipped[:_LISTED]:
        console.print(Text(f"skipped {name}: {reason}"), soft_wrap=True)
    if len(report.skipped) > _LISTED:
        console.print(f"... and {len(report.skipped) - _LISTED} more; --json FILE lists all")
    if not report.added + report.already_there:
        console.print("Nothing was usable: no file is a readable photo.")
