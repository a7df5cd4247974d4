"""The layers below a system's heads, as networks: images in, named feature maps out.

`training.features` runs the same layers once over a data set and keeps what they say; here they are part of a graph, to
be exported with a head behind them, or to be trained with it.
"""

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indexer.regions import REGIONS
from training.encoder.mgrl import MgrlTrunk, crop_pixels, whole_pixels
from training.encoder.single_pass import pool_regions
from training.encoder.trunk import STEM_LAYERS, FrozenNormConv, mixed_5d

WHOLE_GRID: Final = 2
"""Side to which a frozen trunk's map of the whole image is pooled."""


class Layers(nn.Module):
    """Images to feature maps.

    `name` says which layers and weights, `size_px` the side of the images.
    """

    name: str
    size_px: int

    def forward(self, pixels: Tensor, ink: Tensor, reads: Collection[str]) -> dict[str, Tensor]:
        """The maps that are read.

        Args:
            pixels: (n, 3, size, size) in [0, 1]; a sketch is dark on white.
            ink: (n, 14) bool: what regions without ink show does not count; all True for photos.
            reads: names of the maps that are wanted.

        Returns:
            Name -> (n, ...).
        """
        raise NotImplementedError

    def train_upper(self, *, norms: bool) -> list[nn.Parameter]:
        """Make ready for training all but the lowest layers.

        Args:
            norms: whether batch norms gather statistics, too.

        Returns:
            What is trained.
        """
        raise NotImplementedError


class CropLayers(Layers):
    """The paper's fourteen crops: the whole image to Mixed_7c, each cell to Mixed_6e.

    Gives "whole", (n, 2048, h, w), and "cells", (n, 13, 768), or with their maps (n, 13, 768, h, w).

    Args:
        weights: Inception-V3, or None for random weights.
        whole_grid: side to which the whole image's map is pooled, by maxima, as cells then are to one place; None
            leaves the maps as they are.
    """

    size_px: int = 300

    def __init__(self, weights: Path | None, whole_grid: int | None = WHOLE_GRID) -> None:
        super().__init__()
        self.name = f"crops-{whole_grid}-{weights_hash(weights)}"
        with _the_same_chance():
            self.trunk = MgrlTrunk(weights)
        self.grid = whole_grid

    def forward(self, pixels: Tensor, ink: Tensor, reads: Collection[str]) -> dict[str, Tensor]:
        """As `Layers.forward`; cells without ink are zeros."""
        maps = {}
        if "whole" in reads:
            whole = self.trunk.whole(whole_pixels(pixels))
            maps["whole"] = whole if self.grid is None else F.max_pool2d(whole, int(whole.shape[-1]) // self.grid)
        if "cells" in reads:
            maps["cells"] = self._cells(pixels, ink)
        return maps

    def train_upper(self, *, norms: bool) -> list[nn.Parameter]:
        """As `Layers.train_upper`; the stem, Conv2d_1a to 4a, stays as it is."""
        self.train(norms)
        self.trunk.until_mixed_6e[: len(STEM_LAYERS)].eval().requires_grad_(False)
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def _cells(self, pixels: Tensor, ink: Tensor) -> Tensor:
        crops = torch.cat([crop_pixels(pixels, region) for region in range(1, REGIONS)])  # (13 * n, 3, 170, 170)
        inked = ink[:, 1:].T.flatten()
        if torch.onnx.is_in_onnx_export():  # an exported graph runs all of them: it cannot do without a row
            rows = self._pooled(self.trunk.crops(crops))
            rows = rows * inked.view(-1, *[1] * (rows.dim() - 1))
        else:
            some = self._pooled(self.trunk.crops(crops[inked]))
            rows = some.new_zeros(len(crops), *some.shape[1:])
            rows[inked] = some
        by_region: Tensor = rows.unflatten(0, (REGIONS - 1, -1))
        return by_region.transpose(0, 1)

    def _pooled(self, maps: Tensor) -> Tensor:
        return maps if self.grid is None else maps.amax(dim=(2, 3))


class PassLayers(Layers):
    """One pass to Mixed_5d, regions pooled: gives "regions", (n, 14, 1440).

    Args:
        weights: Inception-V3, or None for random weights.
    """

    size_px: int = 192

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        self.name = f"pass-{weights_hash(weights)}"
        with _the_same_chance():
            self.trunk = mixed_5d(weights)

    def forward(self, pixels: Tensor, ink: Tensor, reads: Collection[str]) -> dict[str, Tensor]:
        """As `Layers.forward`."""
        return {"regions": pool_regions(self.trunk(pixels))}


def fold_norms(layers: nn.Module) -> None:
    """Multiply every frozen norm into its convolution for good, for export."""
    for module in layers.modules():
        if isinstance(module, FrozenNormConv):
            module.fold()


@contextmanager
def _the_same_chance() -> Iterator[None]:
    """Random weights made in it are the same ones always: caches know them by the word alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def weights_hash(weights: Path | None) -> str:
    """Names a trunk's weights in the names of layers and caches."""
    return "random" if weights is None else hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
