"""The training loop of the single-pass encoder: it can be stopped at any step, and is selected on validation."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from indexer.errors import ConfigError, DataError
from training.align import fit_aligner
from training.average import WeightAverage
from training.batches import Batch, EpochBatches, PairSet, batch_sizes
from training.data import split_hash
from training.encoder.single_pass import SPREADS, SinglePassEncoder
from training.encoder.start import build_encoder, calibrate, weights_name
from training.hardware import Precision
from training.losses import in_batch_softmax
from training.pairs import check_people
from training.resume import RunState, Stateful, open_run, require_room, restore, save
from training.schedule import one_cycle, set_stem, trains_stem
from training.settings import FitConfig, Setup
from training.stopping import leave_to_parent
from training.team import Team
from training.validate import Validation, validate


class Watcher:
    """What a caller sees of a run, and how it stops one; a subclass overrides what it wants.

    Of a team only the first process's watcher is told anything; each is asked.
    """

    def moved(self, done: int, total: int) -> None:
        """A drawing, moved, that the aligner will learn from: so many of so many."""

    def aligned(self, step: int, steps: int, loss: float) -> None:
        """A step of the aligner, which is trained before the first step."""

    def stepped(self, step: int, steps: int, loss: float, rates: Sequence[float]) -> None:
        """A step of so many in all, its loss, and the learning rates of trunk and heads."""

    def validated(self, history: Sequence[Mapping[str, Any]], step: int) -> None:
        """A validation after so many steps: the records of all so far, earlier calls' too."""

    def should_stop(self) -> bool:
        """Asked after every step; at True the run is saved and ends."""
        return False


def fit(
    config: FitConfig,
    fit_sets: Sequence[PairSet],
    validations: Sequence[Validation],
    folder: Path,
    weights: Path | None,
    watcher: Watcher | None = None,
    setup: Setup | None = None,
    team: Team | None = None,
) -> Path | None:
    """Train, or go on after the last checkpoint of an earlier call with the same folder.

    Args:
        config: of the run.
        fit_sets: data sets to train on.
        validations: data sets to select on, people that `fit_sets` do not show; never test data.
        folder: `checkpoint.pt` is written there every few minutes, `best.pt` after the best validation.
        weights: to start from, as `training.encoder.start.build_encoder` takes them.
        watcher: sees every step and may stop the run.
        setup: how the run is computed; the device is the team's.
        team: the processes that train together, all with the same arguments; alone by default.

    Returns:
        `best.pt`: the weights with the best mean m@B over `validations`. None when the watcher stopped the run.

    Raises:
        DataError: the data cannot be trained on (see `check_people`), a checkpoint cannot be written, or the best one
            of a run that has ended is gone.
        ConfigError: the folder holds a run with another configuration, other data or other weights to start from, a
            batch is too small to share, or the rates are so high that the loss is no number.
        ModelError: the weights or the folder's checkpoint cannot be read.
    """
    check_people([pairs.names for pairs in fit_sets], [validation.probes.names for validation in validations])
    run = Run(config, fit_sets, folder, setup or Setup(), team or Team(torch.device("cpu")), watcher or Watcher())
    identity = {"config": asdict(config), "data": _fingerprint(fit_sets, validations), "weights": weights_name(weights)}
    run.begin(weights, identity)
    while run.state.epoch < config.epochs and not (config.patience and run.state.without_gain() >= config.patience):
        if not run.train_epoch():
            return None
        if run.state.epoch % config.validate_every == 0 or run.state.epoch == config.epochs:
            run.validate(validations)
        run.save()
    if run.team.is_first and not run.best.exists():
        raise DataError(
            f"{run.best} is gone, and this run has ended: put it back, or take the weights of the last step instead "
            f"(mgrl export {folder / 'checkpoint.pt'} model.onnx)"
        )
    return run.best


class Run:
    """A run between two steps: the model, what trains it, and how far it is.

    Args:
        config: of the run.
        fit_sets: data sets to train on.
        folder: of the checkpoints.
        setup: workers, precision, minutes between checkpoints.
        team: the processes that train together.
        watcher: sees every step.
    """

    state: RunState
    model: SinglePassEncoder

    def __init__(
        self,
        config: FitConfig,
        fit_sets: Sequence[PairSet],
        folder: Path,
        setup: Setup,
        team: Team,
        watcher: Watcher,
    ) -> None:
        self.config, self.setup, self.team, self.watcher = config, setup, team, watcher
        self._fit_sets, self._folder, self.best = fit_sets, folder, folder / "best.pt"
        self._sizes = [size for pairs in fit_sets for size in batch_sizes(len(pairs), config.batch)]
        self._precision = Precision.choose(setup.precision, team.device)
        self._saved_at = time.monotonic()

    def begin(self, weights: Path | None, identity: Mapping[str, Any]) -> None:
        """Build everything, from the folder's checkpoint where there is one; `identity` is what must not change."""
        config, team = self.config, self.team
        team.require_rows(self._sizes)
        self._identity = identity
        earlier = team.share(open_run(self._folder / "checkpoint.pt", identity) if team.is_first else None)
        torch.manual_seed(config.seed)
        self.model = build_encoder(config.dim, config.size_px, None if earlier else weights)
        if team.is_first:
            self._folder.mkdir(parents=True, exist_ok=True)
            require_room(self._folder, sum(parameter.numel() for parameter in self.model.parameters()))
        if earlier is None:
            self._prepare(exported=weights is not None and weights.suffix == ".onnx")
        self.model.to(team.device)
        self.model.trunk.to(memory_format=torch.channels_last)
        self._average = WeightAverage(self.model, config.ema) if config.ema else None
        self._optimiser, self._schedule = one_cycle(config, self.model, config.epochs * len(self._sizes))
        self._scaler = self._precision.scaler()
        self.state = RunState() if earlier is None else restore(earlier, self._parts())
        if earlier is None:
            self.save()  # the aligner takes minutes

    def _prepare(self, *, exported: bool) -> None:
        """Train the aligner and set the standardisation in one process, for all."""
        if self.team.is_first:
            fit_aligner(
                self.model.aligner,
                self._fit_sets,
                self.config.augmentation,
                rounds=self.config.align_rounds,
                epochs=self.config.align_epochs,
                seed=self.config.seed,
                on_drawn=self.watcher.moved,
                on_progress=self.watcher.aligned,
            )
            calibrate(self.model, *_sample(self.config, self._fit_sets), trained_heads=exported)
        self.model.load_state_dict(self.team.share(self.model.state_dict()))

    def train_epoch(self) -> bool:
        """The rest of the epoch; False when the watcher stopped it."""
        state, steps = self.state, self.config.epochs * len(self._sizes)
        set_stem(self.model.trunk, trains_stem(self.config, state.epoch))
        wrapped = self.team.wrap(self.model)  # anew, for what is trained has changed
        batches = EpochBatches(
            self._fit_sets, self.config.batch, self.config.augmentation, self.config.seed, state.epoch, self.team.own
        )
        for index, batch in zip(range(state.step, len(batches)), self._load(batches, state.step), strict=True):
            loss = self._step(wrapped, batch.to(self.team.device), batches.rows(index))
            state.step += 1
            done = state.epoch * len(batches) + state.step
            # In float16 a batch may overflow: its step is not taken.
            if not math.isfinite(loss) and not self._scaler.is_enabled():
                raise ConfigError(
                    f"at step {done} the loss is {loss}: the weights have run away; train anew in another folder with "
                    "a lower --trunk-rate and --head-rate"
                )
            if self._average:
                self._average.update(self.model, done)
            if self.team.is_first:
                self.watcher.stepped(done, steps, loss, [float(rate) for rate in self._schedule.get_last_lr()])
            if self.team.any(self.watcher.should_stop()):
                self.save()
                return False
            if time.monotonic() - self._saved_at >= 60 * self.setup.checkpoint_minutes:
                self.save()
        state.epoch, state.step = state.epoch + 1, 0
        return True

    def _load(self, batches: EpochBatches, start: int) -> "torch.utils.data.DataLoader[Batch]":
        workers = self.setup.workers
        return torch.utils.data.DataLoader(
            batches,
            batch_size=None,
            sampler=range(start, len(batches)),
            num_workers=workers,
            worker_init_fn=leave_to_parent,
            prefetch_factor=4 if workers else None,
            pin_memory=self.team.device.type == "cuda",
        )

    def _step(self, wrapped: nn.Module, batch: Batch, rows: int) -> float:
        config, team = self.config, self.team
        with self._precision.autocast():
            own = wrapped(batch.photos, batch.sketches).view(2, len(batch.photos), -1, config.dim)
        both = team.gather(own.transpose(0, 1), rows)
        ink = team.gather(batch.ink.float(), rows) > 0
        how = config.temperature, config.label_smoothing, config.region_share
        loss: Tensor = in_batch_softmax(both[:, 1], both[:, 0], ink, *how, SPREADS)
        self._optimiser.zero_grad(set_to_none=True)
        # The team averages gradients, and each process's is that of its own rows alone: their sum is wanted.
        self._scaler.scale(loss * team.size).backward()
        self._scaler.unscale_(self._optimiser)
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        scale = self._scaler.get_scale()
        self._scaler.step(self._optimiser)
        self._scaler.update()
        if self._scaler.get_scale() >= scale:  # else a gradient was no number, and the step was not taken
            self._schedule.step()
        return loss.item()

    def validate(self, validations: Sequence[Validation]) -> None:
        """Add a record to the history, and keep the weights in `best` if they are the best so far."""
        self.state.tick()
        if self.team.is_first:
            model = cast(SinglePassEncoder, self._average.model if self._average else self.model)
            scores = {item.name: validate(model, item, self.config.validate_stages) for item in validations}
            record: dict[str, Any] = {
                "epoch": self.state.epoch,
                "seconds": round(self.state.seconds),
                **{name: found.m_at_b for name, found in scores.items()},
                "m_at_b": float(np.mean([found.m_at_b for found in scores.values()])),
                "m_at_a": {name: found.m_at_a for name, found in scores.items()},
                "w_m_at_b": {name: found.w_m_at_b for name, found in scores.items()},
            }
            self.state.history.append(record)
            self.watcher.validated(self.state.history, self.state.epoch * len(self._sizes))
            # Where somebody took the file away, these are the best weights that are left.
            if record["m_at_b"] > self.state.best or not self.best.exists():
                self.state.best = record["m_at_b"]
                content = {"config": asdict(self.config), "model": model.state_dict(), "history": self.state.history}
                save(self.best, content)
        self.state.history, self.state.best = self.team.share((self.state.history, self.state.best))

    def save(self) -> None:
        """Write the checkpoint; only the first process does."""
        self.state.tick()
        self._saved_at = time.monotonic()
        if self.team.is_first:
            parts = {name: part.state_dict() for name, part in self._parts().items()}
            save(self._folder / "checkpoint.pt", {**self._identity, "state": asdict(self.state), **parts})

    def _parts(self) -> dict[str, Stateful]:
        parts: dict[str, Any] = {"model": self.model, "optimiser": self._optimiser, "schedule": self._schedule}
        parts["scaler"] = self._scaler
        return {**parts, "average": self._average.model} if self._average else parts


def _fingerprint(fit_sets: Sequence[PairSet], validations: Sequence[Validation]) -> list[list[Any]]:
    """Which people a run sees in how many stages: a list [hash of the names, T] a data set."""
    sets = [*fit_sets, *(validation.probes for validation in validations)]
    return [[split_hash(pairs.names), pairs.episodes[0].stages] for pairs in sets]


def _sample(config: FitConfig, fit_sets: Sequence[PairSet]) -> tuple[Tensor, Tensor]:
    """Some photos and sketches of every data set, for the standardisation."""
    batches = []
    for pairs in fit_sets:
        size = min(config.batch, len(pairs))
        # The epoch after the last: a sample that no step sees.
        batches.append(EpochBatches([pairs], size, config.augmentation, config.seed, config.epochs)[0])
    return torch.cat([batch.photos for batch in batches]), torch.cat([batch.sketches for batch in batches])
