"""A system of the paper as one network from pixels to embeddings: what is exported, ingested and served."""

import torch
from torch import Tensor, nn

from indexer.regions import GRANULARITIES, INK_LEVEL, INK_SHARE
from training.encoder.layers import Layers, fold_norms
from training.networks import FrozenNetwork


class SystemEncoder(nn.Module):
    """The layers below and the head behind them, with the inputs and the output of `SinglePassEncoder`.

    A system that looks back on earlier stages (B4, causal) sees each sketch as the first stage of a drawing here: an
    encoder is asked for one sketch at a time.

    Args:
        layers: what the head reads.
        network: the head.
    """

    def __init__(self, layers: Layers, network: FrozenNetwork) -> None:
        super().__init__()
        self.layers, self.network = layers, network
        self.dim, self.size_px = network.dim, layers.size_px

    def forward(self, photos: Tensor, sketches: Tensor) -> Tensor:
        """The embeddings of the photos, then those of the sketches.

        Args:
            photos: (n, size, size, 3) uint8 RGB; n may be 0.
            sketches: (m, size, size) uint8 canvases, ink bright on 0; m may be 0.

        Returns:
            (n + m, 14, dim) float32, unit rows in region-id order.
        """
        paper = (255 - sketches)[:, None].expand(-1, 3, -1, -1)
        shown = torch.cat([photos.permute(0, 3, 1, 2), paper]).float()
        is_sketch = torch.cat([torch.zeros_like(photos[:, 0, 0, 0]), torch.ones_like(sketches[:, 0, 0])]).bool()[
            :, None
        ]
        ink = ink_regions(255 - shown[:, 0]) | ~is_sketch
        maps = self.layers(shown / 255, ink, self.network.reads)
        # Both heads run on all rows: the runtime's LSTM refuses a batch of none.
        return torch.where(is_sketch[:, :, None], self.network.sketches(maps), self.network.photos(maps))

    def fold(self) -> None:
        """Fold frozen norms, for export."""
        fold_norms(self.layers)


def ink_regions(canvases: Tensor) -> Tensor:
    """(n, size, size) float from 0 to 255 -> (n, 14) bool: `indexer.regions.ink_mask` as part of a graph."""
    side = int(canvases.shape[-1])  # plain ints: while an export traces, shapes are tensors
    ink = (canvases >= INK_LEVEL).float()
    columns = []
    for granularity in GRANULARITIES:
        cell = side // granularity
        counts = ink.view(-1, granularity, cell, granularity, cell).sum(dim=(2, 4))
        columns.append((counts >= max(1.0, INK_SHARE * (side / granularity) ** 2)).flatten(1))
    return torch.cat(columns, dim=1)
