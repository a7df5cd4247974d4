"""The scan of `indexer.device_rows` as one Triton kernel: masks, weights, roots and sums in one pass over the rows.

Plain torch writes every intermediate back to memory, many times what the rows themselves take. Here each row is read
once for all queries of a batch, and nothing is written but the sums: the time is that of reading the inked regions.

`TRITON_INTERPRET=1` runs the kernel on the CPU, which is how the tests hold it to plain torch.
"""

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from indexer.device_rows import BATCHES, Asked, Chunk
from indexer.regions import REGIONS

_TILE: Final = 8192
"""Differences (queries x photos x numbers) of a program: 64 registers in each of its 128 threads."""

_MANY: tl.constexpr = tl.constexpr(REGIONS)


# Numbers that change from search to search must not make Triton compile anew; `room` is always one of whole sixteens.
@triton.jit(do_not_specialize=["count", "queries", "photos", "out_stride"])  # type: ignore[untyped-decorator]
def _add_up(  # type: ignore[no-untyped-def]  # Triton's types are its own
    codes,
    scales,
    regions,
    count,
    probes,
    shares,
    bits,
    out,
    queries,
    photos,
    room,
    out_stride,
    dim: tl.constexpr,
    width: tl.constexpr,
    some: tl.constexpr,
    block: tl.constexpr,
    scaled: tl.constexpr,
    filtered: tl.constexpr,
):
    """One program adds up the regions of `block` photos for all queries; arguments as `device_rows.Chunk` and `Asked`.

    `width` is `dim` rounded up to a power of two, `some` is `queries` or more; `room` is how many photos `codes` has.
    """
    row = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    column, query = tl.arange(0, width), tl.arange(0, some)
    taking = row < photos
    if filtered:
        byte = tl.load(bits + row // 8, mask=taking, other=0).to(tl.int32)
        taking = taking & ((byte >> (row % 8).to(tl.int32)) & 1 != 0)
    asked = query < queries
    real = column < dim
    total = tl.zeros((some, block), tl.float32)
    for turn in range(count):
        region = tl.load(regions + turn).to(tl.int64)
        at = region * room + row
        # Photos that take no part are not read: with a narrow filter most of the memory is left alone.
        z = tl.load(codes + at[:, None] * dim + column, mask=taking[:, None] & real, other=0).to(tl.float32)
        if scaled:
            z *= tl.load(scales + at, mask=taking, other=0).to(tl.float32)[:, None]
        of_region = query * _MANY + region
        y = tl.load(probes + of_region[:, None] * dim + column, mask=asked[:, None] & real, other=0)
        share = tl.load(shares + of_region, mask=asked, other=0)
        apart = z[None, :, :] - y[:, None, :]
        total += share[:, None] * tl.sqrt(tl.sum(apart * apart, axis=2))
    total = tl.where(taking[None, :], total, float("inf"))
    tl.store(out + query[:, None] * out_stride + row, total, mask=asked[:, None] & (row < photos))


def add_up_fused(chunk: Chunk, asked: Asked, bits: Tensor | None, out: Tensor) -> None:
    """What `indexer.device_rows.add_up` does, in one pass over the rows."""
    queries, photos = out.shape
    sizes = tile(chunk.codes.shape[2], queries)
    with torch.cuda.device_of(out):
        _add_up[(triton.cdiv(photos, sizes["block"]),)](
            chunk.codes,
            # Pointers that are not followed may be any.
            chunk.codes if chunk.scales is None else chunk.scales,
            asked.region_ids,
            len(asked.regions),
            asked.probes,
            asked.shares,
            chunk.codes if bits is None else bits,
            out,
            queries,
            photos,
            chunk.room,
            out.stride(0),
            scaled=chunk.scales is not None,
            filtered=bits is not None,
            **sizes,
        )


def tile(dim: int, queries: int) -> dict[str, int]:
    """What a program works on: sizes known when the kernel is compiled."""
    width, some = triton.next_power_of_2(dim), next(size for size in BATCHES if queries <= size)
    return {"dim": dim, "width": width, "some": some, "block": max(_TILE // (width * some), 1)}
