"""The paper's own setting: trunk and head of the deep systems trained together. Made for a GPU.

It has run on a CPU only, on a handful of people: no GPU was at hand.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import torch

from indexer.errors import ModelError
from training.encoder.layers import CropLayers, Layers
from training.evaluate import Embedded
from training.frozen import People
from training.live import LiveSet
from training.loop import Recipe
from training.networks import FrozenNetwork
from training.systems import SYSTEMS
from training.trained import keep_trained, read_trained, trained_network, trained_path

_CODE: Final = 1
"""Raised whenever the same training would end elsewhere."""

_AT_ONCE: Final = 32

RECIPES: Final[Mapping[str, Recipe]] = {
    "photo1": Recipe(epochs=20, batch=32, rate=5e-3, trunk_rate=5e-4, constant=True),
    "photo3": Recipe(epochs=20, batch=32, rate=5e-4, trunk_rate=5e-5, constant=True),
}
"""Folder of the photos -> how the paper trains: those of section 3.2, and for Dataset 2 (photo3) the released ones."""


def paper_recipe(people: People) -> Recipe:
    """How the paper trains on these people; as on Dataset 1 where they are none of its own."""
    return RECIPES.get(people.names[0].partition("/")[0], RECIPES["photo1"])


class FullWorkshop:
    """Trains systems end to end and keeps what it has done: a `training.report.jobs.Trainer`.

    Batch norms are trained, too, photos and sketches apart, as in the released code; `mgrl-corrected` leaves them.

    Args:
        cache: folder of trained systems.
        weights: Inception-V3 to start from, or None for random weights.
        device: where to train.
        recipe: how long and how fast, by the people.
        make_layers: the layers below the heads, from the weights.
    """

    trunk: Final = "fine-tuned"

    def __init__(
        self,
        cache: Path,
        weights: Path | None,
        device: torch.device,
        recipe: Callable[[People], Recipe] = paper_recipe,
        make_layers: Callable[[Path | None], Layers] = lambda weights: CropLayers(weights, None),
    ) -> None:
        self._cache, self._weights, self._device = cache, weights, device
        self._recipe, self._make_layers = recipe, make_layers

    def embed(
        self,
        name: str,
        fit: People,
        val: People,
        distractors: People,
        seed: int,
        dim: int = 16,
        probe_set: str = "aligned",
    ) -> Embedded:
        """As `training.workshop.Workshop.embed`."""
        network, layers, seconds = self._trained(name, fit, seed, dim)
        probes = LiveSet(val, layers, network.reads, probe_set)
        others = LiveSet(distractors, layers, network.reads)
        with torch.no_grad():
            rows = [network.drawing(probes.drawings(torch.tensor([person]))) for person in range(probes.people)]
            gallery = [
                network.photos(live.photos(part))
                for live in (probes, others)
                for part in torch.arange(live.people).split(_AT_ONCE)
            ]
        return Embedded(
            torch.stack(rows).cpu().numpy(),
            probes.ink.cpu().numpy(),
            torch.cat(gallery).cpu().numpy(),
            (*val.names, *distractors.names),
            seconds,
        )

    def _trained(self, name: str, people: People, seed: int, dim: int) -> tuple[FrozenNetwork, Layers, float]:
        layers = self._make_layers(self._weights).to(self._device)
        recipe, system = self._recipe(people), SYSTEMS[name]
        key = f"{_CODE}/{system.code}/{name}/{dim}/{layers.name}/{people.key}/{seed}/{recipe}"
        path = trained_path(self._cache, f"{name}-{dim}-full", key)
        if (kept := self._read(path, layers)) is not None:
            return kept, layers, 0.0
        start = time.monotonic()
        drawn = LiveSet(people, layers, system.build(dim).reads)
        drawn.train_upper(norms=name != "mgrl-corrected")
        network = system.fit(drawn, seed, dim, recipe)
        drawn.freeze()
        keep_trained(path, name, network, layers)
        return network, layers, time.monotonic() - start

    def _read(self, path: Path, layers: Layers) -> FrozenNetwork | None:
        """The network of an earlier call, its layers put into those at hand; None where there is none."""
        content = read_trained(path)
        if content is None:
            return None
        try:
            layers.load_state_dict(content["trunk"])
            layers.eval().requires_grad_(False)
            return trained_network(content).to(self._device)
        except (ModelError, RuntimeError, KeyError):
            return None
