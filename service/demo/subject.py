"""Whom the demo draws, and the drawing: an invented person, a photo with its sketch, or a photo traced in pencil."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from indexer.drawing_order import episode_from_sketch, ink
from indexer.episode import Episode, visible_stage_ends
from indexer.errors import ConfigError, ImageError, SketchError
from indexer.photos import SUFFIXES, read_photo
from indexer.sketch import Canvas, Stroke, square
from service.demo.painting import render_photo
from service.demo.pencil import draw_strokes
from service.demo.sample import person, person_id

_PENCIL_PX: Final = 384


@dataclass(frozen=True)
class Subject:
    """The person drawn.

    Args:
        photo_id: the target's id in the gallery.
        photo: the target's photo.
        episode: the drawing, in stages.
        made_from: where the drawing comes from, in words.
    """

    photo_id: str
    photo: Image.Image
    episode: Episode
    made_from: str


def invented_subject(count: int, seed: int, stages: int) -> Subject:
    """One of the sample's people, and a drawing of them by another hand for each seed."""
    rng = np.random.default_rng([seed, 1])
    number = int(rng.integers(1, count + 1))
    portrait = person(seed, number)
    episode = staged(draw_strokes(portrait, rng), stages)
    return Subject(person_id(number), render_photo(portrait), episode, "a made-up person, drawn from the same curves")


def sketched_subject(photo_id: str, photo: Path, sketch: Path, stages: int, seed: int) -> Subject:
    """A photo of the gallery and a sketch of the same person: a picture, or a drawing in JSON.

    Raises:
        SketchError: the sketch cannot be read, or has too little ink for so many stages.
        ImageError: the photo cannot be read.
    """
    if sketch.suffix.lower() == ".json":
        episode = staged(Episode.load(sketch).strokes, stages)
    else:
        try:
            picture = read_photo(sketch)
        except ImageError as error:
            raise SketchError(f"the sketch {sketch.name}: {error}") from error
        episode = episode_from_sketch(picture, stages, seed)
    return Subject(photo_id, read_photo(photo), episode, f"the sketch {sketch.name}, stroke by stroke")


def traced_subject(photo_id: str, photo: Path, stages: int, seed: int) -> Subject:
    """A photo of the gallery and a drawing traced from it: easier than what a witness draws, and said so."""
    picture = read_photo(photo)
    episode = episode_from_sketch(pencil_picture(picture), stages, seed)
    return Subject(photo_id, picture, episode, "traced from the photo itself, so easier than any real sketch")


def staged(strokes: Sequence[Stroke], stages: int) -> Episode:
    """Strokes in their own order, in as many stages as asked for, or fewer when fewer strokes show.

    Raises:
        SketchError: no strokes.
    """
    canvas = Canvas()
    visible = sum([canvas.add(stroke) for stroke in strokes])
    ends = visible_stage_ends(strokes, [ink(stroke) for stroke in strokes], max(1, min(stages, visible)))
    return Episode(tuple(strokes), ends)


def pencil_picture(photo: Image.Image) -> Image.Image:
    """Grey picture of a photo as if drawn in pencil: its edges, and hatching where it is dark.

    Source: the edges are a difference of Gaussians, after H. Winnemoeller et al., XDoG: an extended
    difference-of-Gaussians compendium, Computers & Graphics 36, 2012; without its soft thresholding.
    """
    grey = square(photo.convert("L")).resize((_PENCIL_PX, _PENCIL_PX), Image.Resampling.BICUBIC)
    fine, coarse = (np.asarray(grey.filter(ImageFilter.GaussianBlur(sigma)), np.float32) for sigma in (1.6, 3.2))
    edges = coarse - fine > 3.5
    y, x = np.mgrid[0:_PENCIL_PX, 0:_PENCIL_PX]
    hatched = (coarse < 62) & ((x + 2 * y) % 13 < 4)
    return Image.fromarray(np.where(edges | hatched, np.uint8(30), np.uint8(255)))


def photo_of_sketch(sketch: Path, photo_ids: Sequence[str]) -> str:
    """The photo that shows whom a sketch shows, by name: sketch1/sketch0001 and photo1/image0001.

    Raises:
        ConfigError: no photo has the sketch's name or number, or several have.

    Example:
        >>> photo_of_sketch(Path("sketch/sketch3/sketch0007.jpg"), ["photo1/image0007", "photo3/image0007"])
        'photo3/image0007'
    """
    path = sketch.with_suffix("")
    for keys in (_names, _numbers):
        wanted = keys(path.as_posix())
        depth = {photo_id: _shared_end(wanted, keys(photo_id)) for photo_id in photo_ids}
        deepest = max(depth.values(), default=0)
        found = [photo_id for photo_id, shared in depth.items() if deepest and shared == deepest]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(
                f"{sketch.name} fits several photos ({', '.join(found[:4])}); choose one with --target ID"
            )
    raise ConfigError(
        f"no photo has the name or the number of {sketch.name}; say which one it shows with --target ID, "
        "or search with `mgrl query`, which needs no target"
    )


def sketch_of_photo(photo_id: str, sketches: Path) -> Path | None:
    """The reverse, in a folder of sketches; None when there is none, or no single one."""
    found: list[Path] = []
    if sketches.is_dir():
        wanted = _numbers(photo_id)
        files = [path for path in sorted(sketches.rglob("*")) if path.suffix.lower() in SUFFIXES]
        found = [path for path in files if _numbers(path.relative_to(sketches).with_suffix("").as_posix()) == wanted]
    return found[0] if len(found) == 1 else None


def _names(path: str) -> list[str]:
    return [part.lower() for part in path.split("/")]


def _numbers(path: str) -> list[str]:
    """The last number in each part of a path; a part without one never equals another's."""
    numbers = [re.findall(r"\d+", part) for part in path.split("/")]
    return [found[-1].lstrip("0") or "0" if found else "" for found in numbers]


def _shared_end(one: Sequence[str], two: Sequence[str]) -> int:
    """How many parts agree, counted from the end."""
    shared = 0
    for a, b in zip(reversed(one), reversed(two), strict=False):
        if a != b or not a:
            break
        shared += 1
    return shared
