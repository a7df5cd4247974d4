"""Embeddings of a file straight into a gallery: no photo is read, and none needs to be.

The photos have no thumbnail, and their source is the file's name. A photo is its id here, and its content the row of
embeddings: a row that the gallery has under this id is not stored again, another row under the id takes its place, and
that of its picture where it had one.
So a job that was stopped runs again like one over photos, and stores only what is missing.
"""

import hashlib
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

from indexer.embeddings_file import EmbeddedPhotos, EmbeddingsFile
from indexer.errors import ConfigError, DataError
from indexer.ingest import declared_fields
from indexer.ingest_report import IngestProgress, IngestReport
from indexer.store import NewPhoto, StoreWriter

T = TypeVar("T")

BATCH: Final = 8192
"""Photos of a segment and of a commit: 7 MB of vectors of 16 numbers."""

MAX_BATCH: Final = 65_536

_HASH_BYTES: Final = 8
"""Of a row's content hash, which tells whether an id has the same numbers as before. A million of SHA-256 would take
70 MB more on the disk, where they are in two places."""


def ingest_embeddings(
    gallery: Path,
    path: Path,
    model_hash: str,
    *,
    batch: int = BATCH,
    wait_s: float = 0.0,
    on_progress: Callable[[IngestProgress], None] | None = None,
) -> IngestReport:
    """Store a file's embeddings in a gallery, making it if it is not there. Memory does not grow with the file.

    Args:
        gallery: the gallery's folder.
        path: a file as `indexer.embeddings_file` describes it.
        model_hash: SHA-256 of the model that made the embeddings, 64 hexadecimal digits.
        batch: photos stored at once: all of them or, after a crash, none; 1 to 65536.
        wait_s: seconds to wait for another process that writes the gallery.
        on_progress: called when a batch is durable.

    Raises:
        ConfigError: batch or model hash are out of range.
        DataError: the file does not hold.
        GalleryError: the folder is something else, damaged, or being written.
        ModelMismatchError: the gallery was made by another model.
    """
    if not 1 <= batch <= MAX_BATCH:
        raise ConfigError(f"a batch must hold from 1 to {MAX_BATCH} photos, got {batch}")
    if len(model_hash) != 64 or not set(model_hash) <= set("0123456789abcdef"):
        raise ConfigError(f"a model hash must be a SHA-256 in 64 hexadecimal digits, got {model_hash[:80]!r}")
    started = time.monotonic()
    file = EmbeddingsFile.open(path, declared_fields(gallery))
    if not len(file):
        raise DataError(f"{file.name} holds no photos")
    with StoreWriter.open_or_create(gallery, model_hash, file.dim, wait_s=wait_s) as store:
        store.declare_fields(file.kinds)
        job = _Job(store, file, on_progress or (lambda _: None))
        with closing(_read_ahead(file.parts(batch))) as parts:
            for part in parts:
                job.store(part)
    skipped, elapsed = tuple(job.skipped), time.monotonic() - started
    return IngestReport(
        job.added,
        job.already_there,
        skipped,
        job.described,
        elapsed,
        failed=len(skipped),
        replaced=job.replaced,
    )


class _Job:
    """The counts, and what is done with some rows."""

    def __init__(self, store: StoreWriter, file: EmbeddingsFile, on_progress: Callable[[IngestProgress], None]) -> None:
        self._store = store
        self._file = file
        self._on_progress = on_progress
        self.added = self.replaced = self.already_there = self.described = 0
        self.skipped: list[tuple[str, str]] = []

    def store(self, part: EmbeddedPhotos) -> None:
        """Make one part durable."""
        there = self._store.contents_of(part.photo_ids)
        contents = [hashlib.blake2b(row.tobytes(), digest_size=_HASH_BYTES).digest() for row in part.embeddings]
        changed = [row for row, photo_id in enumerate(part.photo_ids) if there.get(photo_id) != contents[row]]
        photos = [self._new_photo(part, row, contents[row]) for row in changed]
        if photos:
            replaces = any(photo.photo_id in there for photo in photos)
            (self._store.upsert if replaces else self._store.append)(photos, part.embeddings[changed])
        known = {photo_id: values for photo_id, values in zip(part.photo_ids, part.metadata, strict=True) if values}
        if described := self._store.changed_metadata({name: known[name] for name in known.keys() & there.keys()}):
            self._store.describe(described)
        replaced = sum(part.photo_ids[row] in there for row in changed)
        self.replaced += replaced
        self.added += len(changed) - replaced
        self.already_there += len(part.photo_ids) - len(changed)
        # Of what was replaced values may be taken away besides; it is counted once.
        self.described += len({photo.photo_id for photo in photos if photo.metadata} | described.keys())
        self.skipped += part.refused
        self._on_progress(
            IngestProgress(len(self._file), self.added, self.already_there, len(self.skipped), self.replaced)
        )

    def _new_photo(self, part: EmbeddedPhotos, row: int, content: bytes) -> NewPhoto:
        known = {name: value for name, value in part.metadata[row].items() if value is not None}
        return NewPhoto(part.photo_ids[row], self._file.name, b"", content, metadata=known)


def _read_ahead(parts: Iterator[T]) -> Generator[T, None, None]:
    """The same, each part read while the one before is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
        ahead = pool.submit(next, parts, None)
        while (part := ahead.result()) is not None:
            ahead = pool.submit(next, parts, None)
            yield part
