"""Encode photos into a gallery that `mgrl serve` can search.

SOURCE is any of these, and there may be several:
  a folder                      its photos and those in folders below (JPEG, PNG, WebP, GIF, BMP, TIFF)
  a file                        a photo, whatever its suffix
  .tar, .tar.gz, .tar.xz, ...   an archive or WebDataset shard; JSON beside a photo (1.jpg, 1.json) is its metadata
  .csv, .jsonl, .parquet        a manifest: one photo a row, in a column path or url, with its photo_id and metadata
  'shards/{0000..0041}.tar'     all of them; also 'photos/*/front.jpg', in quotes
  s3://bucket/faces, https://   the same behind any URL that fsspec reaches (extra `sources`)
  -                             standard input: a tar archive, or paths and URLs, one a line or between NULs

GALLERY is a folder; it is made if it is not there. Photos are stored batch by batch: stop the command at any moment and
run it again, and only what is missing is done. A photo is its content, so a copy under another name is a duplicate:
it is counted, named, and skipped, or becomes a further name of the same photo, or a photo of its own (--duplicates).
An id that a manifest or a JSON gives names its photo for good: another picture under it takes the place of the former,
and other metadata that of the former. Other photos are called by their path inside the source without suffix.

--metadata names a file with what is known about the photos, for searches with `mgrl query --where`: JSON lines, CSV or
Parquet with the column photo_id and one column a field, such as age, sex, seen:date or marks:tags (kinds: string,
number, bool, date, tags; guessed where not named; tags in CSV are separated by |). Photos that are there get it too.

--embeddings takes vectors that were made elsewhere straight into the gallery: a .npz, .npy or .parquet file with
photo_id, embeddings (n, 14, dim), and one column a field. Such photos have no thumbnail.

--crop face cuts photos to the face, so that it lies where faces lie in the photos that the model learnt from; a photo
whose face lies there already is taken as it is, and one without a face too, and is listed. It is the default of a new
gallery where the extra `faces` is installed (pip install 'mgrl[faces]'); elsewhere the default is --crop none, and a
photo's centred square is what is searched. The gallery remembers it: later jobs crop alike, and another --crop is
refused. Photos that are there already are not cropped anew.

exit status:
  0    every photo is in the gallery (or there was none)
  1    refused before or during the job; the message says why
  2    wrong usage
  3    some photos failed, the others are in the gallery; --failed FILE lists them, and is a SOURCE itself
  4    every photo failed
  75   another process writes the gallery, also after --wait
  130  interrupted (Ctrl-C or SIGTERM); run the same command again

examples:
  mgrl ingest ./gallery ./photos
  mgrl ingest ./gallery ./photos/2023 ./photos/2024 ./extra/anna.jpg
  mgrl ingest ./gallery ./photos --metadata people.csv
  mgrl ingest ./gallery people.csv --failed failed.jsonl --wait 600
  mgrl ingest ./gallery failed.jsonl                      what failed, once more
  mgrl ingest ./gallery 's3://bucket/shards/{000..041}.tar' --fields age,sex
  find photos -name '*.jpg' -print0 | mgrl ingest ./gallery -
  mgrl ingest ./gallery ./groups --faces all              one photo a face: ID#1, ID#2, ...
  mgrl ingest ./gallery --embeddings faces.parquet --model mine.onnx
  mgrl ingest ./gallery ./photos --json summary.json --outcomes outcomes.jsonl    for scripts
"""

import argparse
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from indexer.errors import ConfigError
from service.commands import embeddings, framing, workers
from service.commands.waiting import add_wait

if TYPE_CHECKING:
    from rich.console import Console

    from indexer.ingest_report import IngestProgress, IngestReport

_LISTED: Final = 20

_MANY_FILES: Final = 1000
"""Of vectors, worth putting together: each is opened, checked and mapped on its own."""

parse = argparse.ArgumentParser.parse_intermixed_args
"""Options may stand between GALLERY and SOURCE."""

_SOME_FAILED, _ALL_FAILED = 3, 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `mgrl ingest`."""
    parser.add_argument("gallery", metavar="GALLERY", type=Path, help="folder of the gallery, made if missing")
    parser.add_argument("sources", metavar="SOURCE", nargs="*", help="where photos are, see above")
    parser.add_argument("--metadata", metavar="FILE", type=Path, help="what is known about the photos, see above")
    parser.add_argument(
        "--fields", metavar="NAME,...", help="metadata to take from manifests and shards (default: all there is)"
    )
    parser.add_argument(
        "--duplicates",
        choices=("skip", "alias", "keep"),
        default="skip",
        help="a photo that is there under another name is skipped (default), becomes an alias, or is kept beside it",
    )
    parser.add_argument(
        "--failed", metavar="FILE", type=Path, help="list the photos that failed, and why, as JSON lines"
    )
    parser.add_argument(
        "--outcomes", metavar="FILE", type=Path, help="list every photo and what became of it, as JSON lines"
    )
    add_wait(parser)
    parser.add_argument("--model", metavar="FILE", type=Path, help="encoder from `mgrl export` (default: built in)")
    embeddings.add_arguments(parser)
    parser.add_argument(
        "--batch", metavar="N", type=int, help="photos stored at once (64, or 8192 embeddings of a file)"
    )
    workers.add_arguments(parser)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Ingest and report; the exit status is told above."""
    from rich.console import Console

    from indexer.console import progress, write_json
    from indexer.locks import is_being_written
    from indexer.versions import home_of

    console = Console(stderr=True)
    if args.wait and is_being_written(home_of(args.gallery)):
        console.print("Waiting for another process that writes the gallery.")
    job = embeddings.run if args.embeddings else _photos
    try:
        # Pillow's remarks on odd files ("Corrupt EXIF data") would tear the bar; what matters is in the report.
        with _ended_by_sigterm(), progress("ingesting", None) as show, warnings.catch_warnings(action="ignore"):
            report = job(args, lambda now: show(now.done, now.total, _notes(now)))
    except KeyboardInterrupt:
        console.print("Stopped. What was counted as added is stored; run the same command again to go on.")
        raise
    crop = "" if args.embeddings else framing.kept_crop(args.gallery)
    status = _SOME_FAILED if report.failed and report.usable else _ALL_FAILED if report.failed else 0
    write_json(args.json, {**_summary(report, status), "crop": crop or "none"})
    _print_report(console, args.gallery, report, crop, "--json" if args.embeddings else "--failed")
    _print_unmet(console, args)
    return status


def _photos(args: argparse.Namespace, on_progress: Callable[["IngestProgress"], None]) -> "IngestReport":
    """Decode, encode and store the photos of the sources."""
    from indexer.ingest import ingest
    from indexer.placing import Duplicates, Outcome
    from indexer.sources.failed import OutcomeFile, failed_row, outcome_row

    if not args.sources or args.model_hash:
        raise ConfigError("name a SOURCE of photos, or --embeddings FILE; --model-hash goes with --embeddings only")
    rows = {args.failed: failed_row, args.outcomes: outcome_row}
    if args.failed and args.outcomes and args.failed.resolve() == args.outcomes.resolve():
        raise ConfigError("--failed and --outcomes are two lists; name a file for each")
    for path in filter(None, rows):
        if path.resolve() in [Path(source).resolve() for source in args.sources]:
            raise ConfigError(f"{path.name} is a SOURCE of this job and cannot be its list; name another file")
    batch = 64 if args.batch is None else args.batch
    with ExitStack() as opened:
        encoder, prepare = opened.enter_context(workers.workers(args))
        lists = [opened.enter_context(OutcomeFile(path, row)) for path, row in rows.items() if path]

        def note(outcome: Outcome) -> None:
            for one in lists:
                one.note(outcome)

        return ingest(
            args.gallery,
            args.sources,
            encoder,
            batch=batch,
            prepare=prepare,
            metadata=args.metadata,
            chosen=None if args.fields is None else _chosen(args),
            duplicates=Duplicates(args.duplicates),
            wait_s=args.wait,
            on_progress=on_progress,
            on_outcome=note,
        )


def _chosen(args: argparse.Namespace) -> frozenset[str]:
    return frozenset(filter(None, map(str.strip, (args.fields or "").split(","))))


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let what a scheduler sends end the job as Ctrl-C does: what waits is not written, what was told is stored."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # in a thread, where signals are not ours
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _notes(now: "IngestProgress") -> str:
    counts = {
        "already there": now.already_there,
        "replaced": now.replaced,
        "duplicates": now.duplicates,
        "skipped": now.skipped,
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _summary(report: "IngestReport", status: int) -> dict[str, object]:
    return {
        "status": {0: "complete", _SOME_FAILED: "some failed", _ALL_FAILED: "all failed"}[status],
        "added": report.added,
        "replaced": report.replaced,
        "already_there": report.already_there,
        "duplicates": report.duplicates,
        "failed": report.failed,
        "described": report.described,
        "skipped": [{"name": name, "reason": reason} for name, reason in report.skipped],
        "same": [{"name": name, "photo_id": photo_id} for name, photo_id in report.same],
        "seconds": round(report.seconds, 3),
        "photos_per_s": round((report.added + report.replaced) / max(report.seconds, 1e-9), 1),
        "cropped": report.cropped,
        "without_face": report.without_face,
        "faceless": list(report.faceless),
    }


def _vector_files(gallery: Path) -> int:
    from indexer.versions import home_of

    return sum(1 for _ in (home_of(gallery) / "segments").iterdir())


def _say(console: "Console", line: str) -> None:
    from rich.text import Text

    from indexer.console import printable

    # Text: file names are data, neither rich's markup nor orders to the terminal.
    console.print(Text(printable(line)), soft_wrap=True)


def _print_unmet(console: "Console", args: argparse.Namespace) -> None:
    """Names the fields that were asked for and no source has: most likely misspelt."""
    from indexer.ingest import declared_fields

    there = sorted(declared_fields(args.gallery))
    for name in sorted(_chosen(args).difference(there)):
        _say(console, f"--fields {name}: no photo has it; the gallery's fields are {', '.join(there) or 'none'}")


def _print_report(console: "Console", gallery: Path, report: "IngestReport", crop: str, lists_failed: str) -> None:
    from rich.table import Table
    from rich.text import Text

    from indexer.console import printable

    say = partial(_say, console)
    title = Text(printable(f"gallery {gallery.resolve().name}"), "table.title")
    table = Table(title=title, show_header=False, title_justify="left")
    stored = report.added + report.replaced
    rate = f" ({stored / max(report.seconds, 1e-9):.0f} photos/s)" if stored else ""
    counts = {
        "replaced": report.replaced,
        "already there": report.already_there,
        "duplicates": report.duplicates,
        "skipped": report.failed,
        "with metadata": report.described,
    }
    table.add_row("added", str(report.added))
    for what, count in counts.items():
        if count or what in ("already there", "skipped"):
            table.add_row(what, str(count))
    if crop:
        table.add_row("cropped", "0 (no face was looked for, see --crop)" if crop == "none" else str(report.cropped))
    if report.without_face:
        table.add_row("without face", f"{report.without_face}, kept whole")
    table.add_row("time", f"{report.seconds:.1f} s{rate}")
    console.print(table)
    for name, reason in report.skipped[:_LISTED]:
        say(f"skipped {name}: {reason}")
    if report.failed > _LISTED:
        console.print(f"... and {report.failed - _LISTED} more; {lists_failed} FILE lists all")
    for name, photo_id in report.same[:_LISTED]:
        say(f"duplicate {name}: the same as {photo_id}")
    if report.duplicates > _LISTED:
        console.print(f"... and {report.duplicates - _LISTED} more; --outcomes FILE lists all")
    for name in report.faceless[:_LISTED]:
        say(f"no face found in {name}")
    if report.without_face > _LISTED:
        console.print(f"... and {report.without_face - _LISTED} more")
    if report.failed and not report.usable:
        console.print("Nothing was usable: no file is a readable photo.")
    if (files := _vector_files(gallery)) >= _MANY_FILES:
        say(f"The vectors lie in {files} files; `mgrl compact {gallery}` puts them together, also while it is served.")
