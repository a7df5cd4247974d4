"""The single-pass MGRL encoder: the trunk runs once, the fourteen regions are pooled from its feature map.

The paper runs fourteen crops through a deep trunk (26.6 GMAC). One shallow pass is a thirtieth of the work, and it
ranks better: FS2K's sketches lie pixel for pixel on their photos, and shallow features still know where things are.
"""

import functools
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indexer.regions import GRANULARITIES, REGION_IDS, REGIONS
from training.encoder.aligner import Aligner
from training.encoder.trunk import MIXED_5D_CHANNELS, FrozenNormConv, mixed_5d

POOLED = 5 * MIXED_5D_CHANNELS
"""Values of a region before its head: the maximum, then a 2x2 grid of averages."""

SPREADS: Final[Mapping[int, float]] = {1: 0.2, 2: 0.45, 3: 1.0}
"""Granularity -> what the distances between its rows are multiplied with, see `draw_together`.

Under Eq. (3) with equal weights the whole face and the quarters so get less say than the ninths: they tell apart the
people that a network was trained on, the ninths also those that it never saw. Learnt as weights of Eq. (3) along with
heads on a frozen trunk they came to 0.36, 0.86 and 1.78, from fit photos alone, at a temperature that val had chosen;
these are their ratios, rounded.
"""


class SinglePassEncoder(nn.Module):
    """Images to fourteen unit rows; sketches are aligned first, and then share every weight with the photos.

    Args:
        dim: numbers in a region's embedding.
        size_px: side of the input.
        weights: Inception-V3 weights to start from, or None for random ones.
    """

    def __init__(self, dim: int = 16, size_px: int = 192, weights: Path | None = None) -> None:
        super().__init__()
        self.dim, self.size_px = dim, size_px
        self.aligner = Aligner().eval().requires_grad_(False)  # trained before the rest: `training.align`
        self.trunk = mixed_5d(weights)
        self.norms = nn.ModuleList(Standardise(POOLED) for _ in GRANULARITIES)
        # The last number of a row that is drawn together is the same for every image.
        self.heads = nn.ModuleList(nn.Linear(POOLED, dim - (SPREADS[g] < 1)) for g in GRANULARITIES)

    def forward(self, photos: Tensor, sketches: Tensor) -> Tensor:
        """The embeddings of the photos, then those of the sketches.

        Args:
            photos: (n, size, size, 3) uint8 RGB; n may be 0.
            sketches: (m, size, size) uint8 canvases, ink bright on 0; m may be 0.

        Returns:
            (n + m, 14, dim) float32, unit rows in region-id order.
        """
        pooled = self._pooled(photos, sketches)  # (n + m, 14, 1440)
        rows = []
        with _float32(pooled):
            for granularity, norm, head in zip(GRANULARITIES, self.norms, self.heads, strict=True):
                ids = REGION_IDS[granularity]
                unit = F.normalize(head(norm(pooled[:, ids.start : ids.stop])), dim=-1)
                rows.append(draw_together(unit, SPREADS[granularity]))
        return torch.cat(rows, dim=1)

    def _pooled(self, photos: Tensor, sketches: Tensor) -> Tensor:
        # A sketch is shown as dark lines on white paper, so that hair is dark in sketch and photo alike.
        with _float32(sketches):
            paper = 1 - self.aligner.align(sketches)[:, None].expand(-1, 3, -1, -1)
        features = self.trunk(torch.cat([photos.permute(0, 3, 1, 2).float() / 255, paper]))
        with _float32(features):
            return pool_regions(features.float())

    @torch.no_grad()
    def calibrate(self, photos: Tensor, sketches: Tensor) -> None:
        """Set the standardisation before the heads from a sample of the training images."""
        pooled = self._pooled(photos, sketches)
        for granularity, norm in zip(GRANULARITIES, self.norms, strict=True):
            assert isinstance(norm, Standardise)
            norm.fit(pooled[:, REGION_IDS[granularity].start : REGION_IDS[granularity].stop].flatten(0, 1))

    @torch.no_grad()
    def fold(self) -> None:
        """Fold every frozen norm into its convolution and every standardisation into its head, for export."""
        for module in self.trunk.modules():
            if isinstance(module, FrozenNormConv):
                module.fold()
        for norm, head in zip(self.norms, self.heads, strict=True):
            assert isinstance(norm, Standardise)
            assert isinstance(head, nn.Linear)
            head.weight.mul_(norm.scale)
            head.bias.sub_(head.weight @ norm.mean)
        self.norms = nn.ModuleList(nn.Identity() for _ in GRANULARITIES)


def draw_together(rows: Tensor, spread: float) -> Tensor:
    """(..., n) unit rows -> (..., n + 1) unit rows whose distances are `spread` times theirs; 1 changes nothing.

    They move towards one point of the sphere, by a last number that is the same for all.
    """
    if spread == 1:
        return rows
    # Padded, and not concatenated with a constant, whose length an export would fix.
    return F.pad(spread * rows, (0, 1), value=math.sqrt(1 - spread**2))


class Standardise(nn.Module):
    """Fixed mean and scale per channel: the heads start well conditioned, whatever the trunk's ranges."""

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels) -> (..., channels)."""
        return (x - self.mean) * self.scale

    def fit(self, rows: Tensor) -> None:
        """(n, channels) sample -> zero mean and unit variance, divided by sqrt(channels)."""
        spread = rows.std(dim=0)
        self.mean.copy_(rows.mean(dim=0))
        # A tenth of the mean spread keeps a nearly dead channel from being blown up to noise.
        self.scale.copy_(1 / (spread + 0.1 * spread.mean()) / rows.shape[1] ** 0.5)


def _float32(tensor: Tensor) -> AbstractContextManager[object]:
    """Out of a caller's autocast: half precision is for the trunk, not for places on the canvas and unit rows."""
    return torch.autocast(tensor.device.type, enabled=False)


def pool_regions(features: Tensor) -> Tensor:
    """(n, channels, h, w) feature map -> (n, 14, 5 * channels): per region its maximum and a 2x2 of averages.

    Cells that do not divide the map overlap by one column or row, as in adaptive pooling. Three poolings and one
    matrix product do it: cut out one by one, the regions cost a quarter of the whole encode.
    """
    # Plain ints: while an export traces, shapes are tensors, and the matrix of averages is to become a constant.
    height, width = int(features.shape[2]), int(features.shape[3])
    highest = []
    for granularity in GRANULARITIES:
        kernel = -(-height // granularity), -(-width // granularity)
        cells = F.max_pool2d(features, kernel, (height // granularity, width // granularity))
        assert cells.shape[2:] == (granularity, granularity), "the regions of this map are of unequal size"
        highest.append(cells.flatten(2))
    quarters = torch.from_numpy(_quarter_averages(height, width)).to(features)
    averages = features.flatten(2) @ quarters  # (n, channels, 14 * 4)
    averages = averages.unflatten(2, (REGIONS, 4))
    averages = averages.permute(0, 2, 3, 1).flatten(2)
    return torch.cat([torch.cat(highest, dim=2).transpose(1, 2), averages], dim=2)


@functools.cache
def _quarter_averages(height: int, width: int) -> npt.NDArray[np.float32]:
    """(h * w, 14 * 4): multiplied with a flattened map, the averages of every region's four quarters.

    In numpy, so that an export sees a constant and not how it came about.
    """
    columns = []
    for granularity in GRANULARITIES:
        for row in range(granularity):
            for column in range(granularity):
                rows, across = _span(row, granularity, height), _span(column, granularity, width)
                for r in range(2):
                    for c in range(2):
                        share = np.zeros((height, width), np.float32)
                        cell = share[rows, across]
                        quarter = cell[_span(r, 2, cell.shape[0]), _span(c, 2, cell.shape[1])]
                        quarter[:] = 1 / quarter.size
                        columns.append(share.ravel())
    return np.stack(columns, axis=1)


def _span(index: int, parts: int, length: int) -> slice:
    """The index-th of `parts` slices of a length, rounded outwards."""
    return slice(index * length // parts, -(-(index + 1) * length // parts))
