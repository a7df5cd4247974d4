"""Photos in a folder behind a URL, such as a prefix of a bucket, and files behind URLs."""

import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from indexer.errors import DataError
from indexer.metadata import Kind
from indexer.photos import SUFFIXES
from indexer.sources.item import Item, Survey, as_text, place_id
from indexer.sources.remote import reach, shown, url_item


@dataclass(frozen=True)
class Bucket:
    """The .jpg, .jpeg, .png and .webp files below a URL, sorted by path as in `Folder`."""

    url: str

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(shown(self.url)).name

    def survey(self, fields: Mapping[str, Kind]) -> Survey:
        """How many files there are."""
        total = sum(1 for _ in self.items({}))
        if not total:
            raise DataError(f"no {', '.join(sorted(SUFFIXES))} files in {shown(self.url)}; name a folder with photos")
        return Survey(total)

    def items(self, fields: MutableMapping[str, Kind]) -> Iterator[Item]:
        """The files, see `Source`."""
        root, _ = reach(self.url, lambda system, path: (path.rstrip("/"), None))
        folders = [iter(_entries(self.url))]
        while folders:
            for path, url, is_folder in folders[-1]:
                if is_folder:
                    folders.append(iter(_entries(url)))
                    break
                yield placed(url, PurePosixPath(path[len(root) :].lstrip("/")), self.name)
            else:
                folders.pop()


@dataclass(frozen=True)
class Urls:
    """Files behind URLs that were named, each with its place."""

    name: str
    urls: Sequence[tuple[str, PurePosixPath]]

    def survey(self, fields: Mapping[str, Kind]) -> Survey:
        """How many files there are."""
        return Survey(len(self.urls))

    def items(self, fields: MutableMapping[str, Kind]) -> Iterator[Item]:
        """The files, see `Source`."""
        return (placed(url, place, "") for url, place in self.urls)


def placed(url: str, place: PurePosixPath, base: str) -> Item:
    """A file behind a URL as an item, its id made from its place."""
    return replace(url_item(url), name=as_text(str(PurePosixPath(base) / place)), photo_id=place_id(str(place)))


def full_url(system: Any, path: str, url: str) -> str:
    """The URL of another file in the file system of a URL."""
    _, chained, rest = url.partition("::")
    found: str = system.unstrip_protocol(path)
    return found + chained + rest


def _entries(url: str) -> list[tuple[str, str, bool]]:
    """(path, URL, whether it is a folder) of what is in a folder, by path."""

    def listed(system: Any, path: str) -> list[tuple[str, str, bool]]:
        found = []
        for entry in system.ls(path, detail=True):
            name, is_folder = entry["name"].rstrip("/"), entry["type"] == "directory"
            if name == path.rstrip("/"):
                continue  # some stores have an object that stands for the folder
            if is_folder or os.path.splitext(name)[1].lower() in SUFFIXES:
                found.append((name, full_url(system, name, url), is_folder))
        return sorted(found)

    return reach(url, listed)
