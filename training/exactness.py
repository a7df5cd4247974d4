"""Random queries against brute force: how many are not answered by the same photos, in the same order, as far away."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.exact import exact_search
from indexer.face_like import FaceLike
from indexer.granular import GranularIndex
from indexer.regions import GRANULARITIES, REGIONS

_DIMS: Final = (4, 8, 16, 17)
_BATCHES: Final = (1, 2, 8, 33)
_A_GALLERY: Final = 100
"""Queries to a gallery before the next one is made."""


def differences(queries: int, most_photos: int, seed: int = 0) -> int:
    """How many of so many queries differ, over galleries of 1 to `most_photos` photos, most of them small.

    Ink, weights, k, filter, batch, threads and the order in which photos came vary; some photos are copies of others,
    and some queries are photos themselves.
    """
    rng, wrong, asked = np.random.default_rng(seed), 0, 0
    while asked < queries:
        photos = int(np.exp(rng.uniform(0, np.log(most_photos))))
        wrong += sum(_asked(rng, photos, min(_A_GALLERY, queries - asked)))
        asked += _A_GALLERY
    return wrong


def _asked(rng: np.random.Generator, photos: int, queries: int) -> Iterator[bool]:
    """For each query whether its answer is wrong."""
    source = FaceLike(int(rng.choice(_DIMS)), int(rng.integers(2**31)))
    rows = source.photos(photos)
    copies = rng.random(photos) < 0.1
    rows[copies] = rows[rng.integers(photos, size=copies.sum())]
    index = GranularIndex(rows.shape[2], fused_from=1, threads=int(rng.integers(1, 4)))
    for part in np.split(rows, np.sort(rng.integers(photos + 1, size=rng.integers(3)))):
        index.add(part)
    while queries > 0:
        batch = min(int(rng.choice(_BATCHES)), queries)
        queries -= batch
        probes = rows[rng.integers(photos, size=batch)]
        probes = probes if rng.random() < 0.2 else source.sketches(probes)
        inks = rng.random((batch, REGIONS)) < rng.random((batch, 1))
        weights = [dict(zip(GRANULARITIES, rng.random(3).tolist(), strict=True)) for _ in range(batch)]
        allowed = None if rng.random() < 0.5 else rng.random(photos) < rng.random()
        k = int(rng.choice([1, 10, 100, photos, photos + 1]))
        there: npt.NDArray[np.int64] = np.arange(photos) if allowed is None else np.flatnonzero(allowed)
        found = index.search_batch(probes, inks, k, weights, allowed)
        for probe, ink, each, (places, distances) in zip(probes, inks, weights, found, strict=True):
            expected = exact_search(rows[there], probe, ink, k, each)
            yield not (np.array_equal(places, there[expected[0]]) and np.array_equal(distances, expected[1]))
