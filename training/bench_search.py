"""What `mgrl bench search` times: exact search against reading the vectors once and against what FAISS alone offers."""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final, Self

import faiss
import numpy as np
import numpy.typing as npt

from indexer.errors import ConfigError
from indexer.exact import exact_search
from indexer.face_like import FaceLike, statistics
from indexer.fusion import region_weights
from indexer.granular import GranularIndex
from indexer.modes import Approximate, Budget, Mode
from indexer.regions import REGIONS
from indexer.sharing import Helpers

K: Final = 10
_LIST_LENGTH: Final = 100
_REFINED: Final = 1000
_FILTERED: Final = 0.01
_MODES: Final[dict[str, Mode]] = {"approximate": Approximate(0.99), "budget_2ms": Budget(2)}
_SAMPLE: Final = 2000


@dataclass(frozen=True)
class SearchBench:
    """One gallery and the queries to time on it. Use `build`; the constructor only stores.

    Args:
        index: what is measured.
        laid_out: the same, for approximate search.
        photos: (photos, 14, dim) the same vectors, for the baselines.
        probes: (queries, 14, dim), sketches of some of the photos.
        inked: how many regions have ink in the second set of rows; the first has all fourteen.
        batch: queries that share a scan.
        threads: of every search and baseline.
        statistics: of the vectors, see `indexer.face_like.statistics`.
    """

    index: GranularIndex
    laid_out: GranularIndex
    photos: npt.NDArray[np.float32]
    probes: npt.NDArray[np.float32]
    inked: int
    batch: int
    threads: int
    statistics: dict[str, dict[int, float]]

    @classmethod
    def build(
        cls, photos: int, dim: int, inked: int, batch: int, threads: int, device: str = "cpu", seed: int = 0
    ) -> Self:
        """Make the vectors and index them; a million photos of 16 numbers take some 20 seconds and 3 GB.

        Raises:
            ConfigError: numba is not installed, or the device cannot be used.
        """
        source = FaceLike(dim, seed)
        rows = source.photos(photos)
        asked = rows[np.random.default_rng(seed).integers(photos, size=max(batch, 32))]
        sample = rows[:_SAMPLE]
        measured = statistics(sample, source.sketches(sample))
        index = GranularIndex.build(rows, fused_from=1, threads=threads, device=device)
        if device == "cpu" and not index.compiled:
            raise ConfigError("the compiled scan needs numba; install it with: pip install 'mgrl[fast]'")
        laid_out = copy(index)
        laid_out.build_approximate()
        return cls(index, laid_out, rows, source.sketches(asked), inked, batch, threads, measured)

    def jobs(self, with_lists: bool) -> dict[str, Callable[[], object]]:
        """Row name -> one run of it; `batch` rows are whole batches."""
        faiss.omp_set_num_threads(self.threads)
        jobs: dict[str, Callable[[], object]] = {"read": self._read()}
        allowed = np.random.default_rng(1).random(len(self.photos)) < _FILTERED
        lists = _RegionLists(self.photos) if with_lists else None
        concatenated = _Concatenated(self.photos) if with_lists else None
        for ink in self._inks():
            name = f"{int(ink.sum())}_inked"
            jobs[f"exact_{name}"] = self._single(ink, None)
            jobs[f"exact_filtered_{name}"] = self._single(ink, allowed)
            jobs[f"exact_batch{self.batch}_{name}"] = self._batched(ink)
            for mode_name, mode in _MODES.items():
                jobs[f"{mode_name}_{name}"] = self._in_mode(ink, mode)
            if lists is not None:
                jobs[f"14_lists_{name}"] = self._listed(lists, ink)
            if concatenated is not None:
                jobs[f"concatenated_{name}"] = self._listed(concatenated, ink)
        return jobs

    def recalls(self, with_lists: bool) -> dict[str, float]:
        """Row name -> share of the true ten among its ten, for the rows that may leave photos out.

        True are those of exact search, which `differences` holds to brute force.
        """
        others: dict[str, _RegionLists | _Concatenated] = {}
        if with_lists:
            others = {"14_lists": _RegionLists(self.photos), "concatenated": _Concatenated(self.photos)}
        shares: dict[str, list[float]] = {}
        for ink in self._inks():
            for probe in self.probes:
                true, _ = self.index.search(probe, ink, K)
                found = {
                    name: self.laid_out.search_in_mode(probe, ink, K, mode=mode)[0][0] for name, mode in _MODES.items()
                }
                found |= {name: other.search(probe, ink) for name, other in others.items()}
                for name, rows in found.items():
                    share = len(np.intersect1d(rows, true)) / len(true)
                    shares.setdefault(f"{name}_{int(ink.sum())}_inked", []).append(share)
        return {name: float(np.mean(each)) for name, each in shares.items()}

    def differences(self, queries: int) -> int:
        """How many of some queries are not answered as by brute force, in ids, order or distances."""
        wrong = 0
        for probe in self.probes[:queries]:
            for ink in self._inks():
                found = self.index.search(probe, ink, K)
                expected = exact_search(self.photos, probe, ink, K)
                wrong += not all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
        return wrong

    def _inks(self) -> list[npt.NDArray[np.bool_]]:
        some = np.zeros(REGIONS, bool)
        # The whole face and what a stroke near the top touches: its halves, then the cells of the 3x3 grid.
        some[[0, 1, 2, 5, 6, 7, 8, 9, 10, 3, 4, 11, 12, 13][: self.inked]] = True
        return [np.ones(REGIONS, bool), some] if self.inked < REGIONS else [some]

    def _read(self) -> Callable[[], object]:
        """A parallel sum over all float32 vectors, shared as searches are."""
        parts, helpers = np.array_split(self.photos.reshape(-1), 16 * self.threads), Helpers(self.threads, "read")
        sums = np.empty(len(parts), np.float32)

        def add(part: int) -> None:
            sums[part] = parts[part].sum()

        def read() -> object:
            helpers.share(len(parts), add)
            return sums.sum()

        return read

    def _single(self, ink: npt.NDArray[np.bool_], allowed: npt.NDArray[np.bool_] | None) -> Callable[[], object]:
        probes = cycle(self.probes)
        return lambda: self.index.search(next(probes), ink, K, allowed=allowed)

    def _found(self, probe: npt.NDArray[np.float32], ink: npt.NDArray[np.bool_], mode: Mode) -> npt.NDArray[np.int64]:
        return self.laid_out.search_in_mode(probe, ink, K, mode=mode)[0][0]

    def _in_mode(self, ink: npt.NDArray[np.bool_], mode: Mode) -> Callable[[], object]:
        probes = cycle(self.probes)
        return lambda: self.laid_out.search_in_mode(next(probes), ink, K, mode=mode)

    def _batched(self, ink: npt.NDArray[np.bool_]) -> Callable[[], object]:
        probes, inks = np.resize(self.probes, (self.batch, *self.probes.shape[1:])), np.tile(ink, (self.batch, 1))
        return lambda: self.index.search_batch(probes, inks, K)

    def _listed(self, lists: "_RegionLists | _Concatenated", ink: npt.NDArray[np.bool_]) -> Callable[[], object]:
        probes: Iterator[npt.NDArray[np.float32]] = cycle(self.probes)
        return lambda: lists.search(next(probes), ink)


class _RegionLists:
    """The usual way, which is not exact: a FAISS list of 100 per region, fused by the photos that are on them."""

    def __init__(self, photos: npt.NDArray[np.float32]) -> None:
        self._indices: list[Any] = []
        for region in range(REGIONS):
            index = faiss.IndexFlatL2(photos.shape[2])
            index.add(np.ascontiguousarray(photos[:, region]))
            self._indices.append(index)

    def search(self, probe: npt.NDArray[np.float32], ink: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Rows of the best ten; a photo missing on a list is taken to be as far as the last one on it."""
        weights = region_weights(ink)
        found = [(r, *self._indices[r].search(probe[r : r + 1], _LIST_LENGTH)) for r in np.flatnonzero(weights)]
        seen = np.unique(np.concatenate([rows[0] for _, _, rows in found]))
        totals = np.zeros(len(seen))
        for region, squares, rows in found:
            distances = np.full(len(seen), np.sqrt(max(float(squares[0, -1]), 0.0)))
            distances[np.searchsorted(seen, rows[0])] = np.sqrt(np.maximum(squares[0], 0))
            totals += weights[region] * distances
        return np.asarray(seen[np.argsort(totals, kind="stable")[:K]], np.int64)


class _Concatenated:
    """One FAISS index over all regions' rows, which sorts by a lower bound of Eq. (3); its best are refined."""

    def __init__(self, photos: npt.NDArray[np.float32]) -> None:
        self._photos = photos
        self._index: Any = faiss.IndexFlatIP(photos.shape[1] * photos.shape[2])
        self._index.add(photos.reshape(len(photos), -1))

    def search(self, probe: npt.NDArray[np.float32], ink: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Rows of the best ten under Eq. (3) among the thousand of largest weighted sum of cosines."""
        weighted = (region_weights(ink)[:, None] * probe).astype(np.float32).reshape(1, -1)
        rows = np.sort(self._index.search(weighted, min(_REFINED, len(self._photos)))[1][0])
        return np.asarray(rows[exact_search(self._photos[rows], probe, ink, K)[0]], np.int64)


def ratios(rows: dict[str, float], inked: int, batch: int) -> dict[str, float]:
    """The ratios that the project holds itself to, from rows in ms; of those whose rows were measured."""
    wanted = {
        "exact_over_read": ("exact_14_inked", "read", 1),
        f"exact_{inked}_inked_over_read": (f"exact_{inked}_inked", "read", 1),
        "exact_over_14_lists": ("exact_14_inked", "14_lists_14_inked", 1),
        f"batch{batch}_over_single": (f"exact_batch{batch}_14_inked", "exact_14_inked", batch),
        "filtered_over_unfiltered": ("exact_filtered_14_inked", "exact_14_inked", 1),
    }
    return {
        name: rows[mine] / rows[other] / times
        for name, (mine, other, times) in wanted.items()
        if mine in rows and other in rows
    }
