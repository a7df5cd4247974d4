"""A gallery in one byte a number: small enough to read whole at every stroke, with a proven error.

Photos lie in blocks of 64, photo index innermost, region by region, one array per granularity: a scan reads the inked
regions front to back and nothing else. The arrays are plain memory without pointers, so they can be mapped from a file.
`bounds` gives lower bounds of Eq. (3); `indexer.granular` ranks in float64 what they cannot rule out.

Why the bounds hold. Within a region, let x be a photo's row, y the probe's and m a fixed centre (any will do; the mean
makes the numbers small). A block stores z = x - m as integers q in -127..127 times a step h, both known exactly, and
the largest |z - hq| of its photos as e. Distances do not change when both sides are moved, so with v = float32(y - m)
the triangle inequality gives

    |x - y| >= |hq - v| - e - u|v|            (u = 2^-24: the rounding of v)
    |hq - v|^2 = |hq|^2 + |v|^2 - 2h q.v >= n + |v|^2 - 2h q.v

where n is |hq|^2 rounded down to one of 256 steps between the block's least and greatest. The scan computes the right
side s in float32, in any order and with or without fused multiply-adds: q.v (width products and sums) is off by at
most (width + 1)u |q||v|, and the rest by a few u of numbers no larger than (Z + |v|)^2, Z being the longest hq. Taking

    error = u (2 (width + 2) Z|v| + 8 (Z + |v|)^2)

off |v|^2 keeps s a lower bound. The weighted roots are summed apart from the weighted e: their roundings are relative
(`indexer.bounds.SLACK`), and e is stored larger by more than that, so the difference never exceeds the true distance
times SLACK.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from indexer.bounds import UNIT_ROUNDOFF
from indexer.kernels import BLOCK, GROUP, scan_blocks
from indexer.regions import GRANULARITIES, REGION_IDS, REGIONS

BATCH: Final = 32
"""Queries that share a scan: their partial sums and a block's rows fit into 32 KB of cache together."""

_LEVELS: Final = 127
_LEAST_STEP: Final = 2.0**-60
"""Keeps steps and their squares away from float32's subnormals; far below what a unit row can show."""

_TASK: Final = 128
"""Blocks a thread scans at least: below a tenth of a millisecond handing over costs more than it gains."""


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
        self._codes = {g: np.zeros((g * g, 0, (self._width + 1) * BLOCK), np.int8) for g in GRANULARITIES}
        self._heads = {g: np.zeros((g * g, 0, 4), np.float32) for g in GRANULARITIES}
        self._longest = np.zeros(REGIONS)

    def __len__(self) -> int:
        return self._photos

    @property
    def nbytes(self) -> int:
        """Memory of the copy."""
        return sum(part.nbytes for parts in (self._codes, self._heads) for part in parts.values())

    def reserve(self, photos: int) -> None:
        """Make room for so many photos in all."""
        blocks, held = -(-photos // BLOCK), self._codes[1].shape[1]
        if blocks <= held:
            return
        # An eighth more than before: growing batch by batch stays cheap, and the memory within an eighth of the need.
        room = max(blocks, held + held // 8)
        for granularity in GRANULARITIES:
            self._codes[granularity] = _widened(self._codes[granularity], room)
            self._heads[granularity] = _widened(self._heads[granularity], room)

    def write(self, first: int, embeddings: npt.NDArray[np.float32]) -> None:
        """Put rows `first` and following, to the end of the gallery; `first` is a multiple of 64 within it.

        A last block that is not full is written anew when photos are added to it.
        """
        assert first % BLOCK == 0, first
        assert first <= self._photos, (first, self._photos)
        self._photos = first + len(embeddings)
        self.reserve(self._photos)
        self._encode(first // BLOCK, embeddings)
        self._everyone = np.full(-(-self._photos // BLOCK), ~np.uint64(0))
        if last := self._photos % BLOCK:
            self._everyone[-1] = (1 << last) - 1

    def _encode(self, block: int, embeddings: npt.NDArray[np.float32]) -> None:
        blocks = -(-len(embeddings) // BLOCK)
        for granularity, ids in REGION_IDS.items():
            for local, region in enumerate(ids):
                offsets = np.zeros((blocks * BLOCK, self._width))
                offsets[: len(embeddings), : self.centre.shape[1]] = (
                    embeddings[:, region].astype(np.float64) - self.centre[region]
                )
                codes, heads, longest = _quantise(offsets.reshape(blocks, BLOCK, self._width))
                self._codes[granularity][local, block : block + blocks] = codes
                self._heads[granularity][local, block : block + blocks] = heads
                self._longest[region] = max(self._longest[region], longest)

    def bounds(
        self,
        probes: npt.NDArray[np.float32],
        shares: npt.NDArray[np.float32],
        blocks: npt.NDArray[np.int64],
        words: npt.NDArray[np.uint64] | None = None,
        pool: ThreadPoolExecutor | None = None,
        threads: int = 1,
    ) -> npt.NDArray[np.float32]:
        """(queries, n) float32: the least bound of each of some blocks; infinite where no photo takes part.

        Args:
            probes: (queries, 14, dim) float32, at most `BATCH` of them, no row longer than `LONGEST`.
            shares: (queries, 14) float32, the regions' weights, at most 1.
            blocks: (n,) int64.
            words: (all blocks,) uint64 of `words`; all photos take part if None.
            pool: threads to share the work with; the result does not depend on them.
            threads: how many of them.
        """
        words = self._everyone if words is None else words
        query = self._prepared(probes, shares)
        nothing = np.empty((len(probes), 0, BLOCK), np.float32)
        parts = 1 if pool is None else max(1, min(4 * threads, len(blocks) // _TASK))
        edges = np.linspace(0, len(blocks), parts + 1).astype(int)

        def scan(part: int) -> npt.NDArray[np.float32]:
            some = blocks[edges[part] : edges[part + 1]]
            least = np.empty((len(probes), len(some)), np.float32)
            scan_blocks(*self._arrays(), words, some, *query, least, nothing)
            return least

        found = [scan(0)] if pool is None or parts == 1 else list(pool.map(scan, range(parts)))
        return np.concatenate(found, axis=1)

    def photo_bounds(
        self,
        probe: npt.NDArray[np.float32],
        shares: npt.NDArray[np.float32],
        blocks: npt.NDArray[np.int64],
        words: npt.NDArray[np.uint64],
    ) -> npt.NDArray[np.float32]:
        """(n, 64) float32 bounds of every photo of some blocks, for one query; arguments as `bounds`."""
        least = np.empty((1, len(blocks)), np.float32)
        lower = np.empty((1, len(blocks), BLOCK), np.float32)
        scan_blocks(*self._arrays(), words, blocks, *self._prepared(probe[None], shares[None]), least, lower)
        return lower.reshape(len(blocks), BLOCK)

    def words(self, allowed: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.uint64]:
        """(blocks,) uint64 bitmap of the photos that take part: all of them, or the (photos,) bool allowed."""
        return self._everyone if allowed is None else _bitmap(allowed)

    def _arrays(self) -> tuple[Sequence[npt.NDArray[np.int8]], Sequence[npt.NDArray[np.float32]]]:
        return tuple(self._codes.values()), tuple(self._heads.values())

    def _prepared(
        self, probes: npt.NDArray[np.float32], shares: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], ...]:
        """What the kernel takes per query: centred probes, bases, shares and offsets."""
        centred = np.zeros((len(probes), REGIONS, self._width), np.float32)
        centred[:, :, : probes.shape[2]] = probes - self.centre
        square = np.einsum("qrd,qrd->qr", centred, centred, dtype=np.float64)
        lengths, u = np.sqrt(square), UNIT_ROUNDOFF
        error = u * (2 * (self._width + 2) * self._longest * lengths + 8 * (self._longest + lengths) ** 2)
        offsets = (shares * lengths).sum(axis=1) * (1.01 * u)
        return centred, (square - error).astype(np.float32), shares, offsets.astype(np.float32)


def _widened(part: npt.NDArray[Any], blocks: int) -> npt.NDArray[Any]:
    larger = np.zeros((part.shape[0], blocks, *part.shape[2:]), part.dtype)
    larger[:, : part.shape[1]] = part
    return larger


def _bitmap(taking: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    padded = np.zeros(-(-len(taking) // BLOCK) * BLOCK, np.bool_)
    padded[: len(taking)] = taking
    return np.packbits(padded, bitorder="little").view("<u8").astype(np.uint64, copy=False)


def _quantise(
    offsets: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32], float]:
    """Codes, heads and the longest coded row of one region's (blocks, 64, width) float64 offsets."""
    steps = np.maximum(np.abs(offsets).max(axis=(1, 2)) / _LEVELS, _LEAST_STEP).astype(np.float32).astype(np.float64)
    coded = np.clip(np.rint(offsets / steps[:, None, None]), -_LEVELS, _LEVELS)
    coded_offsets = coded * steps[:, None, None]
    missed = offsets - coded_offsets
    errors = np.sqrt(np.einsum("bpd,bpd->bp", missed, missed).max(axis=1))
    squares = np.einsum("bpd,bpd->bp", coded_offsets, coded_offsets)
    # Rounded towards 0, so that every stored norm stays below the true one; see the clip for the last ulp.
    least = np.maximum(squares.min(axis=1) * (1 - 1e-6), 0).astype(np.float32).astype(np.float64)
    norm_steps = np.maximum((squares.max(axis=1) - least) / 255, _LEAST_STEP**2).astype(np.float32).astype(np.float64)
    levels = np.clip(np.floor((squares - least[:, None]) / norm_steps[:, None] - 1e-9), 0, 255)
    codes = np.concatenate([coded, (levels - 128)[:, :, None]], axis=2).astype(np.int8)
    heads = np.stack([2 * steps, least + 128 * norm_steps, norm_steps, errors * (1 + 2.0**-18)], axis=1)
    return codes.transpose(0, 2, 1).reshape(len(codes), -1), heads.astype(np.float32), float(np.sqrt(squares.max()))
