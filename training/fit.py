"""The training loop of the single-pass encoder: resumable, selected on validation."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from indexer.errors import ConfigError
from indexer.fusion import fused_distance
from indexer.regions import ink_mask
from training.align import fit_aligner
from training.batches import Augmentation, Batch, EpochBatches, PairSet, Pixels, batches_in
from training.data import split_hash
from training.encoder.single_pass import SinglePassEncoder
from training.encoder.start import build_encoder, calibrate
from training.encoder.trunk import STEM_LAYERS
from training.losses import in_batch_softmax
from training.metrics import score, target_ranks
from training.pairs import check_people
from training.resume import RunState, open_run, restore, save


@dataclass(frozen=True)
class FitConfig:
    """Everything that decides a training run.

    Args:
        dim: numbers in a region's embedding.
        size_px: side of the network's input.
        epochs: passes over the pairs.
        stem_epochs: last epochs in which the stem (Conv2d_1a to 4a) is trained, too.
        batch: pairs a step.
        trunk_rate: peak learning rate of the trunk.
        head_rate: peak learning rate of the heads.
        weight_decay: AdamW's.
        label_smoothing: share of the target spread over all photos.
        temperature: divides distances before the softmax.
        region_share: weight of the per-region terms.
        validate_every: epochs between validations.
        validate_stages: stages of T that a validation looks at.
        seed: of order, disturbances and initial heads.
        align_rounds: moved drawings of every person that the aligner learns from.
        align_epochs: its passes over them; 0 leaves the drawings where they are.
        augmentation: how drawings are disturbed.

    Raises:
        ConfigError: a number out of range.
    """

    dim: int = 16
    size_px: int = 192
    epochs: int = 20
    stem_epochs: int = 8
    batch: int = 64
    trunk_rate: float = 2e-4
    head_rate: float = 2e-3
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    temperature: float = 1 / 8
    region_share: float = 0.1
    validate_every: int = 5
    validate_stages: int = 10
    seed: int = 0
    align_rounds: int = 12
    align_epochs: int = 6
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("dim", "epochs", "batch", "validate_every", "validate_stages", "align_rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("stem_epochs", "seed", "align_epochs", "weight_decay", "region_share"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}")


@dataclass(frozen=True)
class Validation:
    """What a data set's drawings are ranked among in validation.

    Args:
        name: of the data set.
        probes: validation identities.
        distractors: (photos, size, size, 3) uint8, further gallery photos.
    """

    name: str
    probes: PairSet
    distractors: np.ndarray[Any, np.dtype[np.uint8]]


def fit(
    config: FitConfig,
    fit_sets: Sequence[PairSet],
    validations: Sequence[Validation],
    folder: Path,
    weights: Path | None,
    on_step: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    on_validation: Callable[[Sequence[dict[str, Any]]], None] = lambda history: None,
    on_align: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> Path:
    """Train, or go on after the last finished epoch of an earlier call with the same folder.

    Args:
        config: of the run.
        fit_sets: data sets to train on.
        validations: data sets to select on, people that `fit_sets` do not show; never test data.
        folder: `checkpoint.pt` is written there after every epoch, `best.pt` after the best validation.
        weights: to start from, as `training.encoder.start.build_encoder` takes them.
        on_step: called with step, steps in all and the loss.
        on_validation: called after each validation with the records of all so far, earlier calls' too.
        on_align: as `on_step`, while the aligner is trained, before the first step.

    Returns:
        `best.pt`: the weights with the best mean m@B over `validations`.

    Raises:
        DataError: no data set, one of a single pair, or people in both `fit_sets` and `validations`.
        ConfigError: the folder holds a run with another configuration or other data.
        ModelError: the weights or the folder's checkpoint cannot be read.
    """
    check_people([pairs.names for pairs in fit_sets], [validation.probes.names for validation in validations])
    checkpoint = folder / "checkpoint.pt"
    run = {"config": asdict(config), "data": _fingerprint(fit_sets, validations)}
    earlier = open_run(checkpoint, run)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    model = build_encoder(config.dim, config.size_px, weights)
    model.trunk.to(memory_format=torch.channels_last)
    steps_an_epoch = sum(batches_in(len(pairs), config.batch) for pairs in fit_sets)
    optimiser, schedule = _optimiser(config, model, steps_an_epoch)
    if earlier is not None:
        state = restore(earlier, model, optimiser, schedule)
    else:
        state = RunState()
        fit_aligner(
            model.aligner,
            fit_sets,
            config.augmentation,
            rounds=config.align_rounds,
            epochs=config.align_epochs,
            seed=config.seed,
            on_progress=on_align,
        )
        exported = weights is not None and weights.suffix == ".onnx"
        calibrate(model, *_sample(config, fit_sets), trained_heads=exported)
    for epoch in range(state.epoch, config.epochs):
        _train_stem(model, epoch >= config.epochs - config.stem_epochs)
        loader = torch.utils.data.DataLoader(
            EpochBatches(fit_sets, config.batch, config.augmentation, config.seed, epoch),
            batch_size=None,
            num_workers=1,
            prefetch_factor=4,
        )
        for step, batch in enumerate(loader):
            loss = _step(config, model, batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            on_step(epoch * steps_an_epoch + step + 1, config.epochs * steps_an_epoch, loss.item())
        state.epoch = epoch + 1
        if state.epoch % config.validate_every == 0 or state.epoch == config.epochs:
            _validate(config, model, validations, state, folder, on_validation)
        state.tick()
        save(
            checkpoint,
            {
                **run,
                "state": asdict(state),
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
            },
        )
    return folder / "best.pt"


def _fingerprint(fit_sets: Sequence[PairSet], validations: Sequence[Validation]) -> list[list[Any]]:
    """Which people a run sees in how many stages: a list [hash of the names, T] a data set."""
    sets = [*fit_sets, *(validation.probes for validation in validations)]
    return [[split_hash(pairs.names), pairs.episodes[0].stages] for pairs in sets]


def _optimiser(
    config: FitConfig, model: SinglePassEncoder, steps_an_epoch: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    groups = [
        {"params": list(model.trunk.parameters()), "lr": config.trunk_rate},
        {"params": list(model.heads.parameters()), "lr": config.head_rate},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        [config.trunk_rate, config.head_rate],
        total_steps=config.epochs * steps_an_epoch,
        pct_start=0.15,
    )
    return optimiser, schedule


def _train_stem(model: SinglePassEncoder, train: bool) -> None:
    for name in STEM_LAYERS:
        model.trunk.get_submodule(name).requires_grad_(train)


def _step(config: FitConfig, model: SinglePassEncoder, batch: Batch) -> Tensor:
    photos, probes = model(batch.photos, batch.sketches).split(len(batch.photos))
    return in_batch_softmax(probes, photos, batch.ink, config.temperature, config.label_smoothing, config.region_share)


def _sample(config: FitConfig, fit_sets: Sequence[PairSet]) -> tuple[Tensor, Tensor]:
    """Some photos and sketches of every data set, for the standardisation."""
    batches = []
    for pairs in fit_sets:
        size = min(config.batch, len(pairs))
        # The epoch after the last: a sample that no step sees.
        batches.append(next(iter(EpochBatches([pairs], size, config.augmentation, config.seed, config.epochs))))
    return torch.cat([batch.photos for batch in batches]), torch.cat([batch.sketches for batch in batches])


@torch.no_grad()
def embed_photos(model: SinglePassEncoder, photos: Pixels, batch: int = 64) -> npt.NDArray[np.float32]:
    """(n, size, size, 3) uint8 -> (n, 14, dim) float32."""
    none = torch.zeros(0, model.size_px, model.size_px, dtype=torch.uint8)
    parts = torch.from_numpy(photos).split(batch)
    return np.concatenate([model(part, none).numpy() for part in parts])


@torch.no_grad()
def embed_sketches(model: SinglePassEncoder, canvases: Pixels, batch: int = 64) -> npt.NDArray[np.float32]:
    """(n, size, size) uint8, ink bright on 0 -> (n, 14, dim) float32."""
    none = torch.zeros(0, model.size_px, model.size_px, 3, dtype=torch.uint8)
    parts = torch.from_numpy(canvases).split(batch)
    return np.concatenate([model(none, part).numpy() for part in parts])


def _validate(
    config: FitConfig,
    model: SinglePassEncoder,
    validations: Sequence[Validation],
    state: RunState,
    folder: Path,
    on_validation: Callable[[Sequence[dict[str, Any]]], None],
) -> None:
    state.tick()
    each = {validation.name: _m_at_b(config, model, validation) for validation in validations}
    record = {"epoch": state.epoch, "seconds": round(state.seconds), **each, "m_at_b": float(np.mean([*each.values()]))}
    state.history.append(record)
    on_validation(state.history)
    if record["m_at_b"] > state.best:
        state.best = record["m_at_b"]
        save(folder / "best.pt", {"config": asdict(config), "model": model.state_dict(), "history": state.history})


def _m_at_b(config: FitConfig, model: SinglePassEncoder, validation: Validation) -> float:
    probes = validation.probes
    gallery = embed_photos(model, np.concatenate([probes.photos, validation.distractors]))
    ranks = np.empty((len(probes), config.validate_stages), np.int64)
    for number, episode in enumerate(probes.episodes):
        stages = np.linspace(0, episode.stages - 1, config.validate_stages).round().astype(int)
        canvases = episode.canvases(config.size_px)[stages]
        rows = embed_sketches(model, canvases)
        distances = np.stack([fused_distance(r, gallery, ink) for r, ink in zip(rows, ink_mask(canvases), strict=True)])
        ranks[number] = target_ranks(distances, np.full(len(stages), number))
    return score(ranks, len(gallery)).m_at_b
