"""The index of a gallery's segments: over their mapped files where the compiled scan searches it, else in memory.

A large gallery's float32 rows are nowhere but in its segments. They are mapped, so that processes which serve the same
gallery share their memory, and every byte is checked at opening. The copy in one byte a number, which a scan reads
whole, is made at every opening by all cores together. For a million photos two cores check in 0.3 s and copy in 1.2 s,
and nothing derived has to be kept on the disk, checked itself and brought up to date with every batch.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from indexer.contents import Contents
from indexer.device import compiled_scan
from indexer.encoding import default_threads
from indexer.errors import GalleryError
from indexer.granular import FUSED_FROM, GranularIndex
from indexer.layout_files import remove_other_layouts
from indexer.regions import REGIONS
from indexer.store import Store
from indexer.stored_rows import Part, StoredRows


@dataclass(frozen=True, eq=False)
class Earlier:
    """What a gallery was before: its segments, rows of the ledger's table, and their index."""

    segments: Sequence[Any]
    index: GranularIndex


def index_of(store: Store, contents: Contents, device: str, earlier: Earlier | None = None) -> GranularIndex:
    """An index of a gallery's embeddings at one moment.

    Args:
        store: the gallery.
        contents: what it holds.
        device: where to search, "cpu" or "cuda".
        earlier: files that were mapped before are neither mapped nor checked again, and where new segments only follow
            the old ones what was made of these is taken over. Its own searches are not disturbed.

    Raises:
        GalleryError: a segment is missing or altered, or there is not enough memory.
        StaleSnapshotError: the gallery has been compacted since.
        ConfigError: the device cannot be used.
    """
    dim, rows = store.manifest.dim, sum(segment.rows for segment in contents.segments)
    try:
        if device == "cpu" and rows >= FUSED_FROM and compiled_scan() is not None:
            return _over_files(store, contents.segments, earlier)
        index = GranularIndex(dim, device=device)
        for embeddings in store.embeddings(contents):
            index.add(embeddings)
        return index
    except MemoryError as error:
        raise GalleryError(
            f"gallery {store.name} does not fit into memory: its {rows} photos take about "
            f"{rows * _bytes_a_photo(dim) >> 20} MB; free some or serve it from a larger machine"
        ) from error


def _over_files(store: Store, segments: Sequence[Any], earlier: Earlier | None) -> GranularIndex:
    before: Sequence[Any] = ()
    parts: dict[Any, Part] = {}
    if earlier is not None and earlier.index.file_parts:
        before = earlier.segments
        parts = dict(zip(before, earlier.index.file_parts, strict=True))
    missing = [segment for segment in segments if segment not in parts]
    with ThreadPoolExecutor(default_threads(), thread_name_prefix="verify") as pool:
        parts |= zip(missing, pool.map(lambda segment: store.open_segment(segment).part(), missing), strict=True)
    older = earlier.index if earlier is not None and before and segments[: len(before)] == before else None
    index = GranularIndex.of_rows(StoredRows([parts[segment] for segment in segments]), older)
    remove_other_layouts(store.folder, segments, store.manifest.dim, lambda: store.has_segments(segments))
    return index


def _bytes_a_photo(dim: int) -> int:
    """Float32 rows and their copy in one byte a number."""
    return REGIONS * (4 * dim + dim + 1)
