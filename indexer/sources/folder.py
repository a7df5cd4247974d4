"""Photos in folders of this machine, and files that were named one by one.

A folder is walked as its items are asked for, names sorted folder by folder: only the names of the folders that are
open at the moment are in memory. Links to folders are not followed, so that none can loop.
"""

import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from indexer.errors import DataError
from indexer.metadata import Kind
from indexer.photos import SUFFIXES, read_bytes
from indexer.sources.item import Item, Survey, as_text, place_id


@dataclass(frozen=True)
class Folder:
    """The photo files of a folder and the folders in it, sorted by path; `indexer.photos.SUFFIXES` makes them known."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's own name, also of "."."""
        return as_text(self.folder.resolve().name)

    def survey(self, fields: Mapping[str, Kind]) -> Survey:
        """How many files there are."""
        total = sum(1 for _ in walk(self.folder))
        if not total:
            raise DataError(f"no {', '.join(sorted(SUFFIXES))} files in {self.name}; name a folder with photos")
        return Survey(total)

    def items(self, fields: MutableMapping[str, Kind]) -> Iterator[Item]:
        """The files, see `Source`."""
        base, place = self.folder.resolve().name, self.folder.absolute()
        for inside in walk(self.folder):
            yield file_item(f"{place}/{inside}", f"{base}/{inside}", inside)


@dataclass(frozen=True)
class Files:
    """Files that were named, whatever their suffix: each with its place, which makes name and id."""

    name: str
    files: Sequence[tuple[Path, PurePosixPath]]

    def survey(self, fields: Mapping[str, Kind]) -> Survey:
        """How many files there are."""
        return Survey(len(self.files))

    def items(self, fields: MutableMapping[str, Kind]) -> Iterator[Item]:
        """The files, see `Source`."""
        return (file_item(str(path.absolute()), str(place), str(place)) for path, place in self.files)


def walk(folder: Path) -> Iterator[str]:
    """The photo files below a folder, sorted: their places in it, parts parted by "/".

    Raises:
        DataError: a folder cannot be listed.
    """
    # No recursion: a path may have two thousand folders, and Python's stack ends at one thousand.
    open_folders = [iter(_entries(folder, ""))]
    while open_folders:
        for inside, is_folder in open_folders[-1]:
            if is_folder:
                open_folders.append(iter(_entries(folder, f"{inside}/")))
                break
            yield inside
        else:
            open_folders.pop()


def _entries(folder: Path, inside: str) -> list[tuple[str, bool]]:
    """The photo files and folders at a place in a folder, by name; whether each is a folder."""
    try:
        with os.scandir(folder / inside) as listed:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in listed if _is_wanted(entry)]
    except OSError as error:
        name = as_text((folder / inside).name)
        raise DataError(f"folder {name!r} cannot be listed: {error.strerror}") from error
    return [(inside + name, is_folder) for name, is_folder in sorted(found)]


def _is_wanted(entry: "os.DirEntry[str]") -> bool:
    if entry.is_dir(follow_symlinks=False):
        return True
    if os.path.splitext(entry.name)[1].lower() not in SUFFIXES:
        return False
    # os.path, because the entry itself would raise an error of a link in a circle.
    return not (entry.is_symlink() and os.path.isdir(entry.path))


def file_item(path: str, name: str, place: str) -> Item:
    """A file of this machine as an item, its id made from its place; plain texts, as there may be millions."""
    return Item(as_text(name), place_id(place), partial(read_bytes, path), locator={"path": path})
