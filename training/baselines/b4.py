"""B4: CNN and LSTM over the stages (Dai et al., SLFIR, 2023) on the frozen attention of a B2.

As released, the stages are fed as the batch axis, so that the LSTM sees sequences of one and nothing flows from stage
to stage: a gated head a stage. `causal` is what was meant and can serve: a unidirectional LSTM over the stages so far.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.baselines.b2 import fit_b2
from training.loop import Recipe, TrainingSet, train
from training.networks import FrozenNetwork, Maps, WholeNetwork, for_every_region
from training.triplets import negatives, region_distances, triplet

HIDDEN = 512


class StageNetwork(FrozenNetwork):
    """B2's pooled features through an LSTM for sketches, through a linear layer for photos.

    Args:
        base: trained B2; it is not trained further.
        causal: whether stages see those before them.
    """

    reads = ("whole",)

    def __init__(self, base: WholeNetwork, *, causal: bool) -> None:
        super().__init__()
        self.dim, self.causal = base.dim, causal
        self.base = base.requires_grad_(False)
        self.photo_head = nn.Linear(2048, base.dim)
        if causal:
            self.stages = nn.LSTM(2048, HIDDEN, batch_first=True)
            self.project: nn.Module = nn.Linear(HIDDEN, base.dim)
        else:
            self.stages = nn.LSTM(2048, HIDDEN, batch_first=True, bidirectional=True)
            self.project = _Second(base.dim)

    def pooled(self, maps: Maps) -> Tensor:
        """(n, 2048), unit rows; frozen."""
        with torch.no_grad():
            rows: Tensor = self.base.head.attention(maps["whole"])
        return rows

    def photos(self, maps: Maps) -> Tensor:
        """(n, 14, dim)."""
        return for_every_region(F.normalize(self.photo_head(self.pooled(maps))))

    def sketches(self, maps: Maps) -> Tensor:
        """(n, 14, dim): every sketch by itself, as the first and only stage of a drawing."""
        return self._embed(self.pooled(maps)[:, None])

    def drawing(self, maps: Maps) -> Tensor:
        """(stages, 14, dim): one drawing, in order."""
        if not self.causal:
            return self.sketches(maps)
        return self._embed(self.pooled(maps)[None])

    def _embed(self, sequences: Tensor) -> Tensor:
        """(n, length, 2048) -> (n * length, 14, dim)."""
        states, _ = self.stages(sequences)
        return for_every_region(F.normalize(self.project(states).flatten(0, 1)))


class _Second(nn.Module):
    """The released second LSTM: 1024 to half the dim, both ways."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2 * HIDDEN, dim // 2, batch_first=True, bidirectional=True)

    def forward(self, states: Tensor) -> Tensor:
        """(n, length, 1024) -> (n, length, dim)."""
        rows: Tensor = self.lstm(states)[0]
        return rows


def fit_b4(drawn: TrainingSet, seed: int, dim: int = 16, recipe: Recipe | None = None, *, causal: bool) -> StageNetwork:
    """Train B2, freeze it, and train the LSTM by the triplet loss over all stages of each drawing."""
    network = StageNetwork(fit_b2(drawn, seed, dim, recipe), causal=causal).to(drawn.device)
    drawn.freeze()
    network.base.eval()

    def step(people: Tensor, generator: torch.Generator) -> Tensor:
        others = negatives(drawn.people, people, may_be_positive=False, generator=generator)
        pooled = network.pooled(drawn.drawings(people))
        sequences = pooled.view(len(people), drawn.stages, -1) if causal else pooled[:, None]
        anchors = network._embed(sequences)[:, :1]
        near, far = (
            network.photos(drawn.photos(chosen))[:, :1].repeat_interleave(drawn.stages, dim=0)
            for chosen in (people, others)
        )
        return triplet(region_distances(anchors, near)[:, 0], region_distances(anchors, far)[:, 0])

    trained = [p for p in network.parameters() if p.requires_grad]
    train(trained, drawn, recipe or Recipe(), seed, step)
    return network.eval()
