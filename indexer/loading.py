"""From what a source offers to pixels for the encoder: read, checked, decoded and scaled by small threads, ahead of it.

Only the scaled pixels wait, at most as many as are asked for, so memory does not grow with the source. Files that a
source must read in its own order (a tar stream) are in memory until they are decoded; their bytes are limited, too.
"""

import hashlib
import io
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from indexer.encoding import photo_pixels
from indexer.photos import read_photo
from indexer.sources.item import Item

THUMBNAIL_PX: Final = 96

_DECODERS: Final = 2
_HELD_BYTES: Final = 64 << 20


@dataclass(frozen=True, eq=False)
class Decoded:
    """A photo ready for the encoder; `pixels` is (size, size, 3) uint8."""

    pixels: npt.NDArray[np.uint8]
    thumbnail: bytes


@dataclass(frozen=True, eq=False)
class Loaded:
    """A file that was read; decoded unless the gallery has its content. `content_hash` is its SHA-256."""

    content_hash: bytes
    decoded: Decoded | None


class Known(Protocol):
    """Who knows which files need not be decoded; asked by several threads."""

    def has_content(self, content_hash: bytes) -> bool:
        """Whether it has the content already."""


def load_ahead(
    items: Iterator[Item], register: Known, size_px: int, ahead: int
) -> Generator[tuple[Item, Future[Loaded]], None, None]:
    """Each item in order with what becomes of reading it, loaded by threads up to `ahead` items before its turn."""
    pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
    pending: deque[tuple[Item, Future[Loaded]]] = deque()
    held = 0
    try:
        while True:
            while len(pending) < ahead and held < _HELD_BYTES and (item := next(items, None)):
                held += item.held_bytes
                pending.append((item, pool.submit(_load, item, register, size_px)))
            if not pending:
                return
            held -= pending[0][0].held_bytes
            yield pending.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


def _load(item: Item, register: Known, size_px: int) -> Loaded:
    """One item, read once."""
    data = item.read()
    content_hash = hashlib.sha256(data).digest()
    return Loaded(content_hash, None if register.has_content(content_hash) else decode(data, size_px))


def decode(data: bytes, size_px: int) -> Decoded:
    """A photo file as the encoder takes it.

    Raises:
        ImageError: it is no photo that can be read.
    """
    image = read_photo(data)
    return Decoded(photo_pixels(image, size_px), thumbnail(image))


def thumbnail(image: Image.Image) -> bytes:
    """The whole picture as a JPEG of at most 96 px a side."""
    scale = min(1.0, THUMBNAIL_PX / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return file.getvalue()
