"""Where training starts from: the shipped model gives what it gave, torchvision's weights see their own range."""

from pathlib import Path

import numpy as np
import pytest

from indexer.encoding import DEFAULT_MODEL, OnnxEncoder
from indexer.errors import ModelError

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")
import torchvision  # noqa: E402

from training.encoder.single_pass import SinglePassEncoder  # noqa: E402
from training.encoder.start import build_encoder, calibrate, weights_file  # noqa: E402
from training.encoder.trunk import inception_v3  # noqa: E402
from training.export import PARITY, export, parity  # noqa: E402


def test_training_starts_where_the_shipped_model_is() -> None:
    encoder = OnnxEncoder.open(DEFAULT_MODEL)
    model = build_encoder(encoder.dim, encoder.size_px, weights_file("default")).eval()
    assert parity(model, encoder) < PARITY
    rng = np.random.default_rng(1)
    photos = torch.from_numpy(rng.integers(0, 256, (2, 192, 192, 3), dtype=np.uint8))
    sketches = torch.from_numpy((rng.random((2, 192, 192)) < 0.1).astype(np.uint8) * 255)
    calibrate(model, photos, sketches, trained_heads=True)
    assert parity(model, encoder) < PARITY
    assert not torch.equal(model.norms[0].scale, torch.ones_like(model.norms[0].scale))


def test_a_model_of_another_dimension_is_refused() -> None:
    with pytest.raises(ModelError, match="has 16 numbers a region, the run asks for 8; use --dim 16"):
        build_encoder(8, 192, DEFAULT_MODEL)


def test_what_is_no_exported_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "torn.onnx").write_bytes(DEFAULT_MODEL.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be read as ONNX"):
        build_encoder(16, 192, tmp_path / "torn.onnx")
    with pytest.raises(ModelError, match="cannot be read as ONNX"):
        build_encoder(16, 192, tmp_path / "missing.onnx")


def test_a_model_without_our_heads_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ModelError, match="is no export of a run of `mgrl train`: it has no heads"):
        build_encoder(16, 192, tmp_path / "empty.onnx")


@pytest.mark.parametrize("content", [None, [1, 2], {"other": 1}, {"Conv2d_1a_3x3.conv.weight": 3}])
def test_pth_files_of_something_else_are_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "x.pth"
    path.touch() if content is None else torch.save(content, path)
    with pytest.raises(ModelError, match=r"does not hold Inception-V3 in torchvision's names: ."):
        inception_v3(path)


def test_an_untrained_export_is_read_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = SinglePassEncoder(dim=8).eval()
    export(model, tmp_path / "model.onnx")
    again = build_encoder(8, 192, tmp_path / "model.onnx").eval()
    assert parity(again, OnnxEncoder.open(tmp_path / "model.onnx")) < PARITY


def test_torchvisions_weights_see_the_range_they_were_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"Inception-V3 is not on this machine .*fetch it once with"):
        weights_file("imagenet")
    torch.manual_seed(0)
    network = torchvision.models.inception_v3(weights=None, init_weights=False, transform_input=False).eval()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    name = torchvision.models.Inception_V3_Weights.DEFAULT.url.rpartition("/")[2]
    torch.save(network.state_dict(), tmp_path / "hub" / "checkpoints" / name)
    path = weights_file("imagenet")
    assert path is not None
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        expected = network.Conv2d_2a_3x3(network.Conv2d_1a_3x3(2 * images - 1))
        ours = inception_v3(path)
        torch.testing.assert_close(ours.Conv2d_2a_3x3(ours.Conv2d_1a_3x3(images)), expected, rtol=1e-4, atol=1e-5)
