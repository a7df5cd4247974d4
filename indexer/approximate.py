"""Approximate search, with a certificate: the compiled scan over those blocks alone whose centre is near the probe.

The quantised copy is laid out in the order of `indexer.arrangement`, so that the 64 photos of a block are alike, and
the centres of the blocks are a quantised gallery of their own, a sixty-fourth of the size. A query bounds its distance
to every centre under its own ink and weights, takes the nearest blocks, and is exact among their photos.

How many blocks a recall takes is measured when the scan is built, on queries that are no photos of the gallery.

The certificate: Eq. (3) is a weighted sum of norms, hence a metric d, and a photo x of a block with centre c has
d(x, y) >= d(c, y) - d(x, c) >= d(c, y) - sum(w_r R_r), R_r being the greatest |x_r - c_r| of the block. The least of
this over the blocks that were left out bounds all of their photos.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from indexer.arrangement import Rows, Vectors, arranged
from indexer.bounds import SLACK, shares_of
from indexer.calibration import Calibration, calibrated
from indexer.fused import Bounds, Distances, FusedScan, smallest
from indexer.kernels import BLOCK
from indexer.modes import Approximate, Budget
from indexer.quantised import QuantisedGallery
from indexer.sharing import Helpers

_CHUNK: Final = 256
"""Blocks whose centres are computed at a time: some 15 MB."""

_PARTS: Final = 8
"""That bounding the centres is shared in."""

_SCANNING: Final = 0.8
"""Share of a budget that the scan may take; the rest is for ranking what it leaves."""

_FIRST_STEP: Final = 256
"""Blocks that a search with a budget scans before it looks at the clock."""


class ApproximateScan:
    """`indexer.fused.FusedScan` over arranged photos, which can also leave out most of them. Use `build`.

    Photos added later lie behind the arranged ones; every search looks at them until the scan is built anew.

    Args:
        order: (photos,) int64, place -> row.
        scan: over the places.
    """

    def __init__(self, order: Rows, scan: FusedScan) -> None:
        self._order = order
        self._arranged = len(order) // BLOCK
        self._scan = scan
        self._centres = QuantisedGallery(scan.quantised.centre)
        self._radii = np.empty((self._arranged, len(scan.quantised.centre)), np.float32)
        self._calibration = Calibration({})

    @classmethod
    def build(cls, photos: int, vectors: Vectors, threads: int | None = None) -> Self:
        """Arrange the photos, quantise them and calibrate; `vectors` gives the embeddings of rows."""
        order = arranged(photos, vectors, BLOCK)
        built = cls(order, FusedScan.build(photos, lambda places: vectors(order[places]), threads))
        built._measure_blocks(vectors)
        built._calibration = calibrated(photos, vectors, built._ranks_of_nearest)
        return built

    @property
    def helpers(self) -> Helpers:
        """The threads that share searches."""
        return self._scan.helpers

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], threads: int | None = None) -> Self:
        """The scan that gave its `arrays`, ready to run."""
        parts: dict[str, dict[str, npt.NDArray[Any]]] = {"photos": {}, "centres": {}, "shares": {}}
        for name, array in arrays.items():
            if name not in ("order", "radii"):
                part, key = name.split("-", 1)
                parts[part][key] = array
        read = cls(arrays["order"], FusedScan.of_arrays(parts["photos"], threads))
        read._centres = QuantisedGallery.of_arrays(parts["centres"])
        read._radii, read._arranged = arrays["radii"], len(arrays["radii"])
        read._calibration = Calibration.of_arrays(parts["shares"])
        return read

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that the scan is, by name."""
        arrays: dict[str, npt.NDArray[Any]] = {"order": self._order, "radii": self._radii}
        arrays |= {f"photos-{name}": array for name, array in self._scan.quantised.arrays().items()}
        arrays |= {f"centres-{name}": array for name, array in self._centres.arrays().items()}
        arrays |= {f"shares-{name}": array for name, array in self._calibration.arrays().items()}
        return arrays

    def update(self, first: int, photos: int, vectors: Vectors) -> None:
        """Take in the rows from `first` on, as `FusedScan.update` does."""
        assert first == len(self._order), (first, len(self._order))
        order = np.concatenate([self._order, np.arange(first, photos)])
        self._scan.update(first, photos, lambda places: vectors(order[places]))
        self._order = order

    def candidates(
        self,
        probes: npt.NDArray[np.float32],
        weights: npt.NDArray[np.float64],
        k: int,
        allowed: npt.NDArray[np.bool_] | None,
        distances: Distances,
    ) -> Iterator[Rows]:
        """For exact search: arguments and results are those of `FusedScan.candidates`."""
        placed = None if allowed is None else allowed[self._order]
        found = self._scan.candidates(probes, weights, k, placed, lambda q, places: distances(q, self._order[places]))
        for places in found:
            yield np.sort(self._order[places])

    def nearest(
        self,
        probe: npt.NDArray[np.float32],
        weights: npt.NDArray[np.float64],
        k: int,
        allowed: npt.NDArray[np.bool_] | None,
        distances: Callable[[Rows], npt.NDArray[np.float64]],
        mode: Approximate | Budget,
    ) -> tuple[Rows, float]:
        """Ascending rows among which the k nearest of all photos looked at are, and a bound on all others.

        Args:
            probe: (14, dim) float32.
            weights: (14,) `region_weights`, not all 0.
            k: at least 1, at most the number of photos that take part.
            allowed: (photos,) bool, which photos take part; all of them if None.
            distances: exact ones of some rows, in the scale of the weights.
            mode: how much to look at.

        Returns:
            (n,) int64 rows, at least k, and the distance that no photo left out falls short of.
        """
        started = time.perf_counter()
        unit = float(weights.max())
        shares = shares_of(weights)
        words = self._scan.quantised.words(None if allowed is None else allowed[self._order])
        taking = words[: self._arranged] != 0
        to_centres = self._to_centres(probe, shares)
        query = self._scan.quantised.prepared(probe[None], shares[None])
        to_centres[~taking] = np.inf
        blocks = int(taking.sum())
        later = np.arange(self._arranged, len(words))

        def scan(some: Rows) -> Bounds:
            least = self._scan.quantised.bounds(query, some, words, self.helpers)
            return np.asarray(least[0])

        if isinstance(mode, Approximate):
            part = 1.0 if allowed is None else np.count_nonzero(allowed) / len(allowed)
            share = self._calibration.share(int(np.count_nonzero(shares)), k / part, mode.recall)
            # A block that takes part holds a photo that does: k blocks hold k of them.
            wanted = min(max(math.ceil(share * blocks), k), blocks)
            chosen = np.sort(smallest(to_centres, wanted))
            some = np.concatenate([chosen, later])
            least = scan(some)
        else:
            deadline = started + _SCANNING * mode.ms / 1000
            some, least = _until(deadline, np.argsort(to_centres, kind="stable")[:blocks], later, k, scan)
            chosen = some[: len(some) - len(later)]
        left_out = taking
        left_out[chosen] = False
        unseen = self._unseen_from(to_centres, shares, left_out)
        places = self._scan.survivors(query, words, (some, least), k, lambda rows: distances(self._order[rows]) / unit)
        return np.sort(self._order[places]), unseen * unit

    def _to_centres(self, probe: npt.NDArray[np.float32], shares: npt.NDArray[np.float32]) -> Bounds:
        """(arranged blocks,) float32 lower bounds of the distance to the centres, over the greatest weight."""
        query, words = self._centres.prepared(probe[None], shares[None]), self._centres.words(None)
        blocks = np.arange(len(words))
        found = np.empty((len(words), BLOCK), np.float32)
        some = [slice(part[0], part[-1] + 1) for part in np.array_split(blocks, _PARTS) if len(part)]

        def bound(part: int) -> None:
            found[some[part]] = self._centres.photo_bounds(query, blocks[some[part]], words)

        self.helpers.share(len(some), bound)
        return found.ravel()[: self._arranged]

    def _unseen_from(
        self, to_centres: Bounds, shares: npt.NDArray[np.float32], left_out: npt.NDArray[np.bool_]
    ) -> float:
        """What no photo of the blocks left out is nearer than, over the greatest weight."""
        if not left_out.any():
            return math.inf
        # Of all blocks, in one pass: to gather the radii of those left out takes ten times as long.
        lower = to_centres.astype(np.float64) / SLACK - (self._radii @ shares) * SLACK
        return max(float(lower[left_out].min()), 0.0) * (1 - 1e-6)

    def _measure_blocks(self, vectors: Vectors) -> None:
        """Centres and radii of the arranged blocks that are full."""
        for first in range(0, self._arranged, _CHUNK):
            last = min(first + _CHUNK, self._arranged)
            rows = vectors(self._order[first * BLOCK : last * BLOCK])
            rows = rows.reshape(last - first, BLOCK, *rows.shape[1:])
            centres = rows.mean(axis=1)
            away = rows - centres[:, None]
            squares = np.einsum("bprd,bprd->bpr", away, away, dtype=np.float64).max(axis=1)
            # Above what rounding to float32, here and of the differences, can take off.
            self._radii[first:last] = np.sqrt(squares) * (1 + 1e-6)
            self._centres.write(first, centres)

    def _ranks_of_nearest(
        self, probes: npt.NDArray[np.float32], weights: npt.NDArray[np.float64], k: int, distances: Distances
    ) -> list[npt.NDArray[np.float64]]:
        """Per query: at which shares of the blocks, nearest first, the blocks of its k nearest photos come, ascending.

        The photos behind the arranged blocks count as found: every search looks at them.
        """
        place_of = np.argsort(self._order)
        shares_of_blocks = []
        for query, rows in enumerate(self.candidates(probes, weights, k, None, distances)):
            nearest = rows[np.argsort(distances(query, rows), kind="stable")[:k]]
            to_centres = self._to_centres(probes[query], shares_of(weights[query]))
            rank = np.empty(self._arranged)
            rank[np.argsort(to_centres, kind="stable")] = np.arange(1, self._arranged + 1)
            blocks = place_of[nearest] // BLOCK
            found = np.where(blocks < self._arranged, rank[np.minimum(blocks, self._arranged - 1)], 0)
            shares_of_blocks.append(found / self._arranged)
        return shares_of_blocks


def _until(deadline: float, blocks: Rows, later: Rows, k: int, scan: Callable[[Rows], Bounds]) -> tuple[Rows, Bounds]:
    """The blocks scanned until the deadline, nearest first and `later` in the end, and their least bounds."""
    scanned, least, done, step = [], [], 0, max(_FIRST_STEP, k)
    while done < len(blocks):
        before = time.perf_counter()
        some = np.sort(blocks[done : done + step])
        scanned.append(some)
        least.append(scan(some))
        done += len(some)
        now = time.perf_counter()
        if now >= deadline:
            break
        step = int(np.clip(len(some) * (deadline - now) / (now - before), BLOCK, 4 * step))
    return np.concatenate([*scanned, later]), np.concatenate([*least, scan(later)])
