"""A scanned or photographed sketch, cleaned: the sheet cut out, its shade removed, turned upright, framed.

`read_raster` takes pictures of sketches as they are; this is what comes before it when the picture is a sheet on a
table, in uneven light, at an angle. What is clean already stays as it is.
"""

import io
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from indexer.errors import ImageError, SketchError
from indexer.photos import read_photo
from indexer.sketch import square

MAX_SCAN_BYTES: Final = 20 << 20
SCAN_PX: Final = 768
"""Side of a cleaned scan: four times what the network sees, so that it looks well on a screen."""

_WORKING_PX: Final = 1536
_SHEET_PX: Final = 256
_TURN_PX: Final = 96
_MOST_TURN_DEG: Final = 15.0
_MARGIN: Final = 0.1
"""Of the longer side: sketches of FS2K fill 95 % of their square, the demo's 90 %; both end at its lower edge."""

_FRAMED_SHARE: Final = 0.6
"""A drawing whose longer side takes this share of the picture's centred square is framed already."""

Plane = npt.NDArray[np.float32]


def clean_scan(data: bytes) -> bytes:
    """A PNG file of (768, 768) grey pixels, dark ink on white 255, from a picture of a sketch.

    Args:
        data: JPEG, PNG or WebP file; dark on light or light on dark, also a photo of a sheet on a darker table.

    Raises:
        SketchError: over 20 MiB, no image, cut short, over 64 megapixels, or no ink on it.
    """
    if len(data) > MAX_SCAN_BYTES:
        raise SketchError(f"a scan may have {MAX_SCAN_BYTES >> 20} MiB, got {len(data) / (1 << 20):.1f}; scale it down")
    try:
        picture = read_photo(data).convert("L")
    except ImageError as error:
        raise SketchError(f"a scan must be a whole JPEG, PNG or WebP file: {error}") from error
    picture.thumbnail((_WORKING_PX, _WORKING_PX), Image.Resampling.BOX, reducing_gap=None)
    grey: Plane = np.asarray(picture, np.float32) / np.float32(255)
    table = _table(grey)
    if float(np.median(grey[~table])) < 0.5:
        grey = 1 - grey
    ink = levelled_ink(grey)
    ink[table] = 0
    if (ink > 0.3).sum() < 20:
        raise SketchError("the scan shows no ink: nothing on it stands out against its paper")
    upright = _turned(ink, turn_deg(ink))
    framed = _framed(upright)
    clean = Image.fromarray(255 - (framed * 255).round().astype(np.uint8))
    file = io.BytesIO()
    clean.resize((SCAN_PX, SCAN_PX), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def levelled_ink(grey: Plane) -> Plane:
    """(height, width) in 0..1, 0 where there is paper, from grey 0..1 with dark ink on paper of uneven light.

    The paper is the light part of each neighbourhood, an eighth of the picture wide; its grain is no ink.
    """
    height, width = grey.shape
    small = Image.fromarray(grey).resize((max(8, width // 8), max(8, height // 8)), Image.Resampling.BOX)
    reach = max(small.size) // 8 | 1
    levels = Image.fromarray((np.asarray(small) * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(min(reach, 31)))
    paper = levels.filter(ImageFilter.GaussianBlur(reach / 2)).resize((width, height), Image.Resampling.BICUBIC)
    ink = 1 - grey / np.maximum(np.asarray(paper, np.float32) / 255, 0.05)
    # Grain: three times the spread of the paper, which is most of a sketch.
    middle = float(np.median(ink))
    grain = float(np.median(np.abs(ink - middle))) * 1.5
    floor = np.clip(middle + 3 * grain, 0.08, 0.35)
    darkest = float(np.quantile(ink, 0.998))
    return np.asarray(np.clip((ink - floor) / max(darkest - floor, 0.15), 0, 1), np.float32)


def turn_deg(ink: Plane) -> float:
    """Degrees, counterclockwise, that make a face upright: where it is most like its own mirror image.

    0 when no turn within 15 degrees makes it notably more so.
    """
    side = max(ink.shape)
    padded = np.zeros((side, side), np.float32)
    top, left = (side - ink.shape[0]) // 2, (side - ink.shape[1]) // 2
    padded[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    small = Image.fromarray(padded).resize((_TURN_PX, _TURN_PX), Image.Resampling.BOX)
    soft = Image.fromarray((np.asarray(small) * 255).clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(2))
    angles = np.arange(-_MOST_TURN_DEG, _MOST_TURN_DEG + 0.5, 1.0)
    likeness = np.array([_symmetry(soft, float(angle)) for angle in angles])
    best = int(np.argmax(likeness))
    if likeness[best] < 1.03 * likeness[len(angles) // 2]:
        return 0.0
    return float(angles[best])


def _symmetry(picture: Image.Image, angle: float) -> float:
    """How like its mirror image a turned picture is, at the best upright axis; 1 is the same."""
    turned = np.asarray(picture.rotate(angle, Image.Resampling.BILINEAR), np.float32)
    # Convolving a row with itself is correlating it with its mirror image, at every axis at once.
    spectrum = np.fft.rfft(turned, 2 * turned.shape[1], axis=1)
    return float(np.fft.irfft((spectrum**2).sum(axis=0)).max() / max(float((turned**2).sum()), 1e-6))


def _table(grey: Plane) -> npt.NDArray[np.bool_]:
    """(height, width) True where the picture shows the table around a lighter sheet, and the sheet's edge."""
    height, width = grey.shape
    scale = _SHEET_PX / max(height, width)
    size = max(8, round(width * scale)), max(8, round(height * scale))
    small = Image.fromarray((grey * 255).astype(np.uint8)).resize(size, Image.Resampling.BOX)
    # Dark ink is thin and goes; a table is wide and stays. What is light must be wide, too: chalk makes no sheet.
    closed = small.filter(ImageFilter.MaxFilter(9)).filter(ImageFilter.MinFilter(9))
    opened = closed.filter(ImageFilter.MinFilter(25)).filter(ImageFilter.MaxFilter(25))
    levels = np.asarray(opened, np.float32)
    dark, light = np.quantile(levels, (0.02, 0.9))
    sheet = levels > (dark + light) / 2
    rim = np.concatenate([sheet[0], sheet[-1], sheet[:, 0], sheet[:, -1]])
    if light - dark < 50 or rim.mean() > 0.7 or sheet.mean() < 0.2:
        return np.zeros(grey.shape, bool)
    # A copy: Pillow does not fill what lies in an array.
    outside = Image.fromarray(np.pad(np.where(sheet, np.uint8(255), np.uint8(0)), 1)).copy()
    ImageDraw.floodfill(outside, (0, 0), 128)
    around = Image.fromarray(np.where(np.asarray(outside)[1:-1, 1:-1] == 128, np.uint8(255), np.uint8(0)))
    return np.asarray(around.filter(ImageFilter.MaxFilter(11)).resize((width, height), Image.Resampling.NEAREST)) > 0


def _turned(ink: Plane, degrees: float) -> Plane:
    if degrees == 0:
        return ink
    return np.asarray(Image.fromarray(ink).rotate(degrees, Image.Resampling.BICUBIC, expand=True)).clip(0, 1)


def _framed(ink: Plane) -> Plane:
    """(side, side): the centred square where the drawing fills it, and else a square that ends below the shoulders."""
    left, top, right, bottom = _box(ink)
    longer = max(right - left, bottom - top)
    if longer >= _FRAMED_SHARE * min(ink.shape) and longer <= min(ink.shape):
        middle = np.asarray(square(Image.fromarray(ink)))
        if middle.sum() > 0.97 * ink.sum():
            return middle
    side = round(longer * (1 + _MARGIN))
    framed = np.zeros((side, side), np.float32)
    x, y = (side - (right - left)) // 2, side - (bottom - top)
    framed[y : y + bottom - top, x : x + right - left] = ink[top:bottom, left:right]
    return framed


def _box(ink: Plane) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) around all but specks: a thousandth of the ink is left out on each side."""
    edges = []
    for axis in (0, 1):
        along = np.cumsum(ink.sum(axis=axis))
        edges.append(np.searchsorted(along, (0.001 * along[-1], 0.999 * along[-1])))
    (left, right), (top, bottom) = edges
    return int(left), int(top), int(right) + 1, int(bottom) + 1
