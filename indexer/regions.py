"""The region grid: 1x1, 2x2 and 3x3, fourteen regions, and which of them hold ink.

Everything that depends on the order of regions reads it here, so that no second copy can drift.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.errors import ShapeError

GRANULARITIES: Final = (1, 2, 3)
REGIONS: Final = 14
"""Region ids: 0 is the whole face, 1..4 the 2x2 grid, 5..13 the 3x3 grid, row-major."""

REGION_IDS: Final[Mapping[int, range]] = {1: range(0, 1), 2: range(1, 5), 3: range(5, 14)}
"""Granularity -> its region ids."""

INK_LEVEL: Final = 32
"""A pixel of 0..255 counts as ink from here on: an eighth, so that an anti-aliased hairline counts."""

INK_SHARE: Final = 0.001
"""A region counts as inked when this share of its pixels is ink: 4 pixels of a 64x64 cell of the 3x3 grid."""


def region_box(region: int, size_px: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in pixels of one region of a square image; right and bottom are exclusive.

    Raises:
        ShapeError: the size is no multiple of 6, so that 2x2 and 3x3 cells would not be whole pixels.

    Example:
        >>> region_box(2, 192)    # upper right quarter
        (96, 0, 192, 96)
    """
    if size_px <= 0 or size_px % 6:
        raise ShapeError(f"the image side must be a multiple of 6 px, got {size_px}")
    granularity = next(g for g, ids in REGION_IDS.items() if region in ids)
    row, column = divmod(region - REGION_IDS[granularity].start, granularity)
    cell = size_px // granularity
    return column * cell, row * cell, (column + 1) * cell, (row + 1) * cell


def ink_mask(canvases: npt.NDArray[np.uint8], min_share: float = INK_SHARE) -> npt.NDArray[np.bool_]:
    """Which regions hold ink, measured on exactly the pixels that the network sees.

    Args:
        canvases: (..., size, size) uint8, ink bright on exact 0; size is a multiple of 6.
        min_share: share of a region's pixels that must be ink, in (0, 1].

    Returns:
        (..., 14) bool in region-id order.

    Raises:
        ShapeError: the canvas is not square or its side is no multiple of 6.
    """
    side = canvases.shape[-1]
    if canvases.ndim < 2 or canvases.shape[-2] != side or side % 6:
        raise ShapeError(f"a canvas must be square with a side that is a multiple of 6 px, got {canvases.shape}")
    # Sixths are the common refinement of halves and thirds: count once, add up thrice.
    cell = side // 6
    ink = (canvases >= INK_LEVEL).reshape(*canvases.shape[:-2], 6, cell, 6, cell).sum(axis=(-3, -1))
    columns = []
    for granularity in GRANULARITIES:
        step = 6 // granularity
        counts = ink.reshape(*ink.shape[:-2], granularity, step, granularity, step).sum(axis=(-3, -1))
        needed = max(1.0, min_share * (side / granularity) ** 2)
        columns.append((counts >= needed).reshape(*ink.shape[:-2], granularity**2))
    return np.concatenate(columns, axis=-1)
