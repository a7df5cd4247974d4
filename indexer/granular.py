"""One FAISS index per granularity, searched exactly: the same rows in the same order as `indexer.exact`.

FAISS holds the vectors, one row a photo: `dim` numbers for the whole face, 4 x dim and 9 x dim for the grids; those of
a large gallery lie in its segments, which are flat FAISS indices (`indexer.segments`). FAISS never ranks, because its
float32 distances lose digits near 0 and its fused lists would miss photos. A search only asks which photos can be left
out, by a proven lower bound of Eq. (3), and ranks the rest in float64. There are five ways to ask: a scan over the
stored rows (`indexer.bounds`), for large galleries a compiled scan over a quantised copy of them (`indexer.fused`;
needs the `fast` extra) or, where a filter leaves few, over their rows alone (`indexer.gathered`), the scan on GPUs
(`indexer.device_scan`; needs torch), and inner-product lists with a stop certificate (`indexer.lists`; FAISS on a GPU).
`indexer.device` says which of them a GPU gets.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import faiss
import numpy as np
import numpy.typing as npt

from indexer.bounds import SLACK, Bounds, blocks_of, norm_range
from indexer.device import build_scan, torch_gpus
from indexer.errors import ShapeError
from indexer.exact import Found, check_query
from indexer.fusion import EQUAL_WEIGHTS, fused_distance, region_weights
from indexer.lists import FaissLists
from indexer.modes import EXACT, Certificate, Exact, Mode
from indexer.regions import GRANULARITIES, REGION_IDS, REGIONS
from indexer.sharing import Helpers
from indexer.stored_rows import Part, StoredRows

if TYPE_CHECKING:
    from indexer.approximate import ApproximateScan
    from indexer.device_scan import DeviceScan
    from indexer.fused import FusedScan

    Keep = Callable[[Callable[[], ApproximateScan]], ApproximateScan]

FUSED_FROM: Final = 10_000
"""Photos from which on the compiled scan is used. It is the faster one from 3,000 on, but below this it saves no more
than two milliseconds a search, and loading numba costs half a second, compiling for the first time five."""

_APPROXIMATE_FROM: Final = 10_000
"""Photos below which leaving some out saves nothing."""

_GATHER_FROM: Final = 32
"""Photos are read on their own if at most one in so many takes part. Of a million, 1, 2 and 4 % took 4.5, 7.7 and 11 ms
from cold memory, and the scan of all 10."""

LONGEST: Final = 1e3
"""The compiled scan squares in float32: galleries and probes with longer rows are left to the other scan."""


class GranularIndex:
    """The embeddings of a gallery in one `faiss.IndexFlatIP` per granularity, searched exactly.

    Searches may run at the same time; `add` may not run beside them.

    Args:
        dim: numbers per region.
        device: "cpu", or "cuda" to scan a copy of the rows on all GPUs that are visible.
        use_lists: ask lists instead of a scan which photos to rank, those of the first GPU where the device is "cuda";
            by default so only there, and only where torch is not installed.
        fused_from: photos from which on searches use the compiled scan or the GPUs': a smaller gallery is searched in
            less time than either takes to start.
        threads: that share a compiled scan; by default as many as there are cores.
        shards: torch's names of the devices that hold the photos of a scan, instead of all GPUs; several share them.
        precision: of the rows on GPUs, "float16" or "int8"; by default float16 for as long as there is room.

    Raises:
        ConfigError: the device is neither "cpu" nor "cuda", or no GPU can be used.
    """

    def __init__(
        self,
        dim: int,
        *,
        device: str = "cpu",
        use_lists: bool | None = None,
        fused_from: int = FUSED_FROM,
        threads: int | None = None,
        shards: Sequence[str] = (),
        precision: str | None = None,
    ) -> None:
        self.dim = dim
        self.device = device
        self._indices: dict[int, Any] = {g: faiss.IndexFlatIP(dim * g * g) for g in GRANULARITIES}
        self._rows = StoredRows.of_indices(self._indices)
        self._least = np.full(REGIONS, np.inf)
        self._most = np.zeros(REGIONS)
        self._shards = shards or (torch_gpus() if device == "cuda" and not use_lists else ())
        self._precision = precision
        wants_lists = device != "cpu" and not self._shards if use_lists is None else use_lists
        self._lists = FaissLists.build(self._indices, device) if wants_lists else None
        self._fused: FusedScan | ApproximateScan | DeviceScan | None = None
        self._fused_from, self._threads = fused_from, threads

    @classmethod
    def build(cls, embeddings: npt.NDArray[np.float32], **options: Any) -> Self:
        """An index of (photos, 14, dim) embeddings; options as for the constructor."""
        index = cls(embeddings.shape[-1], **options)
        index.add(embeddings)
        return index

    @classmethod
    def of_rows(cls, rows: StoredRows, older: Self | None = None, threads: int | None = None) -> Self:
        """An index, with the compiled scan, over rows that lie in a gallery's files; FAISS holds none. It cannot grow.

        Args:
            rows: of all photos.
            older: such an index of the first ones of them: the copy that it scans is taken over, not made again.
            threads: that share a scan, and now make the copy; by default as many as there are cores.
        """
        from indexer.fused import FusedScan

        index = cls(rows.dim, threads=threads)
        index._indices, index._rows = {}, rows
        known = None if older is None else older._fused
        extremes = [] if older is None else [(older._least, older._most)]

        def measured(some: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            embeddings = rows.vectors(some)
            extremes.append(norm_range(embeddings))
            return embeddings

        if isinstance(known, FusedScan):
            scan = known.grown(len(rows), measured)
        else:
            scan = FusedScan.build(len(rows), measured, threads)
        least, most = zip(*extremes, strict=True)
        index._least, index._most = np.min(least, axis=0), np.max(most, axis=0)
        index._fused = scan if index._most.max() <= LONGEST**2 else None
        return index

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def file_parts(self) -> Sequence[Part]:
        """The rows, where they lie in a gallery's files; nothing for an index that FAISS holds."""
        return () if self._indices else self._rows.parts

    @property
    def compiled(self) -> bool:
        """Whether searches use the compiled scan, or the GPUs'."""
        return self._fused is not None

    @property
    def shares_scans(self) -> bool:
        """Whether a batch of searches costs less than its searches one by one."""
        return self._fused is not None or self._lists is not None

    def add(self, embeddings: npt.NDArray[np.float32]) -> None:
        """Append (photos, 14, dim) float32 rows, unit up to rounding; row numbers go on from the last photo.

        Raises:
            ShapeError: another shape, or NaN or infinity.
        """
        assert self._indices, "rows that lie in files are not added to"
        if embeddings.ndim != 3 or embeddings.shape[1:] != (REGIONS, self.dim):
            raise ShapeError(f"embeddings must be (photos, {REGIONS}, {self.dim}), got {embeddings.shape}")
        if not len(embeddings):
            return
        least, most = norm_range(embeddings)
        self._least, self._most = np.minimum(self._least, least), np.maximum(self._most, most)
        for granularity, index in self._indices.items():
            ids = REGION_IDS[granularity]
            rows = np.ascontiguousarray(embeddings[:, ids.start : ids.stop], np.float32).reshape(len(embeddings), -1)
            index.add(rows)
            if self._lists is not None:
                self._lists.add(granularity, rows)
        # FAISS may have moved its storage: the views must follow.
        self._rows = StoredRows.of_indices(self._indices)
        self._update_fused(len(self) - len(embeddings))

    def build_approximate(self, keep: "Keep | None" = None) -> bool:
        """Lay the compiled scan out for approximate search; False, changing nothing, where there is no such scan.

        It takes half a minute for a million photos. Photos added later are found as well, by every search. GPUs have
        no such scan: theirs is exact in less time.

        Args:
            keep: is given what makes the layout and gives one, maybe an earlier one of the same rows.
        """
        if self._fused is None or self._shards or len(self) < _APPROXIMATE_FROM:
            return False
        from indexer.approximate import ApproximateScan

        build = partial(ApproximateScan.build, len(self), self.vectors, self._threads)
        self._fused = build() if keep is None else keep(build)
        return True

    def _update_fused(self, first: int) -> None:
        """Bring the quantised copy up to the rows from `first` on; make it where the gallery has grown large enough."""
        scan, self._fused = self._fused, None  # should a GPU have no room for them, searches do without it
        if self._lists is not None or len(self) < self._fused_from or self._most.max() > LONGEST**2:
            return
        if scan is not None:
            scan.update(first, len(self), self.vectors)
        else:
            scan = build_scan(len(self), self.vectors, self._threads, self._shards, self._precision)
        self._fused = scan

    def vectors(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """(n, 14, dim) float32 embeddings of some photos."""
        return self._rows.vectors(rows)

    def search(
        self,
        probe: npt.NDArray[np.float32],
        ink: npt.NDArray[np.bool_],
        k: int,
        weights: Mapping[int, float] = EQUAL_WEIGHTS,
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> Found:
        """The k nearest photos; arguments, results, order and errors are those of `indexer.exact.exact_search`.

        `allowed`, (photos,) bool, is False for photos to leave out: the result is the ranking of the others alone.
        """
        return self.search_batch(probe[None], ink[None], k, [weights], allowed)[0]

    def search_batch(
        self,
        probes: npt.NDArray[np.float32],
        inks: npt.NDArray[np.bool_],
        k: int,
        weights: Sequence[Mapping[int, float]] | None = None,
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> list[Found]:
        """What `search` finds for each of several queries; on a large gallery they share one scan.

        Args:
            probes: (queries, 14, dim) float32.
            inks: (queries, 14) bool.
            k: length of every ranking.
            weights: one mapping a query; equal weights if None.
            allowed: (photos,) bool, False for photos that no query may find.

        Raises:
            ShapeError, QueryError: as `indexer.exact.exact_search`, or the arguments disagree on queries or photos.
        """
        weights = [EQUAL_WEIGHTS] * len(probes) if weights is None else weights
        if not len(probes) == len(inks) == len(weights):
            raise ShapeError(
                f"every query needs a probe, an ink mask and weights, got {len(probes)}, {len(inks)} and {len(weights)}"
            )
        for probe in probes:
            check_query(probe, self.dim, k)
        per_region = np.array([region_weights(ink, each) for ink, each in zip(inks, weights, strict=True)])
        self._check_allowed(allowed)
        taking = len(self) if allowed is None else int(np.count_nonzero(allowed))
        k = min(k, taking)
        found: dict[int, Found] = {}
        shared, alone = [], []
        for query, probe in enumerate(probes):
            if not k or not per_region[query].any():
                found[query] = (np.arange(k) if allowed is None else np.flatnonzero(allowed)[:k]), np.zeros(k)
            elif self._fused is not None and np.einsum("rd,rd->r", probe, probe).max() < LONGEST**2:
                shared.append(query)
            else:
                alone.append(query)

        def rank(query: int, rows: npt.NDArray[np.int64]) -> Found:
            return self._rank(rows, probes[query], inks[query], k, weights[query])

        if self._fused is not None and shared:

            def distances(place: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
                query = shared[place]
                return self._distances(rows, probes[query], inks[query], weights[query])

            candidates: Iterable[npt.NDArray[np.int64]]
            if allowed is not None and (helpers := self._gatherers(taking)):
                from indexer.gathered import candidates as gathered

                few, asked = np.flatnonzero(allowed), zip(probes[shared], per_region[shared], strict=True)
                candidates = (gathered(self._rows, few, *query, k, helpers) for query in asked)
            else:
                candidates = self._fused.candidates(probes[shared], per_region[shared], k, allowed, distances)
            found |= {query: rank(query, rows) for query, rows in zip(shared, candidates, strict=True)}
        if self._lists is not None and allowed is None:
            found |= self._lists.proven(alone, probes, per_region, k, (self._least, self._most), rank)
        for query in alone:
            if query not in found:
                rows = self._candidates(probes[query], inks[query], per_region[query], k, weights[query], allowed)
                found[query] = rank(query, rows)
        return [found[query] for query in range(len(probes))]

    def search_in_mode(
        self,
        probe: npt.NDArray[np.float32],
        ink: npt.NDArray[np.bool_],
        k: int,
        weights: Mapping[int, float] = EQUAL_WEIGHTS,
        allowed: npt.NDArray[np.bool_] | None = None,
        mode: Mode = EXACT,
    ) -> tuple[Found, Certificate]:
        """`search` as exactly as `mode` asks, and what is known about the photos it did not look at.

        Without `build_approximate`, and for a probe or weights that rank nothing, the answer is exact in every mode.
        """
        check_query(probe, self.dim, k)
        self._check_allowed(allowed)
        per_region = region_weights(ink, weights)
        taking = len(self) if allowed is None else int(np.count_nonzero(allowed))
        wanted = min(k, taking)
        nearest = getattr(self._fused, "nearest", None)
        too_long = np.einsum("rd,rd->r", probe, probe).max() >= LONGEST**2
        is_exact = isinstance(mode, Exact) or self._gatherers(taking) is not None
        if is_exact or nearest is None or not wanted or not per_region.any() or too_long:
            return self.search(probe, ink, k, weights, allowed), Certificate()

        def distances(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            return self._distances(rows, probe, ink, weights)

        rows, unseen_from = nearest(probe, per_region, wanted, allowed, distances, mode)
        found = self._rank(rows, probe, ink, wanted, weights)
        return found, Certificate.of(unseen_from, float(found[1][-1]))

    def _gatherers(self, taking: int) -> Helpers | None:
        """Who reads the rows of photos that are so few that it takes less than to scan everyone's copy; else None."""
        return None if self._fused is None or taking * _GATHER_FROM > len(self) else self._fused.helpers

    def _candidates(
        self,
        probe: npt.NDArray[np.float32],
        ink: npt.NDArray[np.bool_],
        per_region: npt.NDArray[np.float64],
        k: int,
        weights: Mapping[int, float],
        allowed: npt.NDArray[np.bool_] | None,
    ) -> npt.NDArray[np.int64]:
        """Ascending rows that a scan over the float32 rows cannot rule out; `k` photos are known to be there."""
        bounds = Bounds.of(probe, per_region, self._least, self._most)
        lower = bounds.lower(self._rows, probe)
        if allowed is not None:
            lower[~allowed] = np.inf
        # The k photos of least bound give a distance that the true k-th cannot exceed.
        guess = np.argpartition(lower, k - 1)[:k]
        reach = self._distances(guess, probe, ink, weights).max() / bounds.unit
        return np.flatnonzero(lower <= reach * SLACK)

    def _check_allowed(self, allowed: npt.NDArray[np.bool_] | None) -> None:
        if allowed is not None and (allowed.shape != (len(self),) or allowed.dtype != np.bool_):
            raise ShapeError(f"allowed must be ({len(self)},) bool, one per photo, got {allowed.shape} {allowed.dtype}")

    def rank(
        self,
        row: int,
        probe: npt.NDArray[np.float32],
        ink: npt.NDArray[np.bool_],
        weights: Mapping[int, float] = EQUAL_WEIGHTS,
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> int:
        """1-based rank of one photo, ties counted against it: how many photos are as near as it is, itself included.

        `allowed`, (photos,) bool, is False for photos that do not count.

        Raises:
            ShapeError, QueryError: as `search`.
        """
        check_query(probe, self.dim, k=1)
        per_region = region_weights(ink, weights)
        if not per_region.any():
            return len(self) if allowed is None else int(np.count_nonzero(allowed))
        own = self._distances(np.array([row]), probe, ink, weights)[0]
        bounds = Bounds.of(probe, per_region, self._least, self._most)
        lower = bounds.lower(self._rows, probe)
        if allowed is not None:
            lower[~allowed] = np.inf
        reach = own / bounds.unit
        nearer = (lower + bounds.gap) * SLACK < reach
        unsure = np.flatnonzero(~nearer & (lower <= reach * SLACK))
        return int(nearer.sum() + (self._distances(unsure, probe, ink, weights) <= own).sum())

    def _distances(
        self,
        rows: npt.NDArray[np.int64],
        probe: npt.NDArray[np.float32],
        ink: npt.NDArray[np.bool_],
        weights: Mapping[int, float],
    ) -> npt.NDArray[np.float64]:
        """(n,) float64 reference distances of some photos."""
        blocks = [
            fused_distance(probe, self.vectors(rows[block]), ink, weights) for block in blocks_of(max(len(rows), 1))
        ]
        return np.concatenate(blocks)

    def _rank(
        self,
        candidates: npt.NDArray[np.int64],
        probe: npt.NDArray[np.float32],
        ink: npt.NDArray[np.bool_],
        k: int,
        weights: Mapping[int, float],
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The k nearest of some photos, given in ascending order of rows, so that a stable sort breaks ties by row."""
        distances = self._distances(candidates, probe, ink, weights)
        best = np.argsort(distances, kind="stable")[:k]
        return candidates[best], distances[best]
