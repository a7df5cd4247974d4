"""Timings that mean something on a shared machine: everything in turn, round by round, medians and their ratio."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.encoding import RegionEncoder
from indexer.granular import GranularIndex
from indexer.regions import REGIONS, ink_mask
from indexer.sketch import Canvas, Stroke

_PAUSE_S: Final = 0.15
"""OpenBLAS' threads spin for some 80 ms after a product; a search on two cores takes twice as long beside them."""


def time_in_turn(jobs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each job, timed by `times_in_turn`."""
    return medians(times_in_turn(jobs, rounds))


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each row."""
    return {name: float(np.median(spent)) for name, spent in times.items()}


def times_in_turn(jobs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each job in each round; each round runs all of them once, after one round that does not count.

    Each job waits first: the one before may leave worker threads that spin for a while and take its cores.
    """
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            time.sleep(_PAUSE_S)
            start = time.perf_counter()
            job()
            if number:
                spent[name].append(1000 * (time.perf_counter() - start))
    return spent


class StrokePath:
    """One stroke as the service handles it: raster, ink mask, encode, search, in this process.

    Args:
        encoder: the model.
        photos: of a gallery of random unit rows; exact search does not care what they show.
        k: results.
        seed: of gallery and strokes.
    """

    def __init__(self, encoder: RegionEncoder, photos: int, k: int = 10, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(photos, REGIONS, encoder.dim)).astype(np.float32)
        self._index = GranularIndex.build(rows / np.linalg.norm(rows, axis=-1, keepdims=True))
        self._encoder, self._k = encoder, k
        self._strokes = [_random_stroke(rng) for _ in range(60)]
        self._canvas = Canvas(encoder.size_px)
        # Half a drawing is there already, in every region: the search has all fourteen columns to read.
        self._canvas.draw(self._strokes)

    def raster(self) -> npt.NDArray[np.uint8]:
        """Draw one more stroke and read the canvas: (size, size) uint8."""
        self._canvas.draw([self._strokes[0]])
        return self._canvas.pixels()

    def encode(self) -> npt.NDArray[np.float32]:
        """(14, dim) of the canvas."""
        rows: npt.NDArray[np.float32] = self._encoder.encode_sketches(self._canvas.pixels()[None])[0]
        return rows

    def search(self) -> npt.NDArray[np.int64]:
        """Rows of the k nearest photos to a random probe."""
        probe = self._index.vectors(np.array([0]))[0]
        return self._index.search(probe, np.ones(REGIONS, bool), self._k)[0]

    def whole(self) -> npt.NDArray[np.int64]:
        """All of it, from the stroke to the rows of the k nearest photos."""
        pixels = self.raster()
        probe = self._encoder.encode_sketches(pixels[None])[0]
        return self._index.search(probe, ink_mask(pixels), self._k)[0]


def released_encode(weights: Path | None) -> Callable[[], object]:
    """The released MGRL encode of one sketch in PyTorch eager: the whole image at 299 px and 13 crops at 170 px."""
    import torch

    from training.encoder.mgrl import CROP_PX, WHOLE_PX, MgrlEncoder

    network = MgrlEncoder(weights=weights).eval()
    whole, crops = torch.rand(1, 3, WHOLE_PX, WHOLE_PX), torch.rand(REGIONS - 1, 3, CROP_PX, CROP_PX)

    def encode() -> object:
        with torch.inference_mode():
            return network.encode_whole(whole), network.encode_crops(crops)

    return encode


def _random_stroke(rng: np.random.Generator) -> Stroke:
    path = rng.uniform(0.05, 0.95, 2) + np.cumsum(rng.normal(0, 0.02, (12, 2)), axis=0)
    return Stroke(np.clip(path, 0, 1).astype(np.float32))
