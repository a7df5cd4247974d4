"""Lower bounds of Eq. (3) over the float32 rows themselves, and the constants that every bound shares."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from indexer.errors import ShapeError
from indexer.regions import REGION_IDS
from indexer.stored_rows import StoredRows

_BLOCK: Final = 4096
"""Photos a step of a pass: a granularity's rows of a block stay in the cache while its regions pass over them."""

UNIT_ROUNDOFF: Final = 2.0**-24
SLACK: Final = 1 + 32 * UNIT_ROUNDOFF
"""More than the relative error of at most 18 float32 roundings: weight, product, root and up to 14 additions."""

LEAST_SHARE: Final = 1e-30
"""Regions below this share of the largest weight are left out of a bound, so that it never meets subnormals."""


def shares_of(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """(..., 14) region weights of queries, none all 0, as shares of each query's largest; those left out are 0."""
    shares = weights / weights.max(axis=-1, keepdims=True)
    return np.where(shares > LEAST_SHARE, shares, 0).astype(np.float32)


@dataclass(frozen=True)
class Bounds:
    """What a scan adds up per region: a lower bound of Eq. (3) over `unit`, in float32, for rows x and a probe y.

    With c = x.y the squared distance is s = |x|^2 + |y|^2 - 2c. The rows are unit only up to rounding, so |x|^2 is
    not taken for 1: every gallery row obeys m <= |x|^2 <= M^2 with m and M measured per region, hence
    s >= m + |y|^2 - 2c. Float32 gives c up to (dim + 1)u M|y| (u = 2^-24, any order of summation, FMA or not), and
    the base and the difference round by at most 3u (M + |y|)^2 more. Taking

        base = m + |y|^2 - error,    error = 2 (dim + 1)u M|y| + 4u (M + |y|)^2

    makes max(base - 2c, 0) a lower bound of s in spite of float32, and its root one of the distance. For unit rows
    and dim 16 the error is 3e-6 in s: 1.7e-3 in the distance at worst (at 0), 2e-6 at a distance of 1. The roundings
    of root, weight and sum are relative, see `SLACK`. An upper bound follows from root(a + b) <= root(a) + root(b):
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
        error = UNIT_ROUNDOFF * (2 * (probe.shape[1] + 1) * products + 4 * longest**2)
        regions = tuple(np.flatnonzero(shares > LEAST_SHARE).tolist())
        gap = float(shares @ np.sqrt(most - least + 2 * error))
        base = (least + square - error).astype(np.float32)
        return cls(regions, base, shares.astype(np.float32), unit, gap)

    def lower(self, stored: StoredRows, probe: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(photos,) float32 lower bounds over `unit`; regions without weight are never read.

        Args:
            stored: of all photos.
            probe: (14, dim) float32, the one of `of`.
        """
        photos, dim = len(stored), probe.shape[1]
        total = np.zeros(photos, np.float32)
        turned = probe * np.float32(-2)  # exact: a power of two
        for block in blocks_of(photos):
            for granularity, rows in stored.between(block.start, block.stop).items():
                first = REGION_IDS[granularity].start
                for region in self.regions:
                    if region not in REGION_IDS[granularity]:
                        continue
                    column = (region - first) * dim
                    term = rows[:, column : column + dim] @ turned[region]
                    term += self.base[region]
                    np.maximum(term, 0, out=term)
                    np.sqrt(term, out=term)
                    term *= self.shares[region]
                    total[block] += term
        return total


def blocks_of(photos: int) -> Iterator[slice]:
    """The photos in pieces that a cache holds."""
    for start in range(0, photos, _BLOCK):
        yield slice(start, start + _BLOCK)


def norm_range(embeddings: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(14,) float64 least and greatest squared norm of each region of (photos, 14, dim) embeddings, one at least.

    Raises:
        ShapeError: a row holds NaN or infinity.
    """
    squares = np.einsum("prd,prd->pr", embeddings, embeddings, dtype=np.float64)
    if not np.isfinite(squares).all():
        raise ShapeError("embeddings must hold finite numbers, got NaN or infinity; the encoder is broken")
    return squares.min(axis=0), squares.max(axis=0)
