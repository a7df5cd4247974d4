"""The training loss: in-batch softmax over Eq. (3), plus a smaller softmax per region."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from indexer.fusion import EQUAL_WEIGHTS
from indexer.regions import GRANULARITIES, REGION_IDS


def pairwise_region_distances(probes: Tensor, photos: Tensor) -> Tensor:
    """(b, 14, dim) and (n, 14, dim) unit rows -> (14, b, n) Euclidean distances, with a gradient also at 0."""
    cosines = torch.einsum("brd,nrd->rbn", probes, photos)
    return torch.sqrt((2 - 2 * cosines).clamp_min(1e-6))


def region_weights(ink: Tensor) -> Tensor:
    """(b, 14) bool -> (b, 14) float, Eq. (3) with equal weights: 1 / inked regions of the granularity, else 0."""
    weights = ink.float()
    for granularity in GRANULARITIES:
        ids = slice(REGION_IDS[granularity].start, REGION_IDS[granularity].stop)
        weights[:, ids] = weights[:, ids] / weights[:, ids].sum(dim=1, keepdim=True).clamp_min(1)
    return weights


def in_batch_softmax(
    probes: Tensor,
    photos: Tensor,
    ink: Tensor,
    temperature: float = 1 / 8,
    label_smoothing: float = 0.1,
    region_share: float = 0.1,
    spreads: Mapping[int, float] = EQUAL_WEIGHTS,
) -> Tensor:
    """Cross-entropy of each sketch against all photos of the batch; sketch i shows the person of photo i.

    Args:
        probes: (b, 14, dim) unit rows of partial sketches.
        photos: (b, 14, dim) unit rows.
        ink: (b, 14) bool.
        temperature: divides the distances.
        label_smoothing: share of the target spread over the photos: early stages identify nobody.
        region_share: weight of the per-region terms.
        spreads: granularity -> what the encoder multiplied its distances with; the per-region terms undo it.

    Returns:
        Scalar.
    """
    distances = pairwise_region_distances(probes, photos)
    targets = torch.arange(len(probes), device=probes.device)
    fused = torch.einsum("rbn,br->bn", distances, region_weights(ink))
    loss = F.cross_entropy(-fused / temperature, targets, label_smoothing=label_smoothing)
    if region_share and ink.any():  # the mean over no region would be NaN and spoil every weight
        regions, sketches = torch.nonzero(ink.T, as_tuple=True)
        # A region alone stands for the whole sum, so it weighs as much as all granularities together.
        undone = torch.cat([torch.full((len(ids),), 1 / spreads[g]) for g, ids in REGION_IDS.items()]).to(distances)
        logits = -sum(spreads.values()) * undone[regions][:, None] * distances[regions, sketches] / temperature
        loss = loss + region_share * F.cross_entropy(logits, targets[sketches], label_smoothing=label_smoothing)
    return loss
