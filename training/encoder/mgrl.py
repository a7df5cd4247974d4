"""The paper's network: the whole image and its thirteen crops, each through Inception-V3.

The trunk, the head and the two together. The released network is what the single-pass encoder is timed against; with
the trunk frozen and its maps pooled it is what the paper's baselines and variants are trained on (`training.systems`).
"""

from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indexer.regions import REGIONS, region_box
from training.encoder.adaptive import AdaptiveBlock
from training.encoder.attention import SpatialAttention
from training.encoder.trunk import STEM_LAYERS, inception_v3

WHOLE_PX = 299
CROP_PX = 170

_TO_6E = (*STEM_LAYERS, "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e")
_TO_7C = ("Mixed_7a", "Mixed_7b", "Mixed_7c")


class MgrlTrunk(nn.Module):
    """Inception-V3 in the two pieces that the paper uses.

    Args:
        weights: Inception-V3 weights, or None for random ones.
    """

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        network = inception_v3(weights)
        self.until_mixed_6e = nn.Sequential(*(getattr(network, name) for name in _TO_6E))
        self.until_mixed_7c = nn.Sequential(*(getattr(network, name) for name in _TO_7C))

    def whole(self, pixels: Tensor) -> Tensor:
        """(n, 3, 299, 299) -> (n, 2048, 8, 8), each place a unit vector over the channels."""
        return F.normalize(self.until_mixed_7c(self.until_mixed_6e(pixels)))

    def crops(self, pixels: Tensor) -> Tensor:
        """(n, 3, 170, 170) -> (n, 768, 8, 8), each place a unit vector over the channels."""
        return F.normalize(self.until_mixed_6e(pixels))


class WholeHead(nn.Module):
    """Attention and a linear layer on the whole image's map: all of B1 and B2, and MGRL's 1x1 region.

    Args:
        dim: numbers in an embedding.
    """

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.attention = SpatialAttention()
        self.project = nn.Linear(2048, dim)

    def forward(self, maps: Tensor) -> Tensor:
        """(n, 2048, h, w), unit vectors over the channels -> (n, dim), unit rows."""
        return F.normalize(self.project(self.attention(maps)))


class MgrlHead(WholeHead):
    """One attention and one linear layer for the whole image and, behind the adaptive block, for the cells."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__(dim)
        self.adaptive = AdaptiveBlock()

    def crops(self, maps: Tensor) -> Tensor:
        """(n, 768, h, w), unit vectors over the channels -> (n, dim), unit rows; 2x2 and 3x3 regions only."""
        return cast(Tensor, self(F.normalize(self.adaptive(maps))))  # behind the block (n, 2048, h, w)


class MgrlEncoder(nn.Module):
    """Fourteen crops, one trunk, one attention, one head.

    Args:
        dim: numbers in a region's embedding.
        weights: Inception-V3 weights, or None for random ones.
    """

    def __init__(self, dim: int = 16, weights: Path | None = None) -> None:
        super().__init__()
        self.trunk = MgrlTrunk(weights)
        self.head = MgrlHead(dim)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, side, side) in [0, 1], side a multiple of 6 -> (n, 14, dim) unit rows in region-id order."""
        rows = [self.encode_whole(whole_pixels(images))]
        rows += [self.encode_crops(crop_pixels(images, region)) for region in range(1, REGIONS)]
        return torch.stack(rows, dim=1)

    def encode_whole(self, whole: Tensor) -> Tensor:
        """(n, 3, 299, 299) -> (n, dim), unit rows."""
        return cast(Tensor, self.head(self.trunk.whole(whole)))

    def encode_crops(self, crops: Tensor) -> Tensor:
        """(n, 3, 170, 170) -> (n, dim), unit rows; 2x2 and 3x3 regions only."""
        return self.head.crops(self.trunk.crops(crops))


def whole_pixels(images: Tensor) -> Tensor:
    """(n, 3, side, side) -> (n, 3, 299, 299)."""
    return F.interpolate(images, (WHOLE_PX, WHOLE_PX), mode="bilinear", align_corners=False)


def crop_pixels(images: Tensor, region: int) -> Tensor:
    """(n, 3, side, side) -> (n, 3, 170, 170) of one region, 1 to 13."""
    left, top, right, bottom = region_box(region, int(images.shape[-1]))
    crop = images[:, :, top:bottom, left:right]
    return F.interpolate(crop, (CROP_PX, CROP_PX), mode="bilinear", align_corners=False)
