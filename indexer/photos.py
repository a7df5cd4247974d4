"""Photo files as RGB pictures, whatever is in the folder: what cannot be read says why and harms nothing.

Files come from strangers. Only the decoders of JPEG, PNG and WebP run, the size is read from the header before any
pixel is decoded, and every failure of a decoder becomes an `ImageError` that says what was found.
"""

import io
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageOps

from indexer.errors import DataError, ImageError

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})
MAX_PIXELS: Final = 64_000_000
MAX_FILE_BYTES: Final = 64 << 20

_FORMATS: Final = ("JPEG", "PNG", "WEBP")


@dataclass(frozen=True)
class SourcePhoto:
    """A photo file found in a source.

    Args:
        path: where to read it.
        name: the source's own name and the path inside it, with suffix: "photos/anna/front.jpg". Holds no path of
            this machine above the source. Bytes that are no UTF-8 appear as U+FFFD.
        photo_id: the path inside the source without suffix, "anna/front", as long as no other photo has it.
    """

    path: Path
    name: str
    photo_id: str


def list_photos(sources: Sequence[Path]) -> list[SourcePhoto]:
    """The .jpg, .jpeg, .png and .webp files of folders (recursive, sorted by path) and files named directly, in order.

    A file named directly is taken whatever its suffix. Links to folders are not followed, so that none can loop.

    Raises:
        DataError: a source is missing or a folder cannot be listed.
    """
    found: list[SourcePhoto] = []
    for source in sources:
        if source.is_dir():
            base = source.resolve().name
            for path in _walk(source):
                inside = path.relative_to(source)
                found.append(_source_photo(path, Path(base) / inside, inside))
        elif source.exists():
            found.append(_source_photo(source, Path(source.name), Path(source.name)))
        else:
            raise DataError(f"no folder or file named {_text(source.name)!r}; check the spelling of the source")
    return found


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


def _walk(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(f"folder {_text(Path(error.filename).name)!r} cannot be listed: {error.strerror}") from error

    paths = [
        Path(parent) / name
        for parent, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if os.path.splitext(name)[1].lower() in SUFFIXES
    ]
    return sorted(paths)


def _source_photo(path: Path, name: Path, inside: Path) -> SourcePhoto:
    return SourcePhoto(path, _text(name.as_posix()), _text(inside.with_suffix("").as_posix()))


def _text(name: str) -> str:
    """A file name as text that can be stored and printed."""
    return os.fsencode(name).decode("utf-8", "replace")


def _too_long(size: int, limit: int) -> ImageError:
    return ImageError(f"the file has {size} bytes, the limit is {limit}")
