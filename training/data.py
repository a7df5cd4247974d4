"""Photo and sketch pairs in FS2K's folder layout or in two plain folders, and the splits that name them."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from indexer.errors import DataError, ImageError
from indexer.photos import SUFFIXES, read_photo

PLAIN_PHOTOS: Final = "photos"
PLAIN_SKETCHES: Final = "sketches"
"""The other layout: `photos/anna.jpg` with `sketches/anna.png`. Its names are `photos/anna`."""

_SPELLINGS: Final = tuple(spelling for suffix in sorted(SUFFIXES) for spelling in (suffix, suffix.upper()))
"""What suffixes look like nearly always; others, such as .Jpg, are looked for in the folder's list."""


@dataclass(frozen=True)
class Pair:
    """One identity: its photo and its finished sketch.

    Args:
        name: as in a split file, `photo1/image0001`.
        photo: file of the photo.
        sketch: file of the sketch.
    """

    name: str
    photo: Path
    sketch: Path


def read_split(path: Path) -> list[str]:
    """The names in a split file, one `photo1/image0001` a line; blank lines and `#` comments are passed over.

    Raises:
        DataError: no such file, no names, a line that is no name, or a name twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(
            f"no split file at {path} ({error.strerror}); it holds one name such as photo1/image0001 a line"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"the split file {path} must be text with one name such as photo1/image0001 a line") from error
    names = []
    for number, line in enumerate(lines, start=1):
        if (name := line.strip()) and not name.startswith("#"):
            folder, _, stem = name.partition("/")
            if not folder.strip(".") or not stem.strip(".") or "/" in stem:
                raise DataError(f"line {number} of {path} must be a name such as photo1/image0001, got {name[:80]!r}")
            names.append(name)
    if not names:
        raise DataError(f"the split file {path} names no photo; it holds one name such as photo1/image0001 a line")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"the split file {path} names {', '.join(twice[:3])} more than once; drop the repetition")
    return names


def split_hash(names: Sequence[str]) -> str:
    """SHA-256 over the names in order: which photos a model was trained on."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def find_photo(data: Path, name: str) -> Path:
    """The photo of a name.

    Raises:
        DataError: there is none under `data`/photo, or `data`/photos for a name such as `photos/anna`.
    """
    return _find(data if name.startswith(f"{PLAIN_PHOTOS}/") else data / "photo", name)


def find_pair(data: Path, name: str) -> Pair:
    """The photo and the sketch of a name.

    Raises:
        DataError: one of them is missing.
    """
    sketch = sketch_name(name)
    base = data if sketch.startswith(f"{PLAIN_SKETCHES}/") else data / "sketch"
    return Pair(name, find_photo(data, name), _find(base, sketch))


def sketch_name(name: str) -> str:
    """`photo1/image0001` has the sketch `sketch1/sketch0001`, `photos/anna` has `sketches/anna`."""
    folder, _, stem = name.partition("/")
    if folder == PLAIN_PHOTOS:
        return f"{PLAIN_SKETCHES}/{stem}"
    return f"{folder.replace('photo', 'sketch')}/{stem.replace('image', 'sketch')}"


def open_image(path: Path) -> Image.Image:
    """One image of the data set as RGB, read as `mgrl ingest` reads photos.

    Raises:
        DataError: it is no readable image.
    """
    try:
        return read_photo(path)
    except ImageError as error:
        raise DataError(f"{path} is not a readable image: {error}") from error


def is_picture(path: Path) -> bool:
    """Whether a file's name is that of a photo or a sketch; hidden files are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _find(folder: Path, name: str) -> Path:
    for suffix in _SPELLINGS:
        if (path := folder / f"{name}{suffix}").is_file():
            return path
    own = folder / name
    for path in sorted(own.parent.iterdir()) if own.parent.is_dir() else ():
        if path.stem == own.name and is_picture(path):
            return path
    raise DataError(
        f"{folder} has no {name} ({', '.join(sorted(SUFFIXES))}); "
        "the folder must be laid out as FS2K is, or hold photos/ and sketches/"
    )
