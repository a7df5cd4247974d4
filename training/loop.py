"""The one training loop of all systems of the paper: batches of people, and what a batch is read from."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

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
        rate: learning rate of the heads, at its peak.
        trunk_rate: of the layers below, where these are trained.
        constant: Adam at a constant rate, as in the paper; else AdamW, one cycle, clipped gradients.
    """

    epochs: int = 20
    batch: int = 32
    rate: float = 1e-3
    trunk_rate: float = 0.0
    constant: bool = False


class TrainingSet(Protocol):
    """What systems are trained on: feature maps of photos and of drawings, kept (`Drawn`) or computed on the spot."""

    @property
    def people(self) -> int:
        """How many."""

    @property
    def stages(self) -> int:
        """Stages of every drawing."""

    @property
    def ink(self) -> Tensor:
        """(people, stages, 14) bool."""

    @property
    def device(self) -> torch.device:
        """Where the maps are; networks go there, too."""

    def photos(self, people: Tensor) -> Maps:
        """Maps of the people's photos."""

    def sketches(self, people: Tensor, stages: Tensor) -> Maps:
        """Maps of one stage of each person's drawing."""

    def drawings(self, people: Tensor) -> Maps:
        """Maps of all stages of the people's drawings: (n * stages, ...)."""

    def trained(self) -> list[nn.Parameter]:
        """What is trained below the heads."""

    def freeze(self) -> None:
        """Train nothing below the heads from now on."""

    def disturb(self, generator: torch.Generator) -> None:
        """Called before every step: for augmentation that photo and sketch share."""


class Drawn:
    """A data set's features as tensors, row by row: a `TrainingSet` with nothing to train below the heads.

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
        self.device = torch.device("cpu")

    def photos(self, people: Tensor) -> Maps:
        """Features of the people's photos."""
        return {name: array[people].float() for name, array in self._photos.items()}

    def sketches(self, people: Tensor, stages: Tensor) -> Maps:
        """Features of one stage of each person's drawing."""
        return {name: array[people, stages].float() for name, array in self._sketches.items()}

    def drawings(self, people: Tensor) -> Maps:
        """Features of all stages of the people's drawings: (n * stages, ...)."""
        return {name: array[people].flatten(0, 1).float() for name, array in self._sketches.items()}

    def trained(self) -> list[nn.Parameter]:
        """Nothing."""
        return []

    def freeze(self) -> None:
        """Nothing to do."""

    def disturb(self, generator: torch.Generator) -> None:
        """Features cannot be disturbed."""


def train(
    parameters: Iterable[nn.Parameter],
    drawn: TrainingSet,
    recipe: Recipe,
    seed: int,
    step: Callable[[Tensor, torch.Generator], Tensor],
) -> None:
    """Minimise `step(people, generator)` over batches of people in random order.

    Args:
        parameters: of the head; what the data set trains below it comes besides.
        drawn: the data set.
        recipe: epochs, batch, rates.
        seed: of the order, and of the generator that the step gets.
        step: from (b,) people to the loss.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = max(1, drawn.people // recipe.batch)
    groups = [{"params": list(parameters), "lr": recipe.rate}]
    if below := drawn.trained():
        groups.append({"params": below, "lr": recipe.trunk_rate})
    optimiser, schedule = _optimiser(groups, recipe, recipe.epochs * batches)
    for _ in range(recipe.epochs):
        for people in torch.randperm(drawn.people, generator=generator).tensor_split(batches):
            drawn.disturb(generator)
            loss = step(people, generator)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if not recipe.constant:
                nn.utils.clip_grad_norm_((p for group in optimiser.param_groups for p in group["params"]), 5.0)
            optimiser.step()
            schedule.step()


def _optimiser(
    groups: list[dict[str, Any]], recipe: Recipe, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    if recipe.constant:
        adam = torch.optim.Adam(groups)
        return adam, torch.optim.lr_scheduler.ConstantLR(adam, factor=1.0)
    optimiser = torch.optim.AdamW(groups, weight_decay=1e-4)
    rates = [float(group["lr"]) for group in groups]
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps)


@torch.no_grad()
def in_chunks(embed: Callable[[Maps], Tensor], maps: Mapping[str, Any], chunk: int = 256) -> Tensor:
    """The embeddings of many rows of float16 features, some at a time."""
    rows = len(next(iter(maps.values())))
    parts = []
    for start in range(0, rows, chunk):
        part = {name: np.array(array[start : start + chunk]) for name, array in maps.items()}
        parts.append(embed({name: torch.from_numpy(array).float() for name, array in part.items()}))
    return torch.cat(parts)
