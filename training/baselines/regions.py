"""MGRL's own fourteen crops in three variants, and the single-pass heads; the trunk below may be frozen.

- `as_released`: the 3x3 term is computed and never added to the loss, a negative may be the positive, and at test a
  sketch's cells are normalised across cells first.
- `as_written`: what the paper says: one triplet term a granularity, inked cells only, other people as negatives.
- `corrected`: as written, with the loss on what retrieval ranks by: an in-batch softmax over Eq. (3), in which every
  photo of the batch is a negative and label smoothing allows for stages that identify nobody.
"""

import torch
from torch import Tensor

from training.loop import Recipe, TrainingSet, train
from training.losses import in_batch_softmax
from training.networks import PassNetwork, RegionNetwork
from training.triplets import fused, negatives, region_distances, triplet


def fit_mgrl(
    drawn: TrainingSet, seed: int, dim: int = 16, recipe: Recipe | None = None, *, variant: str
) -> RegionNetwork:
    """Train one of the variants `as_released`, `as_written`, `corrected`."""
    torch.manual_seed(seed)
    released = variant == "as_released"
    network = RegionNetwork(dim, across_cells=released).to(drawn.device)

    def step(people: Tensor, generator: torch.Generator) -> Tensor:
        stages = torch.randint(drawn.stages, people.shape, generator=generator)
        ink = drawn.ink[people, stages]
        probes = network.sketches(drawn.sketches(people, stages))
        near = network.photos(drawn.photos(people))
        if variant == "corrected":
            return in_batch_softmax(probes, near, ink)
        others = negatives(drawn.people, people, may_be_positive=released, generator=generator)
        far = network.photos(drawn.photos(others))
        to_near, to_far = region_distances(probes, near), region_distances(probes, far)
        terms = (1, 2) if released else (1, 2, 3)
        return torch.stack([triplet(fused(to_near, ink, (g,)), fused(to_far, ink, (g,))) for g in terms]).sum()

    train(network.parameters(), drawn, recipe or Recipe(epochs=12), seed, step)
    return network.eval()


def fit_single_pass(drawn: TrainingSet, seed: int, dim: int = 16, recipe: Recipe | None = None) -> PassNetwork:
    """Train the single-pass encoder's heads alone."""
    torch.manual_seed(seed)
    network = PassNetwork(dim).to(drawn.device)
    sample = torch.arange(min(drawn.people, 64))
    complete = torch.full_like(sample, drawn.stages - 1)
    network.calibrate(torch.cat([drawn.photos(sample)["regions"], drawn.sketches(sample, complete)["regions"]]))

    def step(people: Tensor, generator: torch.Generator) -> Tensor:
        stages = torch.randint(drawn.stages, people.shape, generator=generator)
        probes = network.sketches(drawn.sketches(people, stages))
        return in_batch_softmax(probes, network.photos(drawn.photos(people)), drawn.ink[people, stages])

    train(network.heads.parameters(), drawn, recipe or Recipe(epochs=40, batch=64, rate=2e-3), seed, step)
    return network.eval()
