import faiss
import onnxruntime
import pytest

from indexer.device import choose_device


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_a_named_device_is_taken(name: str) -> None:
    assert choose_device(name) == name


@pytest.mark.parametrize(
    ("gpus", "providers", "device"),
    [
        (1, ["CUDAExecutionProvider", "CPUExecutionProvider"], "cuda"),
        (1, ["CPUExecutionProvider"], "cpu"),
        (0, ["CUDAExecutionProvider", "CPUExecutionProvider"], "cpu"),
    ],
)
def test_auto_takes_a_gpu_that_both_libraries_see(
    gpus: int, providers: list[str], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: gpus, raising=False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    assert choose_device("auto") == device


def test_auto_without_faiss_gpu_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    assert choose_device("auto") == "cpu"
