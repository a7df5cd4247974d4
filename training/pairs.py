"""A user's own pairs: found in a folder, split into people to train on and to select on, and checked before training.

Everything that can be wrong with them is said at once and before the first drawing is made, not one file an hour.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from indexer.errors import DataError
from indexer.regions import ink_mask
from indexer.sketch import CANVAS_PX, ink_on_black, square
from training.data import PLAIN_PHOTOS, PLAIN_SKETCHES, Pair, find_pair, is_picture, open_image, sketch_name

VAL_SHARE: Final = 0.1
VAL_AT_LEAST: Final = 3
_FIT_AT_LEAST: Final = 2
_NAMED: Final = 5
"""Files that a message names; of more it gives the number."""


@dataclass(frozen=True)
class FoundPairs:
    """What lies in a folder of photos and sketches.

    Args:
        names: folder of photos -> names of its pairs, sorted. A folder is a data set of its own: another camera.
        lone_photos: names of photos without a sketch.
        lone_sketches: names of sketches without a photo.
        below: pictures in folders below, which no name in a split reaches.
    """

    names: Mapping[str, list[str]]
    lone_photos: list[str]
    lone_sketches: list[str]
    below: list[str]


def find_pairs(data: Path) -> FoundPairs:
    """All pairs of a folder: `photos/anna.jpg` with `sketches/anna.png`, or FS2K's layout.

    Raises:
        DataError: neither layout, two photos or sketches of one name, a name that no split file can hold, or no pair.
    """
    names: dict[str, list[str]] = {}
    lone_photos, lone_sketches, below = [], [], []
    for folder, photos, sketches in _folders(data):
        below += [*_below(photos), *_below(sketches)]
        people = _names(photos, folder)
        drawn = _names(sketches, sketch_name(f"{folder}/").rstrip("/"))
        paired = [name for name in sorted(people) if sketch_name(name) in drawn]
        lone_photos += sorted(people - set(paired))
        lone_sketches += sorted(drawn - {sketch_name(name) for name in paired})
        if paired:
            names[folder] = paired
    if not names:
        raise DataError(
            f"{data} has no pair: {len(lone_photos)} photos and {len(lone_sketches)} sketches, none of one name "
            f"({_some([*lone_photos[:2], *lone_sketches[:2]])}), and {len(below)} pictures in folders below; {_LAYOUTS}"
        )
    return FoundPairs(names, lone_photos, lone_sketches, below)


def require_paired(found: FoundPairs) -> None:
    """Refuse a folder with photos or sketches that have no counterpart, or lie too deep to be found.

    Raises:
        DataError: names them.
    """
    parts = [
        f"{len(names)} {what}: {_some(names)}"
        for names, what in (
            (found.lone_photos, "photos have no sketch"),
            (found.lone_sketches, "sketches have no photo"),
            (found.below, "pictures lie in folders below"),
        )
        if names
    ]
    if parts:
        raise DataError(
            f"{'; '.join(parts)}; add what is missing, move up what lies below, or leave them out with --skip-unpaired"
        )


def split_people(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """About nine in ten to train on and one in ten to select on, at least three, in the order given.

    A hash of the name decides: whoever is trained on stays so when others are added, and from some thirty people on
    whoever is selected on does, too.

    Raises:
        DataError: too few pairs for both.
    """
    least = VAL_AT_LEAST + _FIT_AT_LEAST
    if len(names) < least:
        raise DataError(
            f"training needs at least {least} pairs of different people in a folder of photos, got {len(names)}: "
            f"{_some(names)}; add pairs, or name your own splits with --fit and --val"
        )
    by_hash = sorted(names, key=_share)
    val = {name for place, name in enumerate(by_hash) if place < VAL_AT_LEAST or _share(name) < VAL_SHARE}
    # Names whose hashes all fall low must not leave nobody to train on.
    val &= set(by_hash[: max(VAL_AT_LEAST, len(names) // 2)])
    return [name for name in names if name not in val], [name for name in names if name in val]


def locate(data: Path, names: Sequence[str]) -> list[Pair]:
    """The pairs of a split's names.

    Raises:
        DataError: names all whose photo or sketch is missing.
    """
    pairs, missing = [], []
    for name in names:
        try:
            pairs.append(find_pair(data, name))
        except DataError as error:
            missing.append(str(error))
    if missing:
        more = f" (and {len(missing) - 1} more names of this split)" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]}{more}")
    return pairs


def check_people(fit: Sequence[Sequence[str]], val: Sequence[Sequence[str]]) -> None:
    """Refuse splits that cannot be trained or selected on.

    Args:
        fit: names of each data set to train on.
        val: names of each data set to select on.

    Raises:
        DataError: no data set, one of a single pair, or people in both.
    """
    if not fit or not val:
        raise DataError(f"training needs a data set to train on and one to select on, got {len(fit)} and {len(val)}")
    if alone := next((names[0] for names in fit if len(names) < _FIT_AT_LEAST), None):
        raise DataError(f"a data set to train on must have at least 2 pairs, one has {alone} only; add to its split")
    trained = {name for names in fit for name in names}
    if both := [name for names in val for name in names if name in trained]:
        raise DataError(
            f"{len(both)} people are both trained and selected on, such as {both[0]}; take them out of one split"
        )


def check_apart(fit: Sequence[Pair], val: Sequence[Pair]) -> None:
    """Refuse to select on a photo that is trained on under another name: whoever knows it finds it.

    Args:
        fit: pairs of all data sets to train on.
        val: pairs of all data sets to select on.

    Raises:
        DataError: names a photo in both.
    """
    trained = {_bytes_hash(pair.photo): pair.name for pair in fit}
    if both := [(pair.name, trained[key]) for pair in val if (key := _bytes_hash(pair.photo)) in trained]:
        raise DataError(
            f"{len(both)} photos to select on are trained on, too, under another name, such as {both[0][0]} as "
            f"{both[0][1]}; remove one of them, or keep both in one split with --fit and --val"
        )


def check_pictures(pairs: Sequence[Pair], on_progress: Callable[[int], None] = lambda done: None) -> None:
    """Read every picture once.

    Args:
        pairs: of all splits.
        on_progress: called with the number of pairs read.

    Raises:
        DataError: names the pictures that cannot be read and the sketches without a line.
    """
    unreadable, empty = [], []
    for number, pair in enumerate(pairs, start=1):
        try:
            open_image(pair.photo)
            # No line to follow, and no region to compare.
            if not ink_mask(ink_on_black(square(open_image(pair.sketch)), CANVAS_PX)[None]).any():
                empty.append(str(pair.sketch))
        except DataError as error:
            unreadable.append(str(error))
        on_progress(number)
    parts = [f"{len(unreadable)} pictures cannot be read: {_some(unreadable)}"] if unreadable else []
    if empty:
        parts.append(f"{len(empty)} sketches show no line (of one colour all over, or too pale): {_some(empty)}")
    if parts:
        raise DataError(f"{'; '.join(parts)}; repair or remove them, and their photos")


_LAYOUTS: Final = (
    f"it must hold {PLAIN_PHOTOS}/NAME.jpg with {PLAIN_SKETCHES}/NAME.png, or photo/photo1/image0001.jpg with "
    "sketch/sketch1/sketch0001.jpg as FS2K does"
)


def _folders(data: Path) -> Iterator[tuple[str, Path, Path]]:
    """Name of a data set, its folder of photos and its folder of sketches."""
    if (data / PLAIN_PHOTOS).is_dir():
        yield PLAIN_PHOTOS, data / PLAIN_PHOTOS, data / PLAIN_SKETCHES
    elif (data / "photo").is_dir():
        for photos in sorted(path for path in (data / "photo").iterdir() if path.is_dir()):
            yield photos.name, photos, data / "sketch" / photos.name.replace("photo", "sketch")
    else:
        raise DataError(f"{data} has no folder of photos; {_LAYOUTS}")


def _below(folder: Path) -> list[str]:
    """Pictures below the folders in a folder; hidden folders are passed over."""
    deeper = [path for path in sorted(folder.rglob("*")) if is_picture(path) and path.parent != folder]
    return [str(path) for path in deeper if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _names(folder: Path, prefix: str) -> set[str]:
    """`prefix`/stem of every picture right in a folder."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not is_picture(path):
            continue
        name = f"{prefix}/{path.stem}"
        # Of a line `read_split` strips the ends, and one that begins with # it passes over.
        if name != name.strip() or path.stem != path.stem.strip() or not name.isprintable() or name.startswith("#"):
            raise DataError(f"the name of {str(path)!r} cannot stand in a split file; rename it to plain letters")
        if (other := found.setdefault(name, path)) != path:
            raise DataError(f"{other} and {path} have one name; a person has one photo and one sketch, rename one")
    return set(found)


def _share(name: str) -> float:
    """From 0 to 1, evenly spread over names, the same everywhere."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _bytes_hash(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
