"""Photo files as RGB pictures, whatever is in the folder: what cannot be read says why and harms nothing.

Files come from strangers. Only the decoders of six formats run, what a picture would take is read from its header
before any pixel is decoded, and every failure of a decoder becomes an `ImageError` that says what was found. The limits
keep one picture under 300 MB and two seconds of a core, whatever it claims to be.
"""

import io
import os
import stat
from pathlib import Path
from typing import Final

import numpy as np
from PIL import ExifTags, Image

from indexer.errors import ImageError

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Of photos in a source. Phones' multi-picture JPEGs (MPO) count as JPEG; of what moves the first picture is taken."""

WEB_FORMATS: Final = FORMATS[:3]
"""What strangers may send over the wire."""

MAX_PIXELS: Final = 64_000_000
MAX_FILE_BYTES: Final = 64 << 20

_DENSE_PIXELS: Final = 24_000_000
"""Of all but baseline JPEG, which alone can be decoded at half its size."""

_WEBP_PIXELS: Final = 12_000_000
"""Pillow holds a WebP five times while it decodes it."""

_HALVED_FROM: Final = 12_000_000
"""Pixels from which on a photo is halved: what the encoder sees of it is 192 px a side."""

_MAX_SCAN_PIXELS: Final = 600_000_000
"""Scans times pixels of a JPEG. A camera's progressive JPEG has ten scans; a hostile one has a million empty ones."""

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> how to turn the picture upright."""

_TIFF_TILE: Final = (322, 323)


def read_photo(
    source: Path | bytes,
    *,
    least_px: int | None = None,
    max_pixels: int = MAX_PIXELS,
    max_side_px: int = MAX_PIXELS,
    max_bytes: int = MAX_FILE_BYTES,
    formats: tuple[str, ...] = FORMATS,
) -> Image.Image:
    """An RGB picture as a viewer would show it: turned by its EXIF flag, transparent pixels on white, 16 bits to 8.

    A photo of more than 12 million pixels comes at half its width and height.

    Args:
        source: a file, or its bytes.
        least_px: a JPEG whose sides are several times that comes at a half, a quarter or an eighth of its size, both
            sides still that long: to decode it takes a fraction of the time.
        max_pixels: width x height that is still decoded, checked before decoding. WebP beyond 12 million pixels and
            anything but baseline JPEG beyond 24 million is refused whatever it says.
        max_side_px: width, or height, that is still decoded.
        max_bytes: length of the file that is still read.
        formats: of `FORMATS`, those that are tried.

    Raises:
        ImageError: missing, unreadable, too large, cut short, or none of `formats`.
    """
    data = source if isinstance(source, bytes) else read_bytes(source, max_bytes=max_bytes)
    if len(data) > max_bytes:
        raise _too_long(len(data), max_bytes)
    if not data:
        raise ImageError(f"the file is empty; a photo must be a {_spelled(formats)} image")
    image = _open(data, max_pixels, formats)
    if max(image.size) > max_side_px:
        raise ImageError(f"the image may have {max_side_px} px a side, got {image.width}x{image.height}; scale it down")
    try:
        _check_cost(image, data)
        large = image.width * image.height > _HALVED_FROM
        if least_px is not None:
            image.draft(None, (least_px, least_px))
        elif large:
            image.draft(None, (image.width // 2, image.height // 2))
        image.load()
        if large and image.width * image.height > _HALVED_FROM:
            image = _halved(image)
        return _as_rgb(_upright(image))
    except ImageError:
        raise
    # Decoders raise almost anything on hostile bytes: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        raise ImageError(f"the {image.format} image is cut short or damaged ({len(data)} bytes): {error}") from error


def comes_smaller(data: bytes, least_px: int) -> bool:
    """Whether `read_photo` gives a photo with fewer pixels when it is told `least_px`."""
    image = _open(data, MAX_PIXELS, FORMATS)
    return image.format in ("JPEG", "MPO") and min(image.size) >= 2 * least_px


def read_bytes(path: Path | str, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of one regular file.

    Raises:
        ImageError: missing, unreadable, no regular file, or over `max_bytes`.
    """
    try:
        # A pipe or a device named like a photo would block or never end.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ImageError("not a regular file")
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ImageError(f"the file cannot be read: {error.strerror}") from error
    if len(data) > max_bytes:
        raise _too_long(os.stat(path).st_size, max_bytes)
    return data


def _open(data: bytes, max_pixels: int, formats: tuple[str, ...]) -> Image.Image:
    """The picture behind a header, not decoded yet."""
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    # Pillow's own limit; a warning below twice that limit, which some programs turn into an error.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"a photo may have {max_pixels} pixels: {error}") from error
    except Exception as error:
        raise ImageError(f"not a {_spelled(formats)} image ({len(data)} bytes, beginning with {data[:8]!r})") from error
    if image.width * image.height > max_pixels:
        raise _too_large(image, max_pixels)
    return image


def _check_cost(image: Image.Image, data: bytes) -> None:
    """Refuse what is small enough to look at but would take too much memory or time to decode."""
    pixels = image.width * image.height
    is_jpeg = image.format in ("JPEG", "MPO")
    limit = _WEBP_PIXELS if image.format == "WEBP" else _DENSE_PIXELS
    if pixels > limit and not (is_jpeg and "progressive" not in image.info):
        raise _too_large(image, limit)
    if is_jpeg and (scans := data.count(b"\xff\xda")) * pixels > _MAX_SCAN_PIXELS:
        raise ImageError(
            f"the JPEG image has {scans} scans of {image.width}x{image.height} pixels; save it again as a baseline JPEG"
        )
    if image.format == "TIFF":
        # A tile is decoded whole, however little of it the picture shows.
        width, height = (int(getattr(image, "tag_v2", {}).get(tag, 0)) for tag in _TIFF_TILE)
        if width * height > limit:
            raise ImageError(f"the TIFF image has tiles of {width}x{height} pixels, the limit is {limit}")


def _halved(image: Image.Image) -> Image.Image:
    """Half as wide and high; what Pillow cannot average (a palette, 16-bit grey) loses every other row and column."""
    if image.mode in ("1", "P", "PA") or image.mode.startswith("I;"):
        return image.resize((image.width // 2, image.height // 2), Image.Resampling.NEAREST)
    return image.reduce(2)


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # malformed EXIF says nothing about the pixels, which are fine
        return image
    return image if turn is None else image.transpose(turn)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey at 255 where a viewer would scale it.
        grey = np.asarray(image) >> 8
        return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageError("the image holds floating-point numbers; save it with 8 or 16 bits a channel")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        ink = image if image.mode == "RGBA" else image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(ink, mask=ink.getchannel("A"))
        return paper
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def _too_long(size: int, limit: int) -> ImageError:
    return ImageError(f"the file has {size} bytes, the limit is {limit}")


def _too_large(image: Image.Image, limit: int) -> ImageError:
    return ImageError(
        f"the {image.format} image has {image.width}x{image.height} pixels, the limit is {limit}; scale it down"
    )


def _spelled(formats: tuple[str, ...]) -> str:
    """Formats as a reader knows them: "JPEG, PNG or WebP"."""
    *most, last = (name.replace("WEBP", "WebP") for name in formats)
    return f"{', '.join(most)} or {last}"
