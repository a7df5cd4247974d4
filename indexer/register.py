"""Which ids and contents a gallery has: what an ingestion job asks for every photo before it decodes it.

Ids and content hashes are kept as 64-bit digests in sorted arrays, 32 bytes a photo where Python's own sets would take
300, so that a job over millions of photos fits beside everything else. What digests alone must not decide (64 bits of
two hashes can be the same) is asked of the store.
"""

from collections.abc import Iterable
from threading import Lock
from typing import Final

import numpy as np
import numpy.typing as npt

_MERGE_AT: Final = 1 << 16
"""Pairs that wait in a dictionary before they are sorted into the arrays."""


class Register:
    """Ids with their contents; a content may have several ids, of copies and aliases. Safe to share between threads."""

    def __init__(self, names: Iterable[tuple[str, bytes]]) -> None:
        """Take what a gallery has.

        Args:
            names: every id with the content hash of its photo.
        """
        pairs = np.fromiter(((hash(photo_id), digest(content)) for photo_id, content in names), "i8,i8")
        self._contents_by_id = _Pairs(pairs["f0"], pairs["f1"])
        self._ids_by_content = _Pairs(pairs["f1"], pairs["f0"])
        self._lock = Lock()

    def has_id(self, photo_id: str) -> bool:
        """Whether a photo has this id."""
        with self._lock:
            return self._content_of(hash(photo_id)) is not None

    def has_content(self, content_hash: bytes) -> bool:
        """Whether a photo has this content, under any id."""
        content = digest(content_hash)
        with self._lock:
            # Where an id got another content, its old pair is still there.
            return any(self._content_of(photo_id) == content for photo_id in self._ids_by_content.get(content))

    def has(self, photo_id: str, content_hash: bytes) -> bool:
        """Whether the photo of this id has this content."""
        with self._lock:
            return self._content_of(hash(photo_id)) == digest(content_hash)

    def put(self, photo_id: str, content_hash: bytes) -> None:
        """Note that the photo of this id has this content from now on."""
        with self._lock:
            self._contents_by_id.put(hash(photo_id), digest(content_hash))
            self._ids_by_content.put(digest(content_hash), hash(photo_id))

    def _content_of(self, photo_id: int) -> int | None:
        contents = self._contents_by_id.get(photo_id)
        return contents[-1] if contents else None


class _Pairs:
    """Keys with their values, in the order in which they were put."""

    def __init__(self, keys: npt.NDArray[np.int64], values: npt.NDArray[np.int64]) -> None:
        self._keys, self._values = _sorted(keys, values)
        self._new: dict[int, list[int]] = {}

    def get(self, key: int) -> list[int]:
        first, end = self._keys.searchsorted(key, "left"), self._keys.searchsorted(key, "right")
        old: list[int] = self._values[first:end].tolist()
        return old + self._new.get(key, [])

    def put(self, key: int, value: int) -> None:
        self._new.setdefault(key, []).append(value)
        if len(self._new) >= _MERGE_AT:
            keys = np.fromiter((key for key, values in self._new.items() for _ in values), np.int64)
            values = np.fromiter((value for values in self._new.values() for value in values), np.int64)
            self._keys, self._values = _sorted(
                np.concatenate([self._keys, keys]), np.concatenate([self._values, values])
            )
            self._new.clear()


def _sorted(
    keys: npt.NDArray[np.int64], values: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    order = np.argsort(keys, kind="stable")
    return keys[order], values[order]


def digest(content_hash: bytes) -> int:
    """64 bits of a content hash, signed."""
    return int.from_bytes(content_hash[:8], "little", signed=True)
