"""A gallery on disk: append photos so that a crash at any moment loses none that was acknowledged.

    gallery.json          format, model hash and dim; written last when a gallery is made: a folder with it is whole
    ledger.sqlite         which segments are live, and their photos: ids, sources, content hashes, thumbnails
    segments/000001.vec   embeddings of one batch, raw little-endian float32 (photos, 14, dim), never changed
    lock                  held by the one writer

A segment is on disk, renamed into place and synced, before the ledger transaction that makes it live. A crash in
between leaves a file that the ledger does not know; the next writer removes it. Readers take one snapshot of the
ledger and then files that never change, so they neither wait for the writer nor make it wait.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from indexer import ledger
from indexer.errors import GalleryError, ModelMismatchError, ShapeError, UnknownPhotoError
from indexer.ledger import PHOTOS, SEGMENTS, Manifest, folder_name, manifest_path, read_manifest, segment_path
from indexer.regions import REGIONS


@dataclass(frozen=True)
class Photo:
    """One stored photo: its id, the file it came from, and a JPEG of at most 96 px a side."""

    photo_id: str
    source: str
    thumbnail: bytes


@dataclass(frozen=True)
class NewPhoto(Photo):
    """A photo to append; `content_hash` is the SHA-256 of its file, 32 bytes."""

    content_hash: bytes


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

    def snapshot(self) -> tuple[list[str], Iterator[npt.NDArray[np.float32]]]:
        """All photo ids in the order of rows, and their embeddings segment by segment in the same order.

        Returns:
            The ids, and an iterator over (photos, 14, dim) float32 arrays, each verified as it is read.

        Raises:
            GalleryError: the ledger is damaged; from the iterator: a segment is missing or altered.
        """
        with self._reading() as connection:
            # One transaction: the segments and the photos of the same moment.
            segments = connection.execute(sa.select(SEGMENTS).order_by(SEGMENTS.c.segment)).all()
            order = PHOTOS.c.segment, PHOTOS.c.segment_row
            ids = list(connection.execute(sa.select(PHOTOS.c.photo_id).order_by(*order)).scalars())
        if sum(segment.rows for segment in segments) != len(ids):
            raise GalleryError(f"gallery {self.name}: the ledger's photos and segments disagree; ingest it anew")
        return ids, (self._read_segment(segment) for segment in segments)

    def known(self) -> tuple[set[str], set[bytes]]:
        """The photo ids and the content hashes in the gallery."""
        with self._reading() as connection:
            rows = connection.execute(sa.select(PHOTOS.c.photo_id, PHOTOS.c.content_hash)).all()
        return {row.photo_id for row in rows}, {row.content_hash for row in rows}

    def photo(self, photo_id: str) -> Photo:
        """One photo's source and thumbnail.

        Raises:
            UnknownPhotoError: no photo has this id.
        """
        columns = PHOTOS.c.photo_id, PHOTOS.c.source, PHOTOS.c.thumbnail
        with self._reading() as connection:
            row = connection.execute(sa.select(*columns).where(PHOTOS.c.photo_id == photo_id)).one_or_none()
        if row is None:
            raise unknown_photo(self.name, photo_id)
        return Photo(*row)

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
            writer._remove_orphans()
        except BaseException:
            lock.close()
            raise
        return writer

    def append(self, photos: Sequence[NewPhoto], embeddings: npt.NDArray[np.float32]) -> None:
        """Store a batch. When this returns the batch survives a crash; before, none of it is visible.

        Args:
            photos: ids and content hashes must be new to the gallery.
            embeddings: (photos, 14, dim) float32, finite, unit rows.

        Raises:
            ShapeError: embeddings do not fit the photos or the gallery.
            GalleryError: an id or content is there already, or the disk refuses (nothing of the batch is kept).
        """
        if embeddings.shape != (len(photos), REGIONS, self.manifest.dim):
            expected = (len(photos), REGIONS, self.manifest.dim)
            raise ShapeError(f"embeddings must be {expected} for these photos, got {embeddings.shape}")
        if not np.isfinite(embeddings).all():
            raise ShapeError("embeddings must hold finite numbers, got NaN or infinity; the encoder is broken")
        if not photos:
            return
        data = np.ascontiguousarray(embeddings, "<f4").tobytes()
        try:
            self._append(photos, data)
        except sa.exc.IntegrityError as error:
            raise GalleryError(f"gallery {self.name} has a photo of this batch already ({error.orig})") from error
        except (OSError, sa.exc.DBAPIError) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "orig", error)
            raise GalleryError(f"gallery {self.name}: {len(photos)} photos could not be stored ({reason})") from error

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

    def _append(self, photos: Sequence[NewPhoto], data: bytes) -> None:
        with self._engine.begin() as connection:
            last = connection.execute(sa.select(sa.func.max(SEGMENTS.c.segment))).scalar() or 0
            segment = last + 1
            # The vectors first: the commit below must never name bytes that a crash can still take away.
            ledger.replace_file(segment_path(self.folder, segment), data)
            row = {"rows": len(photos), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            connection.execute(sa.insert(SEGMENTS), row | {"segment": segment})
            connection.execute(
                sa.insert(PHOTOS),
                [
                    {**vars(photo), "segment": segment, "segment_row": segment_row}
                    for segment_row, photo in enumerate(photos)
                ],
            )

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
