"""Crops a photo so that its face lies where faces lie in the photos that the encoder learnt from.

The encoder compares regions of the picture, so a face that is small or off the centre is compared with the wrong part
of a sketch. Where faces lie in the training photos was measured over the `fit` split of FS2K's Dataset 1, whose photos
were all framed alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np
from PIL import Image

from indexer.errors import ConfigError, ImageError
from indexer.faces import LOOK_PX, Face, FaceDetector
from indexer.ledger import Faces, Framing

FACES: Final[tuple[Faces, ...]] = get_args(Faces)

FACE_X: Final = 0.495
FACE_Y: Final = 0.545
FACE_SIZE: Final = 0.60
"""Median place and size of the face (see `indexer.faces.Face`) as shares of the training photos' side. The middle 95 %
lie within 0.025, 0.02 and, for the size, 9 %."""

MIN_FACE_PX: Final = 24
"""A smaller face holds too little to compare a drawing with."""

MIN_SHARE: Final = 0.25
"""Of the largest face's size: what is smaller is a passer-by in the background."""


@dataclass(frozen=True)
class Tolerance:
    """How far from there a face may lie in a photo that is taken as it is.

    Args:
        shift: of its place, in shares of the photo's side.
        smaller: of its size, as a share of `FACE_SIZE`; below 1.
        larger: the same, above 1.
    """

    shift: float
    smaller: float
    larger: float


TOLERANCES: Final[Mapping[str, Tolerance]] = {
    # Twice as far as faces lie from the median in the photos that were framed alike.
    "face": Tolerance(0.05, 1 / 1.15, 1.15),
    # As far as in the photos of FS2K's Dataset 2, which were not.
    "stray": Tolerance(0.2, 0.65, 1.5),
}
"""Name of a way to crop -> the photos that it leaves alone."""


def framing_of(framing: "FaceFraming | None") -> Framing:
    """What a gallery says of itself whose photos are framed so, None for not at all."""
    return Framing("none") if framing is None else Framing(framing.crop, framing.faces)


def default_crop() -> str:
    """How photos are cropped where nobody says it: to the face, or not at all without the extra `faces`."""
    return "face" if FaceDetector.is_installed() else "none"


@dataclass(frozen=True, eq=False)
class FramedPhoto:
    """What is encoded and shown of a photo.

    Args:
        image: RGB. The photo itself where its face lies well, or where there is none.
        face: in pixels of the photo; None when none was found.
        cropped: whether `image` is a crop.
    """

    image: Image.Image
    face: Face | None
    cropped: bool

    def shows(self, least_px: int) -> bool:
        """Whether there is a face, and at least so many pixels of the photo a side were kept."""
        if self.face is None:
            return False
        return not self.cropped or crop_box(self.face)[2] >= least_px


class FaceFraming:
    """Crops photos to their faces; safe to call from several threads, and may be sent to other processes.

    Args:
        detector: finds the faces.
        size_px: side of the crops, as the encoder takes them.
        faces: "largest" takes the largest face; "all" gives one picture a face; "reject-many" refuses photos that show
            more than one.
        crop: "face" or "stray", of `TOLERANCES`.

    Raises:
        ConfigError: there is no such policy, or no such way to crop.
    """

    def __init__(self, detector: FaceDetector, size_px: int, *, faces: Faces = "largest", crop: str = "face") -> None:
        if faces not in FACES:
            raise ConfigError(f"faces must be one of {', '.join(FACES)}, got {faces!r}")
        if crop not in TOLERANCES:
            raise ConfigError(f"crop must be one of {', '.join(TOLERANCES)}, got {crop!r}")
        self.faces = faces
        self.crop = crop
        self._tolerance = TOLERANCES[crop]
        self._detector = detector
        self._size_px = size_px

    def frame(self, image: Image.Image) -> list[FramedPhoto]:
        """The pictures to encode: one, or with "all" one a face, largest first. A photo without a face stays whole.

        Raises:
            ImageError: it shows several faces, and `faces` is "reject-many".
        """
        if self.faces == "largest":
            largest = self._detector.largest(image)
            found = [] if largest is None else [largest]
        else:
            found = _meant(self._detector.all(image))
        if self.faces == "reject-many" and len(found) > 1:
            raise ImageError(f"the photo shows {len(found)} faces; crop it to one, or choose --faces largest or all")
        if not found:
            return [FramedPhoto(image, None, cropped=False)]
        if len(found) == 1 and lies_well(found[0], image.size, self._tolerance):
            return [FramedPhoto(image, found[0], cropped=False)]
        return [self._cropped(image, face) for face in found]

    def _cropped(self, image: Image.Image, face: Face) -> FramedPhoto:
        # Seen from near, its place is known to a pixel of the crop and not of the whole photo.
        left, top, side = crop_box(face)
        scale = side / LOOK_PX
        near = self._detector.look(crop(image, (left, top, side), LOOK_PX), LOOK_PX)
        placed = [Face(left + seen.x * scale, top + seen.y * scale, seen.size * scale, seen.score) for seen in near]
        face = max((seen for seen in placed if _same(seen, face)), key=lambda seen: seen.score, default=face)
        return FramedPhoto(crop(image, crop_box(face), self._size_px), face, cropped=True)


def lies_well(face: Face, size: tuple[int, int], tolerance: Tolerance) -> bool:
    """Whether a face lies in the centred square of a photo of `size` (width, height) as in the training photos."""
    side = min(size)
    x = (face.x - (size[0] - side) / 2) / side
    y = (face.y - (size[1] - side) / 2) / side
    is_near = max(abs(x - FACE_X), abs(y - FACE_Y)) <= tolerance.shift
    return is_near and tolerance.smaller <= face.size / side / FACE_SIZE <= tolerance.larger


def crop_box(face: Face) -> tuple[float, float, float]:
    """(left, top, side) in pixels of the square in which the face lies as in the training photos."""
    side = face.size / FACE_SIZE
    return face.x - FACE_X * side, face.y - FACE_Y * side, side


def crop(image: Image.Image, box: tuple[float, float, float], size_px: int) -> Image.Image:
    """A square of a photo at `size_px`; beyond the photo's edge its last pixels go on.

    Only what is inside is scaled, so a square much larger than the photo costs no memory.

    Args:
        image: the photo.
        box: (left, top, side) in its pixels; some of it must lie inside.
        size_px: side of the result.
    """
    left, top, side = box
    scale = size_px / side
    inside = max(left, 0.0), max(top, 0.0), min(left + side, image.width), min(top + side, image.height)
    # In pixels of the result: where the photo begins and ends.
    begin_x, end_x = (min(max(round((x - left) * scale), 0), size_px) for x in (inside[0], inside[2]))
    begin_y, end_y = (min(max(round((y - top) * scale), 0), size_px) for y in (inside[1], inside[3]))
    size = max(1, end_x - begin_x), max(1, end_y - begin_y)
    part = image.resize(size, Image.Resampling.BILINEAR, box=inside, reducing_gap=3.0)
    begin_x, begin_y = min(begin_x, size_px - size[0]), min(begin_y, size_px - size[1])
    margins = (begin_y, size_px - begin_y - size[1]), (begin_x, size_px - begin_x - size[0]), (0, 0)
    return Image.fromarray(np.pad(np.asarray(part), margins, mode="edge")) if np.any(margins) else part


def _meant(faces: list[Face]) -> list[Face]:
    """The faces that whoever took the photo can have meant; the largest always."""
    return [face for face in faces if face is faces[0] or face.size >= max(MIN_FACE_PX, MIN_SHARE * faces[0].size)]


def _same(face: Face, other: Face) -> bool:
    """Whether two looks saw the same face."""
    return bool(np.hypot(face.x - other.x, face.y - other.y) < other.size / 3 and 0.6 < face.size / other.size < 1.6)
