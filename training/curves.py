"""A run's curves for TensorBoard: loss, learning rates, validation metrics, seconds."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_EVERY: Final = 10
"""Steps between two points of the loss."""


def tensorboard_is_there() -> bool:
    """Whether the `tensorboard` package is installed; the `train` extra brings it."""
    return find_spec("tensorboard") is not None


class Curves:
    """Points in event files; a run that is gone on with drops the points after the checkpoint it went back to.

    Args:
        folder: of the event files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._losses: list[float] = []

    def stepped(self, step: int, steps: int, loss: float, rates: Sequence[float]) -> None:
        """A step, counted from 1: every tenth is a point, its loss the mean of those since the last."""
        self._losses.append(loss)
        if step % _EVERY and step != steps:
            return
        writer = self._open(step - len(self._losses) + 1)
        writer.add_scalar("loss", sum(self._losses) / len(self._losses), step)
        self._losses.clear()
        for name, rate in zip(("trunk", "heads"), rates, strict=True):
            writer.add_scalar(f"rate/{name}", rate, step)

    def validated(self, record: Mapping[str, Any], step: int) -> None:
        """The record of a validation after so many steps."""
        writer = self._open(step)
        writer.add_scalar("seconds", record["seconds"], step)
        writer.add_scalar("validation/m_at_b", record["m_at_b"], step)
        for name in record["m_at_a"]:
            writer.add_scalar(f"{name}/m_at_a", record["m_at_a"][name], step)
            writer.add_scalar(f"{name}/m_at_b", record[name], step)
            writer.add_scalar(f"{name}/w_m_at_b", record["w_m_at_b"][name], step)
        writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()

    def _open(self, first_step: int) -> "SummaryWriter":
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=first_step)
        return self._writer
