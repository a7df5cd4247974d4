"""The layout of approximate search as files in a saved index's folder, so that not every start has to make it.

    index/KEY/layout/header.json     the number of this format; length and CRC-32 of the files below
    index/KEY/layout/NAME.npy        an array each of `indexer.approximate.ApproximateScan`

It belongs to that index and goes with it; `indexer.index_files` says who may write there, and what checksums are for.
A layout that is missing, cut short, altered or of another format is as good as none: it is made again, and saved again.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from indexer.index_files import HEADER, UNREADABLE, checksums, locked

if TYPE_CHECKING:
    from indexer.approximate import ApproximateScan

_FOLDER: Final = "layout"

_FORMAT: Final = 2
"""Of the arrays: 2 since they hold groups of blocks."""


def saved_layout(home: Path, build: Callable[[], "ApproximateScan"], threads: int | None) -> "ApproximateScan":
    """The layout that was saved for an index, or else the one that `build` makes, saved if the disk lets it.

    Args:
        home: the index's folder.
        build: makes it of the same rows.
        threads: that share its searches, by default as many as there are cores.
    """
    from indexer.approximate import ApproximateScan

    with suppress(*UNREADABLE):
        if (arrays := _read(home / _FOLDER)) is not None:
            return ApproximateScan.of_arrays(arrays, threads)
    built = build()
    # Whoever took the index away meanwhile, or has no room for its layout: this process has what it needs.
    with suppress(OSError), locked(home.parent.parent, fcntl.LOCK_SH):
        _write(home, built.arrays())
    return built


def layout_is_whole(home: Path) -> bool:
    """Whether an index's layout matches its checksums; True where there is none of this format."""
    try:
        return not _is_ours(home / _FOLDER) or _files(home / _FOLDER) is not None
    except UNREADABLE:
        return False


def _header(folder: Path) -> Any:
    return json.loads((folder / HEADER).read_bytes())


def _is_ours(folder: Path) -> bool:
    return folder.is_dir() and _header(folder).get("format") == _FORMAT


def _files(folder: Path) -> list[str] | None:
    """Names of a layout's files, None where one does not match its checksum."""
    files: dict[str, list[int]] = _header(folder)["files"]
    return list(files) if checksums(folder, list(files)) == files else None


def _read(folder: Path) -> dict[str, npt.NDArray[Any]] | None:
    files = _files(folder) if _is_ours(folder) else None
    return None if files is None else {name.removesuffix(".npy"): np.load(folder / name) for name in files}


def _write(home: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    scratch = home / f"{_FOLDER}.{os.getpid()}.{time.monotonic_ns()}.tmp"
    scratch.mkdir()
    try:
        for name, array in arrays.items():
            np.save(scratch / f"{name}.npy", array)
        header = {"format": _FORMAT, "files": checksums(scratch, [f"{name}.npy" for name in arrays])}
        (scratch / HEADER).write_text(json.dumps(header, indent=1))
        whole = home / _FOLDER
        if whole.exists():  # found damaged, or just written by another process: either way ours is as good
            aside = scratch.with_suffix(".old")
            whole.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        scratch.rename(whole)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
