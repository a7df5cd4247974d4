"""The float32 rows of an index where they lie: in FAISS's memory, or part by part in a gallery's mapped segments."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Self

import faiss
import numpy as np
import numpy.typing as npt

from indexer.arrangement import Rows
from indexer.regions import GRANULARITIES, REGIONS

Part = Mapping[int, npt.NDArray[np.float32]]
"""Rows of some photos: granularity -> (photos, regions x dim) float32, each array in one piece."""


class StoredRows:
    """Rows of photos that are numbered through all parts. Safe to read from several threads.

    Args:
        parts: one at least, in the order of rows; only the first may be empty.

    Attributes:
        parts: as given.
        starts: (parts + 1,) int64, the first row of each part, and how many rows there are.
        origins: (parts, 3) int64, where in `numbers` the rows of each granularity begin.
        numbers: flat float32 over all memory between the first part and the last, read-only. Most of it may belong to
            nobody: only compiled code that knows its way by `origins` may touch it.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.dim = parts[0][1].shape[1]
        self.starts = np.cumsum([0, *(len(part[1]) for part in parts)])
        self._ends = self.starts[1:]
        places = np.array([[_place(part[g]) for g in GRANULARITIES] for part in parts])
        first, last = places.min(), (places + [[part[g].nbytes for g in GRANULARITIES] for part in parts]).max()
        self.origins = (places - first) // 4
        self.numbers = _memory(int(first), int(last - first) // 4)

    @classmethod
    def of_indices(cls, indices: Mapping[int, Any]) -> Self:
        """Those that flat FAISS indices hold, one index a granularity, until the next photo is added to them."""
        part: dict[int, npt.NDArray[np.float32]] = {}
        for granularity, index in indices.items():
            rows = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
            part[granularity] = rows.reshape(index.ntotal, index.d)
        return cls([part])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def vectors(self, rows: Rows) -> npt.NDArray[np.float32]:
        """(n, 14, dim) float32 embeddings of some photos. More than one part needs numba."""
        if len(self.parts) == 1:
            (part,) = self.parts
            return np.concatenate([part[g][rows].reshape(len(rows), g * g, self.dim) for g in GRANULARITIES], axis=1)
        from indexer.gathered import gather

        found = np.empty((len(rows), REGIONS, self.dim), np.float32)
        gather(self.numbers, self.origins, self.starts, rows, found)
        return found

    def between(self, start: int, stop: int) -> Part:
        """The rows from `start` to before `stop`, copied only where they lie in several parts."""
        first, last = np.searchsorted(self._ends, (start, stop - 1), "right")
        pieces = [
            {g: rows[max(start - begin, 0) : stop - begin] for g, rows in part.items()}
            for part, begin in zip(self.parts[first : last + 1], self.starts[first:], strict=False)
        ]
        return pieces[0] if len(pieces) == 1 else {g: np.concatenate([p[g] for p in pieces]) for g in GRANULARITIES}


def _place(array: npt.NDArray[Any]) -> int:
    place: int = array.__array_interface__["data"][0]
    assert place % 4 == 0, place
    return place


def _memory(first: int, numbers: int) -> npt.NDArray[np.float32]:
    """So many float32 numbers from an address on."""
    interface = {"data": (first, True), "shape": (numbers,), "typestr": "<f4", "version": 3}
    return np.asarray(SimpleNamespace(__array_interface__=interface))
