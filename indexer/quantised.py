"""A gallery in one byte a number: small enough to read whole at every stroke, with a proven error.

Photos lie in blocks of 64, photo index innermost, region by region and so granularity by granularity: a scan reads the
inked regions front to back and nothing else. The arrays are plain memory without pointers, so they can be mapped from
a file. `bounds` gives lower bounds of Eq. (3); `indexer.granular` ranks in float64 what they cannot rule out.

Why the bounds hold. Within a region, let x be a photo's row, y the probe's and m a fixed centre (any will do; the mean
makes the numbers small). A block stores x - m as integers q in -127..127 times a step h, both known exactly, and the
largest |x - m - hq| of its photos as e. A probe becomes integers p of 12 bits times a step g, f = |y - m - gp|.
Distances do not change when both sides are moved, so the triangle inequality gives

    |x - y| >= |hq - gp| - e - f
    |hq - gp|^2 = |hq|^2 + |gp|^2 - 2hg q.p >= n + |gp|^2 - 2hg q.p

where n is |hq|^2 rounded down to one of 256 steps between the block's least and greatest. q.p is computed in integers,
exactly: p is made so small that 32 bits hold it. (Stored is q + 128; the sum starts from -128 times that of all p. On
the way it may wrap around, which a sum of integers survives.) The rest of the right side s is computed in float32
(u = 2^-24), with or without fused multiply-adds, in some eight operations on numbers no larger than (Z + |gp|)^2, Z
being the longest hq; each is off by at most u times that, and taking

    error = 16 u (Z + |gp|)^2

off |gp|^2 keeps s a lower bound. `indexer.kernels` takes roots no larger than the true ones (but for s below 2^-100, so
each may be too large by 2^-50). The weighted roots are summed apart from the weighted e: their roundings are relative
(`indexer.bounds.SLACK`), and e is stored larger by more than that, so the difference never exceeds the true distance
times SLACK.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from indexer.bounds import UNIT_ROUNDOFF
from indexer.kernels import BLOCK, GROUP, MOST, ZERO, encode, packed, scan_blocks
from indexer.regions import REGIONS
from indexer.sharing import Helpers

BATCH: Final = 32
"""Queries that share a scan: their partial sums and a block's rows fit into 32 KB of cache together."""

_LEVELS: Final = 127
_LEAST_STEP: Final = 2.0**-60
"""Keeps steps and their squares away from float32's subnormals; far below what a unit row can show."""

_LARGER: Final = 1 + 2.0**-18
"""What stored errors are multiplied by, to stay above the roundings of their sums in float32."""

_TASKS: Final = 16
"""Parts of a scan a thread: so that none waits long for the last one to end."""

_TASK: Final = 128
"""Blocks a thread scans at least: below a tenth of a millisecond handing over costs more than it gains."""


@dataclass(frozen=True, eq=False)
class Queries:
    """What `indexer.kernels.scan_blocks` takes per query; its docstring says what they are."""

    probes: npt.NDArray[np.uint32]
    starts: npt.NDArray[np.int32]
    bases: npt.NDArray[np.float32]
    steps: npt.NDArray[np.float32]
    shares: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.probes)

    def __getitem__(self, part: slice) -> Self:
        return type(self)(*(array[part] for array in self.arrays()))

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """In the order in which the scan takes them."""
        return self.probes, self.starts, self.bases, self.steps, self.shares, self.offsets


class QuantisedGallery:
    """The quantised copy of a gallery, empty until photos are written.

    Args:
        centre: (14, dim) float32, what rows are measured from; near their mean for small errors.
    """

    def __init__(self, centre: npt.NDArray[np.float32]) -> None:
        self.centre = centre
        self._width = -(-centre.shape[1] // GROUP) * GROUP
        self._photos = 0
        self._everyone = np.empty(0, np.uint64)
        self._codes = np.zeros((REGIONS, 0, (self._width + 1) * BLOCK), np.uint8)
        self._heads = np.zeros((REGIONS, 0, 4), np.float32)
        self._longest = np.zeros(REGIONS)

    def __len__(self) -> int:
        return self._photos

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The copy that gave its `arrays`; they may be mapped from files, and then it must not be written to."""
        quantised = cls(arrays["centre"])
        quantised._codes, quantised._heads = arrays["codes"], arrays["heads"]
        quantised._longest = arrays["longest"]
        quantised._set_photos(int(arrays["photos"]))
        return quantised

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that the copy is, by name."""
        blocks = len(self._everyone)
        return {
            "centre": self.centre,
            "codes": self._codes[:, :blocks],
            "heads": self._heads[:, :blocks],
            "longest": self._longest,
            "photos": np.array(self._photos),
        }

    def copied(self, photos: int) -> Self:
        """A copy that has room for so many photos in all; searches may run on this one meanwhile."""
        copy, blocks = type(self).of_arrays(self.arrays()), -(-photos // BLOCK)
        copy._codes, copy._heads = _widened(copy._codes, blocks), _widened(copy._heads, blocks)
        return copy

    @property
    def nbytes(self) -> int:
        """Memory of the copy."""
        return self._codes.nbytes + self._heads.nbytes

    def reserve(self, photos: int) -> None:
        """Make room for so many photos in all."""
        blocks, held = -(-photos // BLOCK), self._codes.shape[1]
        if blocks <= held:
            return
        # An eighth more than before: growing batch by batch stays cheap, and the memory within an eighth of the need.
        room = max(blocks, held + held // 8)
        self._codes, self._heads = _widened(self._codes, room), _widened(self._heads, room)

    def write(self, first: int, embeddings: npt.NDArray[np.float32]) -> None:
        """Put rows `first` and following, to the end of the gallery; `first` is a multiple of 64 within it.

        A last block that is not full is written anew when photos are added to it.
        """
        assert first <= self._photos, (first, self._photos)
        self.reserve(first + len(embeddings))
        self.end_at(first + len(embeddings), self.encode(first, embeddings))

    def encode(self, first: int, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Encode rows `first` and following, where room is reserved; others may be encoded at the same time.

        Args:
            first: a multiple of 64.
            embeddings: (photos, 14, dim) float32; as many as whole blocks hold, or up to the gallery's last.

        Returns:
            (14,) what `end_at` is to know of them.
        """
        assert first % BLOCK == 0, first
        rows, into = np.ascontiguousarray(embeddings), (self._codes, self._heads)
        squares = [
            encode(rows, self.centre, region, first // BLOCK, _LEVELS, _LEAST_STEP, _LARGER, *into)
            for region in range(REGIONS)
        ]
        return np.sqrt(squares)

    def end_at(self, photos: int, longest: npt.NDArray[np.float64]) -> None:
        """Let so many photos, all encoded, be the gallery; `longest` is the greatest that `encode` gave, by region."""
        self._longest = np.maximum(self._longest, longest)
        self._set_photos(photos)

    def _set_photos(self, photos: int) -> None:
        self._photos = photos
        self._everyone = np.full(-(-self._photos // BLOCK), ~np.uint64(0))
        if last := self._photos % BLOCK:
            self._everyone[-1] = (1 << last) - 1

    def bounds(
        self,
        queries: Queries,
        blocks: npt.NDArray[np.int64],
        words: npt.NDArray[np.uint64] | None = None,
        helpers: Helpers | None = None,
    ) -> npt.NDArray[np.float32]:
        """(queries, n) float32: the least bound of each of some blocks; infinite where no photo takes part.

        Args:
            queries: at most `BATCH` of them, as `prepared`.
            blocks: (n,) int64.
            words: (all blocks,) uint64 of `words`; all photos take part if None.
            helpers: to share the work with; the result does not depend on them.
        """
        words = self._everyone if words is None else words
        nothing = np.empty((len(queries), 0, BLOCK), np.float32)
        least = np.empty((len(queries), len(blocks)), np.float32)
        parts = 1 if helpers is None else max(1, min(_TASKS * helpers.threads, len(blocks) // _TASK))
        edges = np.linspace(0, len(blocks), parts + 1).astype(int)

        def scan(part: int) -> None:
            some = slice(edges[part], edges[part + 1])
            # In one piece: for columns of a larger array the scan would be compiled anew, under the first batch.
            found = np.empty((len(queries), edges[part + 1] - edges[part]), np.float32)
            scan_blocks(self._codes, self._heads, words, blocks[some], *queries.arrays(), found, nothing)
            least[:, some] = found

        if helpers is None:
            scan(0)
        else:
            helpers.share(parts, scan)
        return least

    def photo_bounds(
        self, query: Queries, blocks: npt.NDArray[np.int64], words: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.float32]:
        """(n, 64) float32 bounds of every photo of some blocks, for the only one of `query`; arguments as `bounds`."""
        least = np.empty((1, len(blocks)), np.float32)
        lower = np.empty((1, len(blocks), BLOCK), np.float32)
        scan_blocks(self._codes, self._heads, words, blocks, *query.arrays(), least, lower)
        return lower.reshape(len(blocks), BLOCK)

    def words(self, allowed: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.uint64]:
        """(blocks,) uint64 bitmap of the photos that take part: all of them, or the (photos,) bool allowed."""
        return self._everyone if allowed is None else _bitmap(allowed)

    def covers(self, others: Sequence[Self]) -> None:
        """Make the queries that it prepares fit other galleries, too, that are measured from the same centre."""
        assert all(np.array_equal(other.centre, self.centre) for other in others)
        self._longest = np.max([self._longest, *(other._longest for other in others)], axis=0)

    def prepared(self, probes: npt.NDArray[np.float32], shares: npt.NDArray[np.float32]) -> Queries:
        """Queries as the scan takes them.

        Args:
            probes: (queries, 14, dim) float32, no row longer than 1000.
            shares: (queries, 14) float32, the regions' weights, at most 1.
        """
        centred = np.zeros((len(probes), REGIONS, self._width))
        centred[:, :, : probes.shape[2]] = probes.astype(np.float64) - self.centre
        levels = min(MOST, (2**31 - 1) // (_LEVELS * self._width))
        steps = np.maximum(np.abs(centred).max(axis=2) / levels, _LEAST_STEP).astype(np.float32)
        coded = np.clip(np.rint(centred / steps[:, :, None].astype(np.float64)), -levels, levels)
        moved = coded * steps[:, :, None].astype(np.float64)
        square = np.einsum("qrd,qrd->qr", moved, moved)
        error = 16 * UNIT_ROUNDOFF * (self._longest + np.sqrt(square)) ** 2
        missed = np.linalg.norm(centred - moved, axis=2) * _LARGER + 2.0**-49
        offsets = np.einsum("qr,qr->q", shares.astype(np.float64), missed)
        starts = (-ZERO * coded.sum(axis=2)).astype(np.int64).astype(np.int32)  # the second wraps around
        bases = (square - error).astype(np.float32)
        return Queries(packed(coded), starts, bases, steps, shares, offsets.astype(np.float32))


def _widened(part: npt.NDArray[Any], blocks: int) -> npt.NDArray[Any]:
    larger = np.zeros((part.shape[0], blocks, *part.shape[2:]), part.dtype)
    larger[:, : part.shape[1]] = part
    return larger


def _bitmap(taking: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    padded = np.zeros(-(-len(taking) // BLOCK) * BLOCK, np.bool_)
    padded[: len(taking)] = taking
    return np.packbits(padded, bitorder="little").view("<u8").astype(np.uint64, copy=False)
