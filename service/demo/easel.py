"""Soft brushes on a picture: anti-aliased, blurred, translucent, in canvas units; each touches only its own box."""

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from service.demo.anatomy import Points
from service.demo.parts import Rgb

_SUPERSAMPLING: Final = 3

Box = tuple[int, int, int, int]


class Easel:
    """A square picture being painted.

    Args:
        image: RGB, square; painted on in place.
    """

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self.size_px = image.width

    def fill(
        self, points: Points, rgb: Rgb, opacity: float = 1.0, blur: float = 0.0, clip: Image.Image | None = None
    ) -> None:
        """Paint a closed outline.

        Args:
            points: (n, 2) canvas units.
            rgb: the colour.
            opacity: 0..1.
            blur: softness of the brush in canvas units.
            clip: a grey picture of the full size that lets paint through where it is white.
        """
        self._press(*self._outline(points, blur, opacity), rgb, clip)

    def line(
        self,
        *paths: Points,
        width: float,
        rgb: Rgb,
        opacity: float = 1.0,
        blur: float = 0.0,
        clip: Image.Image | None = None,
    ) -> None:
        """Paint along paths, in one go where they cross; width in canvas units, the rest as in `fill`."""
        width_px = max(1, round(width * self.size_px * _SUPERSAMPLING))
        joint = "curve" if width_px > 5 else None  # finer lines show no gaps, and joints cost the most
        box = self._box(np.concatenate(paths), width + 3 * blur)
        stencil = self._stencil(box, paths, blur, lambda pen, flat: pen.line(flat, _ink(opacity), width_px, joint))
        self._press(stencil, box, rgb, clip)

    def blob(
        self,
        centre: Points,
        radii: tuple[float, float],
        rgb: Rgb,
        opacity: float = 1.0,
        blur: float = 0.0,
        clip: Image.Image | None = None,
    ) -> None:
        """Paint an ellipse around `centre` (2,); radii in canvas units."""
        angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        self.fill(centre + np.stack([np.cos(angle), np.sin(angle)], axis=1) * radii, rgb, opacity, blur, clip)

    def lay(self, picture: Image.Image, mask: Image.Image) -> None:
        """Paste a picture of the full size where the grey mask of the full size is white."""
        self.image.paste(picture, (0, 0), mask)

    def mask(self, points: Points, blur: float = 0.0) -> Image.Image:
        """Coverage of a closed outline as a grey picture of the full size, to clip with."""
        stencil, box = self._outline(points, blur)
        whole = Image.new("L", self.image.size)
        whole.paste(stencil, box)
        return whole

    def _outline(self, points: Points, blur: float, opacity: float = 1.0) -> tuple[Image.Image, Box]:
        box = self._box(points, 3 * blur)
        return self._stencil(box, [points], blur, lambda pen, flat: pen.polygon(flat, _ink(opacity))), box

    def _box(self, points: Points, margin: float) -> Box:
        edges = []
        for low, high in zip(
            (points.min(axis=0) - margin).tolist(), (points.max(axis=0) + margin).tolist(), strict=True
        ):
            first = min(max(math.floor(low * self.size_px) - 1, 0), self.size_px - 1)
            edges.append((first, max(min(math.ceil(high * self.size_px) + 1, self.size_px), first + 1)))
        (left, right), (top, bottom) = edges
        return left, top, right, bottom

    def _stencil(
        self,
        box: Box,
        paths: Sequence[Points],
        blur: float,
        draw: Callable[[ImageDraw.ImageDraw, list[float]], None],
    ) -> Image.Image:
        left, top, right, bottom = box
        big = Image.new("L", ((right - left) * _SUPERSAMPLING, (bottom - top) * _SUPERSAMPLING))
        pen = ImageDraw.Draw(big)
        for path in paths:
            draw(pen, ((path * self.size_px - (left, top)) * _SUPERSAMPLING).ravel().tolist())
        stencil = big.reduce(_SUPERSAMPLING)
        return stencil.filter(ImageFilter.GaussianBlur(blur * self.size_px)) if blur else stencil

    def _press(self, stencil: Image.Image, box: Box, rgb: Rgb, clip: Image.Image | None) -> None:
        if clip is not None:
            stencil = ImageChops.multiply(stencil, clip.crop(box))
        self.image.paste(rgb, box, stencil)


def faded(mask: Image.Image, opacity: float) -> Image.Image:
    """A grey mask that lets only a share of the paint through."""
    return ImageChops.multiply(mask, Image.new("L", mask.size, _ink(opacity)))


def _ink(opacity: float) -> int:
    return round(255 * min(max(opacity, 0.0), 1.0))
