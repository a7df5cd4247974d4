"""What a training run keeps so that it can be stopped at any moment and go on as if it had not been."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from indexer.errors import ConfigError, ModelError
from training.encoder.checkpoint import read_checkpoint
from training.encoder.single_pass import SinglePassEncoder


@dataclass
class RunState:
    """How far a run is.

    Args:
        epoch: epochs done.
        best: the best mean m@B of a validation so far.
        seconds: time spent, earlier calls' too, up to `since`.
        history: one record a validation.
        since: `time.monotonic` at the last `tick`.
    """

    epoch: int = 0
    best: float = -1.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        """Count the time since the last tick."""
        now = time.monotonic()
        self.seconds, self.since = self.seconds + now - self.since, now


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint: the old one stays whole until the new one is."""
    scratch = path.with_suffix(".tmp")
    torch.save(content, scratch)
    scratch.replace(path)


def open_run(path: Path, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """The checkpoint of an earlier call of this very run; None where there is none.

    Args:
        path: `checkpoint.pt`.
        run: this call's `config` and `data`.

    Raises:
        ConfigError: the checkpoint is of a run with other settings or other data.
        ModelError: it cannot be read.
    """
    if not path.exists():
        return None
    try:
        content = read_checkpoint(path)
    except ModelError as error:
        raise ModelError(f"{path} is torn or foreign; remove it to train anew, or use another folder") from error
    there, now = content["config"], run["config"]
    if changed := [f"{name} {there.get(name)} there, {now[name]} now" for name in now if there.get(name) != now[name]]:
        raise ConfigError(
            f"{path.parent} holds a run with other settings ({'; '.join(changed)}); repeat them, or use another folder"
        )
    if content.get("data", run["data"]) != run["data"]:
        raise ConfigError(
            f"{path.parent} holds a run on other people or stages; repeat its data, or use another folder"
        )
    return content


def restore(
    content: Mapping[str, Any],
    model: SinglePassEncoder,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> RunState:
    """How far the run was; model, optimiser and schedule become as they were then."""
    model.load_state_dict(content["model"])
    optimiser.load_state_dict(content["optimiser"])
    schedule.load_state_dict(content["schedule"])
    state = RunState(**content["state"])
    state.since = time.monotonic()
    return state
