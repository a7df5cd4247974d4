"""The rank curve: one line on a log axis, with Pillow alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Rgb = tuple[int, int, int]

INK: Final = (33, 37, 41)
MUTED: Final = (118, 124, 130)
RULE: Final = (226, 228, 230)
FOUND: Final = (22, 150, 84)
"""The target and everything about it."""
PAPER: Final = (255, 255, 255)
_BAND: Final = (233, 246, 239)
_SUPERSAMPLING: Final = 3


def font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own typeface: the same on every machine."""
    return ImageFont.load_default(size_px)


@dataclass(frozen=True)
class RankAxes:
    """From strokes and ranks to pixels.

    Args:
        box: left, top, right, bottom of the plot in pixels.
        last_stroke: right end of the x axis.
        gallery_photos: bottom of the plot is rank 1, its top this rank; log scale.
    """

    box: tuple[int, int, int, int]
    last_stroke: int
    gallery_photos: int

    def x(self, stroke: float) -> float:
        """Pixel column of a number of strokes."""
        left, _, right, _ = self.box
        return left + (right - left) * stroke / max(1, self.last_stroke)

    def y(self, rank: float) -> float:
        """Pixel row of a rank."""
        _, top, _, bottom = self.box
        return float(bottom - (bottom - top) * np.log(rank) / np.log(max(2, self.gallery_photos)))

    def rank_ticks(self) -> list[int]:
        """1, 2, 5, 10, 20, 50, ... up to the gallery's size, which is the last."""
        ticks = [digit * 10**power for power in range(7) for digit in (1, 2, 5)]
        inside = [tick for tick in ticks if tick <= 0.75 * self.gallery_photos]
        return [*inside, self.gallery_photos]

    def stroke_ticks(self) -> list[int]:
        """Some six round numbers of strokes, 0 included."""
        steps = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]
        step = next(step for step in steps if self.last_stroke / step <= 7)
        return list(range(0, self.last_stroke + 1, step))


def draw_rank_curve(
    picture: Image.Image, axes: RankAxes, strokes: Sequence[int], ranks: Sequence[int], marked: Sequence[int]
) -> None:
    """Draw the curve into a picture.

    Args:
        picture: RGB, drawn on in place.
        axes: where.
        strokes: strokes drawn at each point of the curve.
        ranks: the target's rank at each point.
        marked: indices of the points that get a dot.
    """
    left, top, right, bottom = axes.box
    pen = ImageDraw.Draw(picture)
    pen.rectangle((left, axes.y(min(5, axes.gallery_photos)), right, bottom), fill=_BAND)
    pen.text((right - 8, axes.y(min(5, axes.gallery_photos)) + 4), "top 5", fill=FOUND, font=font(12), anchor="rt")
    for rank in axes.rank_ticks():
        pen.line((left, axes.y(rank), right, axes.y(rank)), fill=RULE)
        pen.text((left - 8, axes.y(rank)), f"{rank:,}", fill=MUTED, font=font(12), anchor="rm")
    for stroke in axes.stroke_ticks():
        pen.line((axes.x(stroke), bottom, axes.x(stroke), bottom + 4), fill=MUTED)
        pen.text((axes.x(stroke), bottom + 8), str(stroke), fill=MUTED, font=font(12), anchor="mt")
    pen.line((left, bottom, right, bottom), fill=MUTED)
    pen.text((left - 44, top - 26), "rank of the target (log scale)", fill=INK, font=font(14), anchor="lm")
    pen.text(((left + right) / 2, bottom + 28), "strokes drawn", fill=INK, font=font(14), anchor="mt")
    places = [(axes.x(stroke), axes.y(rank)) for stroke, rank in zip(strokes, ranks, strict=True)]
    _draw_smooth(picture, places, [places[index] for index in marked])


def _draw_smooth(
    picture: Image.Image, places: Sequence[tuple[float, float]], dots: Sequence[tuple[float, float]]
) -> None:
    """Line and dots with soft edges: drawn large, scaled down, laid on."""
    scale = _SUPERSAMPLING
    coverage = Image.new("L", (picture.width * scale, picture.height * scale))
    pen = ImageDraw.Draw(coverage)
    pen.line([(x * scale, y * scale) for x, y in places], fill=255, width=2 * scale + 1, joint="curve")
    for x, y in dots:
        pen.circle((x * scale, y * scale), 4.5 * scale, fill=255)
    picture.paste(FOUND, (0, 0), coverage.reduce(scale))
