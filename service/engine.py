"""What the sessions of a service share: the encoders, a limit on how much runs at once, and scans.

A scan of a large gallery uses every core and mostly waits for memory, so two of them side by side take twice as long,
and one for two queries hardly longer than for one. So only one runs at a time for each kind of ranking, and takes in
whatever waits when it begins. Nobody waits for company: without a queue a scan begins at once, for one.

Encodings are run together only where the settings say so (`batches`): on two cores the default model took 14.0 ms for
one sketch and 18.3 ms a sketch for two together, 15.1 for eight; a GPU is another matter. Approximate searches, which
read little, never are, nor are those of galleries without a compiled scan.
"""

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from indexer.encoding import RegionEncoder
from indexer.gallery import Gallery, Ranking
from indexer.modes import Exact
from service.admission import Slots
from service.answers import SearchOptions
from service.encoders import Encoders

Job = TypeVar("Job")
Result = TypeVar("Result")

MAX_SHARING: Final = 32
"""Queries of one scan, or sketches that are encoded together; what more wait go into the next."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Query:
    """A sketch to rank a gallery by; its mode and filter are in the options."""

    gallery: Gallery
    probe: npt.NDArray[np.float32]
    ink: npt.NDArray[np.bool_]
    options: SearchOptions


class Engine:
    """Encodes and searches for every session of a service.

    Args:
        encoders: made the galleries' embeddings.
        threads: pieces of work that run at once, at least 1.
        batches: whether sketches that wait for the same encoder are encoded together.
    """

    def __init__(self, encoders: RegionEncoder | Encoders, threads: int = 1, *, batches: bool = False) -> None:
        self.encoders = Encoders.of(encoders)
        self.slot = Slots(threads)
        self._scans: SharedRuns[Query, Ranking] = SharedRuns(_scan, self.slot, MAX_SHARING)
        self._encodings: SharedRuns[tuple[RegionEncoder, Pixels], npt.NDArray[np.float32]] | None = (
            SharedRuns(_encode, self.slot, MAX_SHARING) if batches else None
        )

    def encode(self, encoder: RegionEncoder, pixels: Pixels) -> tuple[npt.NDArray[np.float32], float]:
        """(14, dim) embeddings of a (size, size) canvas, and the milliseconds they took without waiting.

        Raises:
            ShapeError: as `RegionEncoder.encode_sketches`.
        """
        if self._encodings is not None:
            return self._encodings.do(encoder.model_hash, (encoder, pixels))
        with self.slot:
            started = time.perf_counter()
            return encoder.encode_sketches(pixels[None])[0], (time.perf_counter() - started) * 1e3

    def search(self, query: Query) -> tuple[Ranking, float]:
        """The ranking, and the milliseconds it took without waiting.

        Raises:
            GalleryError, QueryError, ShapeError: as `Gallery.search`.
        """
        asked = query.options
        if query.gallery.shares_scans and isinstance(asked.mode, Exact):
            return self._scans.do((query.gallery, asked.k, asked.filter), query)
        with self.slot:
            started = time.perf_counter()
            ranking = query.gallery.search(query.probe, query.ink, asked.k, asked.weights, asked.mode, asked.filter)
            return ranking, (time.perf_counter() - started) * 1e3


def _encode(sketches: Sequence[tuple[RegionEncoder, Pixels]]) -> Sequence[npt.NDArray[np.float32]]:
    """Embeddings of canvases that agree on the encoder."""
    encoder, _ = sketches[0]
    return list(encoder.encode_sketches(np.stack([pixels for _, pixels in sketches])))


def _scan(queries: Sequence[Query]) -> list[Ranking]:
    """Exact rankings of queries that agree on gallery, k and filter."""
    first = queries[0]
    return first.gallery.search_batch(
        np.stack([query.probe for query in queries]),
        np.stack([query.ink for query in queries]),
        first.options.k,
        [query.options.weights for query in queries],
        first.options.filter,
    )


@dataclass(eq=False)
class _Ticket(Generic[Job, Result]):
    """A job that waits, and what became of it; `turn` is set when it is done or shall lead the next run."""

    job: Job
    turn: threading.Event = field(default_factory=threading.Event)
    is_done: bool = False
    outcome: "Result | Exception | None" = None
    took_ms: float = 0.0


class SharedRuns(Generic[Job, Result]):
    """Runs jobs of many threads: those of one kind that wait at the same moment as one.

    Args:
        run: does several jobs of one kind; one result for each.
        slot: held while it runs.
        most: jobs of one run.
    """

    def __init__(
        self, run: Callable[[Sequence[Job]], Sequence[Result]], slot: AbstractContextManager[Any], most: int
    ) -> None:
        self._run, self._slot, self._most = run, slot, most
        self._lock = threading.Lock()
        # The jobs of each kind that wait for a run; a kind is in here as long as one of its jobs leads.
        self._waiting: dict[Hashable, list[_Ticket[Job, Result]]] = {}

    def do(self, kind: Hashable, job: Job) -> tuple[Result, float]:
        """The job's result, and the milliseconds its run took; what it raises is raised for this job alone."""
        mine: _Ticket[Job, Result] = _Ticket(job)
        with self._lock:
            leads = kind not in self._waiting
            self._waiting.setdefault(kind, []).append(mine)
        if not leads:
            mine.turn.wait()
        if not mine.is_done:
            self._lead(kind)
        if isinstance(mine.outcome, Exception):
            raise mine.outcome
        return mine.outcome, mine.took_ms  # type: ignore[return-value]  # done, and no exception: a result

    def _lead(self, kind: Hashable) -> None:
        """Run what waits, the caller's job first, and hand the lead on."""
        with self._slot:
            with self._lock:
                waiting = self._waiting[kind]
                batch, waiting[:] = waiting[: self._most], waiting[self._most :]
            started = time.perf_counter()
            outcomes = self._outcomes([ticket.job for ticket in batch])
            took_ms = (time.perf_counter() - started) * 1e3
        with self._lock:
            if waiting:
                waiting[0].turn.set()
            else:
                del self._waiting[kind]
        for ticket, outcome in zip(batch, outcomes, strict=True):
            ticket.outcome, ticket.took_ms, ticket.is_done = outcome, took_ms, True
            ticket.turn.set()

    def _outcomes(self, jobs: Sequence[Job]) -> Sequence[Any]:
        try:
            return self._run(jobs)
        except Exception as error:
            # One bad job must not fail its neighbours.
            return [error] if len(jobs) == 1 else [self._outcomes([job])[0] for job in jobs]
