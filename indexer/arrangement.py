"""An order of the photos in which neighbours look alike, so that a block of 64, or 64 blocks, have one place in space.

Approximate search looks at the blocks whose centre is near the probe and leaves out the rest. Halving the gallery
along its widest direction, again and again down to blocks, gave as good blocks as k-means (of as many clusters), all
of the same size and in a fraction of the time.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.fusion import EQUAL_WEIGHTS, region_weights
from indexer.regions import REGIONS

Rows = npt.NDArray[np.int64]
Vectors = Callable[[Rows], npt.NDArray[np.float32]]
"""From rows to their (n, 14, dim) embeddings."""

AXES: Final = 24
"""Principal axes that are kept: of real faces they hold four fifths of the variance of all regions together."""

_SAMPLE: Final = 20_000
_WIDEST_FROM: Final = 2048
"""Photos that tell a part's widest direction."""

_CHUNK: Final = 32_768


def arranged(photos: int, vectors: Vectors, sizes: Sequence[int]) -> Rows:
    """(photos,) int64: the rows in an order whose runs of each of some sizes, counted from the start, are alike.

    Args:
        photos: how many.
        vectors: from rows to (n, 14, dim) embeddings.
        sizes: photos of a run, the largest first, each a multiple of the next; only the last run is shorter.
    """
    points = _projected(photos, vectors)
    order = np.arange(photos)
    parts = [(0, photos)]
    while parts:
        first, last = parts.pop()
        size = next((size for size in sizes if size < last - first), None)
        if size is None:
            continue
        rows = order[first:last]
        sample = points[rows[:: max(1, len(rows) // _WIDEST_FROM)]]
        widest = np.linalg.eigh(np.cov(sample.T))[1][:, -1].astype(np.float32)
        middle = -(-len(rows) // size) // 2 * size
        order[first:last] = rows[np.argpartition(points[rows] @ widest, middle)]
        parts += [(first, first + middle), (first + middle, last)]
    return order


def _projected(photos: int, vectors: Vectors) -> npt.NDArray[np.float32]:
    """(photos, at most 24) float32: coordinates along the principal axes, regions scaled by what they count for.

    Near a typical distance t a weighted distance w d grows as w d^2 / 2t: a region's share of a squared distance.
    """
    sample = vectors(np.arange(0, photos, max(1, photos // _SAMPLE)))
    mean = sample.mean(axis=0)
    typical = np.sqrt(np.square(sample - mean).sum(axis=2).mean(axis=0))
    scale = np.sqrt(region_weights(np.ones(REGIONS, bool), EQUAL_WEIGHTS) / np.maximum(typical, 1e-6))

    def flat(embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray((embeddings - mean) * scale[:, None], np.float32).reshape(len(embeddings), -1)

    some = flat(sample)
    axes = np.linalg.eigh(some.T @ some)[1][:, ::-1][:, :AXES].astype(np.float32)
    points = np.empty((photos, axes.shape[1]), np.float32)
    for start in range(0, photos, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, photos))
        points[rows] = flat(vectors(rows)) @ axes
    return points
