"""Filter and refine: which photos an exact search must look at, out of one scan of the quantised copy.

A scan gives the least lower bound of every block of 64 photos. The k smallest photo bounds all lie in the k blocks of
smallest least bound (a block with a smaller least bound than the k-th photo holds one of the k photos itself), so only
those blocks are bounded photo by photo. The k photos found so give distances that the true k-th cannot exceed; what
their largest cannot rule out, block by block and then photo by photo, is ranked in float64 by the caller.

A drawing's next search starts anew. Keeping the columns of regions that did not change, and the last ten photos for a
first reach, was measured and left out: over 1656 strokes of 24 FS2K drawings every inked region's embedding changed at
every stroke (99.6 % by more than 0.001; a third of the regions had new ink of their own), since the network sees the
whole canvas at once and moves it into the photos' frame first. A first reach saves no reading either: the scan reads
all blocks whatever the reach is, and finds its own for the price of bounding ten blocks.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from indexer.arrangement import Rows, Vectors
from indexer.bounds import SLACK, shares_of
from indexer.encoding import default_threads
from indexer.gathered import candidates
from indexer.kernels import BLOCK
from indexer.quantised import BATCH, QuantisedGallery, Queries
from indexer.regions import GRANULARITIES, REGIONS
from indexer.sharing import Helpers
from indexer.stored_rows import StoredRows

Distances = Callable[[int, Rows], npt.NDArray[np.float64]]
"""From a query's place in the batch and some rows to their exact distances."""
Bounds = npt.NDArray[np.float32]

_CHUNK: Final = 64 * BLOCK
"""Photos encoded at a time: some 10 MB in float64."""

_SAMPLE: Final = 65_536
"""Photos whose mean is the centre: any centre is right, a mean makes the steps small."""

_SKIP_FROM: Final = 3
"""A single query leaves out blocks without a photo that takes part if only one in so many has one: memory is read
ahead in order, and leaving out every other block takes longer than reading it."""


class FusedScan:
    """Candidates for exact search over a large gallery. Use `build`; the constructor only stores.

    Searches may run at the same time; `update` may not run beside them.

    Args:
        quantised: the copy that is scanned.
        threads: that share a scan.
    """

    def __init__(self, quantised: QuantisedGallery, threads: int) -> None:
        self.quantised = quantised
        # Our own threads and not numba's: its portable pool must not be entered by two searches at once.
        self.helpers = Helpers(threads, "scan")

    @classmethod
    def build(cls, photos: int, vectors: Vectors, threads: int | None = None) -> Self:
        """A scan over a gallery, compiled and ready to run, with as many threads as there are cores."""
        centre = vectors(np.arange(min(photos, _SAMPLE))).mean(axis=0, dtype=np.float64)
        quantised = QuantisedGallery(centre.astype(np.float32))
        scan = cls(quantised, threads or default_threads())
        scan.update(0, photos, vectors)
        return scan._ready()

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], threads: int | None = None) -> Self:
        """A scan over `QuantisedGallery.arrays`, ready to run; if they are mapped it can take in no more rows."""
        return cls(QuantisedGallery.of_arrays(arrays), threads or default_threads())._ready()

    def grown(self, photos: int, vectors: Vectors) -> Self:
        """A scan of its own over this one's photos and those that follow; searches may run on this one meanwhile."""
        grown = type(self)(self.quantised.copied(photos), self.helpers.threads)
        grown.update(len(self.quantised), photos, vectors)
        return grown

    def _ready(self) -> Self:
        # The first call compiles, or loads what an earlier process compiled: here and not under the first stroke.
        shape = self.quantised.centre.shape
        nothing = self.quantised.prepared(np.zeros((1, *shape), np.float32), np.zeros((1, REGIONS), np.float32))
        self.quantised.bounds(nothing, np.arange(1))
        one = {g: np.zeros((1, g * g * shape[1]), np.float32) for g in GRANULARITIES}
        candidates(StoredRows([one]), np.arange(1), np.zeros(shape, np.float32), np.ones(REGIONS), 1, self.helpers)
        return self

    def update(self, first: int, photos: int, vectors: Vectors) -> None:
        """Take in the rows from `first` on; `photos` is the size of the gallery with them."""
        starts = range(first - first % BLOCK, photos, _CHUNK)
        longest = np.zeros((len(starts), REGIONS))
        self.quantised.reserve(photos)

        def encode(part: int) -> None:
            rows = np.arange(starts[part], min(starts[part] + _CHUNK, photos))
            longest[part] = self.quantised.encode(starts[part], vectors(rows))

        self.helpers.share(len(starts), encode)
        self.quantised.end_at(photos, longest.max(axis=0, initial=0))

    def candidates(
        self,
        probes: npt.NDArray[np.float32],
        weights: npt.NDArray[np.float64],
        k: int,
        allowed: npt.NDArray[np.bool_] | None,
        distances: Distances,
    ) -> Iterator[Rows]:
        """For each query the ascending rows of photos among which the k nearest are, ties included.

        Args:
            probes: (queries, 14, dim) float32.
            weights: (queries, 14) `region_weights`, none of them all 0.
            k: at least 1, at most the number of photos that take part.
            allowed: (photos,) bool, which photos take part; all of them if None.
            distances: exact ones, in the scale of the weights.
        """
        words = self.quantised.words(allowed)
        blocks = np.flatnonzero(words)
        if len(probes) == 1 and len(blocks) * _SKIP_FROM > len(words):
            blocks = np.arange(len(words))
        units = weights.max(axis=1)
        shares = shares_of(weights)
        for start in range(0, len(probes), BATCH):
            batch = slice(start, start + BATCH)
            queries = self.quantised.prepared(probes[batch], shares[batch])
            least = self.quantised.bounds(queries, blocks, words, self.helpers)
            for offset, row in enumerate(least):
                query = start + offset

                def relative(some: Rows, query: int = query) -> npt.NDArray[np.float64]:
                    return np.asarray(distances(query, some) / units[query])

                one = queries[offset : offset + 1]
                yield self.survivors(one, words, (blocks, row), k, relative)

    def survivors(
        self,
        query: Queries,
        words: npt.NDArray[np.uint64],
        scanned: tuple[Rows, Bounds],
        k: int,
        distances: Callable[[Rows], npt.NDArray[np.float64]],
    ) -> Rows:
        """Ascending rows of the scanned blocks that their bounds cannot rule out of the k nearest.

        Args:
            query: one, prepared.
            words: which photos take part.
            scanned: blocks, ascending or not, and the least bound of each.
            k: at most the number of photos in these blocks that take part.
            distances: exact ones, over the query's largest weight.
        """
        blocks, least = scanned

        def bounds(some: Rows) -> tuple[Rows, Bounds]:
            lower = self.quantised.photo_bounds(query, some, words)
            return (some[:, None] * BLOCK + np.arange(BLOCK)).ravel(), lower.ravel()

        rows, lower = bounds(blocks[smallest(least, k)])
        reach = distances(rows[smallest(lower, k)]).max() * SLACK
        rows, lower = bounds(blocks[least <= reach])
        return np.asarray(rows[lower <= reach])


def smallest(values: npt.NDArray[np.float32], k: int) -> Rows:
    """Places of the k smallest values, or of all if there are fewer."""
    return np.argpartition(values, k - 1)[:k] if k < len(values) else np.arange(len(values))
