"""Random embeddings that lie as those of real faces do, for benches: no photo is needed and none is shown.

A uniform sphere would be too easy or too hard for a search: real rows lie around one direction per region, a few
tenths apart, and a photo's regions resemble each other's neighbours. The constants were measured on the shipped
encoder's embeddings of the 1079 FS2K photos of dataset 1 (fit and val) and of 60 finished val sketches.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.fusion import region_distances
from indexer.regions import GRANULARITIES, REGION_IDS, REGIONS

VARIANCE: Final = {1: 0.017, 2: 0.101, 3: 0.095}
"""Granularity -> squared distance of a photo's row from its region's mean, on average."""

OWN_DISTANCE: Final = {1: 0.14, 2: 0.27, 3: 0.27}
"""Granularity -> median distance between a finished sketch and its own photo."""

_SPECTRUM: Final = (0.365, 0.19, 0.12, 0.09, 0.063, 0.044, 0.032, 0.022, 0.016, 0.012, 0.01, 0.009, 0.008, 0.007, 0.006)
"""Shares of a region's variance along its principal axes; the sixteenth is next to nothing."""

_FACTORS: Final = 8
_SHARED: Final = 0.6
"""Factors common to all regions of a face, and their share of the variance: with them, as measured, most of the
variance of all regions together lies along eight axes, and distances of regions go up and down together."""

_SPREAD: Final = 0.2
"""Standard deviation of the logarithm of a face's distance from the mean face: some are plainer than others."""

_CHUNK: Final = 65_536


class FaceLike:
    """Makes embeddings; the same seed makes the same.

    Args:
        dim: numbers per region, at least 2.
        seed: of the region means and axes, and of everything drawn.
    """

    def __init__(self, dim: int, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        spectrum = np.resize(np.array(_SPECTRUM), dim) if dim > len(_SPECTRUM) else np.array(_SPECTRUM[:dim])
        spectrum = np.where(np.arange(dim) < len(_SPECTRUM), spectrum, spectrum.min())
        spectrum = np.sqrt(spectrum / spectrum.sum())
        variances = np.concatenate([np.full(len(REGION_IDS[g]), VARIANCE[g]) for g in GRANULARITIES])
        means = self._rng.normal(size=(REGIONS, dim))
        means /= np.linalg.norm(means, axis=-1, keepdims=True)
        self._means = (means * np.sqrt(1 - variances)[:, None]).astype(np.float32)
        axes = np.linalg.qr(self._rng.normal(size=(REGIONS, dim, dim)))[0] * spectrum
        axes *= np.sqrt(variances)[:, None, None]
        mixing = self._rng.normal(size=(REGIONS, dim, _FACTORS)) / np.sqrt(_FACTORS)
        self._axes = (axes * np.sqrt(1 - _SHARED)).astype(np.float32)
        self._common = np.asarray(axes @ mixing * np.sqrt(_SHARED), np.float32)
        self._noise = np.concatenate([np.full(len(REGION_IDS[g]), OWN_DISTANCE[g]) for g in GRANULARITIES])

    def photos(self, count: int) -> npt.NDArray[np.float32]:
        """(count, 14, dim) float32 unit rows."""
        rows = np.empty((count, *self._means.shape), np.float32)
        for start in range(0, count, _CHUNK):
            part = rows[start : start + _CHUNK]
            own = self._rng.standard_normal(part.shape, dtype=np.float32)
            factors = self._rng.standard_normal((len(part), _FACTORS), dtype=np.float32)
            for region in range(REGIONS):
                part[:, region] = own[:, region] @ self._axes[region].T + factors @ self._common[region].T
            part *= np.exp(self._rng.standard_normal((len(part), 1, 1), dtype=np.float32) * _SPREAD)
            part += self._means
            part /= np.linalg.norm(part, axis=-1, keepdims=True)
        return rows

    def sketches(self, photos: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(n, 14, dim) float32 unit rows, each as far from its photo as a finished sketch is from its own."""
        noise = self._rng.standard_normal(photos.shape, dtype=np.float32) / np.sqrt(photos.shape[2] - 1)
        rows = photos + noise * self._noise[:, None].astype(np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def statistics(photos: npt.NDArray[np.float32], sketches: npt.NDArray[np.float32]) -> dict[str, dict[int, float]]:
    """Median distances per granularity, to hold against those of real faces; sketch i belongs to photo i.

    Returns:
        "photo_to_photo" and "sketch_to_own_photo", each granularity -> distance. FS2K's are 0.17, 0.42, 0.40 and
        0.14, 0.27, 0.27.
    """
    between = np.median(
        np.concatenate([region_distances(photo, photos[i + 1 :]) for i, photo in enumerate(photos[:50])]), 0
    )
    own = np.median([region_distances(s, p[None])[0] for s, p in zip(sketches, photos, strict=False)], axis=0)
    return {
        name: {g: round(float(np.mean(values[list(REGION_IDS[g])])), 3) for g in GRANULARITIES}
        for name, values in (("photo_to_photo", between), ("sketch_to_own_photo", own))
    }
