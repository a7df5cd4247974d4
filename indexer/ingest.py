"""Photos in batches -> embeddings -> store, so that a job can be stopped at any moment and run again.

A photo is its content: a file whose SHA-256 the gallery has is neither decoded nor encoded again, wherever it lies and
whatever it is called. Items are taken in their source's order and stored in that order, so an interrupted job that runs
again ends with the gallery of an uninterrupted one. `indexer.placing` says what becomes of each.

Metadata of the file that `--metadata` names is stored with each photo, in the same transaction; that of photos that are
there already is changed first, in one. So that running again loses nothing, the file is read whole and checked against
the ids before any photo is encoded.

`indexer.loading` reads the next photos while those before are written, and `indexer.preparing` says who decodes and
encodes them.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

from indexer.encoding import RegionEncoder
from indexer.errors import ConfigError, GalleryError, ImageError
from indexer.framing import framing_of
from indexer.ingest_report import LISTED, IngestProgress, IngestReport
from indexer.ledger import is_disk_full, manifest_path, megabytes
from indexer.loading import Decoded, Loaded, face_content, face_item, load_ahead
from indexer.metadata import Changes, Kind, Value, new_fields
from indexer.metadata_file import MetadataTable, read_metadata
from indexer.placing import Duplicates, Fate, Outcome, Placer
from indexer.preparing import Decoding, Preparer, embeddings_of
from indexer.regions import REGIONS
from indexer.sources.item import Item, Source, Survey, possible_ids, refuse
from indexer.sources.remote import fetched
from indexer.sources.spelled import open_sources
from indexer.store import Alias, NewPhoto, Store, StoreWriter

MAX_BATCH: Final = 4096
"""Half a gigabyte of pixels in an encoder that takes 192 px."""

_LEDGER_BYTES: Final = 600
"""Of a photo without thumbnail and metadata: ids, hashes, and their indices."""


@dataclass
class _Batch:
    """What is to become durable at once: photos to encode, and outcomes that hold as soon as these do.

    Of the others aliases are `early` whose photos are stored already: the batch may give these another content.
    """

    photos: list[tuple[Outcome, bytes, Decoded]] = field(default_factory=list)
    others: list[Outcome] = field(default_factory=list)
    early: list[Alias] = field(default_factory=list)
    late: list[Alias] = field(default_factory=list)

    def add_other(self, outcome: Outcome) -> None:
        """Let an outcome wait that is no photo of its own."""
        self.others.append(outcome)
        if outcome.fate is Fate.ALIASED:
            is_of_batch = any(photo.photo_id == outcome.of for photo, _, _ in self.photos)
            alias = Alias(outcome.photo_id, outcome.item.name, outcome.of)
            (self.late if is_of_batch else self.early).append(alias)

    @property
    def outcomes(self) -> list[Outcome]:
        """Of all, those of photos first."""
        return [outcome for outcome, _, _ in self.photos] + self.others

    def __len__(self) -> int:
        return len(self.photos) + len(self.others)


class _Job:
    """The counts, what waits to be written, and what has been."""

    def __init__(
        self,
        store: StoreWriter,
        placer: Placer,
        total: int | None,
        metadata: Changes,
        described: int,
        on_progress: Callable[[IngestProgress], None],
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        self.placer = placer
        self.described = described
        self.fates = dict.fromkeys(Fate, 0)
        self.skipped: list[tuple[str, str]] = []
        self.same: list[tuple[str, str]] = []
        self.cropped = self.without_face = 0
        self.faceless: list[str] = []
        self._store = store
        self._total = total
        self._metadata = metadata
        self._on_progress, self._on_outcome = on_progress, on_outcome
        self._batch = _Batch()

    def take_all(
        self, loaded: Iterable[tuple[Item, Future[Loaded]]], prepare: Preparer, encoder: RegionEncoder, batch: int
    ) -> None:
        """Decide on every file, and write whenever so many photos wait; see `write`."""
        for item, future in loaded:
            self.take(item, future, prepare)
            if len(self._batch) >= batch:
                self.write(encoder)
        if len(self._batch):
            self.write(encoder)

    def take(self, item: Item, future: Future[Loaded], prepare: Preparer) -> None:
        """Decide on one file, and keep what is to be written of it: a photo, or one a face, all in one batch."""
        try:
            loaded = future.result()
            content, decoded = loaded.content_hash, loaded.decoded
            if decoded is None and not self.placer.has(item, content):
                decoded = prepare(item.read())
        except ImageError as error:
            self._settle(Outcome(item, Fate.SKIPPED, reason=str(error)))
            self.tell()
            return
        if decoded is None or len(decoded) == 1:
            self._put(item, content, decoded[0] if decoded else None)
            return
        if self._total is not None:
            self._total += len(decoded) - 1
        described = self._described_item(item)
        for number, face in enumerate(decoded, start=1):
            self._put(face_item(described, number), face_content(content, number), face)

    def _put(self, item: Item, content_hash: bytes, decoded: Decoded | None) -> None:
        """Decide on one photo; `decoded` may be None only where it is known to be there."""
        outcome = self.placer.place(item, content_hash)
        if outcome.fate in (Fate.ADDED, Fate.REPLACED):
            assert decoded is not None
            self._batch.photos.append((_let_go(outcome), content_hash, decoded))
            return
        is_written = outcome.fate is Fate.ALIASED or (outcome.fate is Fate.ALREADY_THERE and item.metadata)
        if is_written or self.placer.is_unwritten(content_hash):
            self._batch.add_other(_let_go(outcome))
            return
        self._settle(outcome)
        self.tell()

    def _described_item(self, item: Item) -> Item:
        """The item with what the metadata file says of it: its faces have other ids than the file knows."""
        known = next((self._metadata[name] for name in possible_ids(item) if name in self._metadata), {})
        return replace(item, metadata={**item.metadata, **known})

    def write(self, encoder: RegionEncoder) -> None:
        """Make durable what waits.

        Raises:
            GalleryError: the disk refuses; where it is full, the message says what the rest of the job takes.
        """
        batch, self._batch = self._batch, _Batch()
        try:
            self._write(batch, encoder)
        except GalleryError as error:
            if not is_disk_full(error.__cause__):
                raise
            raise GalleryError(f"{error}{self._needs(batch, encoder.dim)}") from error

    def _write(self, batch: _Batch, encoder: RegionEncoder) -> None:
        kinds: dict[str, Kind] = {}
        for outcome in batch.outcomes:
            kinds |= outcome.item.kinds  # of what lies beside photos, which no survey saw
        self._store.declare_fields(kinds)
        if batch.early:
            self._store.add_aliases(batch.early)
        if batch.photos:
            photos = [self._new_photo(*photo) for photo in batch.photos]
            embeddings = embeddings_of([decoded for _, _, decoded in batch.photos], encoder)
            replaces = any(outcome.fate is Fate.REPLACED for outcome, _, _ in batch.photos)
            (self._store.upsert if replaces else self._store.append)(photos, embeddings)
            self.described += sum(bool(photo.metadata) for photo in photos)
            self._count_framing(batch)
        if batch.late:
            self._store.add_aliases(batch.late)
        # Of what was replaced values are kept: those that are to go are taken away here.
        known = [outcome for outcome in batch.outcomes if outcome.fate in (Fate.ALREADY_THERE, Fate.REPLACED)]
        changed = self._store.changed_metadata({outcome.photo_id: self._known(outcome) for outcome in known})
        if changed:
            self._store.describe(changed)
            self.described += len(changed.keys() - {outcome.photo_id for outcome, _, _ in batch.photos})
        self.placer.written()
        for outcome in batch.outcomes:
            self._settle(outcome)
        self.tell()

    def _needs(self, batch: _Batch, dim: int) -> str:
        """Roughly what the photos that are left take: vectors twice, for an index has them too, and thumbnails."""
        thumbnails = [len(decoded.thumbnail) for _, _, decoded in batch.photos]
        photo_bytes = 2 * 4 * REGIONS * dim + sum(thumbnails) // max(1, len(thumbnails)) + _LEDGER_BYTES
        if self._total is None:
            return f". A photo takes about {photo_bytes / 1000:.0f} kB, how many are left is not known"
        left = self._total - sum(self.fates.values())
        return f". The {left} photos that are left may take about {megabytes(left * photo_bytes)}"

    def _count_framing(self, batch: _Batch) -> None:
        for outcome, _, decoded in batch.photos:
            self.cropped += decoded.cropped
            if decoded.without_face:
                self.without_face += 1
                if len(self.faceless) < LISTED:
                    self.faceless.append(outcome.item.name)

    def tell(self) -> None:
        fates = self.fates
        self._on_progress(
            IngestProgress(
                self._total,
                fates[Fate.ADDED],
                fates[Fate.ALREADY_THERE],
                fates[Fate.SKIPPED],
                fates[Fate.REPLACED],
                fates[Fate.DUPLICATE] + fates[Fate.ALIASED],
            )
        )

    def _settle(self, outcome: Outcome) -> None:
        """Count what holds for good."""
        self.fates[outcome.fate] += 1
        if outcome.fate is Fate.SKIPPED and len(self.skipped) < LISTED:
            self.skipped.append((outcome.item.name, outcome.reason))
        if outcome.fate in (Fate.DUPLICATE, Fate.ALIASED) and len(self.same) < LISTED:
            self.same.append((outcome.item.name, outcome.of))
        self._on_outcome(outcome)

    def _known(self, outcome: Outcome) -> Mapping[str, Value | None]:
        """What the source says of a photo, and the metadata file, which has the last word."""
        return {**outcome.item.metadata, **self._metadata.get(outcome.photo_id, {})}

    def _new_photo(self, outcome: Outcome, content_hash: bytes, decoded: Decoded) -> NewPhoto:
        metadata = {name: value for name, value in self._known(outcome).items() if value is not None}
        return NewPhoto(
            outcome.photo_id, outcome.item.name, decoded.thumbnail, content_hash=content_hash, metadata=metadata
        )


def ingest(
    gallery: Path,
    sources: Sequence[Path | str | Source],
    encoder: RegionEncoder,
    *,
    batch: int = 64,
    prepare: Preparer | None = None,
    metadata: Path | None = None,
    chosen: Set[str] | None = None,
    duplicates: Duplicates = Duplicates.SKIP,
    wait_s: float = 0.0,
    on_progress: Callable[[IngestProgress], None] | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> IngestReport:
    """Encode the photos of sources into a gallery, making it if it is not there.

    Args:
        gallery: the gallery's folder.
        sources: sources, or what `indexer.sources.spelled` makes one of.
        encoder: made the gallery's other photos too.
        batch: photos stored at once: all of them or, after a crash, none; 1 to 4096.
        prepare: decodes the photos and, if it can, encodes them; by default photos are encoded batch by batch.
        metadata: a .jsonl or .csv file, see `indexer.metadata_file`.
        chosen: the metadata fields to take from manifests and shards, None for all.
        duplicates: what to do with a photo that the gallery has under another name.
        wait_s: seconds to wait for another process that writes the gallery.
        on_progress: called when a batch is durable, and for each photo that needs no encoding.
        on_outcome: called for each photo once its outcome holds, whatever happens afterwards.

    Raises:
        ConfigError: batch is out of range, or the gallery's photos are cropped otherwise than `prepare` does it.
        DataError: a source is missing, there is no photo file in any, or the metadata file does not hold.
        GalleryHeldError: another process writes the gallery, after `wait_s` still.
        GalleryError: the folder is something else or damaged, or the disk refuses; what was acknowledged stays.
        ModelMismatchError: the gallery was made by another model.
    """
    if not 1 <= batch <= MAX_BATCH:
        raise ConfigError(f"a batch must hold from 1 to {MAX_BATCH} photos, got {batch}")
    started = time.monotonic()
    prepare = prepare or Decoding(encoder.size_px)
    source = open_sources(sources, chosen)
    fields = declared_fields(gallery)
    survey = source.survey(fields)
    table = MetadataTable("", {}, {}) if metadata is None else read_metadata(metadata, {**fields, **survey.kinds})
    is_new = not manifest_path(gallery).exists()
    if is_new:  # what is refused here leaves no gallery behind
        _check_metadata(table, source, survey, fields)
    with StoreWriter.open_or_create(gallery, encoder.model_hash, encoder.dim, wait_s=wait_s) as store:
        placer = Placer(store, duplicates)
        there = [photo_id for photo_id in table.photos if placer.register.has_id(photo_id)]
        if not is_new:
            _check_metadata(table, source, survey, fields, there)
        store.keep_framing(framing_of(prepare.framing))
        store.declare_fields(survey.kinds)
        described = _describe(store, table, there)
        job = _Job(store, placer, survey.total, table.photos, described, on_progress or _ignore, on_outcome or _ignore)
        ahead = 2 * max(batch, prepare.threads)
        items = fetched(source.items(store.fields()))
        with closing(load_ahead(items, placer.register, prepare, prepare.threads, ahead)) as loaded:
            job.take_all(loaded, prepare, encoder, batch)
    return _report(job, time.monotonic() - started)


def declared_fields(gallery: Path) -> Mapping[str, Kind]:
    """The metadata fields of a gallery that may not be there yet."""
    if not manifest_path(gallery).exists():
        return {}
    store = Store.open(gallery)
    try:
        return store.fields()
    finally:
        store.close()


def _check_metadata(
    table: MetadataTable, source: Source, survey: Survey, fields: Mapping[str, Kind], there: Iterable[str] = ()
) -> None:
    """Refuse fields that do not go with the others, and metadata of photos that neither gallery nor sources have."""
    kinds = {**fields, **survey.kinds}
    new_fields(kinds, table.kinds)
    if table.photos and survey.total is not None:  # otherwise the ids to come are not known before they are there
        to_come = chain.from_iterable(map(possible_ids, source.items(kinds)))
        table.check_ids(chain(there, to_come))


def _describe(store: StoreWriter, table: MetadataTable, photo_ids: Sequence[str]) -> int:
    """Store what the table says of photos that are there; how many they are."""
    store.declare_fields(table.kinds)
    if photo_ids:
        store.describe({photo_id: table.photos[photo_id] for photo_id in photo_ids})
    return len(photo_ids)


def _let_go(outcome: Outcome) -> Outcome:
    """The same without the bytes that its item may hold, for it waits until its batch is written."""
    if not outcome.item.held_bytes:
        return outcome
    return replace(outcome, item=replace(outcome.item, read=partial(refuse, "it has been read"), held_bytes=0))


def _ignore(_: object) -> None:
    pass


def _report(job: _Job, seconds: float) -> IngestReport:
    fates = job.fates
    return IngestReport(
        fates[Fate.ADDED],
        fates[Fate.ALREADY_THERE],
        tuple(job.skipped),
        job.described,
        seconds,
        failed=fates[Fate.SKIPPED],
        replaced=fates[Fate.REPLACED],
        duplicates=fates[Fate.DUPLICATE] + fates[Fate.ALIASED],
        same=tuple(job.same),
        cropped=job.cropped,
        without_face=job.without_face,
        faceless=tuple(job.faceless),
    )
