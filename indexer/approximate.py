"""Approximate search, with a certificate: the compiled scan over those blocks alone whose centre is near the probe.

The quantised copy is laid out in the order of `indexer.arrangement`, so that the 64 photos of a block are alike. A
query asks `indexer.centres` for the blocks whose centres are near under its own ink and weights, and is exact among
their photos. How many groups and blocks a recall takes is measured when the scan is built, on queries that are no
photos of the gallery.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from indexer.arrangement import Rows, Vectors, arranged
from indexer.bounds import shares_of
from indexer.calibration import Calibration, calibrated, counting
from indexer.centres import GROUP, Centres, Opening
from indexer.fused import Bounds, Distances, FusedScan
from indexer.kernels import BLOCK
from indexer.modes import Approximate, Budget
from indexer.sharing import Helpers

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
        centres: of the arranged blocks.
        calibration: how many of them a recall takes.
    """

    def __init__(self, order: Rows, scan: FusedScan, centres: Centres, calibration: Calibration) -> None:
        self._order = order
        self._scan = scan
        scan.quantised.covers([centres.blocks.centres, centres.groups.centres])
        self._centres = centres
        self._calibration = calibration

    @classmethod
    def build(cls, photos: int, vectors: Vectors, threads: int | None = None) -> Self:
        """Arrange the photos, quantise them and calibrate; `vectors` gives the embeddings of rows."""
        order = arranged(photos, vectors, (GROUP, BLOCK))
        scan = FusedScan.build(photos, lambda places: vectors(order[places]), threads)
        built = cls(order, scan, Centres.build(order, vectors, scan.quantised.centre), Calibration({}))
        built._calibration = calibrated(photos, vectors, built._shares_until_nearest)
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
            if name != "order":
                part, key = name.split("-", 1)
                parts[part][key] = array
        scan, centres = FusedScan.of_arrays(parts["photos"], threads), Centres.of_arrays(parts["centres"])
        return cls(arrays["order"], scan, centres, Calibration.of_arrays(parts["shares"]))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that the scan is, by name."""
        arrays: dict[str, npt.NDArray[Any]] = {"order": self._order}
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
        unit, shares = float(weights.max()), shares_of(weights)
        words = self._scan.quantised.words(None if allowed is None else allowed[self._order])
        taking = words[: self._arranged] != 0
        query = self._scan.quantised.prepared(probe[None], shares[None])
        opening = Opening(self._centres, query, taking, self.helpers)

        def scan(some: Rows) -> Bounds:
            return np.asarray(self._scan.quantised.bounds(query, some, words, self.helpers)[0])

        part = 1.0 if allowed is None else np.count_nonzero(allowed) / len(allowed)
        recall = mode.recall if isinstance(mode, Approximate) else Approximate().recall
        share = self._calibration.share(counting(weights), k / part, recall)
        later = np.arange(self._arranged, len(words))
        if isinstance(mode, Approximate):
            # A block that takes part holds a photo that does: k blocks hold k of them. As many as without a filter: one
            # that goes by looks leaves whole blocks, and of these a share would be too few.
            wanted = min(max(math.ceil(share.blocks * self._arranged), k), int(np.count_nonzero(taking)))
            opening.open(share.groups, wanted)
            chosen = opening.nearest(wanted)
            some = np.concatenate([chosen, later])
            least = scan(some)
        else:
            deadline = started + _SCANNING * mode.ms / 1000
            some, least = _until(deadline, _in_turn(opening, share.groups, k), later, k, scan)
            chosen = some[: len(some) - len(later)]
        opening.look_at(chosen)
        places = self._scan.survivors(query, words, (some, least), k, lambda rows: distances(self._order[rows]) / unit)
        return np.sort(self._order[places]), opening.unseen_from() * unit

    @property
    def _arranged(self) -> int:
        """How many blocks have a centre; those behind them are always looked at."""
        return len(self._centres.blocks)

    def _shares_until_nearest(
        self, probes: npt.NDArray[np.float32], weights: npt.NDArray[np.float64], k: int, distances: Distances
    ) -> npt.NDArray[np.float64]:
        """(queries, k, 2): with which shares of the groups and blocks, nearest first, the k nearest photos are found.

        The photos behind the arranged blocks count as found: every search looks at them.
        """
        place_of, every = np.argsort(self._order), np.ones(self._arranged, np.bool_)
        shares = np.zeros((len(probes), k, 2))
        for query, rows in enumerate(self.candidates(probes, weights, k, None, distances)):
            nearest = rows[np.argsort(distances(query, rows), kind="stable")[:k]]
            asked = slice(query, query + 1)
            prepared = self._scan.quantised.prepared(probes[asked], shares_of(weights[asked]))
            opening = Opening(self._centres, prepared, every, self.helpers)
            opening.open(1, self._arranged)
            blocks = place_of[nearest] // BLOCK
            arranged_ones = blocks < self._arranged
            shares[query, arranged_ones] = opening.shares_until(blocks[arranged_ones])
        return shares


def _in_turn(opening: Opening, share: float, k: int) -> Iterator[Rows]:
    """Blocks, nearest first: at least k of a share of the groups, then those of all others."""
    for part in (share, 1.0):
        opening.open(part, k)
        blocks = opening.ranked()
        yield blocks
        opening.look_at(blocks)  # whoever asks for more has scanned them


def _until(
    deadline: float, orders: Iterable[Rows], later: Rows, k: int, scan: Callable[[Rows], Bounds]
) -> tuple[Rows, Bounds]:
    """The blocks scanned until the deadline, in their orders and `later` in the end, and their least bounds."""
    scanned: list[Rows] = []
    least: list[Bounds] = []
    step = max(_FIRST_STEP, k)
    for blocks in orders:
        done = 0
        while done < len(blocks) and (not scanned or time.perf_counter() < deadline):
            before = time.perf_counter()
            some = np.sort(blocks[done : done + step])
            scanned.append(some)
            least.append(scan(some))
            done += len(some)
            now = time.perf_counter()
            step = int(np.clip(len(some) * (deadline - now) / (now - before), BLOCK, 4 * step))
        if time.perf_counter() >= deadline:
            break
    return np.concatenate([*scanned, later]), np.concatenate([*least, scan(later)])
