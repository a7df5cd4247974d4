"""What a gallery takes of its disk, by kind, and what of it compaction would give back."""

import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from indexer import versions
from indexer.contents import read_segments
from indexer.ledger import LEDGER, manifest_path
from indexer.segments import path_of, row_bytes
from indexer.store import Store
from indexer.tables import ALIASES, DELETED, PHOTO_METADATA, PHOTOS, layout


@dataclass(frozen=True)
class Usage:
    """Bytes of a gallery's folder, as its files are long.

    Args:
        photos: how many there are.
        aliases: further names of theirs.
        deleted: photos whose vectors are still there.
        vectors: of the photos, and the few bytes by which their files are longer.
        deleted_vectors: of those that were deleted; `mgrl compact` gives them back.
        thumbnails: in the ledger.
        metadata: in the ledger, what is known about the photos, as text.
        ledger: the rest of the ledger: ids, sources, content hashes and its own indices.
        ledger_free: pages of the ledger that hold nothing; `mgrl compact` gives them back.
        log: the ledger's log, part of it not yet in the ledger.
        index: layouts of approximate search, derived from the vectors; made anew where they are removed.
        strays: files that jobs which were killed have left; the next writer removes them.
        superseded: versions that other models made before; `mgrl compact` gives them back.
        unfinished: versions that `mgrl reindex` is making.
        crop: how its photos are cropped, see `indexer.framing`; empty as long as nobody has said it.
    """

    photos: int
    aliases: int
    deleted: int
    vectors: int
    deleted_vectors: int
    thumbnails: int
    metadata: int
    ledger: int
    ledger_free: int
    log: int
    index: int
    strays: int
    superseded: int
    unfinished: int
    crop: str

    @property
    def total(self) -> int:
        """All of it."""
        kept = self.vectors + self.thumbnails + self.metadata + self.ledger + self.log + self.index
        return kept + self.unfinished + self.reclaimable

    @property
    def reclaimable(self) -> int:
        """What `mgrl compact` gives back."""
        return self.deleted_vectors + self.ledger_free + self.strays + self.superseded


def usage(folder: Path) -> Usage:
    """Measure a gallery, which may be served and written meanwhile.

    Raises:
        GalleryError: no gallery there, or its ledger is damaged.
    """
    store = Store.open(folder)
    try:
        with store.reading() as connection:
            return _measure(store, connection)
    finally:
        store.close()


def _measure(store: Store, connection: sa.Connection) -> Usage:
    def one(statement: sa.Select[Any], since: int = 1) -> int:
        return (connection.execute(statement).scalar() or 0) if layout(connection) >= since else 0

    def pragma(name: str) -> int:
        found: int = connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
        return found

    segments = read_segments(connection)
    live = {path_of(store.folder, segment) for segment in segments}
    files = dict(_sizes((store.folder / "segments").glob("*")))
    deleted = one(sa.select(sa.func.count()).select_from(DELETED), since=2)
    deleted_vectors = deleted * row_bytes(store.manifest.dim)
    thumbnails = one(sa.select(sa.func.sum(sa.func.length(PHOTOS.c.thumbnail))))
    values = sa.cast(PHOTO_METADATA.c["values"], sa.Text)
    metadata = one(sa.select(sa.func.sum(sa.func.length(sa.cast(values, sa.LargeBinary)))), since=2)
    free = pragma("freelist_count") * pragma("page_size")
    written = _total([store.folder / LEDGER, manifest_path(store.folder)])
    return Usage(
        photos=one(sa.select(sa.func.count()).select_from(PHOTOS)),
        aliases=one(sa.select(sa.func.count()).select_from(ALIASES), since=3),
        deleted=deleted,
        vectors=sum(segment.bytes for segment in segments) - deleted_vectors,
        deleted_vectors=deleted_vectors,
        thumbnails=thumbnails,
        metadata=metadata,
        # Until the log is in the ledger, the ledger may be shorter than what it will hold.
        ledger=max(0, written - thumbnails - metadata - free),
        ledger_free=free,
        log=_total([store.folder / f"{LEDGER}-wal"]),
        index=_total((store.folder / "index").rglob("*")),
        strays=sum(size for path, size in files.items() if path not in live),
        superseded=sum(map(version_bytes, versions.superseded(store.root))),
        unfinished=sum(map(version_bytes, versions.unfinished(store.root))),
        crop=store.manifest.framing.crop if store.manifest.framing else "",
    )


def version_bytes(version: Path) -> int:
    """Of a version's files; the first version's lie beside the folder of the others."""
    return _total(chain(version.glob(f"{LEDGER}*"), version.glob("segments/*"), version.glob("index/**/*")))


def _total(paths: Iterable[Path]) -> int:
    return sum(size for _, size in _sizes(paths))


def _sizes(paths: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    """The files among the paths, with their sizes; without those that compaction has removed since they were listed."""
    listed = iter(paths)
    while True:
        with suppress(FileNotFoundError):
            for path in listed:
                found = path.stat()
                if stat.S_ISREG(found.st_mode):
                    yield path, found.st_size
            return
