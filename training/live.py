"""Photos and drawings run through layers on the spot, so that the layers can be trained: a `TrainingSet`."""

import functools
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from indexer.encoding import photo_pixels, sketch_as_photo
from indexer.episode import render_stages
from indexer.regions import GRANULARITIES, REGION_IDS, REGIONS, ink_mask
from training.data import find_pair, open_image
from training.encoder.layers import Layers
from training.episodes import name_seed
from training.frozen import People
from training.networks import Maps
from training.variants import Stages, probe_stages

_CHUNK: Final = 64
"""Images at once where nothing is trained: all stages of a batch of drawings do not fit into a GPU."""


class LiveSet:
    """People's photos and drawings, as maps of the layers at hand.

    Photos wait in memory (270 kB each), canvases are drawn when they are asked for. Photo and sketch of a person are
    mirrored together, at random at every step.

    Args:
        people: whose.
        layers: run on their own device; trained if `train_upper` is called.
        reads: maps that the system looks at.
        probe_set: how the drawings are disturbed.
    """

    def __init__(self, people: People, layers: Layers, reads: tuple[str, ...], probe_set: str = "aligned") -> None:
        self.people, self.stages = len(people.names), people.stages
        self.device = next(layers.parameters()).device
        self._who, self._layers, self._reads, self._probe_set = people, layers, reads, probe_set
        self._trained: list[nn.Parameter] = []
        self._photos = [_photo(people.data, name, layers.size_px) for name in people.names]
        self._mirrored = torch.zeros(self.people, dtype=torch.bool)

    @property
    def ink(self) -> Tensor:
        """As `TrainingSet.ink`."""
        upright = self._upright
        return torch.where(self._mirrored[:, None, None], upright[..., _mirror()], upright).to(self.device)

    def photos(self, people: Tensor) -> Maps:
        """As `TrainingSet.photos`."""
        shown = np.stack([self._photos[person] for person in people.tolist()])
        return self._maps(torch.from_numpy(shown), self._mirrored[people], torch.ones(len(shown), REGIONS))

    def sketches(self, people: Tensor, stages: Tensor) -> Maps:
        """As `TrainingSet.sketches`."""
        pairs = zip(people.tolist(), stages.tolist(), strict=True)
        return self._sketches(np.stack([self._canvas(*pair) for pair in pairs]), people, self.ink[people, stages])

    def drawings(self, people: Tensor) -> Maps:
        """As `TrainingSet.drawings`."""
        canvases = np.concatenate([self._canvases(person) for person in people.tolist()])
        return self._sketches(canvases, people.repeat_interleave(self.stages), self.ink[people].flatten(0, 1))

    def train_upper(self, *, norms: bool) -> None:
        """Have the upper layers trained with the head, see `Layers.train_upper`."""
        self._trained = self._layers.train_upper(norms=norms)

    def trained(self) -> list[nn.Parameter]:
        """As `TrainingSet.trained`."""
        return self._trained

    def freeze(self) -> None:
        """As `TrainingSet.freeze`."""
        self._layers.eval().requires_grad_(False)
        self._trained = []

    def disturb(self, generator: torch.Generator) -> None:
        """Mirror every other person from now on, photo and sketch and ink."""
        self._mirrored = torch.rand(self.people, generator=generator) < 0.5

    @functools.cached_property
    def _drawings(self) -> list[Stages]:
        episodes = self._who.draw()
        return [probe_stages(self._probe_set, episodes[name], name_seed(name, 0)) for name in self._who.names]

    @functools.cached_property
    def _upright(self) -> Tensor:
        """(people, stages, 14) bool: the ink of drawings that are not mirrored."""
        return torch.from_numpy(np.stack([ink_mask(self._canvases(person)) for person in range(self.people)]))

    def _canvases(self, person: int) -> npt.NDArray[np.uint8]:
        return render_stages(self._drawings[person], self._layers.size_px)

    def _canvas(self, person: int, stage: int) -> npt.NDArray[np.uint8]:
        strokes = [stroke for added in self._drawings[person][: stage + 1] for stroke in added]
        canvas: npt.NDArray[np.uint8] = render_stages([strokes], self._layers.size_px)[0]
        return canvas

    def _sketches(self, canvases: npt.NDArray[np.uint8], people: Tensor, ink: Tensor) -> Maps:
        paper = torch.from_numpy(sketch_as_photo(canvases))
        return self._maps(paper, self._mirrored[people], ink)

    def _maps(self, images: Tensor, mirrored: Tensor, ink: Tensor) -> Maps:
        """(n, size, size, 3) uint8 -> maps; in chunks where no gradient is wanted."""
        images = torch.where(mirrored[:, None, None, None], images.flip(2), images).permute(0, 3, 1, 2)
        chunk = len(images) if self._trained else _CHUNK
        parts = [
            self._layers(shown.to(self.device).float() / 255, inked.to(self.device).bool(), self._reads)
            for shown, inked in zip(images.split(chunk), ink.split(chunk), strict=True)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _photo(data: Path, name: str, size_px: int) -> npt.NDArray[np.uint8]:
    return photo_pixels(open_image(find_pair(data, name).photo), size_px)


def _mirror() -> list[int]:
    """For each region the one that lies there in the mirror."""
    swapped: list[int] = []
    for granularity in GRANULARITIES:
        for row in range(granularity):
            first = REGION_IDS[granularity].start + row * granularity
            swapped += range(first + granularity - 1, first - 1, -1)
    return swapped
