"""A gallery on disk: append photos so that a crash at any moment loses none that was acknowledged.

    gallery.json          format, model hash and dim; written last when a gallery is made: a folder with it is whole
    ledger.sqlite         which segments are live, their photos and which of their rows were deleted: `indexer.tables`
    segments/000001.vec   embeddings, never changed: `indexer.segments`
    index/                derived from the segments: `indexer.layout_files`
    lock                  held by the one writer: `indexer.locks`

A segment is on disk, renamed into place and synced, before the ledger transaction that makes it live. A crash in
between leaves a file that the ledger does not know; the next writer removes it. Readers take one snapshot of the
ledger and then files that never change, so they neither wait for the writer nor make it wait.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from indexer import edits, ledger
from indexer.contents import (
    Contents,
    is_format_1,
    read_contents,
    read_fields,
    read_metadata_of,
    read_names,
    read_names_of,
    read_primary_id,
    read_segments,
    read_version,
)
from indexer.errors import GalleryError, StaleSnapshotError, unknown_photo
from indexer.ledger import Framing, Manifest, check_model, folder_name, manifest_path, read_manifest, refusal
from indexer.locks import make_folder, take_lock
from indexer.metadata import Changes, Kind, Value
from indexer.rows import check_rows
from indexer.segments import OpenSegment, open_segment, strays, write_segment
from indexer.tables import PHOTOS
from indexer.versions import home_of


@dataclass(frozen=True)
class Photo:
    """One stored photo: its id, the file it came from, a JPEG of at most 96 px a side, and what is known about it.

    The thumbnail is empty where the photo was ingested as embeddings.
    """

    photo_id: str
    source: str
    thumbnail: bytes
    metadata: Mapping[str, Value] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class NewPhoto(Photo):
    """A photo to append; `content_hash` is the SHA-256 of its file, 32 bytes."""

    content_hash: bytes


@dataclass(frozen=True)
class Alias:
    """A further name of a stored photo: the same content under another id.

    Args:
        photo_id: the new name; no photo and no alias has it.
        source: the file of that name.
        of: a name that the photo has.
    """

    photo_id: str
    source: str
    of: str


class Snapshot(NamedTuple):
    """A gallery at one moment: what the ledger says, and the embeddings segment by segment.

    `segments` yields (photos, 14, dim) float32 arrays in the order of rows, each verified as it is read; it raises
    GalleryError where one is missing or altered.
    """

    contents: Contents
    segments: Iterator[npt.NDArray[np.float32]]


class Store:
    """A gallery folder, for reading. Use `Store.open`; the constructor only stores. Safe to share between threads."""

    def __init__(self, root: Path, home: Path, manifest: Manifest) -> None:
        self.root = root
        self.folder = home  # of the version's files, see `indexer.versions`
        self.manifest = manifest
        self.engine = ledger.open_engine(home)
        self.ledger_file = ledger.file_of(home)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open an existing gallery.

        Raises:
            GalleryError: no gallery there, or one of another format.
        """
        home = home_of(folder)
        return cls(folder, home, read_manifest(home))

    @property
    def name(self) -> str:
        """The folder's own name."""
        return folder_name(self.root)

    def snapshot(self) -> Snapshot:
        """What the gallery holds now, however much is written to it while the embeddings are read.

        Raises:
            GalleryError: the ledger is damaged.
        """
        with self.reading() as connection:
            contents = read_contents(connection, self.name)
        return Snapshot(contents, self.embeddings(contents))

    def has_segments(self, segments: Sequence[Any]) -> bool:
        """Whether these, of an earlier snapshot, are the gallery's still; compaction replaces them by others."""
        with self.reading() as connection:
            return set(segments) <= set(read_segments(connection))

    def embeddings(self, contents: Contents) -> Iterator[npt.NDArray[np.float32]]:
        """A snapshot's embeddings once more, see `Snapshot`."""
        return (self.open_segment(segment).embeddings() for segment in contents.segments)

    def version(self) -> int:
        """Grows with every change to the ledger."""
        with self.reading() as connection:
            return read_version(connection)

    def fields(self) -> dict[str, Kind]:
        """The metadata fields that photos may have, by name."""
        with self.reading() as connection:
            return {} if is_format_1(connection) else read_fields(connection)

    def names(self) -> Iterator[tuple[str, bytes]]:
        """Every id, aliases too, with the content hash of its photo; a photo's own id comes before its aliases."""
        with self.reading() as connection:
            yield from read_names(connection)

    def names_of(self, content_hash: bytes) -> list[tuple[str, str]]:
        """(id, source) of every photo of this content, then of their aliases."""
        with self.reading() as connection:
            return read_names_of(connection, content_hash)

    def changed_metadata(self, photos: Changes) -> Changes:
        """Of what `describe` would be told, that which is not so yet. An alias is told nothing: its photo has it."""
        with self.reading() as connection:
            return edits.changed_metadata(connection, photos)

    def count(self) -> int:
        """How many photos there are."""
        with self.reading() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(PHOTOS)).scalar_one()

    def photo(self, photo_id: str) -> Photo:
        """One photo's source, thumbnail and metadata; for an alias, those of its photo, under the photo's own id.

        Raises:
            UnknownPhotoError: no photo has this id.
        """
        columns = PHOTOS.c.photo_id, PHOTOS.c.source, PHOTOS.c.thumbnail
        with self.reading() as connection:
            own = read_primary_id(connection, photo_id)
            row = connection.execute(sa.select(*columns).where(PHOTOS.c.photo_id == own)).one_or_none()
            if row is None:
                raise unknown_photo(self.name, photo_id)
            return Photo(*row, metadata=read_metadata_of(connection, own))

    def close(self) -> None:
        """Give the ledger's connections back."""
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one moment of the ledger.

        Raises:
            GalleryError: the ledger is damaged.
        """
        try:
            with self.engine.connect() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            reason = refusal(self.folder, error)
            raise GalleryError(f"gallery {self.name}: its ledger cannot be read ({reason})") from error

    def open_segment(self, segment: Any) -> OpenSegment:
        """One row of the ledger's table of segments, verified.

        Raises:
            GalleryError: it is missing or altered.
            StaleSnapshotError: it was the gallery's, and is no longer.
        """
        try:
            return open_segment(self.folder, segment, self.manifest.dim, self.name)
        except GalleryError as error:
            if self.has_segments([segment]):
                raise
            raise StaleSnapshotError(f"gallery {self.name} was compacted while it was read; open it again") from error


class StoreWriter(Store):
    """The one writer of a gallery folder; use it as a context manager, which holds the lock."""

    def __init__(self, root: Path, home: Path, manifest: Manifest, lock: IO[str]) -> None:
        super().__init__(root, home, manifest)
        self._lock = lock

    @classmethod
    def open_or_create(cls, folder: Path, model_hash: str, dim: int, *, wait_s: float = 0.0) -> Self:
        """Open a gallery for appending, made if it is missing or empty; wait `wait_s` seconds for another writer.

        Raises:
            GalleryError: another writer holds it, the folder holds something else, or another format.
            ModelMismatchError: the gallery was made by another model.
        """
        make_folder(folder)
        return cls._of_lock(folder, *take_lock(folder, wait_s), (model_hash, dim))

    @classmethod
    def open(cls, folder: Path, *, wait_s: float = 0.0) -> Self:
        """Open an existing gallery for changes, whatever model made it; GalleryError if there is none, or as above."""
        read_manifest(home_of(folder))  # before a lock is made in what is none
        return cls._of_lock(folder, *take_lock(folder, wait_s))

    @classmethod
    def _of_lock(cls, folder: Path, home: Path, lock: IO[str], model: tuple[str, int] | None = None) -> Self:
        """The writer of what is there under the lock, of whatever model unless one is named."""
        try:
            if model is not None and not manifest_path(home).exists():
                ledger.create(home, *model)
            writer = cls(folder, home, read_manifest(home), lock)
            if model is not None:
                check_model(writer.name, writer.manifest, *model)
            writer.manifest = ledger.upgrade(home, writer.manifest)
            writer.remove_strays()
        except BaseException:
            lock.close()
            raise
        return writer

    def keep_framing(self, framing: Framing) -> None:
        """Remember how the gallery's photos are cropped, see `ledger.keep_framing`."""
        self.manifest = ledger.keep_framing(self.folder, self.manifest, framing)

    def contents_of(self, photo_ids: Iterable[str]) -> dict[str, bytes]:
        """The content hash of each photo, by its id or an alias of it; ids that are not there are left out."""
        with self.reading() as connection:
            return edits.contents_of(connection, photo_ids)

    def append(self, photos: Sequence[NewPhoto], embeddings: npt.NDArray[np.float32]) -> None:
        """Store a batch. When this returns the batch survives a crash; before, none of it is visible.

        Args:
            photos: ids must be new to the gallery; contents may be there already, which is for the caller to decide;
                metadata of declared fields.
            embeddings: (photos, 14, dim) float32, finite, unit rows.

        Raises:
            ShapeError: embeddings do not fit the photos or the gallery, or are no finite unit rows.
            GalleryError: an id is there already, or the disk refuses (nothing of the batch is kept).
        """
        self._store_batch(photos, embeddings, replaces=False)

    def upsert(self, photos: Sequence[NewPhoto], embeddings: npt.NDArray[np.float32]) -> None:
        """Store a batch as `append` does; photos whose ids are there are replaced, in the same commit.

        A replaced photo keeps what is known about it where the new one says nothing. Among equal distances it now
        comes last, as if it were new. The content that was there is gone, unless the gallery knows it by an alias too:
        then it goes by that from now on. An alias of the same id is taken away.

        Raises:
            ShapeError, GalleryError: as `append`, but that ids may be there.
        """
        self._store_batch(photos, embeddings, replaces=True)
        ledger.empty_log(self.engine)

    def add_aliases(self, aliases: Sequence[Alias]) -> None:
        """Give photos further names, all or, after a crash or an error, none.

        An alias takes no part in rankings. It stands for its photo in `photo`, `describe` and `delete`.

        Raises:
            UnknownPhotoError: there is no photo to name.
            GalleryError: a name is taken, or the disk refuses.
        """
        with self.writing(f"{len(aliases)} aliases could not be stored") as connection:
            self._refuse_taken(edits.names_taken(connection, [alias.photo_id for alias in aliases]))
            if missing := edits.insert_aliases(connection, aliases):
                raise unknown_photo(self.name, missing[0])

    def declare_fields(self, kinds: Mapping[str, Kind]) -> None:
        """Add metadata fields; those that are there already stay. Nothing is written where none is new.

        Raises:
            DataError: a field has another kind in this gallery, or there would be too many.
            GalleryError: the disk refuses.
        """
        if not kinds.items() <= self.fields().items():
            with self.writing("metadata fields could not be stored") as connection:
                edits.declare_fields(connection, kinds)

    def describe(self, photos: Changes) -> None:
        """Change the metadata of stored photos, all or, after a crash, none; ids that are not there are passed over.

        Args:
            photos: photo id -> declared field -> value, or None to take it away; other fields stay.

        Raises:
            GalleryError: the disk refuses.
        """
        with self.writing("metadata could not be stored") as connection:
            edits.change_metadata(connection, photos)

    def delete(self, photo_ids: Sequence[str]) -> None:
        """Take photos out for good, by any of their names, all or, after a crash or an error, none.

        Thumbnails, metadata and all their names are overwritten; the vectors stay in their segments, as rows that
        nothing names, until `indexer.compaction`.

        Raises:
            UnknownPhotoError: an id is not there.
            GalleryError: the disk refuses.
        """
        with self.writing("photos could not be deleted") as connection:
            if missing := edits.delete_photos(connection, photo_ids):
                raise unknown_photo(self.name, missing[0])
        ledger.empty_log(self.engine)

    def close(self) -> None:
        """Let the next writer in."""
        super().close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def writing(self, failure: str, needs: int = 0) -> Iterator[sa.Connection]:
        """A transaction of which readers see all or nothing, and hear that there was one; it writes `needs` bytes."""
        try:
            with self.engine.begin() as connection:
                yield connection
                edits.touch(connection)
        except sa.exc.IntegrityError as error:
            raise GalleryError(f"gallery {self.name}: {failure}, two have the same id ({error.orig})") from error
        except (OSError, sa.exc.DBAPIError) as error:
            raise GalleryError(f"gallery {self.name}: {failure} ({refusal(self.folder, error, needs)})") from error

    def _store_batch(self, photos: Sequence[NewPhoto], embeddings: npt.NDArray[np.float32], *, replaces: bool) -> None:
        check_rows(embeddings, len(photos), self.manifest.dim)
        if not photos:
            return
        # The ledger's pages are written twice: into its log, then into itself.
        needs = embeddings.nbytes + 2 * sum(len(photo.thumbnail) + 1024 for photo in photos)
        try:
            with self.writing(f"{len(photos)} photos could not be stored", needs) as connection:
                stored_s = edits.now_s(connection)  # while those that are replaced are there
                if replaces:
                    photos = edits.make_way(connection, photos)
                else:
                    self._refuse_taken(edits.names_taken(connection, [photo.photo_id for photo in photos]))
                number = edits.next_segment(connection)
                # The vectors first: the commit to come must never name bytes that a crash can still take away.
                edits.insert_photos(connection, write_segment(self.folder, embeddings, number), photos, stored_s)
        except GalleryError:
            self.remove_strays()  # a full disk may need the room
            raise

    def _refuse_taken(self, photo_ids: Sequence[str]) -> None:
        if photo_ids:
            raise GalleryError(f"gallery {self.name} has a photo {photo_ids[0][:100]!r} already; give it another id")

    def remove_strays(self) -> None:
        """Remove segments that are not the gallery's: what a crash left, and what was compacted."""
        with self.reading() as connection:
            found = strays(self.folder, read_segments(connection))
        for path in found:
            path.unlink()
        if found:
            # Whoever left them may have been about to erase something from the ledger as well.
            ledger.fsync_folder(self.folder / "segments")
            ledger.empty_log(self.engine)
