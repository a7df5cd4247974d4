"""Strokes, the one rasteriser, and raster sketches; training, evaluation and serving all draw with this file.

A canvas is the square that the network sees. Its pixels are uint8, ink bright on exact 0, whatever the polarity of
the paper it came from: polarity is decided here and nowhere else.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from indexer.errors import ImageError, SketchError
from indexer.photos import WEB_FORMATS, read_photo

CANVAS_PX: Final = 192
"""Side of the canvas in pixels: the input side of the default encoder."""

DEFAULT_WIDTH: Final = 0.008
"""Line width in canvas units when a stroke names none: 1.5 px of 192, a pencil on FS2K's paper."""

MAX_STROKE_POINTS: Final = 10_000
MAX_STROKES: Final = 20_000
MAX_DRAWING_POINTS: Final = 1_000_000
"""Points of all strokes of a drawing together: 8 MB, a thousand times a careful drawing."""

MAX_RASTER_PX: Final = 4096
MAX_RASTER_BYTES: Final = 3 * 1024 * 1024
MAX_WIDTH: Final = float(np.float32(0.2))
"""As float32, which the wire carries and which is a little more."""

_SUPERSAMPLING: Final = 4


@dataclass(frozen=True, eq=False)
class Stroke:
    """One pen path.

    Args:
        points: (n, 2) float, x to the right and y down, in canvas units of 0..1; n is at least 1.
        width: line width in canvas units, in (0, 0.2].
        pressure: (n,) in 0..1 that scales the width point by point, or None for 1 everywhere.

    Raises:
        SketchError: no points, too many, NaN or out of range.
    """

    points: npt.NDArray[np.float32]
    width: float = DEFAULT_WIDTH
    pressure: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        points = as_float32(self.points)
        if len(points) > MAX_STROKE_POINTS:
            raise SketchError(
                f"a stroke may have {MAX_STROKE_POINTS} points, got {len(points)}; thin it out or split it", field="x"
            )
        check_points(points, "a stroke")
        if not 0 < self.width <= MAX_WIDTH:
            raise SketchError(
                f"a stroke's width must be above 0 and at most {MAX_WIDTH:g} of the canvas, got {self.width}",
                field="width",
            )
        object.__setattr__(self, "points", points)
        if self.pressure is not None:
            pressure = as_float32(self.pressure)
            if pressure.shape != (len(points),):
                raise SketchError(
                    f"pressure must be one number a point ({len(points)}), got shape {pressure.shape}", field="pressure"
                )
            if not ((pressure >= 0) & (pressure <= 1)).all():
                raise SketchError("pressure must lie between 0 and 1", field="pressure")
            object.__setattr__(self, "pressure", pressure)


@dataclass
class Canvas:
    """The drawing so far. Drawing stroke by stroke gives the same pixels as drawing all at once, bit for bit.

    Args:
        size_px: side of the image that `pixels` returns.
    """

    size_px: int = CANVAS_PX
    _paper: Image.Image = field(init=False, repr=False)
    _picture: Image.Image = field(init=False, repr=False)
    _background: npt.NDArray[np.uint8] | None = field(init=False, repr=False, default=None)
    _under_latest: tuple[tuple[int, int], Image.Image] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        side = self.size_px * _SUPERSAMPLING
        self._paper = Image.new("L", (side, side))
        self._picture = Image.new("L", (self.size_px, self.size_px))

    def draw(self, strokes: Iterable[Stroke]) -> None:
        """Add strokes on top of what is there."""
        strokes = list(strokes)
        if not strokes:
            return
        pen = ImageDraw.Draw(self._paper)
        for stroke in strokes[:-1]:
            _draw_stroke(pen, stroke, self._paper.width)
        box = self._paper_box(strokes[-1:])
        self._under_latest = box[:2], self._paper.crop(box)
        _draw_stroke(pen, strokes[-1], self._paper.width)
        # Only what the strokes can have touched is scaled down again: a stroke costs its own size.
        touched = self._paper.reduce(_SUPERSAMPLING, self._paper_box(strokes))
        self._picture.paste(touched, self._box(strokes)[:2])

    def extend(self, stroke: Stroke) -> None:
        """Draw the latest stroke as it has become: the same with more points.

        Its former end loses its cap, so the pixels are those of the whole stroke drawn at once.
        """
        assert self._under_latest is not None, "no stroke to extend"
        corner, before = self._under_latest
        self._paper.paste(before, corner)
        self.draw([stroke])

    def add(self, stroke: Stroke) -> bool:
        """Draw one stroke and tell whether any pixel of the picture changed; a stroke under ink changes none."""
        box = self._box([stroke])
        before = self._picture.crop(box).tobytes()
        self.draw([stroke])
        return before != self._picture.crop(box).tobytes()

    def _box(self, strokes: Sequence[Stroke]) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in pixels around everything that the strokes can touch."""
        points = np.concatenate([stroke.points for stroke in strokes])
        reach = max(stroke.width for stroke in strokes) / 2 + 2 / self.size_px
        left, top = np.maximum((points.min(axis=0) - reach) * self.size_px, 0).astype(int).tolist()
        right, bottom = np.minimum((points.max(axis=0) + reach) * self.size_px + 1, self.size_px).astype(int).tolist()
        return left, top, right, bottom

    def _paper_box(self, strokes: Sequence[Stroke]) -> tuple[int, int, int, int]:
        """The same box in pixels of the paper."""
        left, top, right, bottom = self._box(strokes)
        step = _SUPERSAMPLING
        return left * step, top * step, right * step, bottom * step

    def put_raster(self, canvas: npt.NDArray[np.uint8]) -> None:
        """Lay a (size_px, size_px) uint8 canvas under the strokes, replacing an earlier one."""
        if canvas.shape != (self.size_px, self.size_px):
            raise SketchError(f"a raster under the strokes must be {self.size_px} px square, got {canvas.shape}")
        self._background = canvas.astype(np.uint8, copy=True)

    def pixels(self) -> npt.NDArray[np.uint8]:
        """(size_px, size_px) uint8, ink bright on exact 0."""
        pixels = np.array(self._picture, dtype=np.uint8)
        return pixels if self._background is None else np.maximum(pixels, self._background)


def rasterise(strokes: Sequence[Stroke], size_px: int = CANVAS_PX) -> npt.NDArray[np.uint8]:
    """(size_px, size_px) uint8 picture of the strokes, ink 255 on exact 0, edges anti-aliased.

    Example:
        >>> line = Stroke(np.float32([[0.25, 0.5], [0.75, 0.5]]))
        >>> canvas = rasterise([line])
        >>> canvas.shape, int(canvas[0, 0]), bool(canvas[95:97, 96].max() > 128)
        ((192, 192), 0, True)
    """
    canvas = Canvas(size_px)
    canvas.draw(strokes)
    return canvas.pixels()


def square(image: Image.Image) -> Image.Image:
    """The centred square crop: the framing of photos and raster sketches alike."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def read_raster(data: bytes, size_px: int = CANVAS_PX) -> npt.NDArray[np.uint8]:
    """A canvas from an encoded picture of a sketch (PNG, JPEG, WebP), dark on light or light on dark.

    The picture is read as photos are (turned by its EXIF flag, transparent parts on white), cropped to its centred
    square, turned to grey and scaled. The polarity is read off the median grey: a sketch is mostly paper. Paper is
    levelled to exact 0, so that a scan's tint is no ink.

    Raises:
        SketchError: not an image, truncated, or over 4096 px or 3 MiB.
    """
    if len(data) > MAX_RASTER_BYTES:
        raise SketchError(f"a raster sketch may have {MAX_RASTER_BYTES} bytes, got {len(data)}; scale it down")
    try:
        image = read_photo(data, max_pixels=MAX_RASTER_PX**2, max_side_px=MAX_RASTER_PX, formats=WEB_FORMATS)
    except ImageError as error:
        raise SketchError(
            f"a raster sketch must be a whole PNG, JPEG or WebP file of at most {MAX_RASTER_PX} px a side: {error}"
        ) from error
    return ink_on_black(square(image), size_px)


def ink_on_black(picture: Image.Image, size_px: int) -> npt.NDArray[np.uint8]:
    """(size_px, size_px) uint8 canvas from a square picture of either polarity; paper becomes exact 0."""
    pixels = np.asarray(picture.convert("L"), dtype=np.float32)
    paper = float(np.median(pixels))
    ink = paper - pixels if paper > 127 else pixels - paper
    # A tenth of the range is paper grain and tint, the rest is stretched back to 0..255.
    ink = np.clip((ink - 25.5) * (255 / 229.5), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(ink).resize((size_px, size_px), Image.Resampling.BOX), dtype=np.uint8)


def check_points(points: npt.NDArray[np.float32], what: str) -> None:
    """Refuse what is no path: (n, 2) finite canvas units, at least one point.

    Raises:
        SketchError: the shape, or the first point that is out of range.
    """
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise SketchError(
            f"{what} must have at least one (x, y) point, got an array of shape {points.shape}", field="x"
        )
    if (odd := ~np.isfinite(points)).any():
        at, column = _first_bad(odd)
        raise SketchError(f"point {at} is not a finite number; drop it", field=f"{'xy'[column]}[{at}]")
    if (outside := (points < 0) | (points > 1)).any():
        at, column = _first_bad(outside)
        x, y = points[at].tolist()
        raise SketchError(
            f"point {at} is at ({x:.4g}, {y:.4g}), canvas units run from 0 to 1; divide by the canvas size",
            field=f"{'xy'[column]}[{at}]",
        )


def as_float32(numbers: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """An array of what a caller sent; numbers beyond float32 become infinite, which `Stroke` refuses.

    Raises:
        SketchError: something else than numbers, or lists of unequal lengths.
    """
    try:
        with np.errstate(over="ignore"):
            return np.asarray(numbers, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise SketchError("points must be [[x, y], ...], pressure [p, ...], numbers only") from error


def _draw_stroke(pen: ImageDraw.ImageDraw, stroke: Stroke, side: int) -> None:
    points = stroke.points * side - 0.5  # Pillow's pixel n is centred on n, ours on n + 0.5
    if stroke.pressure is None:
        _draw_path(pen, points, stroke.width * side)
        return
    widths = stroke.width * stroke.pressure * side
    if len(points) == 1:
        _draw_path(pen, points, float(widths[0]))
    for start in range(len(points) - 1):
        _draw_path(pen, points[start : start + 2], float(widths[start : start + 2].mean()))


def _draw_path(pen: ImageDraw.ImageDraw, points: npt.NDArray[np.float32], width_px: float) -> None:
    width = max(1, round(width_px))
    flat = points.ravel().tolist()
    if len(points) > 1:
        pen.line(flat, fill=255, width=width)
    # Round caps close the wedge that Pillow leaves at the ends and make a dot of a single point.
    radius = width / 2
    for x, y in (flat[:2], flat[-2:]):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


def _first_bad(bad: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Row and column."""
    row, column = np.argwhere(bad)[0].tolist()
    return row, column
