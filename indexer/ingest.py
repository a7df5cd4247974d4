"""Photos in batches -> embeddings -> store, so that a job can be stopped at any moment and run again.

A photo is its content: a file whose SHA-256 the gallery has is neither decoded nor encoded again, wherever it lies and
whatever it is called. Files are taken in a fixed order and stored in that order, so an interrupted job that runs again
ends with the gallery of an uninterrupted one. A file that changed is a new photo beside the old one.

Ids are the path inside the source without suffix. Where that is taken (two suffixes, two sources, a changed file) the
name gets longer until it is free: with suffix, with the source's name before it, then with ~2, ~3, ... behind it.

Metadata of the file that `--metadata` names is stored with each photo, in the same transaction; that of photos that are
there already is changed first, in one. So that running again loses nothing, the file is read whole and checked against
the ids before any photo is encoded.

Small threads read, check and scale the next photos while the encoder works on the batch before. Only the scaled
pixels wait in memory, at most two batches of them, so memory does not grow with the source.
"""

import hashlib
import io
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import chain, count, islice
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from indexer.encoding import RegionEncoder, photo_pixels
from indexer.errors import ConfigError, DataError, GalleryError, ImageError
from indexer.gallery import Gallery
from indexer.granular import FUSED_FROM
from indexer.ledger import folder_name
from indexer.metadata import Value
from indexer.metadata_file import read_metadata
from indexer.photos import SUFFIXES, SourcePhoto, list_photos, read_bytes, read_photo
from indexer.store import NewPhoto, StoreWriter

THUMBNAIL_PX: Final = 96
MAX_BATCH: Final = 4096
"""Half a gigabyte of pixels in an encoder that takes 192 px."""

_DECODERS: Final = 2


@dataclass(frozen=True)
class IngestProgress:
    """Where a job is. Photos counted in `added` are durable: they survive a crash from here on."""

    total: int
    added: int
    already_there: int
    skipped: int

    @property
    def done(self) -> int:
        """Files that need no more work."""
        return self.added + self.already_there + self.skipped


@dataclass(frozen=True)
class IngestReport:
    """What a job did.

    Args:
        added: photos stored.
        already_there: files whose content the gallery had, under this or another name.
        skipped: (name, reason) of each file that is no readable photo.
        described: photos that got metadata.
        seconds: wall time.
    """

    added: int
    already_there: int
    skipped: tuple[tuple[str, str], ...]
    described: int
    seconds: float


@dataclass(frozen=True, eq=False)
class _Decoded:
    """A photo ready for the encoder; `pixels` is (size, size, 3) uint8."""

    source: SourcePhoto
    content_hash: bytes
    pixels: npt.NDArray[np.uint8]
    thumbnail: bytes


@dataclass
class _Job:
    """The counts, and what the gallery holds so far."""

    total: int
    taken_ids: set[str]
    known_hashes: set[bytes]
    on_progress: Callable[[IngestProgress], None]
    metadata: Mapping[str, Mapping[str, Value | None]]
    added: int = 0
    already_there: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def tell(self) -> None:
        self.on_progress(IngestProgress(self.total, self.added, self.already_there, len(self.skipped)))


def ingest(
    gallery: Path,
    sources: Sequence[Path],
    encoder: RegionEncoder,
    *,
    batch: int = 64,
    metadata: Path | None = None,
    on_progress: Callable[[IngestProgress], None] | None = None,
) -> IngestReport:
    """Encode the photos of folders and files into a gallery, making it if it is not there.

    Args:
        gallery: the gallery's folder.
        sources: folders (searched recursively) and single files.
        encoder: made the gallery's other photos too.
        batch: photos encoded at once, and stored at once: all of them or, after a crash, none; 1 to 4096.
        metadata: a .jsonl or .csv file, see `indexer.metadata_file`.
        on_progress: called when a batch is durable, and for each file that needs no encoding.

    Raises:
        ConfigError: batch is out of range.
        DataError: a source is missing, there is no photo file in any, or the metadata file does not hold.
        GalleryError: the folder is something else, damaged, or being written.
        ModelMismatchError: the gallery was made by another model.
    """
    if not 1 <= batch <= MAX_BATCH:
        raise ConfigError(f"a batch must hold from 1 to {MAX_BATCH} photos, got {batch}")
    started = time.monotonic()
    photos = list_photos(sources)
    if not photos:
        names = ", ".join(folder_name(source) for source in sources)
        raise DataError(f"no {', '.join(sorted(SUFFIXES))} files in {names}; name a folder with photos")
    with StoreWriter.open_or_create(gallery, encoder.model_hash, encoder.dim) as store:
        known_ids, known_hashes = store.known()
        described = _describe(store, metadata, photos, known_ids)
        job = _Job(len(photos), known_ids, known_hashes, on_progress or (lambda _: None), described)
        with closing(_new_photos(photos, job, encoder.size_px, ahead=2 * batch)) as fresh:
            while decoded := list(islice(fresh, batch)):
                embeddings = encoder.encode_photos(np.stack([photo.pixels for photo in decoded]))
                store.append([_new_photo(photo, job) for photo in decoded], embeddings)
                job.added += len(decoded)
                job.tell()
    if job.added and len(job.known_hashes) >= FUSED_FROM:
        # A large gallery's first opening saves its index: better here than when it is served. A failure would come
        # again there, and be said there.
        with suppress(GalleryError):
            Gallery.open(gallery).close()
    described_photos = len(described.keys() & job.taken_ids)
    elapsed = time.monotonic() - started
    return IngestReport(job.added, job.already_there, tuple(job.skipped), described_photos, elapsed)


def _describe(
    store: StoreWriter, path: Path | None, photos: Sequence[SourcePhoto], known_ids: set[str]
) -> Mapping[str, Mapping[str, Value | None]]:
    """The file's metadata by photo; that of the photos that are there is stored."""
    if path is None:
        return {}
    table = read_metadata(path, store.fields())
    table.check_ids(known_ids.union(*(_names(photo) for photo in photos)))
    store.declare_fields(table.kinds)
    store.describe({photo_id: values for photo_id, values in table.photos.items() if photo_id in known_ids})
    return table.photos


def _new_photos(photos: Sequence[SourcePhoto], job: _Job, size_px: int, ahead: int) -> Generator[_Decoded, None, None]:
    """What the gallery lacks, in order, decoded by threads up to `ahead` files before it is asked for."""
    pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
    pending: deque[tuple[SourcePhoto, Future[_Decoded | None]]] = deque()
    todo = iter(photos)
    try:
        while True:
            for photo in islice(todo, ahead - len(pending)):
                pending.append((photo, pool.submit(_decode, photo, job.known_hashes, size_px)))
            if not pending:
                return
            if decoded := _settle(*pending.popleft(), job):
                yield decoded
            else:
                job.tell()
    finally:
        pool.shutdown(cancel_futures=True)


def _settle(photo: SourcePhoto, future: Future[_Decoded | None], job: _Job) -> _Decoded | None:
    """Wait for one file and count it, unless it is new."""
    try:
        decoded = future.result()
    except ImageError as error:
        job.skipped.append((photo.name, str(error)))
        return None
    # The thread saw the hashes of a moment ago: a copy may have come in between.
    if decoded is None or decoded.content_hash in job.known_hashes:
        job.already_there += 1
        return None
    job.known_hashes.add(decoded.content_hash)
    return decoded


def _decode(photo: SourcePhoto, known_hashes: set[bytes], size_px: int) -> _Decoded | None:
    """One file, read once; None when the gallery has its content."""
    data = read_bytes(photo.path)
    content_hash = hashlib.sha256(data).digest()
    if content_hash in known_hashes:
        return None
    image = read_photo(data)
    return _Decoded(photo, content_hash, photo_pixels(image, size_px), thumbnail(image))


def thumbnail(image: Image.Image) -> bytes:
    """The whole picture as a JPEG of at most 96 px a side."""
    scale = min(1.0, THUMBNAIL_PX / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return file.getvalue()


def _new_photo(photo: _Decoded, job: _Job) -> NewPhoto:
    photo_id = free_id(photo.source, job.taken_ids)
    job.taken_ids.add(photo_id)
    known = {field: value for field, value in job.metadata.get(photo_id, {}).items() if value is not None}
    return NewPhoto(photo_id, photo.source.name, photo.thumbnail, photo.content_hash, metadata=known)


def free_id(source: SourcePhoto, taken: set[str]) -> str:
    """The shortest id of a photo that no other has.

    Example:
        >>> photo = SourcePhoto(Path("faces/anna.png"), "faces/anna.png", "anna")
        >>> free_id(photo, set()), free_id(photo, {"anna"}), free_id(photo, {"anna", "anna.png"})
        ('anna', 'anna.png', 'faces/anna.png')
        >>> free_id(photo, {"anna", "anna.png", "faces/anna.png"})
        'faces/anna.png~2'
    """
    numbered = (f"{source.name}~{number}" for number in count(2))
    return next(name for name in chain(_names(source), numbered) if name not in taken)


def _names(source: SourcePhoto) -> tuple[str, str, str]:
    """The ids that a photo can have, shortest first, as long as no more than three photos want the same."""
    return source.photo_id, source.photo_id + Path(source.name).suffix, source.name
