"""How large a part of a gallery approximate search must look at for the recall that it promises: measured, not assumed.

The queries are photos moved as far as a finished sketch lies from its own photo, with one to all regions inked: fewer
regions tell less, and their nearest photos are scattered over more of the gallery.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from indexer.arrangement import Rows, Vectors
from indexer.fused import Distances
from indexer.fusion import region_distances, region_weights
from indexer.regions import REGIONS

Ranks = Callable[[npt.NDArray[np.float32], npt.NDArray[np.float64], int, Distances], list[npt.NDArray[np.float64]]]

_INKED: Final = (1, 2, 3, 5, 8, REGIONS)
_LENGTHS: Final = (10, 100)
_QUERIES: Final = 64
"""Per number of inked regions: 640 of the ten nearest photos."""

_AWAY: Final = 0.7
"""Distance of a query from its photo, over that of two photos: 0.65 to 0.8 for the sketches of FS2K."""

_SEED: Final = 20_240_100


@dataclass(frozen=True)
class Calibration:
    """Number of inked regions and length of the ranking -> shares of the gallery at which true hits were found."""

    shares: Mapping[tuple[int, int], npt.NDArray[np.float64]]

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[np.float64]]) -> Self:
        """The calibration that gave its `arrays`."""
        keys = {name: tuple(map(int, name.split("-"))) for name in arrays}
        return cls({(keys[name][0], keys[name][1]): shares for name, shares in arrays.items()})

    def arrays(self) -> dict[str, npt.NDArray[np.float64]]:
        """The shares by name: regions and length, such as 14-10."""
        return {f"{inked}-{length}": shares for (inked, length), shares in self.shares.items()}

    def share(self, inked: int, k: float, recall: float) -> float:
        """The share of the blocks to look at, 1 where nothing less was measured to be enough.

        Half of the loss that is asked for is kept as a margin: the queries were a sample.

        Args:
            inked: regions with ink and weight.
            k: length of the ranking, as if the whole gallery took part.
            recall: asked for, 0 to 1.
        """
        lengths = [length for length in _LENGTHS if length >= k]
        counts = [count for count in _INKED if count <= inked]
        if recall >= 1 or not lengths or not counts or (counts[-1], lengths[0]) not in self.shares:
            return 1.0
        measured = self.shares[counts[-1], lengths[0]]
        return float(np.quantile(measured, 1 - (1 - recall) / 2, method="higher"))


def calibrated(photos: int, vectors: Vectors, ranks: Ranks) -> Calibration:
    """Ask `ranks` for the places of the nearest photos of `_QUERIES` queries for each number of inked regions.

    Args:
        photos: how many there are.
        vectors: from rows to (n, 14, dim) embeddings.
        ranks: from probes, region weights, k and exact distances to, per query, ascending shares of the gallery by
            which its nearest photos are found, in the order of the photos.
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

        found = ranks(probes, weights, min(max(_LENGTHS), photos), distances)
        for length in _LENGTHS:
            shares[count, length] = np.concatenate([each[:length] for each in found])
    return Calibration(shares)


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
