"""What a search is asked and what it answers, the same on both sides of the wire. Light: clients import it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.errors import QueryError, blaming
from indexer.filters import Filter, check_size
from indexer.fusion import EQUAL_WEIGHTS, region_weights
from indexer.modes import EXACT, Mode
from indexer.regions import REGIONS
from indexer.sketch import Stroke

DEFAULT_K: Final = 10
MAX_K: Final = 1000
MAX_K_WITH_THUMBNAILS: Final = 100
"""Thumbnails of a few KiB each keep an answer below a message's 4 MiB."""

MAX_WEIGHT: Final = 1e6
"""Far above any use; keeps every distance within float32, which the wire carries."""


@dataclass(frozen=True)
class SearchOptions:
    """How to rank and what to return.

    Args:
        k: photos to return, 1 to 1000, or to 100 with thumbnails.
        weights: granularity -> weight (the paper's alpha, beta, gamma), 0 to 1e6, one of them
            above 0.
        include_thumbnails: whether every hit carries its thumbnail.
        mode: what a search may leave out; nothing by default.
        filter: which photos take part; all by default.

    Raises:
        QueryError: an option is out of range.
    """

    k: int = DEFAULT_K
    weights: Mapping[int, float] = field(default_factory=lambda: EQUAL_WEIGHTS)
    include_thumbnails: bool = False
    mode: Mode = EXACT
    filter: Filter | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MAX_K:
            raise QueryError(f"k must be from 1 to {MAX_K}, got {self.k}", field="k")
        if self.include_thumbnails and self.k > MAX_K_WITH_THUMBNAILS:
            raise QueryError(
                f"k must be at most {MAX_K_WITH_THUMBNAILS} with thumbnails, got {self.k}; fetch them photo by photo",
                field="k",
            )
        for granularity, weight in self.weights.items():
            if weight > MAX_WEIGHT:
                raise QueryError(
                    f"weights must be at most {MAX_WEIGHT:.0f}, got {weight}; only their ratios matter",
                    field=f"weights.granularity_{granularity}",
                )
        with blaming("weights"):
            if not region_weights(np.ones(REGIONS, bool), self.weights).any():
                raise QueryError("at least one weight must be above 0, got 0 for every granularity")
        if self.filter is not None:
            with blaming("filter"):
                check_size(self.filter)


@dataclass(frozen=True)
class Timings:
    """Milliseconds spent on one answer; 0 for what was not needed."""

    raster_ms: float = 0.0
    encode_ms: float = 0.0
    search_ms: float = 0.0


@dataclass(frozen=True, eq=False)
class RankedPhoto:
    """One photo of an answer: a `Hit`, and how it moved since the previous answer.

    Args:
        photo_id: its id in the gallery.
        rank: 1-based.
        distance: fused distance, smaller is closer.
        granularity_distances: granularity -> mean distance over its inked regions, before weighting.
        region_distances: (14,) float, by region id; 0 where there is no ink.
        contributions: (14,) float, what every region adds to `distance`: its weight times its distance.
        rank_change: places climbed since the previous answer, negative when it fell; None when it was
            not there.
        is_new: whether there was a previous ranking and the photo was not in it.
        thumbnail: JPEG bytes, empty unless asked for.
    """

    photo_id: str
    rank: int
    distance: float
    granularity_distances: Mapping[int, float]
    region_distances: npt.NDArray[np.floating]
    contributions: npt.NDArray[np.floating]
    rank_change: int | None = None
    is_new: bool = False
    thumbnail: bytes = b""


@dataclass(frozen=True, eq=False)
class CanvasState:
    """What is on the canvas of a drawing, and what can become of it.

    Args:
        strokes: how many there are.
        undo_steps: steps that can be taken back.
        redo_steps: steps that can be done again.
        next_stroke: number that the next stroke gets.
        rearranged: changes whenever strokes were taken away or put back; the server's own.
        canvas: the strokes by number, when they were rearranged since the answer before and the drawing asked for it.
    """

    strokes: int = 0
    undo_steps: int = 0
    redo_steps: int = 0
    next_stroke: int = 0
    rearranged: int = 0
    canvas: Mapping[int, Stroke] | None = None


@dataclass(frozen=True)
class Stability:
    """How settled a drawing's ranking is.

    Args:
        overlap: share of the hits that were in the previous ranking, 0..1; None without one.
        settled_strokes: strokes drawn since the closest photo last changed.
        too_early: whether the drawing says too little yet to lean on the ranking; see `service.stability`.
    """

    overlap: float | None = None
    settled_strokes: int = 0
    too_early: bool = True


@dataclass(frozen=True, eq=False)
class Answer:
    """The photos for a drawing as it stands. A lead, not an identification.

    Args:
        hits: closest first; empty when there is no ink that counts, and when no photo passes the filter.
        gallery_photos: photos that were ranked, those that pass the filter; 0 when there is no ink.
        exact: whether hits and order are those of an exhaustive comparison.
        ink: (14,) bool, the regions that hold ink.
        timings: where the time went.
        state: the canvas; empty outside a stream.
        skipped: changes that got no answer of their own, because newer ones had arrived.
        sequence: every accepted message up to this one is included; 0 outside a stream.
        unseen_from: no photo that was not looked at is nearer than this; infinite when all were.
        no_ink: whether there is nothing to search with yet: no ink, or none where the weights look.
        gallery_version: which state of the gallery was searched; grows with every change to it.
        stability: how settled a drawing's ranking is; None for none, and outside a stream.
    """

    hits: tuple[RankedPhoto, ...]
    gallery_photos: int
    exact: bool
    ink: npt.NDArray[np.bool_]
    timings: Timings
    state: CanvasState = field(default_factory=CanvasState)
    skipped: int = 0
    sequence: int = 0
    unseen_from: float = math.inf
    no_ink: bool = False
    gallery_version: int = 0
    stability: Stability | None = None

    @property
    def strokes(self) -> int:
        """Strokes on the canvas."""
        return self.state.strokes

    def rank_of(self, photo_id: str) -> int | None:
        """The photo's 1-based rank, None when it is not among the hits."""
        return next((hit.rank for hit in self.hits if hit.photo_id == photo_id), None)
