"""What ingestion takes over the encoder alone, what it does to a service beside it, and what embeddings take."""

import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageChops, ImageOps

from indexer.encoding import DEFAULT_MODEL, OnnxEncoder, photo_pixels
from indexer.errors import ConfigError
from indexer.face_like import FaceLike
from indexer.faces import FaceDetector
from indexer.framing import FaceFraming
from indexer.gallery import Gallery
from indexer.ingest import ingest
from indexer.photos import read_photo
from indexer.preparing import Encoding, EncodingProcesses, Preparer
from indexer.store import Store
from service.bench.people import Drawings
from service.bench.target import Target
from service.client import Client
from service.demo.painting import render_photo
from service.demo.portraits import Portrait
from service.errors import ServiceError

DISTINCT: Final = 40
"""Portraits that are painted, which takes 30 ms each at 256 px; all photos are these, mirrored and shifted."""

_MOVED: Final = 0.06
_PAINTED_PX: Final = 512
_CHUNK: Final = 65_536

_ON_CORES: Final = """
import os, sys
os.sched_setaffinity(0, {int(core) for core in sys.argv[1].split(",")})
from service.cli import main
sys.exit(main(sys.argv[2:]))
"""


@dataclass(frozen=True)
class Paints:
    """Made-up photos, as many as are asked for, no two alike."""

    portraits: Sequence[Image.Image]

    @classmethod
    def mix(cls, size_px: int, seed: int = 0) -> "Paints":
        """Paint the portraits; large ones are scaled up, which changes nothing about how long they take to read."""
        painted = [render_photo(Portrait.random(seed + n), min(size_px, _PAINTED_PX)) for n in range(DISTINCT)]
        return cls([portrait.resize((size_px, size_px), Image.Resampling.BICUBIC) for portrait in painted])

    def write(self, folder: Path, count: int, seed: int) -> list[Path]:
        """Write JPEG files of quality 90; another seed makes other photos."""
        rng = np.random.default_rng(seed)
        folder.mkdir(parents=True)
        paths = []
        for number in range(count):
            image = self.portraits[number % len(self.portraits)]
            image = ImageOps.mirror(image) if rng.random() < 0.5 else image
            most = max(1, round(_MOVED * image.width))
            moved = ImageChops.offset(image, int(rng.integers(-most, most)), int(rng.integers(-most, most)))
            moved.putpixel((0, 0), tuple(rng.integers(0, 256, 3).tolist()))
            paths.append(folder / f"photo{number:06}.jpg")
            moved.save(paths[-1], "JPEG", quality=90)
        return paths


@contextmanager
def preparer(workers: int, processes: bool, crop: str = "none") -> Iterator[tuple[OnnxEncoder, Preparer]]:
    """What `mgrl ingest` would use; processes are started and warm."""
    encoder = OnnxEncoder.open(threads=1)
    framing = None if crop == "none" else FaceFraming(FaceDetector.open(), encoder.size_px, crop=crop)
    if not processes:
        yield encoder, Encoding(encoder, workers, framing)
        return
    with EncodingProcesses(partial(OnnxEncoder.open, DEFAULT_MODEL, threads=1), workers, framing) as started:
        picture = io.BytesIO()
        Image.new("RGB", (64, 64)).save(picture, "PNG")
        with ThreadPoolExecutor(started.threads) as pool:
            list(pool.map(started, [picture.getvalue()] * (4 * started.threads)))
        yield encoder, started


class Rates:
    """Photos a second of the encoder alone and of the whole ingestion, timed in turn.

    Args:
        scratch: an empty folder.
        size_px: side of the photos.
        photos: of one round.
        workers: photos at once.
        batch: photos of a commit.
        processes: whether workers are processes.
        crop: what ingestion does besides, as `mgrl ingest --crop`.
    """

    def __init__(
        self, scratch: Path, size_px: int, photos: int, workers: int, batch: int, processes: bool, crop: str
    ) -> None:
        self._scratch, self._workers, self._batch = scratch, workers, batch
        self._processes, self._crop = processes, crop
        self._files = Paints.mix(size_px).write(scratch / "photos", photos, seed=0)
        self._encoder = OnnxEncoder.open(threads=1)
        self._sharing = OnnxEncoder.open(threads=workers)
        self._pixels = np.stack([photo_pixels(read_photo(path), self._encoder.size_px) for path in self._files])

    def rounds(self, count: int, told: Callable[[int], None]) -> list[dict[str, float]]:
        """Name -> photos a second, of every round; one before them does not count.

        With threads for workers also the milliseconds of a core that a photo takes, `encoder_cpu_ms` and
        `ingest_cpu_ms`, which say more where other processes want the cores too.
        """
        rows = []
        with preparer(self._workers, self._processes, self._crop) as (encoder, prepare):
            for number in range(count + 1):
                row = self._timed("encoder", self._alone) | self._timed("encoder_in_batches", self._in_batches)
                gallery = self._scratch / f"gallery{number}"
                job = partial(ingest, gallery, [self._scratch / "photos"], encoder, batch=self._batch, prepare=prepare)
                row |= self._timed("ingest", job)
                if number:
                    rows.append(row)
                told(number)
        return rows

    def _timed(self, name: str, work: Callable[[], object]) -> dict[str, float]:
        started, used = time.perf_counter(), time.process_time()
        work()
        row = {name: len(self._files) / (time.perf_counter() - started)}
        if not self._processes:
            row[f"{name}_cpu_ms"] = 1000 * (time.process_time() - used) / len(self._files)
        return row

    def _alone(self) -> None:
        """As ingestion has them encoded: one by one, each by one core."""
        with ThreadPoolExecutor(self._workers) as pool:
            list(pool.map(lambda pixels: self._encoder.encode_photos(pixels[None]), self._pixels))

    def _in_batches(self) -> None:
        """As the encoder is used otherwise: a batch over all cores."""
        for start in range(0, len(self._pixels), self._batch):
            self._sharing.encode_photos(self._pixels[start : start + self._batch])


def medians(rounds: Sequence[dict[str, float]]) -> tuple[dict[str, float], float]:
    """Median photos a second of each row, and that of ingestion over the faster of the two encoders, by round.

    Example:
        >>> medians([{"encoder": 100.0, "encoder_in_batches": 80.0, "ingest": 90.0}])
        ({'encoder': 100.0, 'encoder_in_batches': 80.0, 'ingest': 90.0}, 0.9)
    """
    rows = {name: float(np.median([row[name] for row in rounds])) for name in rounds[0]}
    return rows, float(np.median([r["ingest"] / max(r["encoder"], r["encoder_in_batches"]) for r in rounds]))


def require_two_cores() -> tuple[int, int]:
    """The core of the service and of whoever asks it, and that of ingestion.

    Raises:
        ConfigError: there is one core only, or no way to keep a process to one.
    """
    if not hasattr(os, "sched_setaffinity") or len(cores := sorted(os.sched_getaffinity(0))) < 2:
        raise ConfigError("--while-serving gives the service and the ingestion a core each; it needs Linux and two")
    return cores[0], cores[1]


def search_ms(target: Target, drawings: Drawings, until: Callable[[], bool]) -> list[float]:
    """Milliseconds of searches for half-finished drawings, one after the other for as long as `until` is false."""
    spent: list[float] = []
    with Client(target.address) as client:
        while not until():
            strokes = drawings.strokes[len(spent) % len(drawings.strokes)]
            some = strokes[: 1 + len(spent) % len(strokes)]
            started = time.perf_counter()
            client.search(strokes=some)
            spent.append(1000 * (time.perf_counter() - started))
    return spent


def idle_search_ms(target: Target, drawings: Drawings, seconds: float) -> list[float]:
    """The same for some seconds, after a few that do not count."""
    warm, until = time.monotonic() + seconds / 8, time.monotonic() + seconds
    search_ms(target, drawings, lambda: time.monotonic() > warm)
    return search_ms(target, drawings, lambda: time.monotonic() > until)


def search_ms_while_ingesting(
    target: Target, drawings: Drawings, photos: Path, core: int, seconds: float
) -> tuple[list[float], float]:
    """The same while `mgrl ingest` stores photos in the served gallery; with the photos that it stored a second.

    What is measured begins with its first commit and ends after `seconds`, or with the job.

    Raises:
        ServiceError: the job ended early, with an error.
    """
    assert target.folder is not None
    command = [sys.executable, "-c", _ON_CORES, str(core), "ingest", str(target.folder), str(photos)]
    store = Store.open(target.folder)
    before = store.count()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
        try:
            search_ms(target, drawings, lambda: store.count() > before or job.poll() is not None)
            first, began = store.count(), time.monotonic()
            spent = search_ms(target, drawings, lambda: time.monotonic() - began > seconds or job.poll() is not None)
            rate = (store.count() - first) / (time.monotonic() - began)
            if job.poll():
                raise ServiceError(f"mgrl ingest ended with status {job.returncode}")
        finally:
            job.terminate()
            store.close()
    return spent, rate


def write_embeddings(path: Path, photos: int, dim: int) -> int:
    """Write an .npz of made-up embeddings with a number and a text each, a part at a time.

    Returns:
        The bytes of vectors, ids and metadata together.
    """
    ages = np.random.default_rng(0).integers(18, 90, photos).astype(np.int32)
    sexes = np.where(ages % 2, "female", "male")
    ids = np.char.add("photo", np.char.zfill(np.arange(photos).astype(str), 8))
    source = FaceLike(dim)
    with zipfile.ZipFile(path, "w") as archive:
        for name, column in (("photo_id", ids), ("age", ages), ("sex", sexes)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, column)
        with archive.open("embeddings.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (photos, 14, dim)}
            np.lib.format.write_array_header_2_0(file, header)
            for start in range(0, photos, _CHUNK):
                file.write(source.photos(min(_CHUNK, photos - start)).tobytes())
    texts = int(np.char.str_len(ids).sum() + np.char.str_len(sexes).sum())
    return photos * 14 * dim * 4 + ages.nbytes + texts


_PEAK_OF: Final = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
"""Runs a command and prints its peak: a process begins with the peak of the one that starts it, so a small one must."""


def embeddings_cost(scratch: Path, photos: int, dim: int) -> dict[str, Any]:
    """Ingest so many embeddings in a process of its own.

    Returns:
        seconds, photos_per_s, peak_mb of the process, and over_vectors_and_metadata: the bytes of all files of the
        gallery, once it was opened to be searched, over those of vectors, ids and metadata.
    """
    path, gallery = scratch / "faces.npz", scratch / "faces"
    given = write_embeddings(path, photos, dim)
    command = [sys.executable, "-m", "service.cli", "ingest", str(gallery), "--embeddings", str(path)]
    started = time.monotonic()
    job = subprocess.run(
        [sys.executable, "-c", _PEAK_OF, *command, "--model-hash", "ab" * 32],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    if job.returncode:
        raise ServiceError(f"mgrl ingest --embeddings ended with status {job.returncode}")
    Gallery.open(gallery).close()
    return {
        "seconds": seconds,
        "photos_per_s": photos / seconds,
        "peak_mb": int(job.stdout) / (1024 if sys.platform == "linux" else 1024**2),
        "over_vectors_and_metadata": size_of(gallery) / given,
    }


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def percentile(spent: Sequence[float], share: float) -> float:
    """A percentile of milliseconds."""
    return float(np.percentile(spent, share))
