"""Watch a drawing find its face: make a gallery, ingest it, serve it, and replay a drawing stroke by stroke.

Without options everyone is made up: portraits are painted from random numbers, and the drawing is what a person would
draw for one of them. With --photos the gallery is a folder of yours; draw from a --sketch of somebody in it (the
photo of the same name or number, or --target), or leave it away and a photo is traced instead. A folder in FS2K's
layout (photo/ beside sketch/) brings its own sketches.

examples:
  mgrl demo
  mgrl demo --web                           and then draw them yourself, in the browser
  mgrl demo --seed 3 --stages 20            other people, another drawing
  mgrl demo --photos ./photos --sketch ./sketches/anna.png --folder ./mine
  mgrl demo --photos ./fs2k --folder ./fs2k-demo

What it finds is a lead, not an identification.
"""

import argparse
import asyncio
import io
import shlex
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from rich.console import Console
from rich.text import Text

from indexer.console import printable, progress
from indexer.encoding import DEFAULT_MODEL, OnnxEncoder, RegionEncoder, default_threads
from indexer.episode import DEFAULT_STAGES
from indexer.errors import ConfigError, GalleryError, UnknownPhotoError
from indexer.gallery import Gallery
from indexer.ingest import ingest
from service.client import Client
from service.commands.sketchpad import DEFAULT_PORT, serve_with_page
from service.demo.figure import CAVEAT, SHOWN_PHOTOS, Candidate, Moment, draw_figure, shown_moments
from service.demo.replay import Step, replay, serving
from service.demo.sample import claim, make_sample
from service.demo.subject import (
    Subject,
    invented_subject,
    photo_of_sketch,
    sketch_of_photo,
    sketched_subject,
    traced_subject,
)
from service.galleries import Galleries

_MOST_PEOPLE: Final = 9999


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mgrl demo`."""
    parser.add_argument("--photos", metavar="DIR", type=Path, help="real photos instead of made-up ones")
    parser.add_argument("--sketch", metavar="FILE", type=Path, help="picture or drawing (.json) of one of --photos")
    parser.add_argument("--target", metavar="ID", help="the photo drawn (default: found by the sketch's name)")
    parser.add_argument("--count", metavar="N", type=int, default=300, help="made-up people (default: %(default)s)")
    parser.add_argument("--seed", metavar="S", type=int, default=2, help="other people, another drawing (default: 2)")
    parser.add_argument(
        "--stages", metavar="N", type=int, default=DEFAULT_STAGES, help="answers (default: %(default)s)"
    )
    parser.add_argument("--folder", metavar="DIR", type=Path, default=Path("demo"), help="results (default: ./demo)")
    parser.add_argument(
        "--web",
        metavar="PORT",
        type=int,
        nargs="?",
        const=DEFAULT_PORT,
        help=f"end with the sketchpad, to draw them yourself (default of PORT: {DEFAULT_PORT}; needs the extra `web`)",
    )
    parser.add_argument("--model", metavar="FILE", type=Path, default=DEFAULT_MODEL, help="encoder (default: built in)")


def run(args: argparse.Namespace) -> int:
    """Run the demo with the given model."""
    _check(args)
    # With a page beside it, threads that wait leave their core to the browser.
    return run_with(OnnxEncoder.open(args.model, spins=args.web is None), args)


def run_with(encoder: RegionEncoder, args: argparse.Namespace) -> int:
    """Run the demo and print it; 0 when done.

    Raises:
        PublicError: what is wrong with the photos, the sketch or the folder.
    """
    _check(args)
    if args.web is not None:
        import service.web.run  # noqa: F401  # what is missing is told before anything is painted
    console = Console(highlight=False, markup=False, soft_wrap=True)
    files = _Files(args.folder)
    photos = _photos(console, args, files)
    gallery = _ingested(console, files.gallery, photos, encoder)
    try:
        subject = _subject(args, photos, gallery)
        with serving(gallery, encoder) as address, Client(address) as client:
            console.print(f"serving it on {address}")
            console.print(_introduction(subject))
            steps = _drawn(console, client, gallery, encoder, subject)
            figure = _figure(client, gallery, subject, steps)
    finally:
        gallery.close()
    files.save(subject, steps[-1], figure)
    console.print(_closing(args, files, subject, steps))
    if args.web is not None:
        with closing(Gallery.open(files.gallery)) as gallery:
            asyncio.run(serve_with_page(Galleries([gallery], encoder), default_threads(), args.web))
    return 0


@dataclass(frozen=True)
class _Files:
    """What the demo leaves in its folder."""

    folder: Path

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    @property
    def gallery(self) -> Path:
        return self.folder / "gallery"

    @property
    def drawing(self) -> Path:
        return self.folder / "drawing.json"

    @property
    def sketch(self) -> Path:
        return self.folder / "sketch.png"

    @property
    def figure(self) -> Path:
        return self.folder / "demo.png"

    def save(self, subject: Subject, last: Step, figure: Image.Image) -> None:
        """Write the drawing as JSON and as a picture, and the figure."""
        try:
            subject.episode.save(self.drawing)
            Image.fromarray(255 - last.canvas).save(self.sketch)
            figure.save(self.figure)
        except OSError as error:
            raise ConfigError(f"cannot write to {self.folder}: {error.strerror}") from error


def _check(args: argparse.Namespace) -> None:
    if not 2 <= args.count <= _MOST_PEOPLE:
        raise ConfigError(f"--count must be from 2 to {_MOST_PEOPLE}, got {args.count}")
    if args.stages < 1:
        raise ConfigError(f"--stages must be at least 1, got {args.stages}")
    if args.seed < 0:
        raise ConfigError(f"--seed must be 0 or more, got {args.seed}")
    if args.photos is None and (args.sketch or args.target):
        raise ConfigError("--sketch and --target need --photos: the made-up people come with their own drawing")


def _photos(console: Console, args: argparse.Namespace, files: _Files) -> Path:
    """The folder to ingest: the user's, or the sample, made now."""
    if args.photos is not None:
        if not args.photos.is_dir():
            raise ConfigError(f"--photos must be a folder with photos, {args.photos} is none")
        # FS2K's layout: its sketches are no photos to be searched.
        nested = args.photos / "photo"
        photos: Path = nested if nested.is_dir() and (args.photos / "sketch").is_dir() else args.photos
        if files.folder.resolve().is_relative_to(photos.resolve()):
            # Its sketch would be a photo of the next run, and be found first.
            raise ConfigError(f"the results must lie outside of the photos, {files.folder} does not; choose a --folder")
        claim(files.folder, f"the photos in {photos.resolve()}")
        return photos
    claim(files.folder, f"{args.count} made-up people of seed {args.seed}")
    started = time.monotonic()
    with progress("painting", args.count, "portraits") as show:
        make_sample(files.photos, args.count, args.seed, show)
    console.print(f"painted {args.count} made-up people into {files.photos} ({time.monotonic() - started:.1f} s)")
    return files.photos


def _ingested(console: Console, folder: Path, photos: Path, encoder: RegionEncoder) -> Gallery:
    with progress("ingesting", None) as show:
        report = ingest(folder, [photos], encoder, on_progress=lambda now: show(now.done, now.total))
    gallery = Gallery.open(folder)
    if gallery.photos < 2:
        gallery.close()
        raise GalleryError(f"a demo needs at least 2 readable photos, {photos} has {gallery.photos}")
    skipped = f", {len(report.skipped)} unreadable files skipped" if report.skipped else ""
    console.print(f"gallery {folder}: {gallery.photos} photos ({report.added} new in {report.seconds:.1f} s{skipped})")
    return gallery


def _subject(args: argparse.Namespace, photos: Path, gallery: Gallery) -> Subject:
    if args.photos is None:
        return invented_subject(args.count, args.seed, args.stages)
    ids = gallery.photo_ids
    if args.target is not None:
        target = args.target
    elif args.sketch is not None:
        target = photo_of_sketch(args.sketch, ids)
    else:
        target = ids[int(np.random.default_rng(args.seed).integers(len(ids)))]
    try:
        # A source begins with the ingested folder's own name.
        photo = photos / Path(*Path(gallery.photo(target).source).parts[1:])
    except UnknownPhotoError as error:
        raise UnknownPhotoError(f"{error}; ids look like {ids[0]}") from error
    sketch = args.sketch
    if sketch is None and photos != args.photos:
        sketch = sketch_of_photo(target, args.photos / "sketch")
    if sketch is None:
        return traced_subject(target, photo, args.stages, args.seed)
    return sketched_subject(target, photo, sketch, args.stages, args.seed)


def _introduction(subject: Subject) -> str:
    episode = subject.episode
    stages = "" if episode.stages == len(episode.strokes) else f" in {episode.stages} stages"
    return (
        f"drawing {printable(subject.photo_id)} ({subject.made_from}): {len(episode.strokes)} strokes{stages}\n\n"
        f"strokes    rank  closest {SHOWN_PHOTOS} with distances; > marks the target"
    )


def _drawn(console: Console, client: Client, gallery: Gallery, encoder: RegionEncoder, subject: Subject) -> list[Step]:
    """Replay the drawing, printing each answer as it comes."""
    steps = []
    for step in replay(client, gallery, encoder, subject.episode, subject.photo_id):
        console.print(_line(step, len(subject.episode.strokes), subject.photo_id))
        steps.append(step)
    return steps


def _line(step: Step, strokes: int, target: str) -> Text:
    line = Text(f"{step.strokes:>3}/{strokes:<3}  {step.rank:>5}  ", overflow="ignore", no_wrap=True)
    if step.answer.no_ink:
        return line.append("no ink yet")
    for hit in step.answer.hits[:SHOWN_PHOTOS]:
        is_target = hit.photo_id == target
        mark, style = (">", "bold green") if is_target else (" ", "")
        line.append(f" {mark}{printable(hit.photo_id)} {hit.distance:.3f}", style)
    return line


def _figure(client: Client, gallery: Gallery, subject: Subject, steps: Sequence[Step]) -> Image.Image:
    moments = []
    for index in shown_moments(len(steps)):
        step = steps[index]
        closest = []
        for hit in step.answer.hits[:SHOWN_PHOTOS]:
            thumbnail = Image.open(io.BytesIO(client.photo(gallery.name, hit.photo_id).thumbnail))
            closest.append(Candidate(thumbnail, hit.distance, hit.photo_id == subject.photo_id))
        moments.append(Moment(step.canvas, step.strokes, step.rank, closest))
    return draw_figure(
        moments,
        [step.strokes for step in steps],
        [step.rank for step in steps],
        gallery.photos,
        subject.photo,
        "A drawing finds its face" if steps[-1].rank <= SHOWN_PHOTOS else "A drawing looks for its face",
    )


def _closing(args: argparse.Namespace, files: _Files, subject: Subject, steps: Sequence[Step]) -> str:
    photos = steps[-1].answer.gallery_photos
    first = next((step for step in steps if all(later.rank <= SHOWN_PHOTOS for later in steps[step.stage :])), None)
    held = f", among the first {SHOWN_PHOTOS} for good after {first.strokes} strokes" if first else ""
    spent = [step.answer.timings for step in steps]
    per_answer = np.median([one.raster_ms + one.encode_ms + one.search_ms for one in spent])
    model = "" if args.model == DEFAULT_MODEL else f" --model {shlex.quote(str(args.model))}"
    gallery, drawing, sketch = (shlex.quote(str(path)) for path in (files.gallery, files.drawing, files.sketch))
    commands = {
        f"mgrl serve {gallery}{model}": "answer sketches over gRPC",
        f"mgrl query {drawing} --live": "the same drawing, from another terminal",
        f"mgrl query {sketch}": "the finished sketch, as a picture",
        f"mgrl ingest ./gallery ./photos{model}": "your own photos",
    }
    width = max(map(len, commands))
    listed = "\n".join(f"  {command:<{width}}  {purpose}" for command, purpose in commands.items())
    return f"""
rank {steps[-1].rank} of {photos} at the end{held}; {per_answer:.0f} ms an answer
{CAVEAT}
picture: {files.figure}

next:
{listed}"""
