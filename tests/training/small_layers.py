"""Layers that cost nothing, in place of Inception-V3."""

from collections.abc import Collection

import torch.nn.functional as F
from torch import Tensor, nn

from indexer.regions import REGIONS
from training.encoder.layers import Layers


class SmallLayers(Layers):
    """The maps of the real layers, made from 6 x 6 averages by one convolution each."""

    name, size_px = "small", 60

    def __init__(self) -> None:
        super().__init__()
        self.whole, self.cells, self.regions = (nn.Conv2d(3, n, 3, 3) for n in (2048, 13 * 768, REGIONS * 1440))

    def forward(self, pixels: Tensor, ink: Tensor, reads: Collection[str]) -> dict[str, Tensor]:
        small = F.avg_pool2d(pixels, 10)
        cells = self.cells(small).amax(dim=(2, 3)).view(-1, 13, 768) * ink[:, 1:, None]
        regions = self.regions(small).amax(dim=(2, 3)).view(-1, REGIONS, 1440)
        return {"whole": self.whole(small).relu(), "cells": cells, "regions": regions}

    def train_upper(self, *, norms: bool) -> list[nn.Parameter]:
        self.train(norms)
        self.regions.requires_grad_(False)
        return [parameter for parameter in self.parameters() if parameter.requires_grad]
