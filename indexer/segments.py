"""The vector files of a gallery: each holds the embeddings of some photos, is written once, and is verified when read.

A file is three serialised `faiss.IndexFlatIP`, one per granularity one after the other: row i of each is photo i. Their
numbers begin at multiples of 64 bytes, with zeros before, so that a mapped file is searched where it lies and a region
of 16 numbers is one line of the processor's cache. Until format 4 a file was raw float32 (photos, 14, dim); such files
are read as they are, into memory, and `indexer.compaction` writes them anew. Length and checksum are in the ledger's
table of segments, and the length tells which of the two a file is.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final
from weakref import WeakSet

import faiss
import numpy as np
import numpy.typing as npt

from indexer.errors import GalleryError
from indexer.ledger import replace_file
from indexer.regions import GRANULARITIES, REGION_IDS, REGIONS
from indexer.stored_rows import Part

_HEADER: Final = struct.Struct("<4siqqq?iQ")
"""What FAISS writes before the numbers of a flat index: its kind, numbers a row, rows, two that mean nothing, whether
it is trained, the metric, how many numbers follow."""
_UNUSED: Final = 1 << 20
_LINE: Final = 64
_MOST_MAPPED: Final = 16_384
"""Files that a process maps at a time; it reads what comes beyond. Linux allows 65,530 mappings, and without one left
neither a thread starts nor is code compiled."""
_ADVICE: Final = "restore the folder from a copy or ingest its photos anew"


def row_bytes(dim: int) -> int:
    """What the vectors of one photo take."""
    return 4 * REGIONS * dim


def segment_path(folder: Path, segment: int, generation: int = 0) -> Path:
    """Where a segment's vectors lie."""
    again = f"-{generation}" if generation else ""
    return folder / "segments" / f"{segment:06}{again}.vec"


def path_of(folder: Path, segment: Any) -> Path:
    """Where the vectors of a row of the ledger's table lie."""
    return segment_path(folder, segment.segment, segment.generation)


def strays(folder: Path, segments: Iterable[Any]) -> list[Path]:
    """Files where the vectors lie that are none of these rows of the ledger's table."""
    live = {path_of(folder, segment) for segment in segments}
    return [path for path in sorted((folder / "segments").glob("*")) if path not in live]


def is_raw(length: int, photos: int, dim: int) -> bool:
    """Whether a file of so many bytes for so many photos is one as format 4 had them."""
    return length == photos * row_bytes(dim)


def write_segment(
    folder: Path, embeddings: npt.NDArray[np.float32], segment: int, generation: int = 0
) -> dict[str, Any]:
    """Write a segment that no ledger knows yet, on disk when this returns.

    Returns:
        Its row of the ledger's table.

    Raises:
        OSError: the disk refuses; nothing is left.
    """
    data = _serialised(embeddings)
    replace_file(segment_path(folder, segment, generation), data.data)
    content = {"rows": len(embeddings), "bytes": len(data), "sha256": hashlib.sha256(data.data).hexdigest()}
    return {"segment": segment, "generation": generation, **content}


@dataclass(frozen=True, eq=False)
class OpenSegment:
    """A segment whose file was verified. What is mapped stays readable when the file is removed.

    Args:
        data: (bytes,) uint8, the file, mapped read-only; it takes no file descriptor.
        rows: how many photos.
        dim: numbers per region.
    """

    data: npt.NDArray[np.uint8]
    rows: int
    dim: int

    @property
    def is_raw(self) -> bool:
        """Whether it is a file as format 4 had them."""
        return is_raw(len(self.data), self.rows, self.dim)

    def part(self) -> Part:
        """The rows as they are mapped, read-only; those of format 4 in memory."""
        if self.is_raw:
            parts = {g: np.ascontiguousarray(self.embeddings()[:, i.start : i.stop]) for g, i in REGION_IDS.items()}
            return {g: rows.reshape(self.rows, -1) for g, rows in parts.items()}
        places = _places(self.rows, self.dim)
        return {g: self.data[start:end].view("<f4").reshape(self.rows, -1) for g, _, start, end in places}

    def embeddings(self) -> npt.NDArray[np.float32]:
        """(photos, 14, dim) float32; a copy in memory, of format 4 what is mapped itself."""
        if self.is_raw:
            return self.data.view("<f4").reshape(self.rows, REGIONS, self.dim)
        part = self.part()
        return np.concatenate([part[g].reshape(self.rows, g * g, self.dim) for g in GRANULARITIES], axis=1)

    def has_headers(self) -> bool:
        """Whether FAISS's headers are where this many rows of this many numbers have them."""
        places = list(_places(self.rows, self.dim))
        whole = len(self.data) == places[-1][-1]
        return whole and all(bytes(self.data[start - len(h) : start]) == h for _, h, start, _ in places)


def open_segment(folder: Path, segment: Any, dim: int, gallery: str) -> OpenSegment:
    """The segment of a row of the ledger's table, verified; messages name the gallery.

    Raises:
        GalleryError: it is missing or altered.
    """
    path = path_of(folder, segment)
    where = f"gallery {gallery}: segment {path.name}"
    try:
        data = _mapped(path)
    except OSError as error:
        raise GalleryError(f"{where} cannot be read ({error.strerror}); {_ADVICE}") from error
    if len(data) != segment.bytes:
        raise GalleryError(f"{where} has {len(data)} bytes, the ledger says {segment.bytes}; {_ADVICE}")
    if hashlib.sha256(data.data).hexdigest() != segment.sha256:
        raise GalleryError(f"{where} does not match its checksum, it was altered; {_ADVICE}")
    opened = OpenSegment(data, segment.rows, dim)
    if not opened.is_raw and not opened.has_headers():
        raise GalleryError(f"{where} does not hold {segment.rows} photos of {dim} numbers a region; {_ADVICE}")
    return opened


class _Mapping:
    """A file that FAISS maps, as memory that numpy takes; mapped for as long as an array of it is there.

    Python's own mapping would keep a file descriptor, and a gallery may have thousands of segments.
    """

    def __init__(self, file: IO[bytes]) -> None:
        # By its descriptor: FAISS takes no path that is not UTF-8.
        path = f"/dev/fd/{file.fileno()}"
        self._owner = faiss.MmappedFileMappingOwner(path)  # type: ignore[attr-defined]  # made by SWIG
        place, is_read_only = int(self._owner.data()), True
        self.__array_interface__ = {
            "data": (place, is_read_only),
            "shape": (self._owner.size(),),
            "typestr": "|u1",
            "version": 3,
        }


_MAPPINGS: Final[WeakSet[_Mapping]] = WeakSet()


def _mapped(path: Path) -> npt.NDArray[np.uint8]:
    with path.open("rb") as file, suppress(RuntimeError):  # an empty file, or a system that maps no more
        if len(_MAPPINGS) < _MOST_MAPPED:
            _MAPPINGS.add(mapping := _Mapping(file))
            return np.asarray(mapping)
    return np.fromfile(path, np.uint8)


def _places(rows: int, dim: int) -> Iterator[tuple[int, bytes, int, int]]:
    """Per granularity what stands before its numbers, and where in the file they begin and end."""
    end = 0
    for granularity in GRANULARITIES:
        width = dim * granularity**2
        header = _HEADER.pack(b"IxFI", width, rows, _UNUSED, _UNUSED, True, faiss.METRIC_INNER_PRODUCT, rows * width)
        start = -(-(end + len(header)) // _LINE) * _LINE
        end = start + 4 * rows * width
        yield granularity, header, start, end


def _serialised(embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    rows, _, dim = embeddings.shape
    places = list(_places(rows, dim))
    data = np.zeros(places[-1][-1], np.uint8)
    for granularity, header, start, end in places:
        ids = REGION_IDS[granularity]
        data[start - len(header) : start] = np.frombuffer(header, np.uint8)
        data[start:end].view("<f4").reshape(rows, len(ids), dim)[:] = embeddings[:, ids.start : ids.stop]
    return data
