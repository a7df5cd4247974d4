"""A large gallery's index as files beside its segments, so that opening it is mapping them: derived, never the truth.

    index/KEY/header.json     length and CRC-32 of the files below
    index/KEY/1.faiss ...     one FAISS index per granularity
    index/KEY/NAME.npy        the quantised copy and what belongs to it

KEY is a hash of the segments' own checksums, so an index of other segments is never taken for this gallery's. Opening
verifies every byte, by all cores together. That is against accidents: whoever can alter a file on purpose can alter its
checksum as well, and CRC-32 takes half as long as SHA-256. Files that are missing, cut short or altered are as good as
none: the index is built from the segments again, and saved again. Processes that open the same gallery map the same
memory. Files appear by one rename and are never changed; what a process has mapped stays while a newer index takes its
place.
"""

import hashlib
import json
import mmap
import os
import shutil
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np

from indexer.encoding import default_threads
from indexer.granular import GranularIndex
from indexer.regions import GRANULARITIES

_FORMAT: Final = 1
"""Of the files, and of what their numbers mean: grows with every change of the quantised copy's layout."""

_FOLDER: Final = "index"
_HEADER: Final = "header.json"
_PIECE: Final = 32 << 20
"""Bytes that a thread checks at a time; a file has one checksum for each such piece."""

_ABANDONED_S: Final = 3600


def index_key(segments: Sequence[Any], dim: int) -> str:
    """Names the index of these rows of the ledger's table of segments."""
    content = [_FORMAT, dim, [[segment.segment, segment.rows, segment.sha256] for segment in segments]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def save_index(folder: Path, key: str, index: GranularIndex) -> None:
    """Write the files and remove those of other keys.

    Args:
        folder: the gallery's.
        key: of `index_key`.
        index: a compiled one.

    Raises:
        OSError: the disk refuses; nothing is left behind.
    """
    home = folder / _FOLDER
    home.mkdir(exist_ok=True)
    scratch = home / f"{key}.{os.getpid()}.{time.monotonic_ns()}.tmp"
    scratch.mkdir()
    try:
        _write(scratch, index)
        whole = home / key
        if whole.exists():  # found damaged, or just written by another process: either way ours is as good
            whole.rename(scratch.with_suffix(".old"))
        scratch.rename(whole)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for other in home.iterdir():
        is_being_written = other.suffix == ".tmp" and time.time() - other.stat().st_mtime < _ABANDONED_S
        if other.name != key and not is_being_written:
            shutil.rmtree(other, ignore_errors=True)


def load_index(folder: Path, key: str) -> GranularIndex | None:
    """The index that was saved, mapped and not read into memory, or None where there is none that is whole.

    It cannot grow.
    """
    home = folder / _FOLDER / key
    try:
        header = json.loads((home / _HEADER).read_bytes())
        names = [name for name in header if not name.endswith(".faiss")]
        if _checksums(home, header) != header:
            return None
        indices = {g: faiss.read_index(str(home / f"{g}.faiss"), faiss.IO_FLAG_MMAP_IFC) for g in GRANULARITIES}
        # Private: pages are shared with other processes until somebody writes to them, and nobody does. The compiled
        # scan would have to be compiled again for arrays that cannot be written to.
        arrays = {name.removesuffix(".npy"): np.asarray(np.load(home / name, mmap_mode="c")) for name in names}
        return GranularIndex.of_parts(indices, arrays)
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _write(scratch: Path, index: GranularIndex) -> None:
    indices, arrays = index.parts()
    try:
        for granularity, one in indices.items():
            faiss.write_index(one, str(scratch / f"{granularity}.faiss"))
    except RuntimeError as error:  # FAISS's word for a full disk
        raise OSError(str(error)) from error
    for name, array in arrays.items():
        np.save(scratch / f"{name}.npy", array)
    names = [path.name for path in scratch.iterdir()]
    (scratch / _HEADER).write_text(json.dumps(_checksums(scratch, names), indent=1))


def _checksums(home: Path, names: Sequence[str]) -> dict[str, list[int]]:
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
