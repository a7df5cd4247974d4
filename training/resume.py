"""What a training run keeps so that it can be stopped at any moment and go on as if it had not been."""

import io
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from indexer.errors import ConfigError, DataError, ModelError
from training.encoder.checkpoint import read_checkpoint


class Stateful(Protocol):
    """A model, an optimiser, a schedule, a scaler."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


@dataclass
class RunState:
    """How far a run is.

    Args:
        epoch: epochs done.
        step: steps done in the epoch after them.
        best: the best mean m@B of a validation so far.
        seconds: time spent, earlier calls' too, up to `since`.
        history: one record a validation.
        since: `time.monotonic` at the last `tick`.
    """

    epoch: int = 0
    step: int = 0
    best: float = -1.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        """Count the time since the last tick."""
        now = time.monotonic()
        self.seconds, self.since = self.seconds + now - self.since, now

    def without_gain(self) -> int:
        """Validations since the best one."""
        best = next((n for n, record in enumerate(self.history) if record["m_at_b"] >= self.best), 0)
        return max(0, len(self.history) - 1 - best)


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint: the old one stays whole until the new one is.

    Raises:
        DataError: it cannot be written, as on a full disk.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    scratch = path.with_suffix(".tmp")
    try:
        with scratch.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        kept = "; the one before is whole, and the same command goes on from it" if path.exists() else ""
        raise _no_room(path, buffer.tell(), error.strerror or str(error), kept) from error


def require_room(folder: Path, parameters: int) -> None:
    """Refuse a disk that cannot hold a run's checkpoints, before the run.

    Args:
        folder: of the run.
        parameters: of the model, in float32; the optimiser keeps two more numbers for each, an average one.

    Raises:
        DataError: less is free than both checkpoints take while one is replaced.
    """
    needed = 4 * parameters * (5 + 2 + 5)
    if shutil.disk_usage(folder).free < needed:
        raise _no_room(folder, needed, "No space left on device", "")


def _no_room(path: Path, needed: int, why: str, kept: str) -> DataError:
    free = shutil.disk_usage(path.parent).free
    return DataError(
        f"cannot write {path}: {why}; it takes {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free: free some on "
        f"that disk, or use another folder{kept}"
    )


def open_run(path: Path, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """The checkpoint of an earlier call of this very run; None where there is none.

    Args:
        path: `checkpoint.pt`.
        run: this call's `config`, `data` and `weights`.

    Raises:
        ConfigError: the checkpoint is of a run with other settings, other data or another start.
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
    # Checkpoints of earlier versions do not say where they began.
    if (began := content.get("weights", run["weights"])) != run["weights"]:
        raise ConfigError(
            f"{path.parent} holds a run that began from other weights ({began} there, {run['weights']} now); name "
            "those with --weights, or use another folder"
        )
    return content


def restore(
    content: Mapping[str, Any],
    parts: Mapping[str, Stateful],
) -> RunState:
    """How far the run was; the model and whatever else has a state become as they were then.

    Raises:
        ModelError: the checkpoint lacks one of them, or holds another's.
    """
    try:
        for name, part in parts.items():
            part.load_state_dict(content[name])
        state = RunState(**content["state"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        why = " ".join(str(error).split())[:200]
        raise ModelError(
            f"checkpoint.pt was written by another version or network ({why}); remove it to train anew, or use "
            "another folder"
        ) from error
    state.since = time.monotonic()
    return state
