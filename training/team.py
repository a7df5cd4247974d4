"""Several processes that train one model, each on its share of every batch: torchrun starts them, torch joins them.

The loss is over the gathered batch: every process computes the whole of it from everybody's embeddings, and the
gradient of its own part. So it is the loss of one process on the whole batch, whatever the number of processes.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from indexer.errors import ConfigError
from training.hardware import training_device

T = TypeVar("T")

TIMEOUT: Final = timedelta(hours=1)
"""How long the others wait for the first process, which may be making drawings or training the aligner."""


@dataclass(frozen=True)
class Team:
    """The processes of a run, and this one's place among them.

    Args:
        device: this process computes on.
        rank: this process, from 0.
        size: processes in all.
        local_rank: this process among those of its machine.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def share(self, content: T) -> T:
        """What the first process has."""
        if self.size == 1:
            return content
        box = [content]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def any(self, claim: bool) -> bool:
        """Whether any process claims it; all must ask."""
        if self.size == 1:
            return claim
        votes = torch.tensor(int(claim), device=self.device)
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        return bool(votes)

    @contextmanager
    def first_on_each_machine(self) -> Iterator[None]:
        """The body runs in one process of every machine, then in the others: for files that all of them read."""
        if self.size > 1 and self.local_rank > 0:
            dist.barrier()
        yield
        if self.size > 1 and self.local_rank == 0:
            dist.barrier()

    def own(self, rows: int) -> slice:
        """This process's share of so many rows."""
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def gather(self, own: Tensor, rows: int) -> Tensor:
        """All rows of a batch from everybody's own; gradients reach the own ones."""
        return own if self.size == 1 else _Gather.apply(own, rows, self)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, whose gradients are averaged over the team as they are computed."""
        if self.size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, devices)

    def require_rows(self, batches: Sequence[int]) -> None:
        """Refuse batches of which some process would get nothing.

        Raises:
            ConfigError: one has fewer rows than there are processes.
        """
        if min(batches) < self.size:
            raise ConfigError(
                f"a batch of {min(batches)} pairs is too small for {self.size} processes; start fewer, or raise --batch"
            )


@contextmanager
def joined(device: str, timeout: timedelta = TIMEOUT) -> Iterator[Team]:
    """The team that torchrun started, joined by nccl on GPUs and gloo on CPUs; without torchrun a team of one.

    Args:
        device: auto, cpu or cuda.
        timeout: how long one process waits for another.

    Raises:
        ConfigError: the device is not there, for this process, or who started it did not say where the others meet.
    """
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield Team(training_device(device))
        return
    if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
        raise ConfigError(
            "RANK and WORLD_SIZE say that several processes train, MASTER_ADDR and MASTER_PORT do not say where they "
            "meet; start them with torchrun, or unset RANK and WORLD_SIZE to train alone"
        )
    rank, size, local_rank = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    chosen = training_device(device, local_rank)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", rank=rank, world_size=size, timeout=timeout)
    try:
        yield Team(chosen, rank, size, local_rank)
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """Concatenates everybody's rows. Everybody computes the same loss, so the own rows' gradient is whole as it is."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, rows: int, team: Team) -> Tensor:
        shares = [Team(team.device, rank, team.size).own(rows) for rank in range(team.size)]
        sizes = [share.stop - share.start for share in shares]
        # Shares may differ by one row, what is gathered may not.
        padded = own.new_zeros(max(sizes), *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in shares]
        dist.all_gather(parts, padded)
        ctx.own = team.own(rows)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][ctx.own], None, None
