"""Trains the aligner before the main loop: drawings moved by known amounts, the amounts to be told.

What it learns from is made once and kept in memory (4 kB a look); it takes a few minutes on two cores.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from indexer.encoding import default_threads
from indexer.episode import render_stages
from training.batches import Move, PairSet, disturb
from training.encoder.aligner import REACH, Aligner, look
from training.settings import Augmentation
from training.stopping import leave_to_parent

_STAGES = 3
"""Moments a moved drawing is looked at: one after the other on one canvas, so the further ones cost little."""

Looks = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]


class MovedLooks(torch.utils.data.IterableDataset[Looks]):
    """Drawings of all people, moved at random, several times each; one item a person and round.

    Args:
        sets: data sets.
        rounds: moves a person.
        augmentation: how drawings are disturbed besides.
        seed: of everything random; the same looks for the same seed, whatever the number of workers.
    """

    def __init__(self, sets: Sequence[PairSet], rounds: int, augmentation: Augmentation, seed: int) -> None:
        self._people = [(number, member) for number, pairs in enumerate(sets) for member in range(len(pairs))]
        self._sets, self._rounds, self._augmentation, self._seed = sets, rounds, augmentation, seed

    def __len__(self) -> int:
        return len(self._people) * self._rounds

    def __iter__(self) -> Iterator[Looks]:
        worker = torch.utils.data.get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for item in range(first, len(self), step):
            turn, person = divmod(item, len(self._people))
            number, member = self._people[person]
            yield self._looks(self._sets[number], member, np.random.default_rng([self._seed, turn, number, member]))

    def _looks(self, pairs: PairSet, member: int, rng: np.random.Generator) -> Looks:
        moved = Move.random(rng, float(rng.choice([0.0, 1 / 6, 1.0, 1.0, 1.0])))
        episode = pairs.episodes[member]
        ends = sorted({episode.stage_ends[stage] for stage in rng.integers(episode.stages, size=_STAGES)})
        strokes = moved.of(disturb(episode.strokes[: ends[-1]], self._augmentation, rng), flip=False)
        # Some strokes may be missing or cut in two: the moments are shares of what is left.
        cuts = [round(len(strokes) * end / ends[-1]) for end in ends]
        canvases = render_stages([strokes[a:b] for a, b in zip([0, *cuts], cuts, strict=False)], pairs.size_px)
        looks = look(torch.from_numpy(canvases).float()).round().byte().numpy()
        move = (*moved.shift, np.deg2rad(moved.turn_degrees), np.log(moved.scale))
        return looks, np.tile(np.asarray(move, np.float32), (len(looks), 1))


def fit_aligner(
    aligner: Aligner,
    sets: Sequence[PairSet],
    augmentation: Augmentation,
    *,
    rounds: int,
    epochs: int,
    seed: int,
    batch: int = 256,
    rate: float = 2e-3,
    on_drawn: Callable[[int, int], None] = lambda done, total: None,
    on_progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> None:
    """Train an aligner in place; it is left in evaluation mode and takes no further part in training.

    Args:
        aligner: untrained.
        sets: data sets to learn from; never validation data.
        augmentation: how drawings are disturbed besides being moved.
        rounds: moves a person.
        epochs: passes over all looks; 0 leaves it untrained: then it moves nothing.
        seed: of moves, disturbances and order.
        batch: looks a step.
        rate: peak learning rate.
        on_drawn: called with the moved drawings made so far and in all; the steps come after them.
        on_progress: called with step, steps in all and the loss, in units of the probe set's reach.
    """
    if not epochs:
        return
    looks, moves = _gather(MovedLooks(sets, rounds, augmentation, seed), on_drawn)
    torch.manual_seed(seed)
    aligner.train().requires_grad_(True)
    steps = epochs * max(1, len(looks) // batch)
    optimiser = torch.optim.AdamW(aligner.parameters(), rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    reach = torch.tensor(REACH)
    for step in range(steps):
        if step % (steps // epochs) == 0:
            order = torch.randperm(len(looks))
        chosen = order[torch.arange(step * batch, (step + 1) * batch) % len(order)]
        seen, target = _flip_half(looks[chosen], moves[chosen])
        loss = F.smooth_l1_loss(aligner(seen.float() / 255) / reach, target / reach, beta=0.5)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        on_progress(step + 1, steps, loss.item())
    aligner.eval().requires_grad_(False)


def _gather(made: MovedLooks, on_drawn: Callable[[int, int], None]) -> tuple[Tensor, Tensor]:
    """(n, 64, 64) uint8 looks and (n, 4) float32 moves, in the order of people and rounds."""
    loader = torch.utils.data.DataLoader(
        made,
        batch_size=None,
        num_workers=min(2, default_threads()),
        worker_init_fn=leave_to_parent,
        prefetch_factor=16,
    )
    items = []
    for looks, moves in loader:
        # Copied, for what a worker sends is a shared file that stays open: one each would be too many.
        items.append((looks.clone(), moves.clone()))
        on_drawn(len(items), len(made))
    return torch.cat([looks for looks, _ in items]), torch.cat([moves for _, moves in items])


def _flip_half(looks: Tensor, moves: Tensor) -> tuple[Tensor, Tensor]:
    """Every other look mirrored: its shift to the side and its turn change sign."""
    flip = torch.rand(len(looks)) < 0.5
    looks = torch.where(flip[:, None, None], looks.flip(2), looks)
    sign = torch.where(flip[:, None], torch.tensor([-1.0, 1.0, -1.0, 1.0]), torch.ones(4))
    return looks, moves * sign
