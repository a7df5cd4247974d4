"""What decides a training run, and how it is computed. Without torch: `mgrl train --help` shows these defaults."""

import math
from dataclasses import dataclass, field
from typing import Final

from indexer.encoding import default_threads
from indexer.errors import ConfigError

PRECISIONS: Final = ("auto", "float32", "bfloat16", "float16")
"""What the trunk computes in; `auto` is float32 on a CPU, and on a GPU bfloat16 or, on an old one, float16."""


@dataclass(frozen=True)
class Augmentation:
    """How drawings and photos are disturbed in training; shares are probabilities.

    Args:
        moved_share: drawings moved as far as in the robustness set `moved`; the others by a sixth of that.
        thinned_share: drawings of which a random part of the strokes is missing.
        wobbly_share: drawings with a shaky hand.
        scan_share: finished sketches shown as the scanned picture and not as strokes.
        grey_share: photos without colour.

    Raises:
        ConfigError: a share outside 0..1.
    """

    moved_share: float = 0.4
    thinned_share: float = 0.15
    wobbly_share: float = 0.15
    scan_share: float = 0.06
    grey_share: float = 0.15

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} must be a share from 0 to 1, got {share}")


@dataclass(frozen=True)
class FitConfig:
    """Everything that decides a training run.

    Args:
        dim: numbers in a region's embedding.
        size_px: side of the network's input.
        epochs: passes over the pairs.
        stem_epochs: last epochs in which the stem (Conv2d_1a to 4a) is trained, too.
        batch: pairs a step, of all processes together.
        trunk_rate: peak learning rate of the trunk.
        head_rate: peak learning rate of the heads.
        weight_decay: AdamW's.
        label_smoothing: share of the target spread over all photos.
        temperature: divides distances before the softmax.
        region_share: weight of the per-region terms.
        validate_every: epochs between validations.
        validate_stages: stages of T that a validation looks at.
        patience: validations without improvement after which training ends early; 0 trains to the last epoch.
        ema: share that an average of the weights keeps of itself at every step, such as 0.999; it is what is
            validated and exported. 0 uses the weights as they are.
        seed: of order, disturbances and initial heads.
        align_rounds: moved drawings of every person that the aligner learns from.
        align_epochs: its passes over them; 0 leaves the drawings where they are.
        augmentation: how drawings are disturbed.

    Raises:
        ConfigError: a number out of range.
    """

    dim: int = 16
    size_px: int = 192
    epochs: int = 16
    stem_epochs: int = 6
    batch: int = 64
    trunk_rate: float = 2e-4
    head_rate: float = 2e-3
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    temperature: float = 1 / 20
    region_share: float = 0.1
    validate_every: int = 4
    validate_stages: int = 10
    patience: int = 0
    ema: float = 0.0
    seed: int = 0
    align_rounds: int = 12
    align_epochs: int = 6
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("dim", "epochs", "batch", "validate_every", "validate_stages", "align_rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        no_less = ("stem_epochs", "seed", "align_epochs", "patience", "weight_decay", "region_share")
        for name in (*no_less, "trunk_rate", "head_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.seed >= 2**64:
            raise ConfigError(f"seed must be below 2**64, got {self.seed}")
        if self.batch < 2:
            raise ConfigError("batch must be at least 2, got 1: a sketch alone in it has nobody to be told from")
        if self.dim < 2:
            raise ConfigError("dim must be at least 2, got 1: of most rows one number is the same for all photos")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema must be 0 or a share below 1 such as 0.999, got {self.ema}")


@dataclass(frozen=True)
class Setup:
    """How a run is computed: it may be gone on with by another setup, and learns the same but for rounding.

    Args:
        device: auto, cpu or cuda.
        precision: one of `PRECISIONS`.
        workers: processes that draw the batches; 0 draws them in the training process.
        checkpoint_minutes: between checkpoints within an epoch; there is one at its end, too.

    Raises:
        ConfigError: out of range, or more workers than there are cores for this process.
    """

    device: str = "cpu"
    precision: str = "auto"
    workers: int = 1
    checkpoint_minutes: float = 5.0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        cores = default_threads()
        if not 0 <= self.workers <= cores:
            raise ConfigError(f"workers must be from 0 to {cores}, the cores this process may use, got {self.workers}")
        if not self.checkpoint_minutes >= 0:
            raise ConfigError(f"checkpoint_minutes must be 0 (after every step) or more, got {self.checkpoint_minutes}")
