from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.encoding import DEFAULT_MODEL, OnnxEncoder, photo_pixels, sketch_as_photo
from indexer.errors import ConfigError, ModelError, ShapeError


@pytest.fixture(scope="module")
def model() -> OnnxEncoder:
    return OnnxEncoder.open(DEFAULT_MODEL, threads=2)


def test_the_shipped_model_gives_unit_rows(model: OnnxEncoder) -> None:
    assert (model.dim, model.size_px) == (16, 192)
    assert DEFAULT_MODEL.stat().st_size <= 12 * 2**20
    photos = np.random.default_rng(0).integers(0, 256, (3, 192, 192, 3), dtype=np.uint8)
    rows = model.encode_photos(photos)
    assert rows.shape == (3, 14, 16)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), 1, atol=1e-5)


def test_a_batch_gives_the_same_rows_as_one_by_one(model: OnnxEncoder) -> None:
    canvases = np.random.default_rng(0).integers(0, 256, (3, 192, 192), dtype=np.uint8)
    together = model.encode_sketches(canvases)
    alone = np.concatenate([model.encode_sketches(canvases[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_sketch_is_seen_as_dark_lines_on_white() -> None:
    canvas = np.zeros((1, 6, 6), np.uint8)
    canvas[0, 2] = 255
    seen = sketch_as_photo(canvas)
    assert seen.shape == (1, 6, 6, 3)
    assert (seen[0, 0, 0] == 255).all()
    assert (seen[0, 2, 0] == 0).all()


def test_wrong_shapes_are_named(model: OnnxEncoder) -> None:
    with pytest.raises(ShapeError, match=r"canvases must be \(n, \(192, 192\)\) uint8, got \(1, 100, 100\)"):
        model.encode_sketches(np.zeros((1, 100, 100), np.uint8))
    with pytest.raises(ShapeError, match=r"photos must be .* got \(1, 192, 192, 3\) float32"):
        model.encode_photos(np.zeros((1, 192, 192, 3), np.float32))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model file named x\.onnx"):
        OnnxEncoder.open(tmp_path / "x.onnx")
    for path in (tmp_path, tmp_path / "x.onnx" / "y"):
        with pytest.raises(ModelError, match="no model file named"):
            OnnxEncoder.open(path)
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="not a readable ONNX model"):
        OnnxEncoder.open(tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("pixels", "shape_in", "shape_out"),
    [
        ("UINT8", ("n", "side", "side", 3), ("n", 14, 16)),
        ("FLOAT", ("n", 192, 192, 3), ("n", 14, 16)),
        ("UINT8", ("n", 192, 192, 3), ("n", 13, 16)),
        ("UINT8", ("n", 3, 192, 192), ("n", 14, 16)),
    ],
)
def test_another_kind_of_network_is_refused(
    tmp_path: Path, pixels: str, shape_in: tuple[object, ...], shape_out: tuple[object, ...]
) -> None:
    onnx = pytest.importorskip("onnx", reason="needs the train extra: pip install 'mgrl[train]'")
    kinds, make = onnx.TensorProto, onnx.helper
    images = make.make_tensor_value_info("images", getattr(kinds, pixels), shape_in)
    rows = make.make_tensor_value_info("embeddings", kinds.FLOAT, shape_out)
    nodes = [
        make.make_node("Cast", ["images"], ["numbers"], to=kinds.FLOAT),
        make.make_node("Reshape", ["numbers", "shape"], ["embeddings"]),
    ]
    shape = make.make_tensor("shape", kinds.INT64, [3], [-1, *shape_out[1:]])
    graph = make.make_graph(nodes, "other", [images], [rows], [shape])
    path = tmp_path / "other.onnx"
    path.write_bytes(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)]).SerializeToString())
    with pytest.raises(ModelError, match=r"other\.onnx is an ONNX model, but not a region encoder"):
        OnnxEncoder.open(path)


@pytest.mark.parametrize("spins", [True, False])
def test_threads_that_wait_sleep_where_that_is_asked_for(spins: bool) -> None:
    options = OnnxEncoder.open(spins=spins)._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == str(int(spins))


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ConfigError, match="has no CUDA; install onnxruntime-gpu"):
        OnnxEncoder.open(device="cuda")
    with pytest.raises(ConfigError, match="must be cpu or cuda, got 'tpu'"):
        OnnxEncoder.open(device="tpu")


def test_a_photo_is_its_centred_square() -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste("blue", (100, 0, 200, 100))
    pixels = photo_pixels(image, 48)
    assert pixels.shape == (48, 48, 3)
    assert (pixels == (0, 0, 255)).all()
