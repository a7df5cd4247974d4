"""What every source yields, and what a source is."""

import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NoReturn, Protocol

from indexer.errors import ImageError
from indexer.metadata import Kind, Value


@dataclass(frozen=True)
class Item:
    """A photo that a source offers. Nothing of it is read before `read` is called.

    Args:
        name: what reports call it: the source's own name and the place in it, with suffix: "photos/anna/front.jpg".
            Holds no path of this machine above the source.
        photo_id: the id it should have.
        read: its bytes, read anew by every call; may be pickled and called in another thread or process. Raises
            ImageError where they cannot be had.
        has_own_id: the id was given by the caller and names this photo whatever its content; otherwise it was made
            from the place, and grows where another photo has it.
        metadata: field -> value, or None to take an earlier value away.
        kinds: the kinds of these fields.
        locator: "path" or "url" of the photo, for a list of what failed; empty where it cannot be read again.
        held_bytes: how much of memory the item takes until it has been read; 0 where it lies elsewhere.
    """

    name: str
    photo_id: str
    read: Callable[[], bytes]
    has_own_id: bool = False
    metadata: Mapping[str, Value | None] = field(default_factory=dict)
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    locator: Mapping[str, str] = field(default_factory=dict)
    held_bytes: int = 0


@dataclass(frozen=True)
class Survey:
    """What is known of a source before anything is read from it.

    Args:
        total: items it will yield; None where only reading it to the end would tell.
        kinds: metadata fields that its items have.
    """

    total: int | None
    kinds: Mapping[str, Kind] = field(default_factory=dict)


class Source(Protocol):
    """Photos from one place, in an order that is the same in every run."""

    @property
    def name(self) -> str:
        """What messages call it; no path of this machine."""

    def survey(self, fields: Mapping[str, Kind]) -> Survey:
        """Look the source over, so that what is wrong with it is said before any photo is stored.

        Args:
            fields: the metadata fields that the gallery has.

        Raises:
            DataError: it is missing or does not hold.
        """

    def items(self, fields: MutableMapping[str, Kind]) -> Iterator[Item]:
        """The photos, each when it is asked for. What is wrong with one of them is raised by its `read`.

        Args:
            fields: the metadata fields that the gallery has. A source that finds others only now adds them, so that
                the next source knows.

        Where `survey` told a total, this can be called again and begins anew; otherwise the source is used up.

        Raises:
            DataError: it cannot be listed.
        """


@dataclass(frozen=True)
class Several:
    """Sources one after the other."""

    name: str
    sources: Sequence[Source]

    def survey(self, fields: Mapping[str, Kind]) -> Survey:
        """All of them together."""
        kinds: dict[str, Kind] = {}
        total: int | None = 0
        for source in self.sources:
            found = source.survey({**fields, **kinds})
            kinds |= found.kinds
            total = None if total is None or found.total is None else total + found.total
        return Survey(total, kinds)

    def items(self, fields: MutableMapping[str, Kind]) -> Iterator[Item]:
        """The photos, see `Source`."""
        return chain.from_iterable(source.items(fields) for source in self.sources)


def place_id(place: str) -> str:
    """The id of a photo at a place inside its source, parts parted by "/": the path without suffix.

    Example:
        >>> place_id("anna/front.left.jpg")
        'anna/front.left'
    """
    return as_text(place.removesuffix(_suffix(place)))


def possible_ids(item: Item) -> tuple[str, ...]:
    """The ids that an item can have, shortest first, as long as no more than three photos want the same.

    Example:
        >>> possible_ids(Item("faces/anna.png", "anna", bytes))
        ('anna', 'anna.png', 'faces/anna.png')
        >>> possible_ids(Item("people.csv line 2", "0031", bytes, has_own_id=True))
        ('0031',)
    """
    if item.has_own_id:
        return (item.photo_id,)
    return item.photo_id, item.photo_id + _suffix(item.name), item.name


def _suffix(place: str) -> str:
    """With its dot; "" where the last part of the place begins or ends with its only one."""
    name = place[place.rfind("/") + 1 :]
    dot = name.rfind(".")
    return name[dot:] if 0 < dot < len(name) - 1 else ""


def as_text(name: str) -> str:
    """A file name as text that can be stored and printed: bytes that are no UTF-8 appear as U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


def refuse(reason: str) -> NoReturn:
    """What `read` does of an item that its source can list but not give.

    Raises:
        ImageError: always.
    """
    raise ImageError(reason)
