"""Every system as one ONNX graph: it says what the cached features and the head say, and it is served as any other."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")

from indexer.encoding import OnnxEncoder, stack_photos  # noqa: E402
from indexer.errors import ModelError  # noqa: E402
from indexer.exact import exact_search  # noqa: E402
from indexer.gallery import Gallery  # noqa: E402
from indexer.regions import REGIONS, ink_mask  # noqa: E402
from indexer.sketch import ink_on_black, square  # noqa: E402
from service.cli import main  # noqa: E402
from tests.service.conftest import serving  # noqa: E402
from tests.training.small_layers import SmallLayers  # noqa: E402
from training.data import open_image, read_split  # noqa: E402
from training.encoder.layers import CropLayers  # noqa: E402
from training.encoder.system import SystemEncoder, ink_regions  # noqa: E402
from training.export import export  # noqa: E402
from training.features import CropFeatures, in_batches  # noqa: E402
from training.frozen import People  # noqa: E402
from training.loop import in_chunks  # noqa: E402
from training.systems import SYSTEMS  # noqa: E402
from training.trained import keep_trained, read_trained, system_encoder, trained_network  # noqa: E402
from training.workshop import Workshop  # noqa: E402


def images(side: int, seed: int = 0) -> "tuple[np.ndarray, np.ndarray]":  # type: ignore[type-arg]
    """Three photos and two canvases, one of them with ink in its upper left only."""
    rng = np.random.default_rng(seed)
    photos = rng.integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    canvases = ((rng.random((2, side, side)) < 0.2) * 255).astype(np.uint8)
    canvases[0, side // 3 :], canvases[0, :, side // 3 :] = 0, 0
    return photos, canvases


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SYSTEMS))
def test_every_system_is_exported_as_a_region_encoder(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers, network = SmallLayers(), SYSTEMS[name].build(8).eval()
    path = tmp_path / "model.onnx"
    export(SystemEncoder(layers, network).eval(), path)  # checks itself against PyTorch
    encoder = OnnxEncoder.open(path)
    assert (encoder.dim, encoder.size_px) == (8, 60)
    photos, canvases = images(60)
    with torch.no_grad():
        shown = torch.from_numpy(photos).permute(0, 3, 1, 2) / 255
        by_hand = network.photos(layers(shown, torch.ones(3, REGIONS), network.reads))
        paper = torch.from_numpy(255 - canvases)[:, None].expand(-1, 3, -1, -1) / 255
        drawn = network.sketches(layers(paper, torch.from_numpy(ink_mask(canvases)), network.reads))
    np.testing.assert_allclose(encoder.encode_photos(photos), by_hand.numpy(), atol=1e-4)
    for count in (1, 2):  # another batch than the one it was exported with
        np.testing.assert_allclose(encoder.encode_sketches(canvases[:count]), drawn[:count].numpy(), atol=1e-4)


def test_ink_is_what_the_service_says_it_is() -> None:
    rng = np.random.default_rng(3)
    for share in (0.0003, 0.001, 0.003, 0.05):
        canvases = (rng.integers(0, 256, (8, 300, 300)) * (rng.random((8, 300, 300)) < share)).astype(np.uint8)
        found = ink_regions(torch.from_numpy(canvases).float()).numpy()
        np.testing.assert_array_equal(found, ink_mask(canvases))
    assert found.mean() > 0


@pytest.mark.slow
def test_the_graph_of_fourteen_crops_says_what_the_cached_features_say(tmp_path: Path) -> None:
    torch.manual_seed(0)
    features = CropFeatures(None)
    torch.manual_seed(0)
    layers = CropLayers(None).eval()
    network = SYSTEMS["mgrl-as-released"].build(16).eval()
    export(SystemEncoder(layers, network).eval(), tmp_path / "mgrl.onnx", check_images=1)
    encoder = OnnxEncoder.open(tmp_path / "mgrl.onnx")
    assert (tmp_path / "mgrl.onnx").stat().st_size < 130 << 20  # every weight once
    photos, canvases = images(300)
    with torch.no_grad():
        by_cache = in_chunks(network.photos, features.run(photos[:1], np.ones((1, REGIONS), bool)))
        ((paper, ink),) = in_batches([lambda: canvases], 2, is_sketch=True)(0)
        drawn = in_chunks(network.sketches, features.run(paper, ink))
    np.testing.assert_allclose(encoder.encode_photos(photos[:1]), by_cache.numpy(), atol=5e-3)
    np.testing.assert_allclose(encoder.encode_sketches(canvases), drawn.numpy(), atol=5e-3)


@pytest.mark.slow
@pytest.mark.e2e
def test_a_baseline_is_exported_ingested_served_and_queried(
    tiny_fs2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    keep_trained(tmp_path / "b2.pt", "b2", SYSTEMS["b2"].build(16), "crops-2-random")
    model, gallery, photos = tmp_path / "b2.onnx", tmp_path / "people", tiny_fs2k / "photo" / "photo1"
    assert main(["export", str(tmp_path / "b2.pt"), str(model)]) == 0
    assert "16-d, 300 px" in capsys.readouterr().out
    ingested = main(["ingest", str(gallery), str(photos), "--model", str(model), "--crop", "none"])
    assert ingested == 0
    sketch = tiny_fs2k / "sketch" / "sketch1" / "sketch0003.jpg"
    encoder = OnnxEncoder.open(model)
    with closing(Gallery.open(gallery)) as opened, serving([opened], encoder) as service:
        assert main(["query", str(sketch), "--address", service.address, "-k", "6", "--json", str(tmp_path / "a")]) == 0
    found = [hit["photo_id"] for hit in json.loads((tmp_path / "a").read_text())["answers"][-1]["hits"]]
    files = sorted(photos.iterdir())
    rows = encoder.encode_photos(stack_photos([open_image(path) for path in files], 300))
    canvas = ink_on_black(square(open_image(sketch)), 300)
    order, _ = exact_search(rows, encoder.encode_sketches(canvas[None])[0], ink_mask(canvas), k=6)
    assert found == [files[row].stem for row in order]


@pytest.fixture
def trained(tiny_fs2k: Path, tmp_path: Path) -> Path:
    """A file of a report's cache: the single-pass heads, trained on four people on a random trunk."""
    fit = People(tiny_fs2k, tuple(read_split(tiny_fs2k / "fit.txt")), tmp_path / "episodes", 6)
    torch.manual_seed(0)
    Workshop(tmp_path / "cache", None, 3).embed("single-pass", fit, fit, fit, 0)
    (path,) = (tmp_path / "cache" / "trained").glob("*.pt")
    return path


def test_another_trunk_than_in_training_is_refused(trained: Path, tmp_path: Path, shared: Path) -> None:
    content = read_trained(trained)
    assert content is not None
    with pytest.raises(ModelError, match=r"single-pass was trained on pass-random, --weights gives pass-[0-9a-f]{16};"):
        system_encoder(content, shared / "weights" / "inception_v3.safetensors")


def test_a_file_of_neither_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.pt").write_bytes(b"nothing")
    assert main(["export", str(tmp_path / "x.pt"), str(tmp_path / "x.onnx")]) == 1
    assert "is not a checkpoint of `mgrl train`" in capsys.readouterr().err


def test_weights_of_another_system_are_refused(tmp_path: Path) -> None:
    keep_trained(tmp_path / "x.pt", "b2", SYSTEMS["single-pass"].build(16), "crops-2-random")
    content = read_trained(tmp_path / "x.pt")
    assert content is not None
    without_dim = {name: value for name, value in content.items() if name != "dim"}
    for odd in (content, without_dim, {**content, "dim": "wide"}, {**content, "dim": -1}):
        with pytest.raises(ModelError, match="the weights do not fit b2; train it again"):
            trained_network(odd)
