"""Where encoding and search run."""

from typing import Final

DEVICES: Final = ("auto", "cpu", "cuda")
"""What a command's --device takes; `auto` is the GPU where there is one that both libraries can use."""


def choose_device(name: str) -> str:
    """The named device, "cpu" or "cuda"; for "auto" the better one at hand.

    A named device is not checked here: opening an encoder or a gallery on it says what is missing.
    """
    if name != "auto":
        return name
    return "cuda" if _gpu_is_usable() else "cpu"


def _gpu_is_usable() -> bool:
    import faiss
    import onnxruntime

    # faiss-gpu counts devices; faiss-cpu has no such resources, whatever the machine has.
    in_faiss = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
    return in_faiss and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
