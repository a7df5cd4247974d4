"""B1: attention and a linear head on the whole image, triplet loss on complete sketches only."""

import torch
from torch import Tensor

from training.loop import Recipe, TrainingSet, train
from training.networks import WholeNetwork
from training.triplets import negatives, region_distances, triplet


def fit_b1(drawn: TrainingSet, seed: int, dim: int = 16, recipe: Recipe | None = None) -> WholeNetwork:
    """Train on complete sketches."""
    return fit_whole(drawn, seed, dim, recipe or Recipe(), complete_only=True)


def fit_whole(drawn: TrainingSet, seed: int, dim: int, recipe: Recipe, *, complete_only: bool) -> WholeNetwork:
    """Train the whole-image network: on complete sketches (B1) or on random stages (B2)."""
    torch.manual_seed(seed)
    network = WholeNetwork(dim).to(drawn.device)

    def step(people: Tensor, generator: torch.Generator) -> Tensor:
        stages = torch.randint(drawn.stages, people.shape, generator=generator)
        if complete_only:
            stages = torch.full_like(people, drawn.stages - 1)
        others = negatives(drawn.people, people, may_be_positive=False, generator=generator)
        anchors = network.sketches(drawn.sketches(people, stages))[:, :1]
        near, far = (network.photos(drawn.photos(chosen))[:, :1] for chosen in (people, others))
        return triplet(region_distances(anchors, near)[:, 0], region_distances(anchors, far)[:, 0])

    train(network.parameters(), drawn, recipe, seed, step)
    return network.eval()
