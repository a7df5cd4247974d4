"""Where encoding and search run.

On a GPU a search scans a copy of the rows (`indexer.device_scan`). FAISS's lists (`indexer.lists`) serve only where
torch is not installed: they read every region, inked or not, in float32, know no filter, and give at most 2048
proposals a granularity. On a large gallery these rarely prove a ranking, and the search then scans the float32 rows on
the CPU after all. The scan reads the inked regions alone, in half the bytes or less, takes filters, and leaves some ten
photos to rank.
"""

import importlib.util
from collections.abc import Sequence
from typing import Final

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
    import onnxruntime

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
