"""What becomes of a photo that a source offers: which id it gets, and whether the gallery has it already.

A photo is its content. An id that its caller gave names one photo whatever its content is, and another content under
it takes the place of the former. An id that was made from a file's place never takes another photo's: it grows until
it is free.
"""

from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, count

from indexer.register import Register
from indexer.sources.item import Item, possible_ids
from indexer.store import StoreWriter


class Duplicates(StrEnum):
    """What to do with a photo that the gallery has under another name."""

    SKIP = "skip"
    ALIAS = "alias"
    KEEP = "keep"


class Fate(StrEnum):
    """What became of a photo."""

    ADDED = "added"
    REPLACED = "replaced"
    ALREADY_THERE = "already there"
    DUPLICATE = "duplicate"
    ALIASED = "aliased"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Outcome:
    """What became of a photo.

    Args:
        item: the photo.
        fate: what became of it.
        photo_id: its id in the gallery; empty where it has none.
        of: the photo that it is a duplicate or an alias of.
        reason: why it was skipped.
    """

    item: Item
    fate: Fate
    photo_id: str = ""
    of: str = ""
    reason: str = ""


class Placer:
    """Decides on photos one after the other, and remembers what it decided."""

    def __init__(self, store: StoreWriter, duplicates: Duplicates) -> None:
        self.register = Register(store.names())
        self._store = store
        self._duplicates = duplicates
        self._given = Register(())
        self._unwritten: dict[bytes, list[tuple[str, str]]] = {}

    def place(self, item: Item, content_hash: bytes) -> Outcome:
        """What is to become of the next photo. The caller does it, or ends without asking again.

        Args:
            item: the photo.
            content_hash: SHA-256 of its file.
        """
        is_given = item.has_own_id and self._given.has_id(item.photo_id)
        if is_given and not self._given.has(item.photo_id, content_hash):
            reason = f"another photo of this job has the id {item.photo_id[:80]!r}; an id may be given once"
            return Outcome(item, Fate.SKIPPED, reason=reason)
        outcome = self._found(item, content_hash) or self._new(item)
        if given := item.photo_id if item.has_own_id else outcome.photo_id:
            self._given.put(given, content_hash)
        if outcome.fate in (Fate.ADDED, Fate.REPLACED, Fate.ALIASED):
            self.register.put(outcome.photo_id, content_hash)
            self._unwritten.setdefault(content_hash, []).append((outcome.photo_id, item.name))
        return outcome

    def has(self, item: Item, content_hash: bytes) -> bool:
        """Whether `place` would find the photo, so that nothing of it needs to be decoded."""
        return self._found(item, content_hash) is not None

    def is_unwritten(self, content_hash: bytes) -> bool:
        """Whether a photo of this content was placed that is not durable yet."""
        return content_hash in self._unwritten

    def written(self) -> None:
        """Note that everything placed so far is in the store."""
        self._unwritten.clear()

    def _found(self, item: Item, content_hash: bytes) -> Outcome | None:
        """What becomes of a content that is there; None where it is to be stored."""
        if not self.register.has_content(content_hash):
            return None
        for photo_id in possible_ids(item):
            for name in (photo_id, f"{photo_id}#1"):  # the first of several faces
                if self.register.has(name, content_hash):
                    return Outcome(item, Fate.ALREADY_THERE, name)
        known = self._store.names_of(content_hash) + self._unwritten.get(content_hash, [])
        # Names that the store still has may stand for another content by now, which is not written yet.
        there = [(name, source) for name, source in known if self.register.has(name, content_hash)]
        if not there:  # the digests are those of another content
            return None
        if item.has_own_id:
            if self.register.has_id(item.photo_id):
                return None  # the id names what its caller says, even where that is another photo's content
        else:
            for photo_id, source in there:
                if source == item.name:
                    return Outcome(item, Fate.ALREADY_THERE, photo_id)
        match self._duplicates:
            case Duplicates.SKIP:
                return Outcome(item, Fate.DUPLICATE, of=there[0][0])
            case Duplicates.ALIAS:
                return Outcome(item, Fate.ALIASED, self._free_id(item), of=there[0][0])
            case Duplicates.KEEP:
                return None

    def _new(self, item: Item) -> Outcome:
        if item.has_own_id and self.register.has_id(item.photo_id):
            return Outcome(item, Fate.REPLACED, item.photo_id)
        return Outcome(item, Fate.ADDED, self._free_id(item))

    def _free_id(self, item: Item) -> str:
        """The shortest id of an item that no photo has."""
        if not self.register.has_id(item.photo_id):
            return item.photo_id
        numbered = (f"{item.name}~{number}" for number in count(2))
        return next(name for name in chain(possible_ids(item), numbered) if not self.register.has_id(name))
