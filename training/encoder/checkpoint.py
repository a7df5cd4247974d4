"""Checkpoints of the training loop, read back as models."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from indexer.errors import ModelError
from training.encoder.single_pass import SinglePassEncoder


@dataclass(frozen=True)
class Checkpoint:
    """A trained encoder with the record of its training.

    Args:
        model: in evaluation mode.
        config: the `FitConfig` it was trained with, as plain values.
        history: one record a validation.
    """

    model: SinglePassEncoder
    config: dict[str, Any]
    history: list[dict[str, Any]]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read `best.pt` or `checkpoint.pt` of `mgrl train`.

    Raises:
        ModelError: no such file, or not one of ours.
    """
    try:
        content = torch.load(path, weights_only=True)
        config, state = content["config"], content["model"]
        model = SinglePassEncoder(config["dim"], config["size_px"])
        model.load_state_dict(state)
    except (OSError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path} is not a checkpoint of `mgrl train`; give its best.pt") from error
    return Checkpoint(model.eval(), config, content.get("history", []))
