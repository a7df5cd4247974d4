"""Photos that standard input brings: a list of paths and URLs, or a tar archive as a stream.

A list has one entry a line, or NUL characters between them, as `find -print0` writes it. Which of the three it is, the
first bytes tell.
"""

import os
import tarfile
from collections.abc import Iterator, Mapping, MutableMapping, Set
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from indexer.errors import DataError
from indexer.metadata import Kind
from indexer.sources.folder import file_item
from indexer.sources.item import Item, Survey
from indexer.sources.manifest import listed_place
from indexer.sources.remote import is_url, url_item
from indexer.sources.shard import COMPRESSED, After, Shard

NAME: Final = "standard input"

_BLOCK: Final = 1 << 16
_MAX_ENTRY: Final = 1 << 16


@dataclass(frozen=True)
class Stream:
    """What standard input brings. It can be read once."""

    file: IO[bytes]
    chosen: Set[str] | None = None

    @property
    def name(self) -> str:
        """See `Source`."""
        return NAME

    def survey(self, fields: Mapping[str, Kind]) -> Survey:
        """Nothing is known before it is read."""
        return Survey(None)

    def items(self, fields: MutableMapping[str, Kind]) -> Iterator[Item]:
        """The photos, see `Source`."""
        head = self.file.read(tarfile.BLOCKSIZE)
        whole = cast("IO[bytes]", After(head, self.file))
        if _is_archive(head):
            return Shard(NAME, lambda: nullcontext(whole), {}, self.chosen).items(fields)
        return map(_listed, _entries(whole, head))


def _listed(entry: bytes) -> Item:
    text = os.fsdecode(entry)
    if is_url(text):
        return url_item(text)
    place = str(listed_place(text))
    return file_item(str(Path(text).absolute()), place, place)


def _entries(file: IO[bytes], head: bytes) -> Iterator[bytes]:
    separator = b"\0" if b"\0" in head else b"\n"
    rest = b""
    while block := file.read(_BLOCK):
        *entries, rest = (rest + block).split(separator)
        yield from filter(None, entries)
        if len(rest) > _MAX_ENTRY:
            raise DataError(f"{NAME} is no tar archive, and no list: an entry has more than {_MAX_ENTRY} bytes")
    if rest:
        yield rest


def _is_archive(head: bytes) -> bool:
    if head.startswith(COMPRESSED):
        return True
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return head == bytes(tarfile.BLOCKSIZE)  # an empty archive
    return True
