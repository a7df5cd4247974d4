"""Brute-force search in plain numpy: the reference that every index is tested against, and nothing faster."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.errors import QueryError, ShapeError
from indexer.fusion import EQUAL_WEIGHTS, fused_distance
from indexer.regions import REGIONS

Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""What a search finds: rows and distances, nearest first."""

_BLOCK: Final = 4096
"""Photos at a time: the differences in float64 of a 16-d block take 7 MB, whatever the size of the gallery."""


def exact_distances(
    embeddings: npt.NDArray[np.float32],
    probe: npt.NDArray[np.float32],
    ink: npt.NDArray[np.bool_],
    weights: Mapping[int, float] = EQUAL_WEIGHTS,
) -> npt.NDArray[np.float64]:
    """(photos,) float64 `fused_distance` of every photo, in blocks; bit for bit what one call would give."""
    blocks = [
        fused_distance(probe, embeddings[start : start + _BLOCK], ink, weights)
        for start in range(0, max(len(embeddings), 1), _BLOCK)
    ]
    return np.concatenate(blocks)


def exact_search(
    embeddings: npt.NDArray[np.float32],
    probe: npt.NDArray[np.float32],
    ink: npt.NDArray[np.bool_],
    k: int,
    weights: Mapping[int, float] = EQUAL_WEIGHTS,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The k nearest photos under Eq. (3), nearest first; equal distances in the order of the rows.

    Args:
        embeddings: (photos, 14, dim) float32, in the order of ingestion.
        probe: (14, dim) float32.
        ink: (14,) bool, True where the sketch has ink. Without any ink all photos tie at 0.
        k: at least 1; a k above the number of photos gives all of them.
        weights: granularity -> weight (the paper's alpha, beta, gamma), dimensionless, >= 0.

    Returns:
        (min(k, photos),) int64 rows of `embeddings`, and their float64 distances.

    Raises:
        ShapeError: the arrays disagree on regions or dim, or the probe is not finite.
        QueryError: k is below 1, or the weights are negative or incomplete.
    """
    check_query(probe, embeddings.shape[-1], k)
    distances = exact_distances(embeddings, probe, ink, weights)
    # A stable sort keeps equal distances in the order of the rows.
    rows = np.argsort(distances, kind="stable")[:k].astype(np.int64)
    return rows, distances[rows]


def check_query(probe: npt.NDArray[np.float32], dim: int, k: int) -> None:
    """Refuse what no search can answer; inner code then assumes it.

    Raises:
        ShapeError: the probe is not (14, dim) float32, or holds NaN or infinity.
        QueryError: k is below 1.
    """
    if probe.shape != (REGIONS, dim) or probe.dtype != np.float32:
        raise ShapeError(
            f"probe must be ({REGIONS}, {dim}) float32 to match the gallery, got {probe.shape} {probe.dtype}"
        )
    if not np.isfinite(probe).all():
        raise ShapeError("probe must hold finite numbers, got NaN or infinity; the encoder that made it is broken")
    if k < 1:
        raise QueryError(f"k must be at least 1, got {k}")
