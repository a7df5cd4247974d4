"""The picture of a drawing that finds its face, after the paper's Figure 2.

Above, the sketch as it grows; below each, the five closest photos at that moment, the target framed; at the bottom
the target's rank after every answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from service.demo.chart import FOUND, INK, MUTED, PAPER, RULE, RankAxes, draw_rank_curve, font

COLUMNS: Final = 8
SHOWN_PHOTOS: Final = 5
CAVEAT: Final = "A ranking is a lead, not an identification."

_SKETCH_PX: Final = 132
_PHOTO_PX: Final = 96
_COLUMN_PX: Final = 148
_MARGIN_PX: Final = 40
_LABELS_PX: Final = 36
_HEADER_PX: Final = 112
_PHOTOS_TOP: Final = _HEADER_PX + _SKETCH_PX + 26
_ROW_PX: Final = _PHOTO_PX + 24
_CHART_TOP: Final = _PHOTOS_TOP + SHOWN_PHOTOS * _ROW_PX + 100
_CHART_PX: Final = 230
HEIGHT_PX: Final = _CHART_TOP + _CHART_PX + 76


@dataclass(frozen=True)
class Candidate:
    """One photo of a column."""

    thumbnail: Image.Image
    distance: float
    is_target: bool


@dataclass(frozen=True, eq=False)
class Moment:
    """The drawing and its answer at one moment.

    Args:
        canvas: (size, size) uint8, ink bright on 0.
        strokes: strokes on the canvas.
        rank: of the target, 1-based.
        closest: closest first; the first five are shown.
    """

    canvas: npt.NDArray[np.uint8]
    strokes: int
    rank: int
    closest: Sequence[Candidate]


def shown_moments(count: int, columns: int = COLUMNS) -> list[int]:
    """Indices of the moments that get a column: first and last, and between them more of the early ones.

    Ranks move most while the drawing begins, so the gaps grow.

    Example:
        >>> shown_moments(70), shown_moments(3)
        ([0, 3, 9, 18, 28, 40, 54, 69], [0, 1, 2])
    """
    if count <= columns:
        return list(range(count))
    places = (count - 1) * np.linspace(0, 1, columns) ** 1.6
    # In a short drawing the first gaps would round to nothing.
    return [max(round(place), number) for number, place in enumerate(places.tolist())]


def draw_figure(
    moments: Sequence[Moment],
    strokes: Sequence[int],
    ranks: Sequence[int],
    gallery_photos: int,
    target: Image.Image,
    title: str,
) -> Image.Image:
    """RGB picture of a whole drawing, 8 columns wide or as many as there are moments.

    Args:
        moments: the columns, in time; at least one.
        strokes: strokes drawn at each point of the curve.
        ranks: rank of the target at each point of the curve, 1-based.
        gallery_photos: photos that were ranked.
        target: the photo of the person drawn.
        title: one line.
    """
    width = 2 * _MARGIN_PX + _LABELS_PX + max(len(moments), 5) * _COLUMN_PX - (_COLUMN_PX - _SKETCH_PX)
    picture = Image.new("RGB", (width, HEIGHT_PX), PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((_MARGIN_PX, 34), title, fill=INK, font=font(26), anchor="ls")
    line = f"The closest of {gallery_photos:,} photos as the sketch grows. In green: the person drawn. {CAVEAT}"
    pen.text((_MARGIN_PX, 60), line, fill=MUTED, font=font(14), anchor="ls")
    for place in range(SHOWN_PHOTOS):
        middle = _PHOTOS_TOP + place * _ROW_PX + _PHOTO_PX // 2
        pen.text((_MARGIN_PX + 10, middle), str(place + 1), fill=MUTED, font=font(18), anchor="mm")
    for number, moment in enumerate(moments):
        _draw_column(picture, _MARGIN_PX + _LABELS_PX + number * _COLUMN_PX, moment)
    _draw_target(picture, target)
    left = _MARGIN_PX + _LABELS_PX + 2 * _COLUMN_PX
    box = (left, _CHART_TOP, width - _MARGIN_PX, _CHART_TOP + _CHART_PX)
    axes = RankAxes(box, max(strokes, default=1), gallery_photos)
    columns = {moment.strokes for moment in moments}
    draw_rank_curve(picture, axes, strokes, ranks, [n for n, drawn in enumerate(strokes) if drawn in columns])
    return picture


def _draw_column(picture: Image.Image, left: int, moment: Moment) -> None:
    pen = ImageDraw.Draw(picture)
    middle = left + _SKETCH_PX // 2
    noun = "stroke" if moment.strokes == 1 else "strokes"
    pen.text((middle, _HEADER_PX - 10), f"{moment.strokes} {noun}", fill=INK, font=font(15), anchor="ms")
    sketch = Image.fromarray(255 - moment.canvas).resize((_SKETCH_PX, _SKETCH_PX), Image.Resampling.LANCZOS)
    picture.paste(sketch, (left, _HEADER_PX))
    pen.rectangle((left - 1, _HEADER_PX - 1, left + _SKETCH_PX, _HEADER_PX + _SKETCH_PX), outline=RULE)
    for place, candidate in enumerate(moment.closest[:SHOWN_PHOTOS]):
        _draw_candidate(picture, middle - _PHOTO_PX // 2, _PHOTOS_TOP + place * _ROW_PX, candidate)
    below = _PHOTOS_TOP + SHOWN_PHOTOS * _ROW_PX + 14
    colour = FOUND if moment.rank <= SHOWN_PHOTOS else INK
    pen.text((middle, below), f"rank {moment.rank:,}", fill=colour, font=font(19), anchor="mm")


def _draw_candidate(picture: Image.Image, left: int, top: int, candidate: Candidate) -> None:
    pen = ImageDraw.Draw(picture)
    if candidate.is_target:
        pen.rounded_rectangle((left - 6, top - 6, left + _PHOTO_PX + 5, top + _PHOTO_PX + 5), 5, fill=FOUND)
    picture.paste(_fitted(candidate.thumbnail, _PHOTO_PX), (left, top))
    colour = FOUND if candidate.is_target else MUTED
    text = f"{candidate.distance:.3f}"
    pen.text((left + _PHOTO_PX // 2, top + _PHOTO_PX + 12), text, fill=colour, font=font(11), anchor="mm")


def _draw_target(picture: Image.Image, target: Image.Image) -> None:
    pen = ImageDraw.Draw(picture)
    side, left = 176, _MARGIN_PX + 6
    top = _CHART_TOP + 6
    pen.text((left - 6, _CHART_TOP - 26), "the person drawn", fill=INK, font=font(14), anchor="lm")
    pen.rounded_rectangle((left - 6, top - 6, left + side + 5, top + side + 5), 5, fill=FOUND)
    picture.paste(_fitted(target, side), (left, top))


def _fitted(photo: Image.Image, side_px: int) -> Image.Image:
    """The photo's centred square."""
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    box = (left, top, left + side, top + side)
    return photo.convert("RGB").resize((side_px, side_px), Image.Resampling.LANCZOS, box=box)
