"""Reads rows of single photos where they lie, in however many parts: copies them, or finds the nearest among them.

The nearest are candidates of an exact search: what a narrow filter leaves is read row by row, not scanned.

Distances are added up in float32 from differences, so there is no cancellation and the error is a relative one. With
u = 2^-24: a difference of float32 numbers is rounded once, its square counts that twice and once more, adding dim of
them in any order, with or without FMA, adds less than dim u; the root halves all of that and rounds; a share, its
product and 14 additions round 16 times more. Together less than (dim / 2 + 20) u, which `relative` exceeds by what
float64 brute force rounds itself. Numbers that vanish because they are too small for float32 take at most 2^-126 from
each square, hence sqrt(dim) 2^-63 from a root, see `_VANISHED`.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.arrangement import Rows
from indexer.bounds import UNIT_ROUNDOFF, shares_of
from indexer.compiling import compiled
from indexer.kernels import fetch
from indexer.sharing import Helpers
from indexer.stored_rows import StoredRows

_TASK: Final = 512
"""Photos a thread reads at a time: as many as memory gives in a tenth of a millisecond."""

_AHEAD: Final = 8
"""Photos whose numbers are asked for in advance: they lie anywhere, so that no processor guesses where."""

_LINE: Final = 16
"""Float32 numbers that memory gives at once."""

_VANISHED: Final = 1e-14
"""More than 14 sqrt(dim) 2^-63 and 14 weights below `LEAST_SHARE` can be, for rows no longer than 1000."""


def candidates(
    stored: StoredRows,
    rows: Rows,
    probe: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float64],
    k: int,
    helpers: Helpers,
) -> Rows:
    """Those of some photos among which their k nearest are, ties included: hardly more than k.

    Args:
        stored: of all photos, no region's row longer than 1000.
        rows: (n,) int64, ascending, which photos take part.
        probe: (14, dim) float32, no row longer than 1000.
        weights: (14,) `region_weights`, not all 0.
        k: at least 1, at most n.
        helpers: to share the work with.
    """
    totals, shares = np.empty(len(rows), np.float32), shares_of(weights)

    def add(task: int) -> None:
        some = slice(task * _TASK, (task + 1) * _TASK)
        add_up(stored.numbers, stored.origins, stored.starts, rows[some], probe, shares, totals[some])

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


def _add_up(numbers, origins, starts, rows, probe, shares, totals):  # type: ignore[no-untyped-def]
    """totals[i] = Eq. (3) of photo rows[i] in float32, over the largest weight; regions of share 0 are never read.

    Args:
        numbers: of `StoredRows`, like the next two.
        origins: (parts, 3) int64.
        starts: (parts + 1,) int64.
        rows: (n,) int64, ascending, at least one.
        probe: (14, dim) float32.
        shares: (14,) float32.
        totals: (n,) float32 out.
    """
    dim = probe.shape[1]
    part = part_of(starts, rows[0])
    next_part = part
    for i in range(rows.shape[0]):
        row, then = rows[i], rows[min(i + _AHEAD, rows.shape[0] - 1)]
        while row >= starts[part + 1]:
            part += 1
        while then >= starts[next_part + 1]:
            next_part += 1
        row, then = (row - starts[part]) * dim, (then - starts[next_part]) * dim
        total = np.float32(0)
        if shares[0] > 0:
            total += shares[0] * root(numbers, origins[part, 0] + row, origins[next_part, 0] + then, probe, 0)
        at, ahead = origins[part, 1] + 4 * row, origins[next_part, 1] + 4 * then
        for place in range(4):
            if shares[1 + place] > 0:
                more = place * dim
                total += shares[1 + place] * root(numbers, at + more, ahead + more, probe, 1 + place)
        at, ahead = origins[part, 2] + 9 * row, origins[next_part, 2] + 9 * then
        for place in range(9):
            if shares[5 + place] > 0:
                more = place * dim
                total += shares[5 + place] * root(numbers, at + more, ahead + more, probe, 5 + place)
        totals[i] = total


def _gather(numbers, origins, starts, rows, vectors):  # type: ignore[no-untyped-def]
    """vectors[i] = the embeddings of photo rows[i], (14, dim) float32; arguments as `_add_up`, in any order."""
    dim = vectors.shape[2]
    for i in range(rows.shape[0]):
        part = part_of(starts, rows[i])
        for granularity in range(3):
            regions = (granularity + 1) ** 2
            at = origins[part, granularity] + (rows[i] - starts[part]) * regions * dim
            first = (0, 1, 5)[granularity]
            for region in range(regions):
                for d in range(dim):
                    vectors[i, first + region, d] = numbers[at + region * dim + d]


def _part_of(starts, row):  # type: ignore[no-untyped-def]
    """The part in which a row lies."""
    return np.searchsorted(starts, row, side="right") - 1


root: Final = compiled(_root, forceinline=True)
part_of: Final = compiled(_part_of, forceinline=True)
add_up: Final = compiled(_add_up)
gather: Final = compiled(_gather)
