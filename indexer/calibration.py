"""How large a part of a gallery approximate search must look at for the recall that it promises: measured, not assumed.

The queries are photos moved as far as a finished sketch lies from its own photo, with one to all regions inked: fewer
regions tell less, and their nearest photos are scattered over more of the gallery.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from indexer.arrangement import Rows, Vectors
from indexer.fused import Distances
from indexer.fusion import region_distances, region_weights
from indexer.regions import REGION_IDS, REGIONS

SharesUntil = Callable[[npt.NDArray[np.float32], npt.NDArray[np.float64], int, Distances], npt.NDArray[np.float64]]
"""From probes, region weights, k and exact distances to (queries, k, 2): the shares of the groups and of their blocks,
nearest first, with which each of a query's k nearest photos is found, in their order."""

_INKED: Final = (1, 2, 3, 5, 8, REGIONS)
_LENGTHS: Final = (10, 100)
_QUERIES: Final = 256
"""Per number of inked regions: 2,560 of the ten nearest photos."""

_AWAY: Final = 0.7
"""Distance of a query from its photo, over that of two photos: 0.65 to 0.8 for the sketches of FS2K."""

_SEED: Final = 20_240_100


_BLOCKS_LOSE: Final = 0.5
_GROUPS_LOSE: Final = 0.1
"""Parts of the loss that is asked for: what is left is a margin, the queries were a sample. Groups cost little."""


@dataclass(frozen=True)
class Share:
    """How much of a gallery to look at, 0 to 1.

    Args:
        groups: of the groups, to open.
        blocks: of all blocks, to scan.
    """

    groups: float
    blocks: float


@dataclass(frozen=True)
class Calibration:
    """With which shares of the groups and of the blocks true hits were found.

    Args:
        shares: number of inked regions and length of the ranking -> (hits, 2) float64, each column ascending.
    """

    shares: Mapping[tuple[int, int], npt.NDArray[np.float64]]

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[np.float64]]) -> Self:
        """The calibration that gave its `arrays`."""
        keys = {name: tuple(map(int, name.split("-"))) for name in arrays}
        return cls({(keys[name][0], keys[name][1]): shares for name, shares in arrays.items()})

    def arrays(self) -> dict[str, npt.NDArray[np.float64]]:
        """The shares by name: regions and length, such as 14-10."""
        return {f"{inked}-{length}": shares for (inked, length), shares in self.shares.items()}

    def share(self, inked: int, k: float, recall: float) -> Share:
        """What to look at; everything where nothing less was measured to be enough.

        Args:
            inked: regions that count, of `counting`.
            k: length of the ranking, as if the whole gallery took part.
            recall: asked for, 0 to 1.
        """
        lengths = [length for length in _LENGTHS if length >= k]
        counts = [count for count in _INKED if count <= inked]
        if recall >= 1 or not lengths or not counts or (counts[-1], lengths[0]) not in self.shares:
            return Share(1.0, 1.0)
        groups, blocks = self.shares[counts[-1], lengths[0]].T
        return Share(_without(groups, (1 - recall) * _GROUPS_LOSE), _without(blocks, (1 - recall) * _BLOCKS_LOSE))


def counting(weights: npt.NDArray[np.float64]) -> int:
    """How many regions count in a query: those of granularities that weigh less than another count for less than one.

    Args:
        weights: (14,) `region_weights`, not all 0.

    Example:
        >>> counting(region_weights(np.ones(REGIONS, bool), {1: 1.0, 2: 0.5, 3: 0.01}))
        3
    """
    by_granularity = [weights[ids.start : ids.stop] for ids in REGION_IDS.values()]
    total = sum(float(some.sum()) * int(np.count_nonzero(some)) for some in by_granularity)
    return max(1, round(total / max(float(some.sum()) for some in by_granularity)))


def calibrated(photos: int, vectors: Vectors, shares_until: SharesUntil) -> Calibration:
    """Ask `shares_until` for the nearest photos of `_QUERIES` queries for each number of inked regions.

    Args:
        photos: how many there are.
        vectors: from rows to (n, 14, dim) embeddings.
        shares_until: see there.
    """
    rng = np.random.default_rng(_SEED)
    shares = {}
    for count in _INKED:
        probes = _queries(rng, vectors(rng.integers(photos, size=2 * _QUERIES)))
        inks = np.argsort(rng.random((_QUERIES, REGIONS)), axis=1) < count
        weights = np.stack([region_weights(ink) for ink in inks])

        def distances(
            query: int,
            rows: Rows,
            probes: npt.NDArray[np.float32] = probes,
            weights: npt.NDArray[np.float64] = weights,
        ) -> npt.NDArray[np.float64]:
            return np.asarray(region_distances(probes[query], vectors(rows)) @ weights[query])

        found = shares_until(probes, weights, min(max(_LENGTHS), photos), distances)
        for length in _LENGTHS:
            shares[count, length] = np.sort(found[:, :length].reshape(-1, 2), axis=0)
    return Calibration(shares)


def _without(ascending: npt.NDArray[np.float64], loss: float) -> float:
    """The least of some numbers that no more than a share of them exceed."""
    return float(ascending[math.ceil((1 - loss) * (len(ascending) - 1))])


def _queries(rng: np.random.Generator, photos: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(n, 14, dim) of (2n, 14, dim) photos: the first half, moved in any direction, on the same spheres."""
    own, others = np.split(photos, 2)
    apart = np.median(np.linalg.norm(own - others, axis=2), axis=0)
    noise = rng.standard_normal(own.shape)
    noise *= _AWAY * apart[:, None] / np.maximum(np.linalg.norm(noise, axis=2, keepdims=True), 1e-12)
    moved = own + noise
    lengths = np.linalg.norm(own, axis=2, keepdims=True) / np.maximum(
        np.linalg.norm(moved, axis=2, keepdims=True), 1e-12
    )
    return np.asarray(moved * lengths, np.float32)
