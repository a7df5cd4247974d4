"""One FAISS index per granularity, searched exactly: the same rows in the same order as `indexer.exact`.

FAISS holds the vectors, one row a photo: `dim` numbers for the whole face, 4 x dim and 9 x dim for the grids. It never
ranks, because its float32 distances lose digits near 0 and its fused lists would miss photos. A search only asks which
photos can be left out, by a proven lower bound of Eq. (3) (`_Bounds`), and ranks the rest in float64. There are two
ways to ask: a scan over the stored rows (CPU), or inner-product lists with a stop certificate (`indexer.lists`, GPU).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import faiss
import numpy as np
import numpy.typing as npt

from indexer.errors import ShapeError
from indexer.exact import check_query
from indexer.fusion import EQUAL_WEIGHTS, fused_distance, region_weights
from indexer.lists import FaissLists
from indexer.regions import GRANULARITIES, REGION_IDS, REGIONS

_UNIT_ROUNDOFF: Final = 2.0**-24
_SLACK: Final = 1 + 32 * _UNIT_ROUNDOFF
"""More than the relative error of at most 18 float32 roundings: weight, product, root and up to 14 additions."""

_LEAST_SHARE: Final = 1e-30
"""Regions below this share of the largest weight are left out of the bound, so that it never meets subnormals."""

_BLOCK: Final = 4096
"""Photos a step of the scan: a granularity's rows of a block stay in the cache while its regions pass over them."""


@dataclass(frozen=True)
class _Bounds:
    """What a scan adds up per region: a lower bound of Eq. (3) over `unit`, in float32, for rows x and a probe y.

    With c = x.y the squared distance is s = |x|^2 + |y|^2 - 2c. The rows are unit only up to rounding, so |x|^2 is
    not taken for 1: every gallery row obeys m <= |x|^2 <= M^2 with m and M measured per region, hence
    s >= m + |y|^2 - 2c. Float32 gives c up to (dim + 1)u M|y| (u = 2^-24, any order of summation, FMA or not), and
    the base and the difference round by at most 3u (M + |y|)^2 more. Taking

        base = m + |y|^2 - error,    error = 2 (dim + 1)u M|y| + 4u (M + |y|)^2

    makes max(base - 2c, 0) a lower bound of s in spite of float32, and its root one of the distance. For unit rows
    and dim 16 the error is 3e-6 in s: 1.7e-3 in the distance at worst (at 0), 2e-6 at a distance of 1. The roundings
    of root, weight and sum are relative, see `_SLACK`. An upper bound follows from root(a + b) <= root(a) + root(b):
    s <= base - 2c + gap with gap = M^2 - m + 2 error.
    """

    regions: tuple[int, ...]
    base: npt.NDArray[np.float32]
    shares: npt.NDArray[np.float32]
    unit: float
    gap: float

    @classmethod
    def of(
        cls,
        probe: npt.NDArray[np.float32],
        weights: npt.NDArray[np.float64],
        least: npt.NDArray[np.float64],
        most: npt.NDArray[np.float64],
    ) -> Self:
        """Args are one query's probe and (14,) weights, not all 0, and the (14,) extremes of the squared norms."""
        unit = float(weights.max())
        shares = weights / unit
        square = np.einsum("rd,rd->r", probe, probe, dtype=np.float64)
        longest = np.sqrt(most) + np.sqrt(square)
        products = np.sqrt(most * square)
        error = _UNIT_ROUNDOFF * (2 * (probe.shape[1] + 1) * products + 4 * longest**2)
        regions = tuple(np.flatnonzero(shares > _LEAST_SHARE).tolist())
        gap = float(shares @ np.sqrt(most - least + 2 * error))
        base = (least + square - error).astype(np.float32)
        return cls(regions, base, shares.astype(np.float32), unit, gap)


class GranularIndex:
    """The embeddings of a gallery in one `faiss.IndexFlatIP` per granularity, searched exactly.

    Searches may run at the same time; `add` may not run beside them.

    Args:
        dim: numbers per region.
        device: "cpu", or "cuda" to keep a copy of the FAISS indices on the first GPU, which then proposes.
        use_lists: ask lists instead of a scan which photos to rank; by default so on a GPU only.
    """

    def __init__(self, dim: int, *, device: str = "cpu", use_lists: bool | None = None) -> None:
        self.dim = dim
        self.device = device
        self._indices: dict[int, Any] = {g: faiss.IndexFlatIP(dim * g * g) for g in GRANULARITIES}
        self._rows = {g: np.empty((0, dim * g * g), np.float32) for g in GRANULARITIES}
        self._least = np.full(REGIONS, np.inf)
        self._most = np.zeros(REGIONS)
        wants_lists = device != "cpu" if use_lists is None else use_lists
        self._lists = FaissLists.build(self._indices, device) if wants_lists else None

    @classmethod
    def build(cls, embeddings: npt.NDArray[np.float32], *, device: str = "cpu", use_lists: bool | None = None) -> Self:
        """An index of (photos, 14, dim) embeddings."""
        index = cls(embeddings.shape[-1], device=device, use_lists=use_lists)
        index.add(embeddings)
        return index

    def __len__(self) -> int:
        return len(self._rows[1])

    def add(self, embeddings: npt.NDArray[np.float32]) -> None:
        """Append (photos, 14, dim) float32 rows, unit up to rounding; row numbers go on from the last photo.

        Raises:
            ShapeError: another shape, or NaN or infinity.
        """
        if embeddings.ndim != 3 or embeddings.shape[1:] != (REGIONS, self.dim):
            raise ShapeError(f"embeddings must be (photos, {REGIONS}, {self.dim}), got {embeddings.shape}")
        if not len(embeddings):
            return
        squares = np.einsum("prd,prd->pr", embeddings, embeddings, dtype=np.float64)
        if not np.isfinite(squares).all():
            raise ShapeError("embeddings must hold finite numbers, got NaN or infinity; the encoder is broken")
        self._least = np.minimum(self._least, squares.min(axis=0))
        self._most = np.maximum(self._most, squares.max(axis=0))
        for granularity, index in self._indices.items():
            ids = REGION_IDS[granularity]
            rows = np.ascontiguousarray(embeddings[:, ids.start : ids.stop], np.float32).reshape(len(embeddings), -1)
            index.add(rows)
            if self._lists is not None:
                self._lists.add(granularity, rows)
            # FAISS may have moved its storage: the views must follow.
            stored = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
            self._rows[granularity] = stored.reshape(index.ntotal, index.d)

    def vectors(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """(n, 14, dim) float32 embeddings of some photos."""
        parts = [self._rows[g][rows].reshape(len(rows), -1, self.dim) for g in GRANULARITIES]
        return np.concatenate(parts, axis=1)

    def search(
        self,
        probe: npt.NDArray[np.float32],
        ink: npt.NDArray[np.bool_],
        k: int,
        weights: Mapping[int, float] = EQUAL_WEIGHTS,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The k nearest photos; arguments, results, order and errors are those of `indexer.exact.exact_search`."""
        check_query(probe, self.dim, k)
        per_region = region_weights(ink, weights)
        k = min(k, len(self))
        if not k or not per_region.any():
            return np.arange(k), np.zeros(k)
        if self._lists is not None:
            norms = self._least, self._most
            for candidates, unseen_from in self._lists.widening(probe, per_region, k, norms):
                found = self._rank(candidates, probe, ink, k, weights)
                if len(candidates) == len(self) or found[1][-1] < unseen_from:
                    return found
        bounds = _Bounds.of(probe, per_region, self._least, self._most)
        lower = self._scan(probe, bounds)
        # The k photos of least bound give a distance that the true k-th cannot exceed.
        guess = np.argpartition(lower, k - 1)[:k]
        reach = self._distances(guess, probe, ink, weights).max() / bounds.unit
        candidates = np.flatnonzero(lower <= reach * _SLACK)
        return self._rank(candidates, probe, ink, k, weights)

    def rank(
        self,
        row: int,
        probe: npt.NDArray[np.float32],
        ink: npt.NDArray[np.bool_],
        weights: Mapping[int, float] = EQUAL_WEIGHTS,
    ) -> int:
        """1-based rank of one photo, ties counted against it: how many photos are as near as it is, itself included.

        Raises:
            ShapeError, QueryError: as `search`.
        """
        check_query(probe, self.dim, k=1)
        per_region = region_weights(ink, weights)
        if not per_region.any():
            return len(self)
        own = self._distances(np.array([row]), probe, ink, weights)[0]
        bounds = _Bounds.of(probe, per_region, self._least, self._most)
        lower = self._scan(probe, bounds)
        reach = own / bounds.unit
        nearer = (lower + bounds.gap) * _SLACK < reach
        unsure = np.flatnonzero(~nearer & (lower <= reach * _SLACK))
        return int(nearer.sum() + (self._distances(unsure, probe, ink, weights) <= own).sum())

    def _scan(self, probe: npt.NDArray[np.float32], bounds: _Bounds) -> npt.NDArray[np.float32]:
        """(photos,) float32 lower bounds of Eq. (3) over `bounds.unit`; regions without weight are never read."""
        total = np.zeros(len(self), np.float32)
        turned = probe * np.float32(-2)  # exact: a power of two
        for block in _blocks(len(self)):
            for granularity, rows in self._rows.items():
                first = REGION_IDS[granularity].start
                for region in bounds.regions:
                    if region not in REGION_IDS[granularity]:
                        continue
                    column = (region - first) * self.dim
                    term = rows[block, column : column + self.dim] @ turned[region]
                    term += bounds.base[region]
                    np.maximum(term, 0, out=term)
                    np.sqrt(term, out=term)
                    term *= bounds.shares[region]
                    total[block] += term
        return total

    def _distances(
        self,
        rows: npt.NDArray[np.int64],
        probe: npt.NDArray[np.float32],
        ink: npt.NDArray[np.bool_],
        weights: Mapping[int, float],
    ) -> npt.NDArray[np.float64]:
        """(n,) float64 reference distances of some photos."""
        blocks = [
            fused_distance(probe, self.vectors(rows[block]), ink, weights) for block in _blocks(max(len(rows), 1))
        ]
        return np.concatenate(blocks)

    def _rank(
        self,
        candidates: npt.NDArray[np.int64],
        probe: npt.NDArray[np.float32],
        ink: npt.NDArray[np.bool_],
        k: int,
        weights: Mapping[int, float],
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The k nearest of some photos, given in ascending order of rows, so that a stable sort breaks ties by row."""
        distances = self._distances(candidates, probe, ink, weights)
        best = np.argsort(distances, kind="stable")[:k]
        return candidates[best], distances[best]


def _blocks(photos: int) -> Iterator[slice]:
    for start in range(0, photos, _BLOCK):
        yield slice(start, start + _BLOCK)
