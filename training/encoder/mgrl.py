"""The released MGRL network: the whole image and its thirteen crops, each through Inception-V3.

Here it is what the single-pass encoder is timed against; its weights are not trained in this repository yet.
"""

from pathlib import Path

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


class MgrlEncoder(nn.Module):
    """Fourteen crops, one trunk, one attention, one head.

    Args:
        dim: numbers in a region's embedding.
        weights: Inception-V3 weights, or None for random ones.
    """

    def __init__(self, dim: int = 16, weights: Path | None = None) -> None:
        super().__init__()
        network = inception_v3(weights)
        self.until_mixed_6e = nn.Sequential(*(getattr(network, name) for name in _TO_6E))
        self.until_mixed_7c = nn.Sequential(*(getattr(network, name) for name in _TO_7C))
        self.adaptive = AdaptiveBlock()
        self.attention = SpatialAttention()
        self.project = nn.Linear(2048, dim)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, side, side) in [0, 1], side a multiple of 6 -> (n, 14, dim) unit rows in region-id order."""
        whole = F.interpolate(images, (WHOLE_PX, WHOLE_PX), mode="bilinear", align_corners=False)
        rows = [self.encode_whole(whole)]
        for region in range(1, REGIONS):
            left, top, right, bottom = region_box(region, images.shape[-1])
            crop = images[:, :, top:bottom, left:right]
            crop = F.interpolate(crop, (CROP_PX, CROP_PX), mode="bilinear", align_corners=False)
            rows.append(self.encode_crops(crop))
        return torch.stack(rows, dim=1)

    def encode_whole(self, images: Tensor) -> Tensor:
        """(n, 3, 299, 299) -> (n, dim), unit rows."""
        x = self.until_mixed_7c(self.until_mixed_6e(images))  # (n, 2048, 8, 8)
        return self._embed(F.normalize(x))

    def encode_crops(self, crops: Tensor) -> Tensor:
        """(n, 3, 170, 170) -> (n, dim), unit rows; 2x2 and 3x3 regions only."""
        x = F.normalize(self.until_mixed_6e(crops))  # (n, 768, 8, 8)
        return self._embed(F.normalize(self.adaptive(x)))  # (n, 2048, 8, 8)

    def _embed(self, x: Tensor) -> Tensor:
        return F.normalize(self.project(self.attention(x)))
