"""The compiled inner loop of the fused scan.

Importing this module imports numba, which takes a second: only galleries large enough to gain from it do so, see
`indexer.granular`.

The photo index is the innermost one, four numbers of a photo side by side, a byte each: x86 multiplies eight photos'
fours and adds each four up in one instruction or two (`_dot`), and takes rough reciprocal roots in another
(`_add_roots`). LLVM finds none of them on its own, so they are spelled out for processors with AVX2. Others run the
plain functions that stand beside them, which LLVM vectorises as it can; tests hold the two to each other. Measured on
one thread: 30 ns a region of a block where the cache holds it, of which the 16 products of 64 photos are less than
half, and 47 ns from memory. Two threads are as fast as two processors' memory is.
"""

import platform
from collections.abc import Callable
from typing import Any, Final

import llvmlite.binding
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from indexer.compiling import compiled

BLOCK: Final = 64
"""Photos of a block: one 64-bit word of the filter's bitmap, and whole SIMD registers of every width in use."""

GROUP: Final = 16
"""Numbers of a region that a step multiplies; `indexer.quantised` pads regions to a multiple of it."""

SIMD: Final = platform.machine() in ("x86_64", "AMD64") and bool(llvmlite.binding.get_host_cpu_features().get("avx2"))
"""Whether this processor has the instructions that are spelled out below."""

_HAS: Final = llvmlite.binding.get_host_cpu_features()
VNNI: Final = SIMD and bool(_HAS.get("avxvnni") or (_HAS.get("avx512vnni") and _HAS.get("avx512vl")))
"""Whether it multiplies bytes and adds up four products in one instruction."""

ZERO: Final = 128
"""The code that means 0: what multiplies bytes takes those of the photos without a sign."""

LOW_LEVELS: Final = 64
"""A probe's number is 64 times a signed byte plus another one, both -32..32: two products with codes fit 16 bits."""

MOST: Final = 32 * LOW_LEVELS - 1

ROOT_SHARE: Final = np.float32(1 - 2.0**-11 if SIMD else 1)
"""What roots are multiplied by to be no larger than the true ones: Intel and AMD promise 1.5 x 2^-12 for theirs."""

LEAST_SQUARE: Final = np.float32(2.0**-100)
"""Squared distances are taken for no less: the reciprocal of 0 has no root."""

_RUN: Final = 128
"""Blocks (times queries) of a region in a row: 140 KB from one place, which the processor fetches ahead; jumping from
region to region at every block takes twice as long. Their partial sums stay in the second level of the cache."""

_AHEAD: Final = 12
"""Blocks that memory is asked for in advance, into the second level of the cache and a line at a time: asked for all at
once, or into the first level, it was no faster than not asking."""

_FAR: Final = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), 0, np.inf
).astype(np.float32)
"""A byte of the bitmap -> what its eight photos are moved away by; adding is faster than testing bits one by one."""

_LINE: Final = 64
_LANES: Final = 8
_FIRST_LEVEL: Final = 3
_SECOND_LEVEL: Final = 2
"""Of the cache, as LLVM counts them."""

_INT: Final = ir.IntType(32)
_INTS: Final = ir.VectorType(_INT, _LANES)
_PAIRS: Final = ir.VectorType(ir.IntType(16), 2 * _LANES)
_BYTES: Final = ir.VectorType(ir.IntType(8), 4 * _LANES)
_FLOATS: Final = ir.VectorType(ir.FloatType(), _LANES)


def _dot(codes, at, probe, part, dots):  # type: ignore[no-untyped-def]  # numba infers the types
    """dots[i] += inner product of 16 numbers of the probe and of photo i of a block's region, all of them integers.

    Args:
        codes: flat uint8; from `at` on, four by four numbers, (64, 4) of them.
        at: where the 16 numbers begin.
        probe: flat uint32 of `packed`, the eight of these numbers begin at `part`.
        part: see `probe`.
        dots: (64,) int32, added to.
    """
    for i in range(BLOCK):
        for p in range(GROUP):
            word, shift = part + 2 * (p // 4), np.uint32(8 * (p % 4))
            high = np.int8((probe[word] >> shift) & np.uint32(255))
            low = np.int8((probe[word + 1] >> shift) & np.uint32(255))
            number = np.int32(high) * np.int32(LOW_LEVELS) + np.int32(low)
            dots[i] += np.int32(codes[at + 4 * (p // 4 * BLOCK + i) + p % 4]) * number


def _dot_ahead(codes, at, probe, part, dots, ahead):  # type: ignore[no-untyped-def]
    """`_dot`, and ask for the codes from `ahead` on, which will be needed soon."""
    dot(codes, at, probe, part, dots)


def _add_roots(dots, levels, at, norm, norm_step, factor, share, total, to):  # type: ignore[no-untyped-def]
    """total[to + i] += share x root of norm + norm_step x levels[at + i] - factor x dots[i], for a block's photos."""
    for i in range(BLOCK):
        square = norm + norm_step * np.float32(levels[at + i]) - factor * np.float32(dots[i])
        total[to + i] += share * np.sqrt(max(square, LEAST_SQUARE))


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
    codes, heads, words, blocks, probes, starts, bases, steps, shares, offsets, least, lower
):
    """Lower bounds of Eq. (3) for some blocks of photos; what they mean and why they hold says `indexer.quantised`.

    Args:
        codes: (14, all blocks, (width + 1) x 64) uint8, a region's last 64 are the squared norms.
        heads: (14, all blocks, 4) float32: twice the step, norm at level 0, norm step, error.
        words: (all blocks,) uint64, bit i set where photo i of the block takes part.
        blocks: (n,) int64, which to scan.
        probes: (queries, 14, width / 2) uint32 of `packed`: the way from the centre in steps.
        starts: (queries, 14) int32, what inner products start from, since a code of 128 means 0.
        bases: (queries, 14) float32, what is added to every squared distance.
        steps: (queries, 14) float32, of the probes.
        shares: (queries, 14) float32, weights; regions of share 0 are never read.
        offsets: (queries,) float32, taken off every bound.
        least: (queries, n) float32 out, least bound of each block.
        lower: (queries, n, 64) float32 out, all bounds, infinite where a photo takes no part; or (queries, 0, 64).
    """
    queries, size = probes.shape[0], codes.shape[2]
    run = max(1, _RUN // queries)
    flat, dots = codes.reshape(-1), np.empty(BLOCK, np.int32)
    totals, excess = np.empty(queries * run * BLOCK, np.float32), np.empty((queries, run), np.float32)
    used = np.flatnonzero(shares.sum(axis=0))
    for first in range(0, blocks.shape[0], run):
        last = min(first + run, blocks.shape[0])
        totals[:] = 0
        for query in range(queries):
            excess[query, :] = offsets[query]
        for turn in range(used.shape[0]):
            region = used[turn]
            # Behind this region's blocks come the next one's, behind the last region the next blocks of the first.
            goes_on = turn + 1 < used.shape[0]
            then, after = used[turn + 1 if goes_on else 0], first if goes_on else last
            for place in range(first, last):
                at = (region * codes.shape[1] + blocks[place]) * size
                head = heads[region, blocks[place]]
                if place + _AHEAD < last:
                    ahead = region * codes.shape[1] + blocks[place + _AHEAD]
                else:
                    ahead = then * codes.shape[1] + blocks[min(after + place + _AHEAD - last, blocks.shape[0] - 1)]
                ahead *= size
                for query in range(queries):
                    if shares[query, region] == 0:
                        continue
                    add_region(
                        flat, at, ahead, head, probes[query, region], starts[query, region],
                        bases[query, region], steps[query, region], shares[query, region], dots, totals,
                        (query * run + place - first) * BLOCK,
                    )  # fmt: skip
                    excess[query, place - first] += shares[query, region] * head[3]
                    ahead = -1  # once for all queries
        for query in range(queries):
            for place in range(first, last):
                to = (query * run + place - first) * BLOCK
                total = totals[to : to + BLOCK]
                least[query, place] = finish(total, excess[query, place - first], words[blocks[place]])
                if lower.shape[1]:
                    lower[query, place] = total


def _add_region(  # type: ignore[no-untyped-def]
    codes, at, ahead, head, probe, start, base, step, share, dots, totals, to
):
    """Add a query's distances to a block's photos in one region."""
    width = 2 * probe.shape[0]
    dots[:] = start
    for part in range(0, width // 2, GROUP // 2):
        more = 2 * part * BLOCK
        if ahead < 0:
            dot(codes, at + more, probe, part, dots)
        else:
            dot_ahead(codes, at + more, probe, part, dots, ahead + more)
    add_roots(dots, codes, at + width * BLOCK, head[1] + base, head[2], head[0] * step, share * ROOT_SHARE, totals, to)


def _encode(rows, centre, region, first, levels, least_step, larger, codes, heads):  # type: ignore[no-untyped-def]
    """Write one region of some photos as `indexer.quantised` says; returns the greatest squared norm.

    Args:
        rows: (photos, 14, dim) float32.
        centre: (14, dim) float32.
        region: which one.
        first: block of the first photo; the last one may not be full.
        levels: greatest integer of a code.
        least_step: see `indexer.quantised`.
        larger: what errors are multiplied by.
        codes: as `scan_blocks` takes them, out.
        heads: as `scan_blocks` takes them, out.
    """
    width, dim, longest = codes.shape[2] // BLOCK - 1, rows.shape[2], 0.0
    offsets, squares = np.empty((BLOCK, width)), np.empty(BLOCK)
    for start in range(0, rows.shape[0], BLOCK):
        block = first + start // BLOCK
        count = min(BLOCK, rows.shape[0] - start)
        offsets[:], largest, error = 0, 0.0, 0.0
        for i in range(count):
            for d in range(dim):
                offsets[i, d] = np.float64(rows[start + i, region, d]) - np.float64(centre[region, d])
                largest = max(largest, abs(offsets[i, d]))
        step = np.float64(np.float32(max(largest / levels, least_step)))
        for i in range(BLOCK):
            square, missed = 0.0, 0.0
            for d in range(width):
                code = min(max(np.rint(offsets[i, d] / step), -levels), levels)
                square += (code * step) ** 2
                missed += (offsets[i, d] - code * step) ** 2
                codes[region, block, (d // 4 * BLOCK + i) * 4 + d % 4] = np.uint8(code + ZERO)
            squares[i], error = square, max(error, missed)
        # Rounded towards 0, so that every stored norm stays below the true one; see the floor for the last ulp.
        least, most = squares.min(), squares.max()
        norm = np.float64(np.float32(least * (1 - 1e-6)))
        norm_step = np.float64(np.float32(max((most - norm) / 255, least_step**2)))
        for i in range(BLOCK):
            level = min(max(np.floor((squares[i] - norm) / norm_step - 1e-9), 0.0), 255.0)
            codes[region, block, width * BLOCK + i] = np.uint8(level)
        heads[region, block, 0], heads[region, block, 1] = 2 * step, norm
        heads[region, block, 2], heads[region, block, 3] = norm_step, np.sqrt(error) * larger
        longest = max(longest, most)
    return longest


@intrinsic
def _dot_avx2(typing, codes, at, probe, part, dots):  # type: ignore[no-untyped-def]
    """`_dot`, eight photos at a time, the sums in registers."""
    return types.void(codes, types.intp, probe, types.intp, dots), _generate_dot


@intrinsic
def _dot_ahead_avx2(typing, codes, at, probe, part, dots, ahead):  # type: ignore[no-untyped-def]
    """`_dot_ahead`, asking for a few lines after each eight photos."""
    return types.void(codes, types.intp, probe, types.intp, dots, types.intp), _generate_dot


def _generate_dot(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
    to_codes, to_probe, to_dots = (_pointing(context, builder, signature, arguments, place) for place in (0, 2, 4))
    at, part = arguments[1], arguments[3]
    probes = [_splat(builder, builder.load(to_probe(_INT, part, p))) for p in range(GROUP // 2)]
    for first in range(0, BLOCK, _LANES):
        where = to_dots(_INTS, ir.Constant(at.type, first))
        high, low = ir.Constant(_INTS, None), builder.load(where, align=4)
        for p in range(GROUP // 4):
            numbers = builder.load(to_codes(_INTS, at, 4 * (p * BLOCK + first)), align=1)
            high = _add_products(builder, high, numbers, probes[2 * p])
            low = _add_products(builder, low, numbers, probes[2 * p + 1])
        high = builder.shl(high, ir.Constant(_INTS, [LOW_LEVELS.bit_length() - 1] * _LANES))
        builder.store(builder.add(high, low), where, align=4)
        # Two lines for each eighth of the 16 numbers, and a last one for the norms behind them.
        lines = range(first // 4, first // 4 + (3 if first + _LANES == BLOCK else 2))
        for line in lines if len(arguments) > 5 else ():
            _fetch(builder, to_codes(ir.IntType(8), arguments[5], _LINE * line), _SECOND_LEVEL)
    return context.get_dummy_value()


def _add_products(builder: ir.IRBuilder, total: Any, numbers: Any, others: Any) -> Any:
    """Lane by lane, a total and the sum of the products of four bytes without and four with a sign."""
    if VNNI:
        add = _instruction(builder, "llvm.x86.avx512.vpdpbusd.256", _INTS, _INTS, _INTS, _INTS)
        return builder.call(add, [total, numbers, others])
    multiply = _instruction(builder, "llvm.x86.avx2.pmadd.ub.sw", _PAIRS, _BYTES, _BYTES)
    add_pairs = _instruction(builder, "llvm.x86.avx2.pmadd.wd", _INTS, _PAIRS, _PAIRS)
    pairs = builder.call(multiply, [builder.bitcast(number, _BYTES) for number in (numbers, others)])
    return builder.add(total, builder.call(add_pairs, [pairs, ir.Constant(_PAIRS, [1] * 2 * _LANES)]))


@intrinsic
def _add_roots_avx2(typing, dots, levels, at, norm, norm_step, factor, share, total, to):  # type: ignore[no-untyped-def]
    """`_add_roots`, eight photos at a time; a root is the square times the processor's rough reciprocal root."""
    real = types.float32

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        to_dots, to_levels, to_total = (_pointing(context, builder, signature, arguments, place) for place in (0, 1, 7))
        at, to = arguments[2], arguments[8]
        norm, norm_step, factor, share = (_splat(builder, number) for number in arguments[3:7])
        reciprocal_root = _instruction(builder, "llvm.x86.avx.rsqrt.ps.256", _FLOATS, _FLOATS)
        larger = _instruction(builder, "llvm.x86.avx.max.ps.256", _FLOATS, _FLOATS, _FLOATS)
        fused = {"flags": ("contract",)}
        for first in range(0, BLOCK, _LANES):
            product = builder.load(to_dots(_INTS, ir.Constant(at.type, first)), align=4)
            if levels.dtype == real:
                level = builder.load(to_levels(_FLOATS, at, first), align=4)
            else:
                level = builder.load(to_levels(ir.VectorType(ir.IntType(8), _LANES), at, first), align=1)
                level = builder.sitofp(builder.zext(level, _INTS), _FLOATS)
            square = builder.fadd(builder.fmul(level, norm_step, **fused), norm, **fused)
            square = builder.fsub(square, builder.fmul(builder.sitofp(product, _FLOATS), factor, **fused), **fused)
            square = builder.call(larger, [square, ir.Constant(_FLOATS, [float(LEAST_SQUARE)] * _LANES)])
            root = builder.fmul(square, builder.call(reciprocal_root, [square]))
            where = to_total(_FLOATS, to, first)
            added = builder.fadd(builder.fmul(root, share, **fused), builder.load(where, align=4), **fused)
            builder.store(added, where, align=4)
        return context.get_dummy_value()

    return types.void(dots, levels, types.intp, real, real, real, real, total, types.intp), generate


@intrinsic
def _fetch_line(typing, numbers, at):  # type: ignore[no-untyped-def]
    """Ask for the line of memory that holds a number of a flat array, which will be needed soon."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        there = _pointing(context, builder, signature, arguments, 0)(ir.IntType(8), arguments[1])
        _fetch(builder, there, _FIRST_LEVEL)
        return context.get_dummy_value()

    return types.void(numbers, types.intp), generate


def _fetch(builder: ir.IRBuilder, address: Any, level: int) -> None:
    """Memory to be read, data and no code, into a level of the cache."""
    into = _instruction(builder, "llvm.prefetch.p0", ir.VoidType(), ir.PointerType(ir.IntType(8)), *[_INT] * 3)
    builder.call(into, [address, ir.Constant(_INT, 0), ir.Constant(_INT, level), ir.Constant(_INT, 1)])


def _pointing(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any, place: int) -> Callable[..., Any]:
    """Of one argument, an array: a function from a type, a place and what to add to it to the address there."""
    data = context.make_array(signature.args[place])(context, builder, arguments[place]).data

    def pointer(kind: ir.Type, at: Any, further: int = 0) -> Any:
        element = builder.gep(data, [builder.add(at, ir.Constant(at.type, further))])
        return builder.bitcast(element, ir.PointerType(kind))

    return pointer


def _splat(builder: ir.IRBuilder, value: Any) -> Any:
    """A vector that holds a number in all its lanes."""
    undefined = ir.Constant(ir.VectorType(value.type, _LANES), ir.Undefined)
    one = builder.insert_element(undefined, value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(_INTS, [0] * _LANES))


def _instruction(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Type) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def packed(numbers: npt.NDArray[np.floating[Any] | np.integer[Any]]) -> npt.NDArray[np.uint32]:
    """(..., width) integers, none beyond `MOST`, as (..., width / 2) uint32: four high bytes, the four low ones, ..."""
    whole = numbers.astype(np.int32)
    high = (whole + LOW_LEVELS // 2) // LOW_LEVELS
    halves = np.stack([high, whole - LOW_LEVELS * high], axis=-2).astype(np.int8)
    fours = halves.reshape(*halves.shape[:-1], -1, 4).swapaxes(-2, -3)
    words = np.ascontiguousarray(fours).view("<u4").astype(np.uint32, copy=False)
    return words.reshape(*numbers.shape[:-1], -1)


# Inlined: counting references to their arguments would take a third of the scan.
fetch: Final[Any] = _fetch_line
dot: Final[Any] = _dot_avx2 if SIMD else compiled(_dot, forceinline=True)
dot_ahead: Final[Any] = _dot_ahead_avx2 if SIMD else compiled(_dot_ahead, forceinline=True)
add_roots: Final[Any] = _add_roots_avx2 if SIMD else compiled(_add_roots, forceinline=True)
finish: Final = compiled(_finish, forceinline=True)
add_region: Final = compiled(_add_region, forceinline=True)
scan_blocks: Final = compiled(_scan_blocks)
encode: Final = compiled(_encode, fastmath=False)
