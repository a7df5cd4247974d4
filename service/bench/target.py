"""What is measured: a deployment at an address, or a `mgrl serve` of our own over made-up galleries."""

import hashlib
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

import numpy as np

from indexer.encoding import OnnxEncoder
from indexer.errors import ConfigError
from indexer.face_like import FaceLike
from indexer.gallery import Gallery
from indexer.ledger import Framing
from indexer.store import NewPhoto, StoreWriter
from service.client import Client
from service.credentials import Credentials
from service.errors import ServiceError

_THUMBNAIL_BYTES: Final = 3000
"""Of a 96 px JPEG, roughly: what is read at a start is as large as with photos."""

_SEGMENT: Final = 8192

_INGEST: Final = """
import sys, time
from pathlib import Path
from indexer.encoding import OnnxEncoder
from indexer.face_like import FaceLike
from service.bench.target import append_photos
folder, batch, every_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
encoder, begun = OnnxEncoder.open(), time.time_ns()
source, number = FaceLike(encoder.dim, seed=1), 0
while True:
    append_photos(folder, source, encoder.model_hash, batch, f"new{begun}-{number:06}-")
    number += 1
    time.sleep(every_s)
"""


@dataclass(frozen=True)
class Target:
    """A service to measure.

    Args:
        address: HOST:PORT.
        galleries: their names.
        photos: in the first of them.
        metrics: URL of its metrics page; empty when not known, and then nobody may ask for its memory.
        ready_s: seconds from starting its process to the line that says it answers; None for one that ran already.
        folder: of its first gallery; None for one that ran already.
    """

    address: str
    galleries: tuple[str, ...]
    photos: int
    metrics: str = ""
    ready_s: float | None = None
    folder: Path | None = None

    def memory_bytes(self) -> float:
        """Resident memory of the process, as its metrics tell.

        Raises:
            ConfigError: its metrics cannot be read, or do not tell.
        """
        try:
            with urllib.request.urlopen(self.metrics, timeout=10) as page:
                text = page.read().decode()
        except (OSError, ValueError, HTTPException) as error:
            raise ConfigError(f"the metrics page {self.metrics} cannot be read: {error}") from error
        found = re.search(r"^process_resident_memory_bytes (\S+)$", text, re.MULTILINE)
        if found is None:
            raise ConfigError(f"{self.metrics} does not tell process_resident_memory_bytes; is it a service on Linux?")
        return float(found[1])

    @contextmanager
    def ingesting(self, batch: int = 256, every_s: float = 1.0) -> Iterator[None]:
        """While the block runs, another process adds photos to the first gallery."""
        if self.folder is None:
            raise ConfigError("photos can be added only to galleries that the bench has made; leave --address out")
        command = [sys.executable, "-c", _INGEST, str(self.folder), str(batch), str(every_s)]
        with subprocess.Popen(command) as adding:
            try:
                yield
            finally:
                adding.kill()


def running_target(address: str, metrics: str, credentials: Credentials) -> Target:
    """A service that is there.

    Raises:
        ConfigError: see `Credentials.channel`; or it serves no gallery.
        PublicError: what the service answered, or that nobody does.
    """
    with Client(address, credentials=credentials) as client:
        found = client.galleries()
    if not found:
        raise ConfigError(f"the service at {address} serves no gallery that could be searched; let it serve one")
    return Target(address, tuple(gallery.name for gallery in found), found[0].photos, metrics)


def make_galleries(folder: Path, count: int, photos: int) -> list[Path]:
    """Gallery folders of made-up embeddings, ready to be served; those that are there already are kept.

    Raises:
        ConfigError: one is there with another number of photos.
    """
    made, encoder = [], OnnxEncoder.open()
    for number in range(count):
        path = folder / f"faces{number}"
        if not path.exists():
            source = FaceLike(encoder.dim)
            for start in range(0, photos, _SEGMENT):
                count = min(_SEGMENT, photos - start)
                append_photos(path, source, encoder.model_hash, count, f"photo{start:08}-")
        gallery = Gallery.open(path)  # saves its index, as the first start would
        held = gallery.photos
        gallery.close()
        if held < photos:
            raise ConfigError(f"the gallery in {path.name} has {held} photos, not {photos}; name another --folder")
        made.append(path)
    return made


def append_photos(folder: Path, source: FaceLike, model_hash: str, count: int, prefix: str) -> None:
    """Add made-up photos, one segment, to a gallery folder."""
    rows = source.photos(count)
    thumbnail = np.random.default_rng(0).bytes(_THUMBNAIL_BYTES)
    names = [f"{prefix}{row:05}" for row in range(count)]
    with StoreWriter.open_or_create(folder, model_hash, rows.shape[2]) as writer:
        writer.keep_framing(Framing("none"))
        writer.append([NewPhoto(n, n, thumbnail, hashlib.sha256(n.encode()).digest()) for n in names], rows)


@contextmanager
def own_target(folders: Sequence[Path], photos: int, options: Sequence[str] = ()) -> Iterator[Target]:
    """A `mgrl serve` in a process of its own while the block runs.

    Args:
        folders: of the galleries.
        photos: in each.
        options: further ones of `mgrl serve`.

    Raises:
        ServiceError: it did not start.
    """
    sides = ["--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0", "--grace", "0.5"]
    command = [sys.executable, "-m", "service.cli", "serve", *map(str, folders), *sides, *options]
    started = time.monotonic()
    with (
        TemporaryFile("w+") as complaints,  # no pipe: nobody would read it while the service is measured
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            took_s = time.monotonic() - started
            if not ready.startswith("serving"):
                complaints.seek(0)
                raise ServiceError(f"mgrl serve did not start; it says: {complaints.read().strip()[-500:]}")
            metrics = process.stdout.readline().strip().rpartition(" ")[2]
            names = tuple(folder.name for folder in folders)
            yield Target(ready.strip().rpartition(" ")[2], names, photos, metrics, took_s, folders[0])
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
