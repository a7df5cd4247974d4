"""Encodes a gallery's photos with another model, beside the version that is served, and then takes its place.

A gallery keeps thumbnails of 96 px, too small to encode, and no photos: they would make it as large as its sources, and
a second store of faces to guard. So the photos come from their sources again, and are known by the SHA-256 of their
files, wherever they lie now. What the gallery has and no source gives is named, and nothing is switched.

The new version is a gallery folder (`indexer.versions`), made batch by batch as ingestion makes one: stopped at any
moment, the next run goes on. Photos may come and go meanwhile. At the end, under both locks, the new version is made to
agree with the old in all but the vectors, and one rename lets it be the gallery.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import sqlalchemy as sa

from indexer import edits, versions
from indexer.contents import read_fields, read_own_names
from indexer.encoding import RegionEncoder
from indexer.errors import ImageError, UnknownPhotoError
from indexer.framing import framing_of
from indexer.loading import Decoded, face_content, load_ahead
from indexer.preparing import Decoding, Preparer, embeddings_of
from indexer.register import Register
from indexer.sources.item import Source
from indexer.sources.remote import fetched
from indexer.sources.spelled import open_sources
from indexer.store import Alias, NewPhoto, Store, StoreWriter
from indexer.tables import ALIASES, PHOTO_METADATA, PHOTOS

LISTED: Final = 100
_AT_ONCE: Final = 1000
_FACE: Final = re.compile(r"#([0-9]{1,4})$")
"""How ids of faces end, see `indexer.loading.face_item`."""


@dataclass(frozen=True)
class Reindexing:
    """What a run did.

    Args:
        encoded: photos that this run encoded and stored in the new version.
        photos: in the new version.
        missing: how many photos of the gallery the new version lacks.
        lacks: ids of the first 100 of them.
        skipped: (name, reason) of files that could not be read, the first 100.
        switched: whether the new version is the gallery's now.
        seconds: wall time.
    """

    encoded: int
    photos: int
    missing: int
    lacks: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    switched: bool
    seconds: float


def reindex(
    folder: Path,
    sources: Sequence[Path | str | Source],
    encoder: RegionEncoder,
    *,
    batch: int = 64,
    prepare: Preparer | None = None,
    leaves_out: bool = False,
    wait_s: float = 0.0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Reindexing:
    """Encode a gallery's photos with another model and, when it has all of them, switch to the new version.

    Args:
        folder: the gallery's.
        sources: where its photos are; other photos in there are passed over.
        encoder: the model to come. Where it is the gallery's already, nothing is done.
        batch: photos stored at once.
        prepare: decodes the photos and, if it can, encodes them; by default photos are encoded batch by batch.
        leaves_out: switch although photos are missing, which are then in the gallery no longer.
        wait_s: seconds to wait for another process that writes the gallery, when it comes to the switch.
        on_progress: called with (photos that the new version has, of how many).

    Raises:
        ConfigError: an earlier run that this one goes on with cropped the photos otherwise.
        DataError: a source is missing.
        GalleryError: no gallery there, it is damaged, or written by another process.
    """
    started = time.monotonic()
    with closing(Store.open(folder)) as old:
        if old.manifest.model_hash == encoder.model_hash:
            return Reindexing(0, old.count(), 0, (), (), switched=False, seconds=time.monotonic() - started)
        home = versions.version_folder(folder, encoder.model_hash)
        if home in versions.superseded(folder):
            with StoreWriter.open(folder, wait_s=wait_s):  # or a compaction may be removing it
                versions.keep(folder, home)
        with StoreWriter.open_or_create(home, encoder.model_hash, encoder.dim) as new:
            prepare = prepare or Decoding(encoder.size_px)
            new.keep_framing(framing_of(prepare.framing))
            job = _Job(old, new, encoder, on_progress)
            job.encode_all(sources, batch, prepare)
            with StoreWriter.open(folder, wait_s=wait_s) as current:
                missing = [photo_id for photo_id, _ in _lacking(current, new)]
                is_switched = not missing or leaves_out
                if is_switched:
                    _agree(current, new)
                    versions.switch(folder, home)
            photos = new.count()
    seconds = time.monotonic() - started
    return Reindexing(
        job.encoded, photos, len(missing), tuple(missing[:LISTED]), tuple(job.skipped), is_switched, seconds
    )


class _Job:
    """Puts photos of the old version into the new one."""

    def __init__(
        self, old: Store, new: StoreWriter, encoder: RegionEncoder, on_progress: Callable[[int, int], None]
    ) -> None:
        self.encoded = 0
        self.skipped: list[tuple[str, str]] = []
        self._old, self._new, self._encoder, self._on_progress = old, new, encoder, on_progress
        # What an earlier run encoded and is no longer so goes first: its content may come back under another id.
        _remove_surplus(old, new)
        self._wanted: set[bytes] = set()
        self._faces = {1}  # numbers of the faces of a file that photos are
        for photo_id, content in _lacking(old, new):
            self._wanted.add(content)
            if found := _FACE.search(photo_id):
                self._faces.add(int(found[1]))

    def has_content(self, content_hash: bytes) -> bool:
        """Whether a file needs not be decoded. Of a file with several faces the gallery may have but a later one."""
        return not any(face_content(content_hash, number) in self._wanted for number in self._faces)

    def encode_all(self, sources: Sequence[Path | str | Source], batch: int, prepare: Preparer) -> None:
        """Read the sources to their end."""
        # No fields: what is known of the photos comes from the gallery, and what a source says of them may not hold.
        source = open_sources(sources, frozenset())
        source.survey(self._old.fields())
        items = fetched(source.items(self._old.fields()))
        waiting: list[tuple[bytes, Decoded]] = []
        ahead = 2 * max(batch, prepare.threads)
        with closing(load_ahead(items, self, prepare, prepare.threads, ahead)) as loaded:
            for item, future in loaded:
                try:
                    found = future.result()
                except ImageError as error:
                    if len(self.skipped) < LISTED:
                        self.skipped.append((item.name, str(error)))
                    continue
                for number, decoded in enumerate(found.decoded or (), start=1):
                    content = face_content(found.content_hash, number)
                    # Another file of the same content may have been decoded at the same time.
                    if content in self._wanted:
                        self._wanted.remove(content)
                        waiting.append((content, decoded))
                if len(waiting) >= batch:
                    self._store(waiting)
                    waiting = []
        self._store(waiting)

    def _store(self, waiting: Sequence[tuple[bytes, Decoded]]) -> None:
        """Encode these and store them under the old version's ids."""
        named = [(photos, decoded) for content, decoded in waiting if (photos := list(self._photos(content, decoded)))]
        if not named:
            return
        embeddings = embeddings_of([decoded for _, decoded in named], self._encoder)
        new = [photo for photos, _ in named for photo in photos]
        self._new.declare_fields(self._old.fields())  # what is known of these may be of a field that came meanwhile
        self._new.upsert(new, np.repeat(embeddings, [len(photos) for photos, _ in named], axis=0))
        self.encoded += len(new)
        self._on_progress(self._new.count(), self._old.count())

    def _photos(self, content: bytes, decoded: Decoded) -> Iterator[NewPhoto]:
        """The old version's photos of this content, copies that were kept too, as the new one shall have them."""
        for photo_id, source in self._old.names_of(content):
            try:
                photo = self._old.photo(photo_id)
            except UnknownPhotoError:
                continue  # deleted since it was found
            if photo.photo_id == photo_id:  # no alias
                yield NewPhoto(photo_id, source, decoded.thumbnail, metadata=photo.metadata, content_hash=content)


def _own_names(store: Store) -> Iterator[tuple[str, bytes]]:
    with store.reading() as connection:
        yield from read_own_names(connection)


def _lacking(old: Store, new: Store) -> Iterator[tuple[str, bytes]]:
    """The old version's photos that the new one lacks, or has with another content."""
    has = Register(_own_names(new))
    return ((photo_id, content) for photo_id, content in _own_names(old) if not has.has(photo_id, content))


def _remove_surplus(old: Store, new: StoreWriter) -> None:
    """Delete what the old version has no longer, or has with another content."""
    wanted = Register(_own_names(old))
    if surplus := [photo_id for photo_id, content in _own_names(new) if not wanted.has(photo_id, content)]:
        new.delete(surplus)


def _agree(old: StoreWriter, new: StoreWriter) -> None:
    """Make the new version what the old is in all but the vectors. Killed in the middle, it can be done again."""
    _remove_surplus(old, new)
    with old.reading() as theirs, new.writing("the new version could not be completed") as ours:
        edits.declare_fields(ours, read_fields(theirs))
        ours.execute(sa.delete(ALIASES))
        ours.execute(sa.delete(PHOTO_METADATA))
        photos = sa.select(PHOTOS.c.photo_id, PHOTOS.c.stored_s, PHOTO_METADATA.c["values"])
        for some in theirs.execute(photos.outerjoin(PHOTO_METADATA)).partitions(_AT_ONCE):
            rows = edits.rows_of(ours, [photo.photo_id for photo in some])
            there = [(rows[photo.photo_id], photo) for photo in some if photo.photo_id in rows]
            for row, photo in there:
                ours.execute(sa.update(PHOTOS).where(PHOTOS.c.row == row).values(stored_s=photo.stored_s))
            if known := [{"row": row, "values": photo[2]} for row, photo in there if photo[2]]:
                ours.execute(sa.insert(PHOTO_METADATA), known)
        aliases = sa.select(ALIASES.c.photo_id, ALIASES.c.source, PHOTOS.c.photo_id.label("of")).join(PHOTOS)
        for some in theirs.execute(aliases).partitions(_AT_ONCE):
            edits.insert_aliases(ours, [Alias(*alias) for alias in some])
