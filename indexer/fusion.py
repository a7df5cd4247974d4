"""Eq. (3): from region distances to one distance per photo."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.errors import QueryError, ShapeError
from indexer.regions import GRANULARITIES, REGION_IDS, REGIONS

EQUAL_WEIGHTS: Final[Mapping[int, float]] = {1: 1.0, 2: 1.0, 3: 1.0}
"""The paper's alpha, beta and gamma."""

LEAST_WEIGHT: Final = 1e-100
MOST_WEIGHT: Final = 1e100
"""Weights beyond these make distances that overflow, or lose their digits near 0: no bound could tell photos apart."""


def region_weights(ink: npt.NDArray[np.bool_], weights: Mapping[int, float] = EQUAL_WEIGHTS) -> npt.NDArray[np.float64]:
    """Eq. (3) as fourteen constants of one query: D(photo) = sum of weight x distance over the regions.

    Args:
        ink: (14,) bool, True where the sketch has ink.
        weights: granularity -> weight (alpha, beta, gamma), 0 or from 1e-100 to 1e100.

    Returns:
        (14,) float64; 0 where there is no ink. A granularity's weights add up to its alpha, beta or gamma.

    Raises:
        ShapeError: ink is not (14,).
        QueryError: a weight is missing, unknown, negative, not finite, or beyond these.

    Example:
        >>> ink = np.zeros(14, bool)
        >>> ink[[0, 1, 2]] = True
        >>> region_weights(ink)[:5].tolist()
        [1.0, 0.5, 0.5, 0.0, 0.0]
    """
    if ink.shape != (REGIONS,):
        raise ShapeError(f"ink must be ({REGIONS},), got {ink.shape}")
    if set(weights) != set(GRANULARITIES):
        raise QueryError(f"weights must name the granularities {list(GRANULARITIES)}, got {sorted(weights)}")
    per_region = np.zeros(REGIONS)
    for granularity, weight in weights.items():
        if not (np.isfinite(weight) and weight >= 0):
            raise QueryError(
                f"the weight of granularity {granularity} must be finite and >= 0, got {weight}",
                field=f"granularity_{granularity}",
            )
        if weight and not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
            raise QueryError(
                f"the weight of granularity {granularity} must be 0 or from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}, "
                f"got {weight:g}; only their ratios matter",
                field=f"granularity_{granularity}",
            )
        ids = list(REGION_IDS[granularity])
        inked = int(ink[ids].sum())
        if inked:
            per_region[ids] = np.where(ink[ids], weight / inked, 0.0)
    return per_region


def fused_distance(
    probe: npt.NDArray[np.float32],
    gallery: npt.NDArray[np.float32],
    ink: npt.NDArray[np.bool_],
    weights: Mapping[int, float] = EQUAL_WEIGHTS,
) -> npt.NDArray[np.float64]:
    """Distance from one partial sketch to every gallery photo; smaller is closer.

    Each granularity adds its weight times the mean distance over its inked regions. A granularity without ink
    adds 0, so an empty sketch ties all photos and never yields NaN.

    Args:
        probe: (14, dim), unit rows, in region-id order; dim is 16 by default.
        gallery: (photos, 14, dim), unit rows, same order.
        ink: (14,) bool, True where the sketch has ink.
        weights: granularity -> weight (the paper's alpha, beta, gamma), dimensionless, >= 0.

    Returns:
        (photos,) float64, between 0 and 2 * sum(weights), computed in float64: the reference order.

    Raises:
        ShapeError: probe, gallery and ink disagree on regions or dim.
        QueryError: weights are negative or incomplete.

    Source: MGRL, arXiv:2401.00371, Eq. (3). Unlike the authors' code, a granularity without ink gives 0 and not 0/0.

    Example:
        >>> probe = np.tile(np.float32([1, 0]), (14, 1))
        >>> gallery = np.stack([probe, probe])
        >>> gallery[1, 0] = (-1, 0)    # the second photo differs in region 0, the whole face
        >>> fused_distance(probe, gallery, np.ones(14, bool), {1: 1.0, 2: 0.5, 3: 0.5}).tolist()
        [0.0, 2.0]
    """
    # Not `@`: BLAS rounds a row by its place among the others, and equal photos would no longer tie.
    return np.asarray(np.einsum("pr,r->p", region_distances(probe, gallery), region_weights(ink, weights)))


def region_distances(probe: npt.NDArray[np.float32], gallery: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(photos, 14) float64 Euclidean distances, region by region, from differences (no expansion, no cancellation).

    Raises:
        ShapeError: probe is not (14, dim) or gallery is not (photos, 14, dim).
    """
    if gallery.ndim != 3 or gallery.shape[1] != REGIONS or probe.shape != gallery.shape[1:]:
        raise ShapeError(
            f"probe must be ({REGIONS}, dim) and gallery (photos, {REGIONS}, dim) with the same dim, "
            f"got {probe.shape} and {gallery.shape}"
        )
    difference = gallery.astype(np.float64) - probe.astype(np.float64)
    return np.asarray(np.sqrt(np.einsum("prd,prd->pr", difference, difference)))
