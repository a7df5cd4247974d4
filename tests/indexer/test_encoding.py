from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.encoding import DEFAULT_MODEL, OnnxEncoder, photo_pixels, sketch_as_photo
from indexer.errors import ModelError, ShapeError


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
    assert seen[0, 0, 0] == 255
    assert seen[0, 2, 0] == 0


def test_wrong_shapes_are_named(model: OnnxEncoder) -> None:
    with pytest.raises(ShapeError, match=r"canvases must be \(n, \(192, 192\)\) uint8, got \(1, 100, 100\)"):
        model.encode_sketches(np.zeros((1, 100, 100), np.uint8))
    with pytest.raises(ShapeError, match=r"photos must be .* got \(1, 192, 192, 3\) float32"):
        model.encode_photos(np.zeros((1, 192, 192, 3), np.float32))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model file named x\.onnx"):
        OnnxEncoder.open(tmp_path / "x.onnx")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="not a readable ONNX model"):
        OnnxEncoder.open(tmp_path / "x.onnx")


def test_a_photo_is_its_centred_square() -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste("blue", (100, 0, 200, 100))
    pixels = photo_pixels(image, 48)
    assert pixels.shape == (48, 48, 3)
    assert (pixels == (0, 0, 255)).all()
