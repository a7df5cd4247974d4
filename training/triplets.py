"""The triplet loss of the paper and of its baselines, and how triplets are drawn."""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from training.losses import region_weights

MARGIN: Final = 0.3


def negatives(people: int, anchors: Tensor, *, may_be_positive: bool, generator: torch.Generator) -> Tensor:
    """(b,) another person for every anchor, at random.

    Args:
        people: in the data set.
        anchors: (b,) int64.
        may_be_positive: draw among all people, as the released code does, also the anchor's own.
        generator: source of the choice.
    """
    if may_be_positive:
        return torch.randint(people, (len(anchors),), generator=generator)
    step = torch.randint(1, people, (len(anchors),), generator=generator)
    return (anchors + step) % people


def triplet(near: Tensor, far: Tensor, margin: float = MARGIN) -> Tensor:
    """Mean of max(0, near - far + margin) over (b,) distances."""
    return F.relu(near - far + margin).mean()


def region_distances(rows: Tensor, others: Tensor) -> Tensor:
    """(b, 14, dim) twice -> (b, 14) Euclidean distances, with a gradient also at 0."""
    return (rows - others).square().sum(dim=-1).clamp_min(1e-8).sqrt()


def fused(distances: Tensor, ink: Tensor, granularities: tuple[int, ...] = (1, 2, 3)) -> Tensor:
    """Eq. (3) of (b, 14) region distances and ink, over some of the granularities -> (b,)."""
    weights = region_weights(ink)
    spans = {1: slice(0, 1), 2: slice(1, 5), 3: slice(5, 14)}
    kept = torch.zeros_like(weights)
    for granularity in granularities:
        kept[:, spans[granularity]] = weights[:, spans[granularity]]
    return (distances * kept).sum(dim=1)
