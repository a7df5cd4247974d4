"""Photo and sketch pairs in FS2K's folder layout, and the splits that name them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from indexer.errors import DataError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


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
        DataError: no such file, no names, or a name twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"no split file at {path}; it holds one name such as photo1/image0001 a line") from error
    names = [name for line in lines if (name := line.strip()) and not name.startswith("#")]
    if not names:
        raise DataError(f"the split file {path} names no photo")
    if len(set(names)) != len(names):
        raise DataError(f"the split file {path} names {len(names) - len(set(names))} photos twice")
    return names


def split_hash(names: Sequence[str]) -> str:
    """SHA-256 over the names in order: which photos a model was trained on."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def find_photo(data: Path, name: str) -> Path:
    """The photo of a name.

    Raises:
        DataError: there is none under `data`/photo.
    """
    return _find(data / "photo", name)


def find_pair(data: Path, name: str) -> Pair:
    """The photo and the sketch of a name: `photo1/image0001` has the sketch `sketch1/sketch0001`.

    Raises:
        DataError: one of them is missing.
    """
    folder, _, stem = name.partition("/")
    sketch = f"{folder.replace('photo', 'sketch')}/{stem.replace('image', 'sketch')}"
    return Pair(name, find_photo(data, name), _find(data / "sketch", sketch))


def open_image(path: Path) -> Image.Image:
    """Decode one image of the data set.

    Raises:
        DataError: it is no readable image.
    """
    try:
        image = Image.open(path)
        image.load()
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path} is not a readable image") from error
    return image


def _find(folder: Path, name: str) -> Path:
    for suffix in _SUFFIXES:
        if (path := folder / f"{name}{suffix}").is_file():
            return path
    raise DataError(f"{folder} has no {name} ({', '.join(_SUFFIXES)}); the folder must be laid out as FS2K is")
