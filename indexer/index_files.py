"""A large gallery's index as files beside its segments, so that opening it is mapping them: derived, never the truth.

    index/KEY/header.json     length and CRC-32 of the files below
    index/KEY/1.faiss ...     one FAISS index per granularity
    index/KEY/NAME.npy        the quantised copy and what belongs to it
    index/KEY/layout/         what `indexer.layout_files` saves of approximate search
    index.lock                held while these are written or removed

KEY is a hash of the segments' own checksums, so an index of other segments is never taken for this gallery's. Opening
verifies every byte, by all cores together. That is against accidents: whoever can alter a file on purpose can alter its
checksum as well, and CRC-32 takes half as long as SHA-256. Files that are missing, cut short or altered are as good as
none: the index is built from the segments again, and saved again. The float32 rows are mapped, so that processes which
open the same gallery share their memory; the quantised copy, a fifth of all, is read. Files appear by one rename and
are never changed; what a process has mapped stays while a newer index takes its place. Who writes an index holds the
folder's lock together with others that do; who takes vectors away for good (`indexer.compaction`) holds it alone.
"""

import fcntl
import hashlib
import json
import mmap
import os
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

import faiss
import numpy as np
import numpy.typing as npt

from indexer.device import compiled_scan
from indexer.encoding import default_threads
from indexer.granular import LONGEST, GranularIndex, squared_norms
from indexer.regions import GRANULARITIES, REGION_IDS, REGIONS

if TYPE_CHECKING:
    from indexer.fused import FusedScan

_FORMAT: Final = 2
"""Of the files, and of what their numbers mean: grows with every change of the quantised copy's layout."""

_FOLDER: Final = "index"
HEADER: Final = "header.json"
_LOCK: Final = "index.lock"
UNREADABLE: Final = (OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError)
"""What files that are damaged, or removed while they are read, raise; the last is FAISS's."""

_PIECE: Final = 32 << 20
"""Bytes that a thread checks at a time; a file has one checksum for each such piece."""

_CHUNK: Final = 65_536
"""Photos written at a time, a multiple of a block's; the mean of the first ones is the quantised copy's centre."""


def index_key(segments: Sequence[Any], dim: int) -> str:
    """Names the index of these rows of the ledger's table of segments."""
    content = [_FORMAT, dim, [[segment.segment, segment.rows, segment.sha256] for segment in segments]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def build_index(
    folder: Path,
    key: str,
    embeddings: Iterable[npt.NDArray[np.float32]],
    photos: int,
    dim: int,
    is_live: Callable[[], bool] = lambda: True,
) -> GranularIndex | None:
    """Write the files, remove those of other keys, and map them; memory does not grow with the gallery.

    Args:
        folder: the gallery's.
        key: of `index_key`.
        embeddings: (n, 14, dim) each, all photos in the order of rows.
        photos: how many there are.
        dim: numbers per region.
        is_live: whether the gallery has all these segments still; asked once it is sure to be waited for.

    Returns:
        None where the compiled scan cannot serve them: without numba, or when rows are too long for it. None as well
        when they are no longer the gallery's.

    Raises:
        OSError: the disk refuses; nothing is left behind.
    """
    scan = compiled_scan()
    if scan is None:
        return None
    home = folder / _FOLDER
    home.mkdir(exist_ok=True)
    with locked(folder, fcntl.LOCK_SH) as lock:
        if not is_live() or not _build(home, key, embeddings, photos, dim, scan):
            return None
        # Where others write still, the last of them cleans up.
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_all_but(home, key)
    return load_index(folder, key)


class SavedRows:
    """The vectors in a saved index's files. Use `SavedRows.open`; the constructor only stores."""

    def __init__(self, indices: Mapping[int, Any]) -> None:
        self._indices = indices

    @classmethod
    def open(cls, folder: Path, segments: Sequence[Any], dim: int) -> Self | None:
        """Those of these segments' index; None where it does not match its checksums, or is not there."""
        home = folder / _FOLDER / index_key(segments, dim)
        try:
            header = json.loads((home / HEADER).read_bytes())
            if checksums(home, header) != header:
                return None
            return cls({g: faiss.read_index(str(home / f"{g}.faiss"), faiss.IO_FLAG_MMAP_IFC) for g in GRANULARITIES})
        except UNREADABLE:
            return None

    def rows(self, start: int, count: int) -> npt.NDArray[np.float32]:
        """(count, 14, dim) float32 from the `start`-th photo on."""
        parts = [index.reconstruct_n(start, count).reshape(count, g * g, -1) for g, index in self._indices.items()]
        return np.concatenate(parts, axis=1)


def index_fault(
    folder: Path, segments: Sequence[Any], dim: int, read: Callable[[Any], npt.NDArray[np.float32]]
) -> str | None:
    """What is wrong with the saved index of these segments; None where it is right, or there is none.

    Args:
        folder: the gallery's.
        segments: rows of the ledger's table, in order.
        dim: numbers per region.
        read: gives a segment's (photos, 14, dim).
    """
    if not (folder / _FOLDER / index_key(segments, dim)).is_dir():
        return None
    from indexer.layout_files import layout_is_whole

    saved = SavedRows.open(folder, segments, dim)
    if saved is None or not layout_is_whole(folder / _FOLDER / index_key(segments, dim)):
        return "the saved index does not match its checksums, it was altered"
    start = 0
    for segment in segments:
        if not np.array_equal(saved.rows(start, segment.rows), read(segment)):
            return "the saved index holds other vectors than the segments"
        start += segment.rows
    return None


@contextmanager
def no_index(folder: Path) -> Iterator[None]:
    """Nothing is derived from the segments while this is held: what was is removed, nobody builds anew.

    Waits for those that are building. Whoever builds afterwards finds which segments are the gallery's then.
    """
    with locked(folder, fcntl.LOCK_EX):
        _remove_all_but(folder / _FOLDER)
        yield


@contextmanager
def locked(folder: Path, kind: int) -> Iterator[IO[bytes]]:
    """Hold the lock of what is derived from a gallery's segments, `fcntl.LOCK_SH` to write and LOCK_EX to remove."""
    with (folder / _LOCK).open("ab") as lock:
        fcntl.flock(lock, kind)
        yield lock


def _remove_all_but(home: Path, key: str | None = None) -> None:
    for path in home.glob("*"):
        if path.name != key:
            shutil.rmtree(path, ignore_errors=True)


def _build(
    home: Path,
    key: str,
    embeddings: Iterable[npt.NDArray[np.float32]],
    photos: int,
    dim: int,
    scan: type["FusedScan"],
) -> bool:
    """Write the files; False, leaving none, when rows are too long."""
    scratch = home / f"{key}.{os.getpid()}.{time.monotonic_ns()}.tmp"
    scratch.mkdir()
    try:
        arrays = _write(scratch, _chunks(embeddings), photos, dim, scan)
        if arrays["most"].max() > LONGEST**2:
            return False
        for name, array in arrays.items():
            np.save(scratch / f"{name}.npy", array)
        names = [path.name for path in scratch.iterdir()]
        (scratch / HEADER).write_text(json.dumps(checksums(scratch, names), indent=1))
        whole = home / key
        if whole.exists():  # found damaged, or just written by another process: either way ours is as good
            whole.rename(scratch.with_suffix(".old"))
        scratch.rename(whole)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def load_index(folder: Path, key: str, threads: int | None = None) -> GranularIndex | None:
    """The index that was built, its rows mapped and not read into memory, or None where there is none that is whole.

    It cannot grow. `threads` share its scans, by default as many as there are cores.
    """
    home = folder / _FOLDER / key
    try:
        header = json.loads((home / HEADER).read_bytes())
        names = [name for name in header if not name.endswith(".faiss")]
        if checksums(home, header) != header:
            return None
        indices = {g: faiss.read_index(str(home / f"{g}.faiss"), faiss.IO_FLAG_MMAP_IFC) for g in GRANULARITIES}
        # Read, not mapped: a mapping has pages of 4 KB, and a scan of it took 28 ms where one of numpy's memory, in
        # pages of 2 MB, takes 20.
        arrays = {name.removesuffix(".npy"): np.load(home / name) for name in names}
        return GranularIndex.of_parts(indices, arrays, threads, home)
    except UNREADABLE:
        return None


def _write(
    scratch: Path, chunks: Iterator[npt.NDArray[np.float32]], photos: int, dim: int, scan: type["FusedScan"]
) -> dict[str, npt.NDArray[Any]]:
    """Write the rows and the quantised copy; returns the small arrays, which are not written yet."""
    least, most = np.full(REGIONS, np.inf), np.zeros(REGIONS)
    first = next(chunks)
    quantised = scan.quantised_on(first, photos, lambda name, shape, kind: _large_array(scratch / name, shape, kind))
    with ExitStack() as stack:
        files = {g: stack.enter_context((scratch / f"{g}.faiss").open("wb")) for g in GRANULARITIES}
        for granularity, file in files.items():
            file.write(_flat_header(dim * granularity**2, photos))
        start = 0
        for chunk in chain([first], chunks):
            squares = squared_norms(chunk)
            least, most = np.minimum(least, squares.min(axis=0)), np.maximum(most, squares.max(axis=0))
            for granularity, ids in REGION_IDS.items():
                np.ascontiguousarray(chunk[:, ids.start : ids.stop], "<f4").tofile(files[granularity])
            quantised.write(start, chunk)
            start += len(chunk)
    assert start == photos, (start, photos)
    written = quantised.arrays()
    small = {name: array for name, array in written.items() if name not in ("codes", "heads")}
    return small | {"least": least, "most": most}


def _chunks(embeddings: Iterable[npt.NDArray[np.float32]]) -> Iterator[npt.NDArray[np.float32]]:
    """The same rows in parts of `_CHUNK`."""
    waiting: list[npt.NDArray[np.float32]] = []
    rows = 0
    for part in embeddings:
        waiting.append(part)
        rows += len(part)
        while rows >= _CHUNK:
            together = np.concatenate(waiting)
            yield together[:_CHUNK]
            waiting, rows = [together[_CHUNK:]], rows - _CHUNK
    if rows:
        yield np.concatenate(waiting)


def _large_array(path: Path, shape: tuple[int, ...], kind: type) -> npt.NDArray[Any]:
    """An array in a file, written to as in memory; the space is taken at once, so that a full disk is an error here."""
    array = np.lib.format.open_memmap(path.with_suffix(".npy"), "w+", kind, shape)
    if hasattr(os, "posix_fallocate"):
        with path.with_suffix(".npy").open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, array.offset + array.nbytes)
    return np.asarray(array)


def _flat_header(width: int, photos: int) -> bytes:
    """What FAISS writes before the rows of a flat inner-product index, which then can be as many as the disk holds."""
    header = bytearray(faiss.serialize_index(faiss.IndexFlatIP(width)).tobytes())
    struct.pack_into("<q", header, 8, photos)
    struct.pack_into("<q", header, len(header) - 8, photos * width)
    return bytes(header)


def checksums(home: Path, names: Sequence[str]) -> dict[str, list[int]]:
    """Name -> length of its file and checksums of its pieces."""
    lengths = {name: (home / name).stat().st_size for name in names}
    pieces = [(name, start) for name in names for start in range(0, lengths[name], _PIECE)]

    def checked(piece: tuple[str, int]) -> int:
        name, start = piece
        with (
            (home / name).open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as whole,
            whole[start : start + _PIECE] as part,
        ):
            return zlib.crc32(part)

    with ThreadPoolExecutor(default_threads(), thread_name_prefix="checksum") as pool:
        found = dict(zip(pieces, pool.map(checked, pieces), strict=True))
    return {name: [length, *(found[piece] for piece in pieces if piece[0] == name)] for name, length in lengths.items()}
