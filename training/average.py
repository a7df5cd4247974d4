"""An exponential moving average of a model's weights: smoother than the weights themselves, late in a run."""

import copy

import torch
from torch import nn


class WeightAverage:
    """The average, as a model of its own.

    Args:
        model: whose weights are averaged; it starts as their copy.
        keep: share that the average keeps of itself at every step, once it has seen about 10 / (1 - keep) of them;
            before, less, so that the first steps' weights are forgotten.
    """

    def __init__(self, model: nn.Module, keep: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._keep = keep

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        keep = min(self._keep, step / (step + 9))
        for mean, now in zip(self.model.parameters(), model.parameters(), strict=True):
            mean.lerp_(now, 1 - keep)
