"""A gallery on disk: append photos so that a crash at any moment loses none that was acknowledged.

    gallery.json          format, model hash and dim; written last when a gallery is made: a folder with it is whole
    ledger.sqlite         which segments are live, and their photos: ids, sources, content hashes, thumbnails,
                          metadata; which of their rows were deleted
    segments/000001.vec   embeddings of one batch, raw little-endian float32 (photos, 14, dim), never changed
    index/                derived from the segments, see `indexer.index_files`
    lock                  held by the one writer

A segment is on disk, renamed into place and synced, before the ledger transaction that makes it live. A crash in
between leaves a file that the ledger does not know; the next writer removes it. Readers take one snapshot of the
ledger and then files that never change, so they neither wait for the writer nor make it wait.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from indexer import edits, ledger
from indexer.contents import Contents, is_format_1, read_contents, read_fields, read_metadata_of, read_version
from indexer.errors import GalleryError, ModelMismatchError, ShapeError, UnknownPhotoError
from indexer.ledger import PHOTOS, SEGMENTS, Manifest, folder_name, manifest_path, read_manifest, segment_path
from indexer.metadata import Kind, Value
from indexer.regions import REGIONS

_UNIT_WITHIN: Final = 0.01
"""Far above what float16 or a GPU rounds a unit row to."""


@dataclass(frozen=True)
class Photo:
    """One stored photo: its id, the file it came from, a JPEG of at most 96 px a side, and what is known about it."""

    photo_id: str
    source: str
    thumbnail: bytes
    metadata: Mapping[str, Value] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class NewPhoto(Photo):
    """A photo to append; `content_hash` is the SHA-256 of its file, 32 bytes."""

    content_hash: bytes


class Snapshot(NamedTuple):
    """A gallery at one moment: what the ledger says, and the embeddings segment by segment.

    `segments` yields (photos, 14, dim) float32 arrays in the order of rows, each verified as it is read; it raises
    GalleryError where one is missing or altered.
    """

    contents: Contents
    segments: Iterator[npt.NDArray[np.float32]]


class Store:
    """A gallery folder, for reading. Use `Store.open`; the constructor only stores. Safe to share between threads."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._engine = ledger.open_engine(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open an existing gallery.

        Raises:
            GalleryError: no gallery there, or one of another format.
        """
        return cls(folder, read_manifest(folder))

    @property
    def name(self) -> str:
        """The folder's own name."""
        return folder_name(self.folder)

    def snapshot(self) -> Snapshot:
        """What the gallery holds now, however much is written to it while the embeddings are read.

        Raises:
            GalleryError: the ledger is damaged.
        """
        with self._reading() as connection:
            contents = read_contents(connection, self.name)
        return Snapshot(contents, self.embeddings(contents))

    def embeddings(self, contents: Contents) -> Iterator[npt.NDArray[np.float32]]:
        """A snapshot's embeddings once more, see `Snapshot`."""
        return (self._read_segment(segment) for segment in contents.segments)

    def version(self) -> int:
        """Grows with every change to the ledger."""
        with self._reading() as connection:
            return read_version(connection)

    def fields(self) -> dict[str, Kind]:
        """The metadata fields that photos may have, by name."""
        with self._reading() as connection:
            return {} if is_format_1(connection) else read_fields(connection)

    def known(self) -> tuple[set[str], set[bytes]]:
        """The photo ids and the content hashes in the gallery."""
        with self._reading() as connection:
            rows = connection.execute(sa.select(PHOTOS.c.photo_id, PHOTOS.c.content_hash)).all()
        return {row.photo_id for row in rows}, {row.content_hash for row in rows}

    def count(self) -> int:
        """How many photos there are."""
        with self._reading() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(PHOTOS)).scalar_one()

    def photo(self, photo_id: str) -> Photo:
        """One photo's source, thumbnail and metadata.

        Raises:
            UnknownPhotoError: no photo has this id.
        """
        columns = PHOTOS.c.photo_id, PHOTOS.c.source, PHOTOS.c.thumbnail
        with self._reading() as connection:
            row = connection.execute(sa.select(*columns).where(PHOTOS.c.photo_id == photo_id)).one_or_none()
            if row is None:
                raise unknown_photo(self.name, photo_id)
            return Photo(*row, metadata=read_metadata_of(connection, photo_id))

    def close(self) -> None:
        """Give the ledger's connections back."""
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            raise GalleryError(f"gallery {self.name}: its ledger cannot be read ({error.orig})") from error

    def _read_segment(self, segment: Any) -> npt.NDArray[np.float32]:
        path = segment_path(self.folder, segment.segment)
        where = f"gallery {self.name}: segment {path.name}"
        advice = "restore the folder from a copy or ingest its photos anew"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise GalleryError(f"{where} cannot be read ({error.strerror}); {advice}") from error
        if len(data) != segment.bytes:
            raise GalleryError(f"{where} has {len(data)} bytes, the ledger says {segment.bytes}; {advice}")
        if hashlib.sha256(data).hexdigest() != segment.sha256:
            raise GalleryError(f"{where} does not match its checksum, it was altered; {advice}")
        return np.frombuffer(data, "<f4").astype(np.float32, copy=False).reshape(segment.rows, REGIONS, -1)


class StoreWriter(Store):
    """The one writer of a gallery folder; use it as a context manager, which holds the lock."""

    def __init__(self, folder: Path, manifest: Manifest, lock: IO[str]) -> None:
        super().__init__(folder, manifest)
        self._lock = lock

    @classmethod
    def open_or_create(cls, folder: Path, model_hash: str, dim: int) -> Self:
        """Open a gallery for appending, making it if the folder is missing or empty.

        Raises:
            GalleryError: another writer holds it, the folder holds something else, or another format.
            ModelMismatchError: the gallery was made by another model.
        """
        _make_folder(folder)
        lock = _take_lock(folder)
        try:
            if not manifest_path(folder).exists():
                ledger.create(folder, model_hash, dim)
            writer = cls(folder, read_manifest(folder), lock)
            check_model(writer.name, writer.manifest, model_hash, dim)
            writer.manifest = ledger.upgrade(folder, writer.manifest)
            writer._remove_orphans()
        except BaseException:
            lock.close()
            raise
        return writer

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open an existing gallery for changes, whatever model made it.

        Raises:
            GalleryError: no gallery there, one of another format, or another writer holds it.
        """
        manifest = read_manifest(folder)
        return cls.open_or_create(folder, manifest.model_hash, manifest.dim)

    def append(self, photos: Sequence[NewPhoto], embeddings: npt.NDArray[np.float32]) -> None:
        """Store a batch. When this returns the batch survives a crash; before, none of it is visible.

        Args:
            photos: ids and content hashes must be new to the gallery; metadata of declared fields.
            embeddings: (photos, 14, dim) float32, finite, unit rows.

        Raises:
            ShapeError: embeddings do not fit the photos or the gallery, or are no finite unit rows.
            GalleryError: an id or content is there already, or the disk refuses (nothing of the batch is kept).
        """
        if embeddings.shape != (len(photos), REGIONS, self.manifest.dim):
            expected = (len(photos), REGIONS, self.manifest.dim)
            raise ShapeError(f"embeddings must be {expected} for these photos, got {embeddings.shape}")
        if not np.isfinite(embeddings).all():
            raise ShapeError("embeddings must hold finite numbers, got NaN or infinity; the encoder is broken")
        if not photos:
            return
        lengths = np.linalg.norm(embeddings, axis=2)
        if np.abs(lengths - 1).max() > _UNIT_WITHIN:
            wrong = lengths.flat[np.abs(lengths - 1).argmax()]
            raise ShapeError(f"embeddings must be rows of length 1, one is {wrong:.4g} long; the encoder is broken")
        data = np.ascontiguousarray(embeddings, "<f4").tobytes()
        try:
            with self._writing(f"{len(photos)} photos could not be stored") as connection:
                self._append(connection, photos, data)
        except sa.exc.IntegrityError as error:
            raise GalleryError(f"gallery {self.name} has a photo of this batch already ({error.orig})") from error

    def declare_fields(self, kinds: Mapping[str, Kind]) -> None:
        """Add metadata fields; those that are there already stay.

        Raises:
            DataError: a field has another kind in this gallery, or there would be too many.
            GalleryError: the disk refuses.
        """
        with self._writing("metadata fields could not be stored") as connection:
            edits.declare_fields(connection, kinds)

    def describe(self, photos: Mapping[str, Mapping[str, Value | None]]) -> None:
        """Change the metadata of stored photos, all or, after a crash, none; ids that are not there are passed over.

        Args:
            photos: photo id -> declared field -> value, or None to take it away; other fields stay.

        Raises:
            GalleryError: the disk refuses.
        """
        with self._writing("metadata could not be stored") as connection:
            edits.change_metadata(connection, photos)

    def delete(self, photo_ids: Sequence[str]) -> None:
        """Take photos out for good, all or, after a crash or an error, none.

        Thumbnails and metadata are overwritten; the vectors stay in their segments, as rows that nothing names.

        Raises:
            UnknownPhotoError: an id is not there.
            GalleryError: the disk refuses.
        """
        with self._writing("photos could not be deleted") as connection:
            if missing := edits.delete_photos(connection, photo_ids):
                raise unknown_photo(self.name, missing[0])
        ledger.empty_log(self._engine)

    def close(self) -> None:
        """Let the next writer in."""
        super().close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _writing(self, failure: str) -> Iterator[sa.Connection]:
        """A transaction of which readers see all or nothing, and hear that there was one."""
        try:
            with self._engine.begin() as connection:
                yield connection
                edits.touch(connection)
        except sa.exc.IntegrityError:
            raise
        except (OSError, sa.exc.DBAPIError) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "orig", error)
            raise GalleryError(f"gallery {self.name}: {failure} ({reason})") from error

    def _append(self, connection: sa.Connection, photos: Sequence[NewPhoto], data: bytes) -> None:
        last = connection.execute(sa.select(sa.func.max(SEGMENTS.c.segment))).scalar() or 0
        segment = last + 1
        # The vectors first: the commit to come must never name bytes that a crash can still take away.
        ledger.replace_file(segment_path(self.folder, segment), data)
        row = {"rows": len(photos), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        connection.execute(sa.insert(SEGMENTS), row | {"segment": segment})
        rows = []
        for segment_row, photo in enumerate(photos):
            columns = {name: value for name, value in vars(photo).items() if name != "metadata"}
            rows.append({**columns, "segment": segment, "segment_row": segment_row})
        connection.execute(sa.insert(PHOTOS), rows)
        edits.insert_metadata(connection, {photo.photo_id: photo.metadata for photo in photos})

    def _remove_orphans(self) -> None:
        """Delete what a crashed writer left: segments that no commit made live, and half-written files."""
        with self._reading() as connection:
            live = {
                segment_path(self.folder, n).name for n in connection.execute(sa.select(SEGMENTS.c.segment)).scalars()
            }
        for path in (self.folder / "segments").glob("*"):
            if path.name not in live:
                path.unlink()


def check_model(name: str, manifest: Manifest, model_hash: str, dim: int) -> None:
    """Refuse an encoder that did not make this gallery's embeddings: its distances would mean nothing.

    Raises:
        ModelMismatchError: another hash or dim.
    """
    if (manifest.model_hash, manifest.dim) != (model_hash, dim):
        raise ModelMismatchError(
            f"gallery {name} was made by model {manifest.model_hash[:12]} (dim {manifest.dim}), this model is "
            f"{model_hash[:12]} (dim {dim}); ingest the photos with this model into a new gallery, or use the model "
            "that made this one (--model FILE)"
        )


def unknown_photo(gallery: str, photo_id: str) -> UnknownPhotoError:
    """The error for an id that a gallery does not have."""
    return UnknownPhotoError(f"gallery {gallery} has no photo {photo_id[:100]!r}")


def _make_folder(folder: Path) -> None:
    name = folder_name(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GalleryError(f"the folder {name} cannot be made ({error.strerror})") from error
    ours = {"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "lock", "segments", "gallery.json.tmp"}
    if not manifest_path(folder).exists() and (foreign := {path.name for path in folder.iterdir()} - ours):
        raise GalleryError(
            f"{name} is no gallery and not empty (it holds {sorted(foreign)[0]!r}); name a new or empty folder"
        )


def _take_lock(folder: Path) -> IO[str]:
    try:
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise GalleryError(f"gallery {folder_name(folder)} cannot be written ({error.strerror})") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise GalleryError(
            f"gallery {folder_name(folder)} is being written by another process (pid {holder}); wait until it has ended"
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
