"""Who makes of a photo's file what is stored of it: threads that only decode, or that encode too, or processes.

On a CPU every photo is encoded on its own by the core that decoded it. One photo takes the default model 10.6 ms of a
core, each of a batch of 32 takes 11.2, and 13 to 16 where ONNX Runtime's own threads share a batch: these wait for each
other at every layer, and spin while they do. A photo's embedding then does not depend on its neighbours, either. A GPU
wants batches: there the threads decode, and `indexer.ingest` encodes what has gathered.
"""

import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from indexer.children import end_with_parent
from indexer.encoding import RegionEncoder
from indexer.framing import FaceFraming
from indexer.loading import Decoded, decode, decode_faces

MAX_WORKERS: Final = 256

_AHEAD: Final = 2
"""Photos that a process has at hand, one of them in work: it never waits for the next."""


class Preparer(Protocol):
    """Makes what is stored of a photo; safe to call from several threads."""

    @property
    def threads(self) -> int:
        """How many threads should call it at once."""

    @property
    def framing(self) -> FaceFraming | None:
        """What crops the photos; None for nothing."""

    def __call__(self, data: bytes) -> Sequence[Decoded]:
        """What is stored of a photo file: one photo, or with framing one a face.

        Raises:
            ImageError: it is no photo that can be read, or one that the framing refuses.
        """


@dataclass(frozen=True)
class Decoding:
    """Decodes; whoever called it encodes.

    Args:
        size_px: side of the encoder's input.
        threads: as `Preparer` says.
        framing: crops to the face; None takes photos as they are.
    """

    size_px: int
    threads: int = 2
    framing: FaceFraming | None = None

    def __call__(self, data: bytes) -> Sequence[Decoded]:
        """Pixels and thumbnail."""
        if self.framing is None:
            return [decode(data, self.size_px)]
        return decode_faces(data, self.size_px, self.framing)


@dataclass(frozen=True)
class Encoding:
    """Decodes and encodes, in the calling thread.

    Args:
        encoder: computes in the calling thread, as `OnnxEncoder.single_threaded` does.
        threads: as `Preparer` says; one a core.
        framing: crops to the face; None takes photos as they are.
    """

    encoder: RegionEncoder
    threads: int
    framing: FaceFraming | None = None

    def __call__(self, data: bytes) -> Sequence[Decoded]:
        """Embedding and thumbnail."""
        decoded = Decoding(self.encoder.size_px, self.threads, self.framing)(data)
        return [replace(one, embedding=self.encoder.encode_photos(one.pixels[None])[0]) for one in decoded]


def embeddings_of(photos: Sequence[Decoded], encoder: RegionEncoder) -> npt.NDArray[np.float32]:
    """(photos, 14, dim) of prepared photos; what nobody has encoded yet is encoded as one batch."""
    embeddings = [photo.embedding for photo in photos if photo.embedding is not None]
    if len(embeddings) == len(photos):
        return np.stack(embeddings)
    return encoder.encode_photos(np.stack([photo.pixels for photo in photos]))


class EncodingProcesses(AbstractContextManager["EncodingProcesses"]):
    """Decodes and encodes in processes of their own, so that no lock of Python's is shared; ends with its `with` block.

    Args:
        open_encoder: opens an encoder that computes in the calling thread; is called in every process.
        processes: how many; one a core.
        framing: crops to the face; None takes photos as they are.
    """

    def __init__(
        self, open_encoder: Callable[[], RegionEncoder], processes: int, framing: FaceFraming | None = None
    ) -> None:
        # Spawned: a forked one would inherit locks that threads of this process hold.
        self._pool = ProcessPoolExecutor(processes, get_context("spawn"), _open, (open_encoder, framing))
        self.threads, self.framing = _AHEAD * processes, framing

    def __call__(self, data: bytes) -> Sequence[Decoded]:
        """Embedding and thumbnail.

        Raises:
            MemoryError: a process was killed, which only the kernel does, and for its memory.
        """
        try:
            return self._pool.submit(_prepare, data).result()
        except BrokenProcessPool as error:
            raise MemoryError("a worker process was killed; take fewer of them (--workers)") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


_ours: list[Encoding] = []
"""In a worker process: what it was started with."""


def _open(open_encoder: Callable[[], Any], framing: FaceFraming | None) -> None:
    end_with_parent()
    # Ctrl-C goes to all processes of a terminal; the one that began the job ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _ours.append(Encoding(open_encoder(), 1, framing))


def _prepare(data: bytes) -> Sequence[Decoded]:
    return _ours[0](data)
