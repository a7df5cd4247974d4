"""The one training loop of all systems on frozen features: batches of people, Adam, a falling rate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from indexer.errors import DataError
from training.frozen import FrozenSet
from training.networks import Maps


@dataclass(frozen=True)
class Recipe:
    """How long and how fast.

    Args:
        epochs: passes over the people.
        batch: people a step.
        rate: peak learning rate.
    """

    epochs: int = 20
    batch: int = 32
    rate: float = 1e-3


class Drawn:
    """A data set's features as tensors, row by row.

    Raises:
        DataError: fewer than two people, or a drawing without any ink.
    """

    def __init__(self, frozen: FrozenSet) -> None:
        if len(frozen.names) < 2:
            raise DataError(f"training needs at least 2 people, {frozen.names[0]} is alone; add to its split")
        self.people = len(frozen.names)
        if empty := [name for name, ink in zip(frozen.names, frozen.ink[:, -1], strict=True) if not ink.any()]:
            raise DataError(
                f"{len(empty)} finished sketches have no ink, such as {empty[0]}; take them out of the split"
            )
        self.stages = frozen.ink.shape[1]
        self._photos = {name: torch.from_numpy(np.array(array)) for name, array in frozen.photos.items()}
        self._sketches = {name: torch.from_numpy(np.array(array)) for name, array in frozen.sketches.items()}
        self.ink = torch.from_numpy(frozen.ink)

    def photos(self, people: Tensor) -> Maps:
        """Features of the people's photos."""
        return {name: array[people].float() for name, array in self._photos.items()}

    def sketches(self, people: Tensor, stages: Tensor) -> Maps:
        """Features of one stage of each person's drawing."""
        return {name: array[people, stages].float() for name, array in self._sketches.items()}

    def drawings(self, people: Tensor) -> Maps:
        """Features of all stages of the people's drawings: (n * stages, ...)."""
        return {name: array[people].flatten(0, 1).float() for name, array in self._sketches.items()}


def train(
    parameters: Any,
    drawn: Drawn,
    recipe: Recipe,
    seed: int,
    step: Callable[[Tensor, torch.Generator], Tensor],
) -> None:
    """Minimise `step(people, generator)` over batches of people in random order.

    Args:
        parameters: what is trained.
        drawn: the data set.
        recipe: epochs, batch, rate.
        seed: of the order, and of the generator that the step gets.
        step: from (b,) people to the loss.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = max(1, drawn.people // recipe.batch)
    optimiser = torch.optim.AdamW(parameters, recipe.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=recipe.epochs * batches)
    for _ in range(recipe.epochs):
        for people in torch.randperm(drawn.people, generator=generator).tensor_split(batches):
            loss = step(people, generator)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_((p for group in optimiser.param_groups for p in group["params"]), 5.0)
            optimiser.step()
            schedule.step()


@torch.no_grad()
def in_chunks(embed: Callable[[Maps], Tensor], maps: Mapping[str, Any], chunk: int = 256) -> Tensor:
    """The embeddings of many rows of float16 features, some at a time."""
    rows = len(next(iter(maps.values())))
    parts = []
    for start in range(0, rows, chunk):
        part = {name: np.array(array[start : start + chunk]) for name, array in maps.items()}
        parts.append(embed({name: torch.from_numpy(array).float() for name, array in part.items()}))
    return torch.cat(parts)
