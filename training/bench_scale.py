"""What `mgrl bench search` measures of galleries on the disk: how time and memory grow, and how long opening takes."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from indexer.device import compiled_scan
from indexer.errors import ConfigError
from indexer.face_like import FaceLike
from indexer.gallery import Gallery
from indexer.granular import GranularIndex
from indexer.modes import Approximate
from indexer.regions import REGIONS
from indexer.segments import open_segment, write_segment
from indexer.store import NewPhoto, StoreWriter
from indexer.stored_rows import StoredRows
from training.bench import time_in_turn

_CHUNK: Final = 65_536
_QUERIES: Final = 32
_K: Final = 10
_EVERY: Final = np.ones(REGIONS, np.bool_)

_SEGMENT: Final = 8192
_THUMBNAIL_BYTES: Final = 3000
"""Of a 96 px JPEG, roughly: the ledger that is read when a gallery is opened is as large as that of a real one."""

_OPENINGS: Final = 3
_OPEN: Final = """
import sys, time
from pathlib import Path
import numpy as np
from indexer.gallery import Gallery
probe = np.load(sys.argv[2])
started = time.perf_counter()
Gallery.open(Path(sys.argv[1])).search(probe, np.ones(len(probe), bool))
print(time.perf_counter() - started)
"""


@dataclass(frozen=True)
class Scale:
    """One size.

    Args:
        index: over files.
        laid_out: the same photos, for approximate search.
        probes: (queries, 14, dim) sketches of some of them.
        bytes_a_photo: of the files, which both map, and of what the approximate search scans, in memory.
    """

    index: GranularIndex
    laid_out: GranularIndex
    probes: npt.NDArray[np.float32]
    bytes_a_photo: float

    @classmethod
    def build(cls, folder: Path, photos: int, dim: int) -> Self:
        """Write a gallery's segments into a folder and map them, never holding more than one in memory.

        Raises:
            ConfigError: numba is not installed.
        """
        if compiled_scan() is None:
            raise ConfigError("the compiled scan needs numba; install it with: pip install 'mgrl[fast]'")
        from indexer.approximate import ApproximateScan

        source = FaceLike(dim)
        (folder / "segments").mkdir()
        written = [SimpleNamespace(**write_segment(folder, part, n)) for n, part in enumerate(_parts(source, photos))]
        index = GranularIndex.of_rows(StoredRows([open_segment(folder, row, dim, "bench").part() for row in written]))
        asked = np.sort(np.random.default_rng(0).integers(photos, size=_QUERIES))
        laid_out = copy(index)
        laid_out.build_approximate()
        scanned = laid_out._fused.arrays() if isinstance(laid_out._fused, ApproximateScan) else {}
        size = sum(row.bytes for row in written) + sum(array.nbytes for array in scanned.values())
        return cls(index, laid_out, source.sketches(index.vectors(asked)), size / photos)

    def recall(self, wanted: float) -> float:
        """Share of the true ten that an approximate search finds, on average."""
        shares = []
        for probe in self.probes:
            true, _ = self.index.search(probe, _EVERY, _K)
            (rows, _), _ = self.laid_out.search_in_mode(probe, _EVERY, _K, mode=Approximate(wanted))
            shares.append(len(np.intersect1d(true, rows)) / len(true))
        return float(np.mean(shares))

    def jobs(self, wanted: float) -> dict[str, Callable[[], object]]:
        """Name -> one search."""
        probes = cycle(self.probes)
        mode = Approximate(wanted)
        return {
            "exact": lambda: self.index.search(next(probes), _EVERY, _K),
            "approximate": lambda: self.laid_out.search_in_mode(next(probes), _EVERY, _K, mode=mode),
        }


def compare_sizes(sizes: Sequence[int], dim: int, rounds: int, recall: float) -> dict[int, dict[str, float]]:
    """Photos -> ms of an exact and an approximate search, recall@10 of the latter, and bytes a photo.

    All sizes are held at once and timed in turn. Ten million photos of 16 numbers take 9 GB of disk, 5 GB of memory and
    some minutes.
    """
    with ExitStack() as stack:
        scales: dict[int, Scale] = {}
        jobs: dict[str, Callable[[], object]] = {}
        for photos in sizes:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="mgrl-bench-")))
            scales[photos] = Scale.build(folder, photos, dim)
            jobs |= {f"{name} {photos}": job for name, job in scales[photos].jobs(recall).items()}
        times = time_in_turn(jobs, rounds)
        return {
            photos: {name: times[f"{name} {photos}"] for name in ("exact", "approximate")}
            | {"recall": scale.recall(recall), "bytes_a_photo": scale.bytes_a_photo}
            for photos, scale in scales.items()
        }


def growth(sizes: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """The ratios between two sizes of `compare_sizes`, the smaller one first."""
    (small, smaller), (large, larger) = sizes.items()
    return {
        f"exact_{short(large)}_over_{short(small)}": larger["exact"] / smaller["exact"],
        "approximate_over_exact": larger["approximate"] / larger["exact"],
    }


def short(photos: int) -> str:
    """A size as it is said.

    Example:
        >>> short(10_000_000), short(20_000), short(2500)
        ('10m', '20k', '2500')
    """
    for zeros, letter in ((10**6, "m"), (10**3, "k")):
        if photos % zeros == 0:
            return f"{photos // zeros}{letter}"
    return str(photos)


def opening_s(photos: int, dim: int) -> float:
    """Seconds from opening a gallery folder to the first answer, in a new process; the median of three.

    The folder is made first, with thumbnails of 3 KB, and opened once so that the system has read it.
    """
    with TemporaryDirectory(prefix="mgrl-bench-") as scratch:
        folder, probe = Path(scratch) / "gallery", Path(scratch) / "probe.npy"
        source = FaceLike(dim)
        thumbnail = np.random.default_rng(0).bytes(_THUMBNAIL_BYTES)
        with StoreWriter.open_or_create(folder, "00" * 32, dim) as writer:
            first = 0
            for part in _parts(source, photos):
                for start in range(0, len(part), _SEGMENT):
                    some = part[start : start + _SEGMENT]
                    names = [f"photo{row:08}" for row in range(first, first + len(some))]
                    writer.append([NewPhoto(n, n, thumbnail, hashlib.sha256(n.encode()).digest()) for n in names], some)
                    first += len(some)
        np.save(probe, source.sketches(part[:1])[0])
        Gallery.open(folder).close()
        command = [sys.executable, "-c", _OPEN, str(folder), str(probe)]
        runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(_OPENINGS)]
    return float(np.median([float(run.stdout) for run in runs]))


def _parts(source: FaceLike, photos: int) -> Iterator[npt.NDArray[np.float32]]:
    return (source.photos(min(_CHUNK, photos - start)) for start in range(0, photos, _CHUNK))
