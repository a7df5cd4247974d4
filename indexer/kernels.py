"""The compiled inner loop of the fused scan.

Importing this module imports numba, which takes a second: only galleries large enough to gain from it do so, see
`indexer.granular`.

The loop is written so that LLVM turns every innermost `for` into SIMD: the photo index is the last one, a block's
regions are unpacked to float32 once and then serve all queries of a batch, from the first level of the cache.
"""

from collections.abc import Callable
from typing import Any, Final

import numba
import numpy as np

BLOCK: Final = 64
"""Photos of a block: one 64-bit word of the filter's bitmap, and whole SIMD registers of every width in use."""

GROUP: Final = 8
"""Numbers of a region that a step multiplies; `indexer.quantised` pads regions to a multiple of it."""

_RUN: Final = 32
"""Blocks (times queries) of a region in a row: 35 KB from one place, which the processor fetches ahead; jumping from
region to region at every block takes twice as long. Their partial sums stay in the first level of the cache."""

_FAR: Final = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), 0, np.inf
).astype(np.float32)
"""A byte of the bitmap -> what its eight photos are moved away by; adding is faster than testing bits one by one."""


def _dot(code, probe, dots):  # type: ignore[no-untyped-def]  # numba infers the types
    """dots[i] = inner product of the probe with photo i of a block's region, given as int8 or already as float32."""
    dots[:] = 0
    for d in range(0, probe.shape[0], GROUP):
        y0, y1, y2, y3 = probe[d], probe[d + 1], probe[d + 2], probe[d + 3]
        y4, y5, y6, y7 = probe[d + 4], probe[d + 5], probe[d + 6], probe[d + 7]
        x = code[d * BLOCK : (d + GROUP) * BLOCK]
        for i in range(BLOCK):
            near = np.float32(x[i]) * y0 + np.float32(x[i + BLOCK]) * y1
            near += np.float32(x[i + 2 * BLOCK]) * y2 + np.float32(x[i + 3 * BLOCK]) * y3
            far = np.float32(x[i + 4 * BLOCK]) * y4 + np.float32(x[i + 5 * BLOCK]) * y5
            far += np.float32(x[i + 6 * BLOCK]) * y6 + np.float32(x[i + 7 * BLOCK]) * y7
            dots[i] += near + far


def _add_roots(norms, dots, head, base, share, total):  # type: ignore[no-untyped-def]
    """Add one region's weighted distances of a block's photos to `total`."""
    zero, twice_step, norm, norm_step = np.float32(0), head[0], base + head[1], head[2]
    for i in range(BLOCK):
        square = norm + norm_step * np.float32(norms[i]) - twice_step * dots[i]
        total[i] += share * np.sqrt(square if square > zero else zero)


def _finish(total, excess, word):  # type: ignore[no-untyped-def]
    """Take the stored errors off a block's bounds and put photos that take no part at infinity; returns the least."""
    for i in range(BLOCK):
        total[i] -= excess
    if word != np.uint64(0xFFFFFFFFFFFFFFFF):
        for eight in range(BLOCK // 8):
            byte = np.intp((word >> np.uint64(8 * eight)) & np.uint64(255))
            for i in range(8):
                total[8 * eight + i] += _FAR[byte, i]
    least = total[0]
    for i in range(1, BLOCK):
        least = min(least, total[i])
    return least


def _scan_blocks(  # type: ignore[no-untyped-def]
    codes, heads, words, blocks, probes, bases, shares, offsets, least, lower
):
    """Lower bounds of Eq. (3) for some blocks of photos; what they mean and why they hold says `indexer.quantised`.

    Args:
        codes: per granularity (regions, blocks, (width + 1) x 64) int8; a region's last 64 are the squared norms.
        heads: per granularity (regions, blocks, 4) float32: twice the step, norm at level 0, norm step, error.
        words: (all blocks,) uint64, bit i set where photo i of the block takes part.
        blocks: (n,) int64, which to scan.
        probes: (queries, 14, width) float32, centred.
        bases: (queries, 14) float32, what is added to every squared distance.
        shares: (queries, 14) float32, weights; regions of share 0 are never read.
        offsets: (queries,) float32, taken off every bound.
        least: (queries, n) float32 out, least bound of each block.
        lower: (queries, n, 64) float32 out, all bounds, infinite where a photo takes no part; or (queries, 0, 64).
    """
    queries, regions, width = probes.shape
    run = max(1, _RUN // queries)
    unpacked = np.empty((width + 1) * BLOCK, np.float32)
    dots = np.empty(BLOCK, np.float32)
    totals = np.empty((queries, run, BLOCK), np.float32)
    excess = np.empty((queries, run), np.float32)
    used = np.zeros(regions, np.bool_)
    for query in range(queries):
        for region in range(regions):
            used[region] |= shares[query, region] > 0
    for first in range(0, blocks.shape[0], run):
        last = min(first + run, blocks.shape[0])
        totals[:] = 0
        for query in range(queries):
            excess[query, :] = offsets[query]
        region = -1
        for granularity in range(len(codes)):
            for local in range(codes[granularity].shape[0]):
                region += 1
                if not used[region]:
                    continue
                for place in range(first, last):
                    code = codes[granularity][local, blocks[place]]
                    head = heads[granularity][local, blocks[place]]
                    if queries > 1:
                        for i in range(unpacked.shape[0]):
                            unpacked[i] = np.float32(code[i])
                    for query in range(queries):
                        share = shares[query, region]
                        if share == 0:
                            continue
                        if queries > 1:
                            dot(unpacked, probes[query, region], dots)
                        else:
                            dot(code, probes[query, region], dots)
                        norms = code[width * BLOCK :]
                        add_roots(norms, dots, head, bases[query, region], share, totals[query, place - first])
                        excess[query, place - first] += share * head[3]
        for query in range(queries):
            for place in range(first, last):
                total = totals[query, place - first]
                least[query, place] = finish(total, excess[query, place - first], words[blocks[place]])
                if lower.shape[1]:
                    lower[query, place] = total


def _compiled(function: Callable[..., Any], **more: Any) -> Any:
    # Reordering and fused multiply-adds are covered by the error bound, and NaN never occurs; infinity does, and roots
    # must be IEEE's.
    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz", "nnan"}, **more}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # No folder to cache in: a read-only installation without a home. It compiles once per process.
        return numba.njit(**options)(function)


# Inlined: counting references to their arguments would take a third of the scan.
dot: Final = _compiled(_dot, forceinline=True)
add_roots: Final = _compiled(_add_roots, forceinline=True)
finish: Final = _compiled(_finish, forceinline=True)
scan_blocks: Final = _compiled(_scan_blocks)
