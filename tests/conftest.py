"""What several tests share: the real data where it is there, and an encoder that needs no weights."""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from indexer.encoding import sketch_as_photo
from indexer.regions import REGIONS, region_box

pytest_plugins = ["tests.fs2k_sample"]


class PixelEncoder:
    """A RegionEncoder without training: each region's 8x8 thumbnail, projected by a fixed random matrix."""

    def __init__(self, dim: int = 16, size_px: int = 192, seed: int = 0) -> None:
        self.dim = dim
        self.size_px = size_px
        self.model_hash = hashlib.sha256(f"pixels {dim} {size_px} {seed}".encode()).hexdigest()
        self._projection = np.random.default_rng(seed).normal(size=(64, dim)).astype(np.float32)

    def encode_photos(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        grey = photos.mean(axis=-1, dtype=np.float32) / 255
        rows = np.empty((len(photos), REGIONS, self.dim), np.float32)
        for region in range(REGIONS):
            left, top, right, bottom = region_box(region, self.size_px)
            cell = grey[:, top:bottom, left:right]
            step = cell.shape[1] // 8
            thumbnail = cell.reshape(len(photos), 8, step, 8, step).mean(axis=(2, 4)).reshape(len(photos), 64)
            row = (thumbnail - 0.4321) @ self._projection
            rows[:, region] = row / np.linalg.norm(row, axis=-1, keepdims=True)
        return rows

    def encode_sketches(self, canvases: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return self.encode_photos(sketch_as_photo(canvases))


@pytest.fixture
def encoder() -> PixelEncoder:
    return PixelEncoder()


def unit_rows(rng: np.random.Generator, photos: int, dim: int = 16) -> npt.NDArray[np.float32]:
    """(photos, 14, dim) float32 random unit rows."""
    rows = rng.normal(size=(photos, REGIONS, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra `fast` is not installed: neither numba is there nor llvmlite, which it brings."""
    ours = ("indexer.fused", "indexer.gathered", "indexer.quantised", "indexer.kernels")
    for name in [name for name in sys.modules if name in ours or name.split(".")[0] in ("numba", "llvmlite")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("numba", "llvmlite"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """For many small operations: torch's threads wait for each other at every one, long on a machine that is busy."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'mgrl[train]' or 'mgrl[gpu]'")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with FS2K and the trunk weights: beside the checkout, or where MGRL_SHARED says."""
    folder = Path(os.environ.get("MGRL_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "fs2k").is_dir():
        pytest.skip("the real photos (shared/fs2k beside the checkout, or MGRL_SHARED) are not on this machine")
    return folder
