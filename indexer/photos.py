"""Photo files as RGB pictures, whatever is in the folder: what cannot be read says why and harms nothing.

Files come from strangers. Only the decoders of JPEG, PNG and WebP run, the size is read from the header before any
pixel is decoded, and every failure of a decoder becomes an `ImageError` that says what was found.
"""

import io
import os
import stat
from pathlib import Path
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageOps

from indexer.errors import ImageError

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})
MAX_PIXELS: Final = 64_000_000
MAX_FILE_BYTES: Final = 64 << 20

_FORMATS: Final = ("JPEG", "PNG", "WEBP")


def read_photo(source: Path | bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_FILE_BYTES) -> Image.Image:
    """An RGB picture as a viewer would show it: turned by its EXIF flag, transparent pixels on white, 16 bits to 8.

    Args:
        source: a file, or its bytes.
        max_pixels: width x height that is still decoded, checked before decoding.
        max_bytes: length of the file that is still read.

    Raises:
        ImageError: missing, unreadable, too large, cut short, or no JPEG, PNG or WebP.
    """
    data = source if isinstance(source, bytes) else read_bytes(source, max_bytes=max_bytes)
    if len(data) > max_bytes:
        raise _too_long(len(data), max_bytes)
    if not data:
        raise ImageError("the file is empty; a photo must be a JPEG, PNG or WebP image")
    image = _open(data, max_pixels)
    try:
        image.load()
        return _as_rgb(_upright(image))
    # Decoders raise almost anything on hostile bytes: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        raise ImageError(f"the {image.format} image is cut short or damaged ({len(data)} bytes): {error}") from error


def read_bytes(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of one regular file.

    Raises:
        ImageError: missing, unreadable, no regular file, or over `max_bytes`.
    """
    try:
        # A pipe or a device named like a photo would block or never end.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ImageError("not a regular file")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ImageError(f"the file cannot be read: {error.strerror}") from error
    if len(data) > max_bytes:
        raise _too_long(path.stat().st_size, max_bytes)
    return data


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """The picture behind a header, not decoded yet."""
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    # Pillow's own limit; a warning below twice that limit, which some programs turn into an error.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"a photo may have {max_pixels} pixels: {error}") from error
    except Exception as error:
        raise ImageError(f"not a JPEG, PNG or WebP image ({len(data)} bytes, beginning with {data[:8]!r})") from error
    if image.width * image.height > max_pixels:
        raise ImageError(f"the image has {image.width}x{image.height} pixels, the limit is {max_pixels}; scale it down")
    return image


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # malformed EXIF says nothing about the pixels, which are fine
        return image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey at 255 where a viewer would scale it.
        grey = np.asarray(image).astype(np.int64)
        return Image.fromarray(np.clip(grey >> 8, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        paper = Image.new("RGBA", image.size, "white")
        paper.alpha_composite(image.convert("RGBA"))
        image = paper
    return image.convert("RGB")


def _too_long(size: int, limit: int) -> ImageError:
    return ImageError(f"the file has {size} bytes, the limit is {limit}")
