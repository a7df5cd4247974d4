"""What is trained on frozen features: one small network a system, all with the same way in and out."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indexer.regions import GRANULARITIES, REGION_IDS, REGIONS
from training.encoder.mgrl import MgrlHead, WholeHead
from training.encoder.single_pass import POOLED, Standardise

Maps = Mapping[str, Tensor]
"""Name of a feature array -> (n, ...) float32."""


class FrozenNetwork(nn.Module):
    """Features to embeddings, for photos and for single sketches.

    A network that looks back on earlier stages overrides `drawing`. `reads` names the feature maps that it looks at.
    """

    dim: int
    reads: tuple[str, ...]

    def photos(self, maps: Maps) -> Tensor:
        """Features of n photos -> (n, 14, dim), unit rows."""
        raise NotImplementedError

    def sketches(self, maps: Maps) -> Tensor:
        """Features of n sketches -> (n, 14, dim), unit rows."""
        return self.photos(maps)

    def drawing(self, maps: Maps) -> Tensor:
        """Features of one drawing's stages, in order -> (stages, 14, dim)."""
        return self.sketches(maps)


class WholeNetwork(FrozenNetwork):
    """One embedding of the whole image, repeated for every region: Eq. (3) then ranks by it alone.

    Args:
        dim: numbers in an embedding.
    """

    reads = ("whole",)

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.dim = dim
        self.head = WholeHead(dim)

    def photos(self, maps: Maps) -> Tensor:
        """(n, 14, dim), the same row fourteen times."""
        return for_every_region(self.head(maps["whole"]))


class RegionNetwork(FrozenNetwork):
    """The paper's fourteen crops.

    Args:
        dim: numbers in a region's embedding.
        across_cells: normalise a sketch's cells across the cells of their granularity first, as the released code
            does at test time.
    """

    reads = ("whole", "cells")

    def __init__(self, dim: int = 16, *, across_cells: bool = False) -> None:
        super().__init__()
        self.dim, self.across_cells = dim, across_cells
        self.head = MgrlHead(dim)

    def photos(self, maps: Maps) -> Tensor:
        """(n, 14, dim), unit rows."""
        whole = self.head(maps["whole"])
        cells = maps["cells"].flatten(0, 1)  # (n * 13, 768), pooled, or (n * 13, 768, h, w)
        rows = self.head.crops(cells[:, :, None, None] if cells.dim() == 2 else cells).view(-1, REGIONS - 1, self.dim)
        return torch.cat([whole[:, None], rows], dim=1)

    def sketches(self, maps: Maps) -> Tensor:
        """(n, 14, dim), unit rows."""
        rows = self.photos(maps)
        if not self.across_cells or self.training:
            return rows
        spans = [REGION_IDS[granularity] for granularity in GRANULARITIES]
        parts = [rows[:, :1], *(F.normalize(rows[:, ids.start : ids.stop], dim=1) for ids in spans[1:])]
        return F.normalize(torch.cat(parts, dim=1), dim=-1)


class PassNetwork(FrozenNetwork):
    """The single-pass encoder's heads, without its aligner; all rows as far apart as they come, see `SPREADS` there.

    Args:
        dim: numbers in a region's embedding.
    """

    reads = ("regions",)

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.dim = dim
        self.norms = nn.ModuleList(Standardise(POOLED) for _ in GRANULARITIES)
        self.heads = nn.ModuleList(nn.Linear(POOLED, dim) for _ in GRANULARITIES)

    def photos(self, maps: Maps) -> Tensor:
        """(n, 14, dim), unit rows."""
        rows = [
            head(norm(maps["regions"][:, REGION_IDS[granularity].start : REGION_IDS[granularity].stop]))
            for granularity, norm, head in zip(GRANULARITIES, self.norms, self.heads, strict=True)
        ]
        return F.normalize(torch.cat(rows, dim=1), dim=-1)

    @torch.no_grad()
    def calibrate(self, regions: Tensor) -> None:
        """Set the standardisation from (n, 14, 1440) features."""
        for granularity, norm in zip(GRANULARITIES, self.norms, strict=True):
            assert isinstance(norm, Standardise)
            norm.fit(regions[:, REGION_IDS[granularity].start : REGION_IDS[granularity].stop].flatten(0, 1))


def for_every_region(rows: Tensor) -> Tensor:
    """(n, dim) -> (n, 14, dim)."""
    return rows[:, None].expand(-1, REGIONS, -1)
