"""Photos that come with an id of their own, a few at a time: what stands behind ingestion over gRPC.

An id names its photo: another picture under it takes the place of the former, and the same picture again is not stored
anew. A photo that does not hold fails alone. `indexer.ingest` is for whole sources.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from indexer.deleting import delete
from indexer.embeddings_file import check_id
from indexer.encoding import RegionEncoder
from indexer.errors import DataError, ImageError, PublicError, QueryError
from indexer.faces import FaceDetector
from indexer.framing import FaceFraming, default_crop
from indexer.ledger import Faces, Framing, check_model
from indexer.metadata import MAX_TEXT, Kind, Value, check_field, check_value
from indexer.preparing import Decoding
from indexer.retention import retain
from indexer.store import NewPhoto, StoreWriter
from indexer.upload import Upload


@dataclass(frozen=True)
class Upserted:
    """What became of some photos.

    Args:
        stored: how many were added or took the place of another picture.
        unchanged: how many were there already.
        failures: place among the photos -> why it could not be stored.
        without_face: how many of those stored are whole, because no face was found to crop them to.
    """

    stored: int
    unchanged: int
    failures: Mapping[int, PublicError]
    without_face: int = 0


class Upserter:
    """Writes one gallery, for one thread at a time; it holds the gallery's lock until it is closed."""

    def __init__(self, store: StoreWriter, encoder: RegionEncoder) -> None:
        self._store = store
        self._encoder = encoder
        self._kinds = store.fields()
        self._framing = store.manifest.framing or Framing(default_crop())
        self._decode = Decoding(encoder.size_px, framing=_one_face(self._framing, encoder.size_px))

    @classmethod
    def open(cls, folder: Path, encoder: RegionEncoder) -> Self:
        """Become the writer of a gallery.

        Raises:
            ConfigError: its photos are cropped to the face, and no face can be found here.
            GalleryError: there is none, another process writes it, or it may not be written.
            ModelMismatchError: another encoder made it.
        """
        store = StoreWriter.open(folder)
        try:
            check_model(store.name, store.manifest, encoder.model_hash, encoder.dim)
            return cls(store, encoder)
        except BaseException:
            store.close()
            raise

    def declare(self, kinds: Mapping[str, Kind]) -> None:
        """Give the gallery fields that it lacks.

        Raises:
            QueryError: a field has another kind, a name that cannot be, or there would be too many.
        """
        try:
            self._store.declare_fields({check_field(name): kind for name, kind in kinds.items()})
        except DataError as error:
            raise QueryError(str(error)) from error
        self._kinds = self._store.fields()

    def store(self, photos: Sequence[Upload]) -> Upserted:
        """Make photos durable, in their order.

        Raises:
            GalleryError: the disk refuses; photos before those that did not fit are stored.
        """
        stored = unchanged = without_face = 0
        failures: dict[int, PublicError] = {}
        for places in _without_repeats(photos):
            known = self._store.contents_of({photos[place].photo_id for place in places})
            new: list[NewPhoto] = []
            pixels: list[npt.NDArray[np.uint8]] = []
            described: dict[str, Mapping[str, Value | None]] = {}
            for place in places:
                photo = photos[place]
                content = hashlib.sha256(photo.image).digest()
                try:
                    metadata = self._checked(photo)
                    if known.get(photo.photo_id) == content:
                        described[photo.photo_id] = metadata
                        continue
                    (decoded,) = self._decode(photo.image)
                except (ImageError, QueryError) as error:
                    failures[place] = error
                else:
                    source = photo.source or photo.photo_id
                    new.append(
                        NewPhoto(photo.photo_id, source, decoded.thumbnail, content_hash=content, metadata=metadata)
                    )
                    pixels.append(decoded.pixels)
                    without_face += decoded.without_face
            if changed := {photo_id: values for photo_id, values in described.items() if values}:
                self._store.describe(changed)
            if new:
                self._store.keep_framing(self._framing)
                # One at a time takes least on a CPU, and lets a search in between.
                embeddings = np.concatenate([self._encoder.encode_photos(one[None]) for one in pixels])
                self._store.upsert(new, embeddings)
            stored += len(new)
            unchanged += len(described)
        return Upserted(stored, unchanged, failures, without_face)

    def delete(self, photo_ids: Sequence[str]) -> None:
        """Take photos out, all or none.

        Raises:
            UnknownPhotoError: one is not there.
            GalleryError: the disk refuses.
        """
        delete(self._store, photo_ids)

    def retain(self, days: float) -> int:
        """Forget the photos that are too old, see `indexer.retention.retain`; how many they were."""
        return retain(self._store, days).forgotten

    def close(self) -> None:
        """Let other writers in."""
        self._store.close()

    def _checked(self, photo: Upload) -> dict[str, Value]:
        try:
            check_id(photo.photo_id)
            if len(photo.source) > MAX_TEXT or not photo.source.isprintable():
                raise DataError(f"a source must be printable text of at most {MAX_TEXT} characters")
            return {name: self._value(name, value) for name, value in photo.metadata.items()}
        except DataError as error:
            raise QueryError(str(error)) from error

    def _value(self, name: str, value: Value) -> Value:
        kind = self._kinds.get(name)
        if kind is None:
            known = ", ".join(sorted(self._kinds)) or "none"
            raise DataError(f"the gallery has no field {name[:80]!r}, it has {known}; name new ones when you begin")
        try:
            return check_value(kind, value)
        except DataError as error:
            raise DataError(f"field {name}: {error}") from error


def _one_face(framing: Framing, size_px: int) -> FaceFraming | None:
    """What frames photos as the gallery's are, but that one photo, under the id it comes with, is made of each."""
    if framing.crop == "none":
        return None
    faces: Faces = "reject-many" if framing.faces == "reject-many" else "largest"
    return FaceFraming(FaceDetector.open(), size_px, faces=faces, crop=framing.crop)


def _without_repeats(photos: Sequence[Upload]) -> Iterator[list[int]]:
    """Places of photos in runs without the same id twice: the later one must find the earlier one stored."""
    run: dict[str, int] = {}
    for place, photo in enumerate(photos):
        if photo.photo_id in run:
            yield list(run.values())
            run = {}
        run[photo.photo_id] = place
    if run:
        yield list(run.values())
