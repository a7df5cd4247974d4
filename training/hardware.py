"""The device that training runs on, and the precision in which its trunk computes."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from indexer.errors import ConfigError


def training_device(name: str, local_rank: int = 0) -> torch.device:
    """The named device; for "auto" a GPU where torch has one.

    Args:
        name: auto, cpu or cuda.
        local_rank: number of this process on its machine; with GPUs each process has its own.

    Raises:
        ConfigError: CUDA was asked for and is not there, or has fewer GPUs than there are processes.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
        raise ConfigError(
            f"torch {torch.__version__}, built for {built}, finds no CUDA GPU on this machine; use --device cpu, or "
            "look whether nvidia-smi lists a GPU and its driver is as new"
        )
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU of its own: there are {torch.cuda.device_count()}; "
            "give torchrun as many with --nproc-per-node"
        )
    return torch.device("cuda", local_rank)


@dataclass(frozen=True)
class Precision:
    """What the trunk computes in; weights, embeddings and loss are float32 always.

    Args:
        device: that it runs on.
        dtype: of the trunk's activations.
    """

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, name: str, device: torch.device) -> "Precision":
        """One of `training.settings.PRECISIONS` on a device."""
        if name != "auto":
            dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
        elif device.type == "cpu":
            dtype = torch.float32
        else:
            dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return cls(device, dtype)

    def autocast(self) -> AbstractContextManager[object]:
        """In it the trunk computes in `dtype`."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps float16's small gradients from vanishing; does nothing for the others."""
        # From 2^10, not 2^16: steps whose gradients overflow are not taken, and the first of ours were among them.
        return torch.amp.GradScaler(self.device.type, init_scale=2.0**10, enabled=self.dtype == torch.float16)
