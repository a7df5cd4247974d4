"""Checkpoints of the training loop, read back as models."""

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


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What the training loop wrote: at least `config` and `model`.

    Raises:
        ModelError: no such file, or not one of ours.
    """
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
        if isinstance(content["config"], dict) and isinstance(content["model"], dict):
            return dict(content)
    # Unpickling foreign bytes raises almost anything: OSError, EOFError, UnpicklingError, RuntimeError, KeyError, ...
    except Exception as error:
        raise _foreign(path) from error
    raise _foreign(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read `best.pt` or `checkpoint.pt` of `mgrl train`.

    Raises:
        ModelError: no such file, or not one of ours.
    """
    content = read_checkpoint(path)
    try:
        model = SinglePassEncoder(content["config"]["dim"], content["config"]["size_px"])
        # Where the run averages its weights, the average is the model.
        model.load_state_dict(content.get("average") or content["model"])
    except (KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise _foreign(path) from error
    return Checkpoint(model.eval(), content["config"], content.get("history", []))


def _foreign(path: Path) -> ModelError:
    return ModelError(f"{path} is not a checkpoint of `mgrl train`; give its best.pt")
