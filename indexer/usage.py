"""What a gallery takes of its disk, by kind, and what of it compaction would give back."""

from dataclasses import dataclass
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
        vectors: of the photos.
        deleted_vectors: of those that were deleted; `mgrl compact` gives them back.
        thumbnails: in the ledger.
        metadata: in the ledger, what is known about the photos, as text.
        ledger: the rest of the ledger: ids, sources, content hashes and its own indices.
        ledger_free: pages of the ledger that hold nothing; `mgrl compact` gives them back.
        log: the ledger's log, part of it not yet in the ledger.
        index: derived from the vectors; made anew where it is removed.
        strays: files that jobs which were killed have left; the next writer removes them.
        superseded: versions that other models made before; `mgrl compact` gives them back.
        unfinished: versions that `mgrl reindex` is making.
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
    files = {path: path.stat().st_size for path in (store.folder / "segments").glob("*") if path.is_file()}
    deleted = one(sa.select(sa.func.count()).select_from(DELETED), since=2)
    deleted_vectors = deleted * row_bytes(store.manifest.dim)
    thumbnails = one(sa.select(sa.func.sum(sa.func.length(PHOTOS.c.thumbnail))))
    values = sa.cast(PHOTO_METADATA.c["values"], sa.Text)
    metadata = one(sa.select(sa.func.sum(sa.func.length(sa.cast(values, sa.LargeBinary)))), since=2)
    free = pragma("freelist_count") * pragma("page_size")
    written = (store.folder / LEDGER).stat().st_size + manifest_path(store.folder).stat().st_size
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
        log=sum(path.stat().st_size for path in store.folder.glob(f"{LEDGER}-wal")),
        index=sum(path.stat().st_size for path in (store.folder / "index").rglob("*") if path.is_file()),
        strays=sum(size for path, size in files.items() if path not in live),
        superseded=sum(map(_size, versions.superseded(store.root))),
        unfinished=sum(map(_size, versions.unfinished(store.root))),
    )


def _size(version: Path) -> int:
    """Of another version's files; the first version's lie beside the folder of the others."""
    paths = [*version.glob(f"{LEDGER}*"), *version.glob("segments/*"), *version.rglob("index/**/*")]
    return sum(path.stat().st_size for path in paths if path.is_file())
