"""What `mgrl bench peers` measures: the same job done by others, in which time, and how much of the truth they find."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from indexer.exact import exact_search
from indexer.face_like import FaceLike
from indexer.regions import REGIONS
from training.bench import time_in_turn
from training.peers import PEERS, Peer, Search

K: Final = 10
OURS: Final = next(iter(PEERS))
_DIM: Final = 16


@dataclass(frozen=True)
class PeerRow:
    """What one peer did. Figures are None where it could not be measured.

    Args:
        peer: its name.
        versions: of its packages.
        failure: why there are no figures; empty if there are.
        load_s: seconds to take in the photos.
        ms: median of a query.
        ours_ms: ours, in turn with it.
        share: of the true hits, how many it returned, over all queries.
    """

    peer: str
    versions: str
    failure: str = ""
    load_s: float | None = None
    ms: float | None = None
    ours_ms: float | None = None
    share: float | None = None

    @property
    def over_ours(self) -> float | None:
        """How many times as long as ours it takes."""
        return None if self.ms is None or self.ours_ms is None else self.ms / self.ours_ms

    def as_json(self) -> dict[str, Any]:
        """All of it, the ratio included."""
        return asdict(self) | {"over_ours": self.over_ours}


@dataclass(frozen=True)
class PeerBench:
    """One gallery and the queries to ask. Use `build`; the constructor only stores.

    Args:
        photos: (photos, 14, 16) float32.
        probes: (queries, 14, 16) float32, sketches of some of the photos, all regions inked.
        truth: per query the rows of the `K` nearest photos, by brute force in float64.
        threads: of every peer that can be told.
    """

    photos: npt.NDArray[np.float32]
    probes: npt.NDArray[np.float32]
    truth: list[set[int]]
    threads: int

    @classmethod
    def build(cls, photos: int, queries: int, threads: int, seed: int = 0) -> Self:
        """Make vectors that lie as those of faces do, and find the true answers."""
        source = FaceLike(_DIM, seed)
        rows = source.photos(photos)
        probes = source.sketches(rows[np.random.default_rng(seed).integers(photos, size=queries)])
        truth = [set(exact_search(rows, probe, _INK, K)[0].tolist()) for probe in probes]
        return cls(rows, probes, truth, threads)

    def rows(self, names: Sequence[str], rounds: int) -> Iterator[PeerRow]:
        """Measure peers one after the other, each in turn with ours; one that fails gives a row that says why."""
        with (
            tempfile.TemporaryDirectory(prefix="mgrl-peers-") as folder,
            PEERS[OURS].open(self.photos, Path(folder), self.threads) as ours,
        ):
            for name in names:
                yield self._row(name, PEERS[name], ours, rounds)

    def _row(self, name: str, peer: Peer, ours: Search, rounds: int) -> PeerRow:
        try:
            versions = ", ".join(f"{package} {version(package)}" for package in peer.packages)
        except PackageNotFoundError as error:
            return PeerRow(name, "", f"{error.name} is not installed; pip install 'mgrl[peers]'")
        try:
            with tempfile.TemporaryDirectory(prefix=f"mgrl-{name}-") as folder:
                started = time.perf_counter()
                with peer.open(self.photos, Path(folder), self.threads) as search:
                    load_s = time.perf_counter() - started
                    found: list[set[int]] = []
                    jobs = {OURS: self._job(ours, []), name: self._job(search, found)}
                    spent = time_in_turn(jobs, rounds)
        except Exception as error:  # each library has its own exceptions, and the other peers are still to come
            return PeerRow(name, versions, f"{type(error).__name__}: {' '.join(str(error).split())}")
        return PeerRow(name, versions, "", load_s, spent[name], spent[OURS], self._share(found))

    def _job(self, search: Search, found: list[set[int]]) -> Callable[[], object]:
        """Ask the next probe and note what was found."""

        def ask() -> None:
            found.append(set(search(self.probes[len(found) % len(self.probes)], _INK, K)))

        return ask

    def _share(self, found: Sequence[set[int]]) -> float:
        """Of the true hits of the queries asked, how many were found."""
        truths = [self.truth[number % len(self.truth)] for number in range(len(found))]
        hits = sum(len(some & truth) for some, truth in zip(found, truths, strict=True))
        return hits / sum(map(len, truths))


_INK: Final = np.ones(REGIONS, bool)
