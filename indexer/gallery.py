"""Gallery: vectors, photo ids and thumbnails, searchable as one thing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from indexer.encoding import RegionEncoder
from indexer.errors import GalleryError, QueryError
from indexer.fusion import EQUAL_WEIGHTS, region_distances, region_weights
from indexer.granular import GranularIndex
from indexer.modes import EXACT, Mode
from indexer.regions import GRANULARITIES, REGION_IDS
from indexer.store import Photo, Store, check_model, unknown_photo


@dataclass(frozen=True, eq=False)
class Hit:
    """One photo of a ranking.

    Args:
        photo_id: its id in the gallery.
        rank: 1-based place in this ranking.
        distance: Eq. (3) with the query's weights; smaller is closer.
        granularity_distances: granularity -> mean distance over its inked regions, before its weight, in 0..2; 0
            without ink. `distance` is their sum, each times its weight.
        region_distances: (14,) float64 distances in 0..2; 0 where there is no ink.
    """

    photo_id: str
    rank: int
    distance: float
    granularity_distances: Mapping[int, float]
    region_distances: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """The answer to one query.

    Args:
        hits: nearest first; equal distances in the order of ingestion.
        gallery_photos: how many photos were ranked.
        exact: whether no other photo can belong among the hits.
        unseen_from: no photo that was not looked at is nearer than this; infinite when all were.
    """

    hits: tuple[Hit, ...]
    gallery_photos: int
    exact: bool
    unseen_from: float = math.inf


class Gallery:
    """The photos of one folder at the moment it was opened. Use `Gallery.open`; the constructor only stores.

    Safe to search from several threads.

    Args:
        store: the folder.
        photo_ids: in the order of the index's rows.
        index: the embeddings.
    """

    def __init__(self, store: Store, photo_ids: list[str], index: GranularIndex) -> None:
        self._store = store
        self._photo_ids = photo_ids
        self._index = index

    @classmethod
    def open(cls, folder: Path, *, device: str = "cpu") -> Self:
        """Load a gallery made by `mgrl ingest`, verifying every checksum. An empty one opens, but finds nothing.

        Args:
            folder: the gallery's folder.
            device: where the FAISS indices live, "cpu" or "cuda".

        Raises:
            GalleryError: no gallery there, another format, or damaged.
            ConfigError: the device cannot be used.
        """
        store = Store.open(folder)
        try:
            photo_ids, segments = store.snapshot()
            index = GranularIndex(store.manifest.dim, device=device)
            for embeddings in segments:
                index.add(embeddings)
        except BaseException:
            store.close()
            raise
        return cls(store, photo_ids, index)

    def build_approximate(self) -> bool:
        """Lay the index out so that searches may leave photos out; before searches run.

        Returns:
            False, changing nothing, for a gallery below 10,000 photos and without numba: all modes are then exact.
        """
        return self._index.build_approximate()

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self._store.name

    @property
    def photos(self) -> int:
        """How many photos there are."""
        return len(self._photo_ids)

    @property
    def photo_ids(self) -> tuple[str, ...]:
        """All ids in the order of ingestion."""
        return tuple(self._photo_ids)

    @property
    def dim(self) -> int:
        """Numbers in a region's embedding."""
        return self._store.manifest.dim

    @property
    def model_hash(self) -> str:
        """Names the encoder that made the embeddings; probes must come from the same."""
        return self._store.manifest.model_hash

    def check_model(self, encoder: RegionEncoder) -> None:
        """Refuse an encoder that did not make this gallery.

        Raises:
            ModelMismatchError: another hash or dim.
        """
        check_model(self.name, self._store.manifest, encoder.model_hash, encoder.dim)

    def search(
        self,
        probe: npt.NDArray[np.float32],
        ink: npt.NDArray[np.bool_],
        k: int = 10,
        weights: Mapping[int, float] = EQUAL_WEIGHTS,
        mode: Mode = EXACT,
    ) -> Ranking:
        """Rank the photos by Eq. (3), as exactly as asked.

        Args:
            probe: (14, dim) float32, unit rows, in region-id order.
            ink: (14,) bool, True where the sketch has ink.
            k: length of the ranking, at least 1; above the number of photos it gives all of them.
            weights: granularity -> weight (the paper's alpha, beta, gamma), dimensionless, >= 0.
            mode: what may be left out; nothing by default, and nothing ever unless `build_approximate` was called.

        Raises:
            GalleryError: the gallery has no photos.
            QueryError: no ink, k below 1, or weights that rank nothing.
            ShapeError: probe or ink do not fit the gallery.
        """
        self._check(ink, weights)
        (rows, distances), certificate = self._index.search_in_mode(probe, ink, k, weights, mode=mode)
        by_region = np.where(ink, region_distances(probe, self._index.vectors(rows)), 0.0)
        hits = tuple(
            Hit(self._photo_ids[row], place, float(distance), _per_granularity(regions, ink), regions)
            for place, (row, distance, regions) in enumerate(zip(rows, distances, by_region, strict=True), start=1)
        )
        return Ranking(hits, self.photos, certificate.exact, certificate.unseen_from)

    def rank_of(
        self,
        photo_id: str,
        probe: npt.NDArray[np.float32],
        ink: npt.NDArray[np.bool_],
        weights: Mapping[int, float] = EQUAL_WEIGHTS,
    ) -> int:
        """1-based rank of one photo among all, ties counted against it.

        Raises:
            UnknownPhotoError: no photo has this id.
            GalleryError, QueryError, ShapeError: as `search`.
        """
        self._check(ink, weights)
        row = self._row_of.get(photo_id)
        if row is None:
            raise unknown_photo(self.name, photo_id)
        return self._index.rank(row, probe, ink, weights)

    def photo(self, photo_id: str) -> Photo:
        """One photo's source and thumbnail, read from the disk.

        Raises:
            UnknownPhotoError: no photo has this id.
        """
        return self._store.photo(photo_id)

    def close(self) -> None:
        """Give the ledger's connections back; photos can no longer be looked up cheaply, searches still run."""
        self._store.close()

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {photo_id: row for row, photo_id in enumerate(self._photo_ids)}

    def _check(self, ink: npt.NDArray[np.bool_], weights: Mapping[int, float]) -> None:
        if not self._photo_ids:
            raise GalleryError(f"gallery {self.name} has no photos; add some with `mgrl ingest`")
        per_region = region_weights(ink, weights)
        if not ink.any():
            raise QueryError(
                "no ink yet: the canvas is empty, so all photos tie and there is no ranking; draw a stroke"
            )
        if not per_region.any():
            raise QueryError(
                f"the weights {dict(weights)} are 0 for every granularity that has ink, so all photos tie; raise one"
            )


def _per_granularity(regions: npt.NDArray[np.float64], ink: npt.NDArray[np.bool_]) -> dict[int, float]:
    """Mean distance over the inked regions of each granularity; 0 without ink."""
    means = {}
    for granularity in GRANULARITIES:
        ids = list(REGION_IDS[granularity])
        means[granularity] = float(regions[ids].sum() / max(1, ink[ids].sum()))
    return means
