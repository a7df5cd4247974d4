"""The layout of approximate search as files beside a gallery's segments, so that not every start has to make it.

    index/KEY/header.json     length and CRC-32 of the files below
    index/KEY/NAME.npy        an array each of `indexer.approximate.ApproximateScan`
    index.lock                held while these are written or removed

It is derived, never the truth. KEY is a hash of the segments' own checksums, so a layout of other segments is never
taken for this gallery's. CRC-32 is against accidents: whoever can alter a file on purpose can alter its checksum as
well, and it takes half as long as SHA-256. A layout that is missing, cut short or altered is as good as none: it is
made again, and saved again. It appears by one rename and is never changed. Who writes one holds the folder's lock
together with others that do; who takes vectors away for good (`indexer.compaction`) holds it alone.
"""

import fcntl
import hashlib
import json
import mmap
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from indexer.encoding import default_threads

if TYPE_CHECKING:
    from indexer.approximate import ApproximateScan

_FORMAT: Final = 3
"""Of the files, and of what their numbers mean: grows with every change of the arrays. Part of KEY, so that a layout of
another format is none."""

_FOLDER: Final = "index"
_HEADER: Final = "header.json"
_LOCK: Final = "index.lock"
_UNREADABLE: Final = (OSError, ValueError, TypeError, AttributeError, LookupError)
"""What files that are damaged, or removed while they are read, raise."""

_PIECE: Final = 32 << 20
"""Bytes that a thread checks at a time; a file has one checksum for each such piece."""


def saved_layout(
    folder: Path,
    segments: Sequence[Any],
    dim: int,
    is_live: Callable[[], bool],
    build: Callable[[], "ApproximateScan"],
) -> "ApproximateScan":
    """The layout that was saved for these segments, or else the one that `build` makes, saved if the disk lets it.

    Args:
        folder: the gallery's.
        segments: rows of the ledger's table, in order.
        dim: numbers per region.
        is_live: whether the gallery has all these segments still; asked once it is sure to be waited for.
        build: makes it of their rows.
    """
    from indexer.approximate import ApproximateScan

    home = _home(folder, segments, dim)
    with suppress(*_UNREADABLE):
        if (header := _header(home)) is not None:
            return ApproximateScan.of_arrays({name.removesuffix(".npy"): np.load(home / name) for name in header})
    built = build()
    # Whoever took segments away meanwhile, or has no room for a layout: this process has what it needs.
    with suppress(OSError), _locked(folder, fcntl.LOCK_SH):
        if is_live():
            _write(home, built.arrays())
    return built


def layout_is_whole(folder: Path, segments: Sequence[Any], dim: int) -> bool:
    """Whether the saved layout of these segments matches its checksums; True where there is none."""
    home = _home(folder, segments, dim)
    try:
        return not home.is_dir() or _header(home) is not None
    except _UNREADABLE:
        return False


def remove_other_layouts(folder: Path, segments: Sequence[Any], dim: int, is_live: Callable[[], bool]) -> None:
    """Remove what is derived from other segments than these, or was saved by older versions of this software.

    Where somebody writes a layout at this moment, or the folder may not be written, it stays.
    """
    home = _home(folder, segments, dim)
    if any(path != home for path in home.parent.glob("*")):
        with suppress(OSError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            if is_live():
                _remove(home.parent, but=home)


@contextmanager
def no_layout(folder: Path) -> Iterator[None]:
    """Nothing is derived from the segments while this is held: what was is removed, nobody saves any.

    Waits for those that are saving. Whoever saves afterwards finds which segments are the gallery's then.
    """
    with _locked(folder, fcntl.LOCK_EX):
        _remove(folder / _FOLDER)
        yield


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[IO[bytes]]:
    with (folder / _LOCK).open("ab") as lock:
        fcntl.flock(lock, kind)
        yield lock


def _remove(layouts: Path, but: Path | None = None) -> None:
    for path in layouts.glob("*"):
        if path != but:
            shutil.rmtree(path, ignore_errors=True)


def _home(folder: Path, segments: Sequence[Any], dim: int) -> Path:
    content = [_FORMAT, dim, [[segment.segment, segment.rows, segment.sha256] for segment in segments]]
    return folder / _FOLDER / hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _header(home: Path) -> dict[str, list[int]] | None:
    """What the header says; None where the files do not match it."""
    header: dict[str, list[int]] = json.loads((home / _HEADER).read_bytes())
    return header if _checksums(home, list(header)) == header else None


def _write(home: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    scratch = home.with_name(f"{home.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    scratch.mkdir(parents=True)
    try:
        for name, array in arrays.items():
            np.save(scratch / f"{name}.npy", array)
        (scratch / _HEADER).write_text(json.dumps(_checksums(scratch, [f"{name}.npy" for name in arrays]), indent=1))
        if home.exists():  # found damaged, or just written by another process: either way ours is as good
            aside = scratch.with_suffix(".old")
            home.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        scratch.rename(home)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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
