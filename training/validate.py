"""Validation during training: some stages of every drawing, ranked among a data set's photos."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from indexer.fusion import fused_distance
from indexer.regions import ink_mask
from training.batches import PairSet, Pixels
from training.encoder.single_pass import SinglePassEncoder
from training.metrics import Scores, score, target_ranks

NOTED: Final = ("epoch", "seconds", "m_at_a", "m_at_b", "w_m_at_b")
"""What the record of a validation holds beside each data set's m@B, which stands under its name."""


@dataclass(frozen=True)
class Validation:
    """What a data set's drawings are ranked among in validation.

    Args:
        name: of the data set, none of `NOTED`.
        probes: validation identities.
        distractors: (photos, size, size, 3) uint8, further gallery photos.
    """

    name: str
    probes: PairSet
    distractors: Pixels


def validate(model: SinglePassEncoder, validation: Validation, stages: int) -> Scores:
    """The metrics at so many stages of every drawing, evenly spread.

    Args:
        model: on any device.
        validation: drawings and gallery.
        stages: of T; w@mA and w@mB are over these, so they are no values for T.
    """
    probes = validation.probes
    gallery = embed_photos(model, np.concatenate([probes.photos, validation.distractors]))
    ranks = np.empty((len(probes), stages), np.int64)
    for number, episode in enumerate(probes.episodes):
        shown = np.linspace(0, episode.stages - 1, stages).round().astype(int)
        canvases = episode.canvases(model.size_px)[shown]
        rows = embed_sketches(model, canvases)
        distances = np.stack([fused_distance(r, gallery, ink) for r, ink in zip(rows, ink_mask(canvases), strict=True)])
        ranks[number] = target_ranks(distances, np.full(stages, number))
    return score(ranks, len(gallery))


@torch.no_grad()
def embed_photos(model: SinglePassEncoder, photos: Pixels, batch: int = 64) -> npt.NDArray[np.float32]:
    """(n, size, size, 3) uint8 -> (n, 14, dim) float32."""
    device = next(model.parameters()).device
    none = torch.zeros(0, model.size_px, model.size_px, dtype=torch.uint8, device=device)
    parts = torch.from_numpy(photos).split(batch)
    return np.concatenate([model(part.to(device), none).cpu().numpy() for part in parts])


@torch.no_grad()
def embed_sketches(model: SinglePassEncoder, canvases: Pixels, batch: int = 64) -> npt.NDArray[np.float32]:
    """(n, size, size) uint8, ink bright on 0 -> (n, 14, dim) float32."""
    device = next(model.parameters()).device
    none = torch.zeros(0, model.size_px, model.size_px, 3, dtype=torch.uint8, device=device)
    parts = torch.from_numpy(canvases).split(batch)
    return np.concatenate([model(none, part.to(device)).cpu().numpy() for part in parts])
