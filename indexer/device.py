"""Where encoding and search run.

On a GPU a search scans a copy of the rows (`indexer.device_scan`). FAISS's lists (`indexer.lists`) serve only where
torch is not installed: they read every region, inked or not, in float32, know no filter, and give at most 2048
proposals a granularity. On a large gallery these rarely prove a ranking, and the search then scans the float32 rows on
the CPU after all. The scan reads the inked regions alone, in half the bytes or less, takes filters, and leaves some ten
photos to rank.
"""

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from indexer.arrangement import Vectors

if TYPE_CHECKING:
    from indexer.device_scan import DeviceScan
    from indexer.fused import FusedScan

DEVICES: Final = ("auto", "cpu", "cuda")
"""What a command's --device takes; `auto` is the GPU where both the encoder and a search can use it."""


def choose_device(name: str) -> str:
    """The named device, "cpu" or "cuda"; for "auto" the better one at hand.

    A named device is not checked here: opening an encoder or a gallery on it says what is missing.
    """
    if name != "auto":
        return name
    return "cuda" if _gpu_is_usable() else "cpu"


def _gpu_is_usable() -> bool:
    from indexer.runtime import onnxruntime

    # First, because it costs nothing: only where it has CUDA is torch worth the seconds of its import.
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return False
    import faiss

    # faiss-gpu counts devices; faiss-cpu has no such resources, whatever the machine has.
    return bool(torch_gpus()) or (hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0)


def torch_gpus() -> Sequence[str]:
    """The GPUs that torch can use, by its names; none where it is not installed, which is no error."""
    if importlib.util.find_spec("torch") is None:
        return ()
    from indexer.device_rows import gpus

    return gpus()


def build_scan(
    photos: int, vectors: Vectors, threads: int | None, shards: Sequence[str], precision: str | None
) -> "FusedScan | DeviceScan | None":
    """The scan of a large gallery, by torch on the devices named, or compiled for the CPU; None where numba is missing.

    Either is imported only now, so that small galleries never load it.

    Raises:
        ConfigError: a device cannot be used or has no room.
    """
    if shards:
        from indexer.device_scan import DeviceScan

        return DeviceScan.build(photos, vectors, shards, precision)
    compiled = compiled_scan()
    return None if compiled is None else compiled.build(photos, vectors, threads)


def compiled_scan() -> "type[FusedScan] | None":
    """The scan of `indexer.fused`, imported only now, so that small galleries never load numba; None without it."""
    if importlib.util.find_spec("numba") is None:
        return None
    from indexer.fused import FusedScan

    return FusedScan
