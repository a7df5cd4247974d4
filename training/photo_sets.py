"""Photos as people have them: the face small and anywhere on a larger picture. What framing is measured on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from indexer.faces import FaceDetector
from indexer.framing import FaceFraming, crop_box
from indexer.sketch import square
from training.data import find_photo, open_image
from training.episodes import name_seed
from training.variants import Stages, move

PADDED_SCALE: Final = (0.4, 0.8)
"""Side of the photo as a share of the larger picture's."""

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def unchanged(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The photo as it is."""
    return image


def padded(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The photo's centred square somewhere on a larger square of one random colour."""
    colour = tuple(rng.integers(0, 256, 3).tolist())
    return _placed(image, lambda side: Image.new("RGB", (side, side), colour), rng)


def noisy(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The photo's centred square somewhere on a larger square of coloured noise, coarse and fine."""

    def background(side: int) -> Image.Image:
        noise = np.zeros((side, side, 3))
        for cells in (4, 16, 64):
            coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            noise += np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=float)
        noise += rng.integers(0, 256, (side, side, 3))
        return Image.fromarray((noise / 4).astype(np.uint8))

    return _placed(image, background, rng)


PHOTO_SETS: Final[Mapping[str, Change]] = {"unchanged": unchanged, "padded": padded, "noisy": noisy}
"""Name -> what is done to each photo of the gallery."""


def _placed(image: Image.Image, background: Callable[[int], Image.Image], rng: np.random.Generator) -> Image.Image:
    photo = square(image)
    side = round(photo.width / rng.uniform(*PADDED_SCALE))
    canvas = background(side)
    left, top = rng.integers(0, side - photo.width + 1, 2).tolist()
    canvas.paste(photo, (left, top))
    return canvas


class PhotoReader:
    """Reads the photos of an evaluation's gallery as they would be ingested, and counts what framing did.

    Args:
        data: folder in FS2K's layout.
        photo_set: of `PHOTO_SETS`.
        seed: of the place in the larger picture; every photo has its own.
        framing: crops to the face, or None.
    """

    def __init__(self, data: Path, photo_set: str, seed: int, framing: FaceFraming | None) -> None:
        self.cropped = 0
        self.without_face = 0
        self._data = data
        self._change = PHOTO_SETS[photo_set]
        self._seed = seed
        self._framing = framing

    def __call__(self, name: str) -> Image.Image:
        """One photo, of which the centred square is encoded.

        Raises:
            DataError: it is missing or unreadable.
        """
        photo = open_image(find_photo(self._data, name))
        photo = self._change(photo, np.random.default_rng(name_seed(name, self._seed)))
        if self._framing is None:
            return photo
        (framed,) = self._framing.frame(photo)
        self.cropped += framed.cropped
        self.without_face += framed.face is None
        return framed.image


@dataclass(frozen=True)
class Place:
    """How a drawing is moved so that its face lies where faces lie in the training photos.

    Args:
        shift: (x, y) in canvas units, after scaling about the centre.
        scale: above 1 makes it larger.
    """

    shift: tuple[float, float]
    scale: float

    def move(self, stages: Stages) -> Stages:
        """The drawing moved; what leaves the canvas is cut off."""
        return [move(stage, self.shift, 0.0, self.scale) for stage in stages]


def centre(photo: Image.Image, detector: FaceDetector) -> Place | None:
    """Where a drawing of a photo belongs that is made in the middle of the canvas; None where no face is found."""
    photo = square(photo)
    if (face := detector.largest(photo)) is None:
        return None
    left, top, side = (share / photo.width for share in crop_box(face))
    return Place(((0.5 - left) / side - 0.5, (0.5 - top) / side - 0.5), 1 / side)
