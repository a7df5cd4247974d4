"""Candidates among a few photos of a large gallery: what a narrow filter leaves is read row by row, not scanned.

Distances are added up in float32 from differences, so there is no cancellation and the error is a relative one. With
u = 2^-24: a difference of float32 numbers is rounded once, its square counts that twice and once more, adding dim of
them in any order, with or without FMA, adds less than dim u; the root halves all of that and rounds; a share, its
product and 14 additions round 16 times more. Together less than (dim / 2 + 20) u, which `relative` exceeds by what
float64 brute force rounds itself. Numbers that vanish because they are too small for float32 take at most 2^-126 from
each square, hence sqrt(dim) 2^-63 from a root, see `_VANISHED`.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.arrangement import Rows
from indexer.bounds import UNIT_ROUNDOFF, shares_of
from indexer.kernels import compiled, fetch
from indexer.regions import GRANULARITIES
from indexer.sharing import Helpers

_TASK: Final = 512
"""Photos a thread reads at a time: as many as memory gives in a tenth of a millisecond."""

_AHEAD: Final = 8
"""Photos whose numbers are asked for in advance: they lie anywhere, so that no processor guesses where."""

_LINE: Final = 16
"""Float32 numbers that memory gives at once."""

_VANISHED: Final = 1e-14
"""More than 14 sqrt(dim) 2^-63 and 14 weights below `LEAST_SHARE` can be, for rows no longer than 1000."""


def candidates(
    stored: Mapping[int, npt.NDArray[np.float32]],
    rows: Rows,
    probe: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float64],
    k: int,
    helpers: Helpers,
) -> Rows:
    """Those of some photos among which their k nearest are, ties included: hardly more than k.

    Args:
        stored: granularity -> (photos, regions x dim) float32, no region's row longer than 1000.
        rows: (n,) int64, ascending, which photos take part.
        probe: (14, dim) float32, no row longer than 1000.
        weights: (14,) `region_weights`, not all 0.
        k: at least 1, at most n.
        helpers: to share the work with.
    """
    totals, shares = np.empty(len(rows), np.float32), shares_of(weights)
    whole, quarters, ninths = (stored[g].reshape(-1) for g in GRANULARITIES)

    def add(part: int) -> None:
        some = slice(part * _TASK, (part + 1) * _TASK)
        add_up(whole, quarters, ninths, rows[some], probe, shares, totals[some])

    helpers.share(-(-len(rows) // _TASK), add)
    relative = (probe.shape[1] / 2 + 32) * UNIT_ROUNDOFF
    reach = float(np.partition(totals, k - 1)[k - 1]) * (1 + relative) + _VANISHED
    return np.asarray(rows[totals.astype(np.float64) * (1 - relative) - _VANISHED <= reach])


def _root(numbers, at, ahead, probe, region):  # type: ignore[no-untyped-def]  # numba infers the types
    """Distance of a probe's region and the numbers of a photo from `at` on; those from `ahead` on come next."""
    square = np.float32(0)
    for d in range(0, probe.shape[1], _LINE):
        fetch(numbers, ahead + d)
    for d in range(probe.shape[1]):
        difference = numbers[at + d] - probe[region, d]
        square += difference * difference
    return np.sqrt(square)


def _add_up(whole, quarters, ninths, rows, probe, shares, totals):  # type: ignore[no-untyped-def]
    """totals[i] = Eq. (3) of photo rows[i] in float32, over the largest weight; regions of share 0 are never read."""
    dim = probe.shape[1]
    for i in range(rows.shape[0]):
        row, then = rows[i] * dim, rows[min(i + _AHEAD, rows.shape[0] - 1)] * dim
        total = np.float32(0)
        if shares[0] > 0:
            total += shares[0] * root(whole, row, then, probe, 0)
        for place in range(4):
            if shares[1 + place] > 0:
                more = place * dim
                total += shares[1 + place] * root(quarters, 4 * row + more, 4 * then + more, probe, 1 + place)
        for place in range(9):
            if shares[5 + place] > 0:
                more = place * dim
                total += shares[5 + place] * root(ninths, 9 * row + more, 9 * then + more, probe, 5 + place)
        totals[i] = total


root: Final = compiled(_root, forceinline=True)
add_up: Final = compiled(_add_up)
