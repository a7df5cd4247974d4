"""Gallery: vectors, photo ids and thumbnails, searchable as one thing."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from indexer.attributes import Mask, Masks
from indexer.contents import Contents
from indexer.encoding import RegionEncoder
from indexer.errors import GalleryError, QueryError, StaleSnapshotError, unknown_photo
from indexer.exact import Found
from indexer.filters import Filter, check_fields, check_size
from indexer.fusion import EQUAL_WEIGHTS, region_distances, region_weights
from indexer.gallery_index import Earlier, index_of
from indexer.granular import GranularIndex
from indexer.layout_files import saved_layout
from indexer.ledger import Manifest, check_model, file_of, manifest_path, read_manifest
from indexer.metadata import Kind
from indexer.modes import EXACT, Mode
from indexer.regions import GRANULARITIES, REGION_IDS
from indexer.store import Photo, Store
from indexer.versions import home_of

_COMPACTIONS: Final = 10
"""That may come in between while a gallery is opened."""


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
        gallery_photos: how many photos were ranked: all, or those that pass the filter.
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
        contents: what it held at that moment.
        index: the embeddings, deleted photos' included.
    """

    def __init__(self, store: Store, contents: Contents, index: GranularIndex) -> None:
        self._store = store
        self._contents = contents
        self._index = index
        self._wants_layout = False
        self._present = len(index) if contents.present is None else int(np.count_nonzero(contents.present))
        self._masks = Masks()

    @classmethod
    def open(cls, folder: Path, *, device: str = "cpu") -> Self:
        """Load a gallery made by `mgrl ingest`, verifying every checksum. An empty one opens, but finds nothing.

        A large gallery's vectors are mapped, see `indexer.gallery_index`.

        Args:
            folder: the gallery's folder.
            device: where to search, "cpu" or "cuda".

        Raises:
            GalleryError: no gallery there, another format, or damaged.
            ConfigError: the device cannot be used.
        """
        store = Store.open(folder)
        try:
            return cls(store, *_loaded(store, device))
        except BaseException:
            store.close()
            raise

    def is_stale(self) -> bool:
        """Whether the folder has changed since; cheap enough to ask several times a second."""
        return self._has_moved() or self.has_changed()

    def has_changed(self) -> bool:
        """Whether this version of the folder has changed since, whichever is the one in use now."""
        return self._store.version() != self._contents.version

    def newest_manifest(self) -> Manifest:
        """What the folder says of itself now: after a change of the model, another one than this gallery's.

        Raises:
            GalleryError: damaged since.
        """
        return read_manifest(home_of(self._store.root))

    def reopened(self, *, stays: bool = False) -> Self:
        """The folder as it is now, beside this gallery, which stays what it is; both close together.

        Where photos were only deleted or described, the two share their index. After a change of the model, or
        where another gallery was put in its place, they share nothing, and each closes alone.

        Args:
            stays: with the version that this gallery is of, whichever is the one in use now.

        Raises:
            GalleryError: damaged since.
        """
        moves = self._has_moved() and not stays
        store, older = (Store.open(self._store.root), None) if moves else (self._store, self)
        newer = type(self)(store, *_loaded(store, self._index.device, older))
        newer._wants_layout = self._wants_layout
        if self._wants_layout and newer._index is not self._index:
            newer.build_approximate()
        return newer

    def build_approximate(self) -> bool:
        """Lay the index out so that searches may leave photos out, and those of `reopened`; before searches run.

        The layout is saved beside the segments, if the disk lets it, and read from then on: see `indexer.layout_files`.

        Returns:
            False, changing nothing, for a gallery below 10,000 photos and without numba: all modes are then exact.
        """
        self._wants_layout = True
        store, segments = self._store, self._contents.segments
        is_live = partial(store.has_segments, segments)
        return self._index.build_approximate(partial(saved_layout, store.folder, segments, store.manifest.dim, is_live))

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self._store.name

    @property
    def folder(self) -> Path:
        """Where it lies, whichever of its versions is in use; never to be sent anywhere."""
        return self._store.root

    @property
    def photos(self) -> int:
        """How many photos there are."""
        return self._present

    @property
    def version(self) -> int:
        """Grows with every change of the folder."""
        return self._contents.version

    @property
    def photo_ids(self) -> tuple[str, ...]:
        """All ids in the order of ingestion."""
        return tuple(photo_id for photo_id in self._contents.photo_ids if photo_id)

    @property
    def fields(self) -> Mapping[str, Kind]:
        """The metadata fields that a filter may name."""
        return self._contents.attributes.kinds

    @property
    def dim(self) -> int:
        """Numbers in a region's embedding."""
        return self._store.manifest.dim

    @property
    def manifest(self) -> Manifest:
        """What the folder said of itself when this gallery was opened."""
        return self._store.manifest

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
        filter: Filter | None = None,
    ) -> Ranking:
        """Rank the photos by Eq. (3), as exactly as asked.

        Args:
            probe: (14, dim) float32, unit rows, in region-id order.
            ink: (14,) bool, True where the sketch has ink.
            k: length of the ranking, at least 1; above the number of photos it gives all of them.
            weights: granularity -> weight (the paper's alpha, beta, gamma), dimensionless, >= 0.
            mode: what may be left out; nothing by default, and nothing ever unless `build_approximate` was called.
            filter: the photos that take part; the ranking is theirs, as if there were no others. It may be empty.

        Raises:
            GalleryError: the gallery has no photos.
            QueryError: no ink, k below 1, weights that rank nothing, or a filter that does not fit the fields.
            ShapeError: probe or ink do not fit the gallery.
        """
        self._check(ink, weights)
        allowed, photos = self._taking_part(filter)
        found, certificate = self._index.search_in_mode(probe, ink, k, weights, allowed, mode)
        return Ranking(self._hits(found, probe, ink), photos, certificate.exact, certificate.unseen_from)

    @property
    def shares_scans(self) -> bool:
        """Whether `search_batch` costs less than its searches one by one."""
        return self._index.shares_scans

    def search_batch(
        self,
        probes: npt.NDArray[np.float32],
        inks: npt.NDArray[np.bool_],
        k: int,
        weights: Sequence[Mapping[int, float]],
        filter: Filter | None = None,
    ) -> list[Ranking]:
        """What `search` answers to each of several queries, exactly; on a large gallery they share one scan.

        Args:
            probes: (queries, 14, dim) float32.
            inks: (queries, 14) bool.
            k: length of every ranking.
            weights: one mapping a query.
            filter: the photos that take part.

        Raises:
            GalleryError, QueryError, ShapeError: as `search`, for any of the queries.
        """
        for ink, each in zip(inks, weights, strict=True):
            self._check(ink, each)
        allowed, photos = self._taking_part(filter)
        found = self._index.search_batch(probes, inks, k, weights, allowed)
        return [
            Ranking(self._hits(one, probe, ink), photos, exact=True)
            for one, probe, ink in zip(found, probes, inks, strict=True)
        ]

    def _hits(self, found: Found, probe: npt.NDArray[np.float32], ink: npt.NDArray[np.bool_]) -> tuple[Hit, ...]:
        rows, distances = found
        by_region = np.where(ink, region_distances(probe, self._index.vectors(rows)), 0.0)
        return tuple(
            Hit(self._contents.photo_ids[row], place, float(distance), _per_granularity(regions, ink), regions)
            for place, (row, distance, regions) in enumerate(zip(rows, distances, by_region, strict=True), start=1)
        )

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
        return self._index.rank(row, probe, ink, weights, self._contents.present)

    def photo(self, photo_id: str) -> Photo:
        """One photo's source, thumbnail and metadata, read from the disk.

        Raises:
            UnknownPhotoError: no photo has this id.
        """
        return self._store.photo(photo_id)

    def close(self) -> None:
        """Give the ledger's connections back; photos can no longer be looked up cheaply, searches still run."""
        self._store.close()

    def _has_moved(self) -> bool:
        """Whether other files than this gallery reads are the folder's now, of another version or another gallery."""
        store = self._store
        if not manifest_path(store.root).exists():  # moved away, or one is being restored in its place
            return False
        return home_of(store.root) != store.folder or file_of(store.folder) not in (None, store.ledger_file)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {photo_id: row for row, photo_id in enumerate(self._contents.photo_ids) if photo_id}

    def _taking_part(self, filter: Filter | None) -> tuple[Mask | None, int]:
        """The rows that a search may find, None for all, and how many photos they are."""
        if filter is None:
            return self._contents.present, self._present
        check_size(filter)
        check_fields(filter, self.fields)
        mask = self._masks.of(filter, self._mask)
        return mask, int(np.count_nonzero(mask))

    def _mask(self, filter: Filter) -> Mask:
        mask = self._contents.attributes.passing(
            filter, lambda ids: [self._row_of[photo_id] for photo_id in ids if photo_id in self._row_of]
        )
        return mask if self._contents.present is None else mask & self._contents.present

    def _check(self, ink: npt.NDArray[np.bool_], weights: Mapping[int, float]) -> None:
        if not self._present:
            raise GalleryError(f"gallery {self.name} has no photos; add some with `mgrl ingest` or UpsertPhotos")
        per_region = region_weights(ink, weights)
        if not ink.any():
            raise QueryError(
                "no ink yet: the canvas is empty, so all photos tie and there is no ranking; draw a stroke"
            )
        if not per_region.any():
            raise QueryError(
                f"the weights {dict(weights)} are 0 for every granularity that has ink, so all photos tie; raise one"
            )


def _loaded(store: Store, device: str, older: Gallery | None = None) -> tuple[Contents, GranularIndex]:
    """What the folder holds now; an older gallery's index where the segments are the same.

    Where compaction takes the segments away meanwhile, they are looked up again: what is returned is of one moment.
    """
    for _ in range(_COMPACTIONS):
        contents = store.snapshot().contents
        if older is not None and contents.segments == older._contents.segments:
            return contents, older._index
        earlier = None if older is None else Earlier(older._contents.segments, older._index)
        with suppress(StaleSnapshotError):
            return contents, index_of(store, contents, device, earlier)
    raise StaleSnapshotError(f"gallery {store.name} was compacted {_COMPACTIONS} times while it was opened; try again")


def _per_granularity(regions: npt.NDArray[np.float64], ink: npt.NDArray[np.bool_]) -> dict[int, float]:
    """Mean distance over the inked regions of each granularity; 0 without ink."""
    means = {}
    for granularity in GRANULARITIES:
        ids = list(REGION_IDS[granularity])
        means[granularity] = float(regions[ids].sum() / max(1, ink[ids].sum()))
    return means
