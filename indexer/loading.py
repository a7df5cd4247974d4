"""From what a source offers to what is stored of it: read, checked, decoded and prepared by threads, ahead of its turn.

Only what was prepared waits, at most as many as are asked for, so memory does not grow with the source. Files that a
source must read in its own order (a tar stream) are in memory until they are decoded; their bytes are limited, too.
"""

import hashlib
import io
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from indexer.encoding import scaled_photo
from indexer.framing import FaceFraming
from indexer.photos import comes_smaller, read_photo
from indexer.sources.item import Item

THUMBNAIL_PX: Final = 96

_FINER: Final = 2
"""What is decoded is at least so many times as wide and high as what the encoder takes: finer shows it no more."""

_HELD_BYTES: Final = 64 << 20


@dataclass(frozen=True, eq=False)
class Decoded:
    """A photo ready for the encoder, or encoded.

    Args:
        pixels: (size, size, 3) uint8.
        thumbnail: JPEG.
        embedding: (14, dim) float32 unit rows; None until it is encoded.
        cropped: whether it is a crop to a face.
        without_face: whether a face was looked for in vain.
    """

    pixels: npt.NDArray[np.uint8]
    thumbnail: bytes
    embedding: npt.NDArray[np.float32] | None = None
    cropped: bool = False
    without_face: bool = False


@dataclass(frozen=True, eq=False)
class Loaded:
    """A file that was read; decoded unless the gallery has its content. `content_hash` is its SHA-256.

    Framing may make several photos of a file, one a face.
    """

    content_hash: bytes
    decoded: Sequence[Decoded] | None


Prepare = Callable[[bytes], Sequence[Decoded]]
"""Makes of a photo file what is stored of it; raises ImageError where it cannot be read."""


class Known(Protocol):
    """Who knows which files need not be decoded; asked by several threads."""

    def has_content(self, content_hash: bytes) -> bool:
        """Whether it has the content already."""


def load_ahead(
    items: Iterator[Item], register: Known, prepare: Prepare, threads: int, ahead: int
) -> Generator[tuple[Item, Future[Loaded]], None, None]:
    """Each item in order with what becomes of reading it, loaded by threads up to `ahead` items before its turn."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="load")
    pending: deque[tuple[Item, Future[Loaded]]] = deque()
    held = 0
    try:
        while True:
            while len(pending) < ahead and held < _HELD_BYTES and (item := next(items, None)):
                held += item.held_bytes
                pending.append((item, pool.submit(_load, item, register, prepare)))
            if not pending:
                return
            held -= pending[0][0].held_bytes
            yield pending.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


def _load(item: Item, register: Known, prepare: Prepare) -> Loaded:
    """One item, read once."""
    data = item.read()
    content_hash = hashlib.sha256(data).digest()
    return Loaded(content_hash, None if register.has_content(content_hash) else prepare(data))


def decode(data: bytes, size_px: int) -> Decoded:
    """A photo file as the encoder takes it.

    Raises:
        ImageError: it is no photo that can be read.
    """
    return _decoded(read_photo(data, least_px=_FINER * size_px), size_px)


def decode_faces(data: bytes, size_px: int, framing: FaceFraming) -> list[Decoded]:
    """What the encoder takes of a photo file that is cropped to its faces: at least one picture.

    Raises:
        ImageError: it is no photo that can be read, or one that the framing refuses.
    """
    least_px = _FINER * size_px if framing.faces == "largest" else None
    found = framing.frame(read_photo(data, least_px=least_px))
    if least_px is not None and not found[0].shows(least_px) and comes_smaller(data, least_px):
        found = framing.frame(read_photo(data))
    return [
        replace(_decoded(framed.image, size_px), cropped=framed.cropped, without_face=framed.face is None)
        for framed in found
    ]


def face_item(item: Item, number: int) -> Item:
    """The photo of one face of several in a file, counted from 1."""
    return replace(item, photo_id=f"{item.photo_id}#{number}", name=f"{item.name}#{number}")


def face_content(content_hash: bytes, number: int) -> bytes:
    """What stands for the content of one face of several: of the first the file's own, so that the file is known."""
    return content_hash if number == 1 else hashlib.sha256(content_hash + b"#%d" % number).digest()


def _decoded(image: Image.Image, size_px: int) -> Decoded:
    scaled = scaled_photo(image, size_px)
    # What is there of a square photo is all of it already, and smaller.
    is_whole = image.width == image.height >= size_px >= THUMBNAIL_PX
    return Decoded(np.asarray(scaled, dtype=np.uint8), thumbnail(scaled if is_whole else image))


def thumbnail(image: Image.Image) -> bytes:
    """The whole picture as a JPEG of at most 96 px a side."""
    scale = min(1.0, THUMBNAIL_PX / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    # Half of what bicubic takes, which would be a twentieth of an ingestion's time.
    small = image.resize((width, height), Image.Resampling.HAMMING, reducing_gap=1.0)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return file.getvalue()
