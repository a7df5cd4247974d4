import faiss
import onnxruntime
import pytest

from indexer.device import choose_device, torch_gpus


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed here; a test that wants torch's GPUs says so."""
    monkeypatch.setattr("indexer.device.torch_gpus", lambda: ())


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


@pytest.mark.parametrize(("provider", "device"), [("CUDAExecutionProvider", "cuda"), ("CPUExecutionProvider", "cpu")])
def test_auto_takes_a_gpu_that_torch_and_the_encoder_see(
    provider: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    monkeypatch.setattr("indexer.device.torch_gpus", lambda: ["cuda:0"])
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [provider])
    assert choose_device("auto") == device


def test_without_torch_it_sees_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert torch_gpus() == ()
