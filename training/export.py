"""From a trained checkpoint to the ONNX file that serves, checked against the PyTorch model."""

import copy
import io
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch

from indexer.encoding import OnnxEncoder
from indexer.errors import ModelError
from indexer.regions import REGIONS
from training.encoder.single_pass import SinglePassEncoder
from training.encoder.system import SystemEncoder

Encoder = SinglePassEncoder | SystemEncoder

PARITY = 1e-4
"""Largest difference in any number of any embedding between the two runtimes that an export may show."""


def export(model: Encoder, path: Path, *, check_images: int = 4) -> float:
    """Write the model as ONNX with a dynamic batch.

    Inputs `photos` (n, size, size, 3) uint8 RGB and `sketches` (m, size, size) uint8, ink bright on 0, output
    `embeddings` (n + m, 14, dim) float32 unit rows: the photos', then the sketches'. n or m may be 0.

    Args:
        model: trained; it is left as it was.
        path: file to write; replaced only once the new one has passed the check.
        check_images: random images on which both runtimes must agree.

    Returns:
        The largest difference found.

    Raises:
        ModelError: the path is a folder, or the difference exceeds `PARITY`; nothing is written.
    """
    if path.is_dir():
        raise ModelError(f"{path} is a folder; name the ONNX file to write, such as {path / 'model.onnx'}")
    folded = copy.deepcopy(model).eval().to(memory_format=torch.contiguous_format)
    folded.fold()
    side = model.size_px
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Shapes become constants on purpose (all but the batch), and the TorchScript exporter is the one that
        # needs no further package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            folded,
            (torch.zeros(2, side, side, 3, dtype=torch.uint8), torch.zeros(3, side, side, dtype=torch.uint8)),
            buffer,  # type: ignore[arg-type]  # a file object is fine, says the documentation
            input_names=["photos", "sketches"],
            output_names=["embeddings"],
            dynamic_axes={"photos": {0: "n"}, "sketches": {0: "m"}, "embeddings": {0: "rows"}},
            opset_version=17,
            dynamo=False,
        )
    graph = onnx.load_from_string(buffer.getvalue())
    output = graph.graph.output[0].type.tensor_type.shape.dim
    output[1].dim_value, output[2].dim_value = REGIONS, model.dim
    onnx.checker.check_model(graph)
    scratch = path.with_name(path.name + ".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch.write_bytes(graph.SerializeToString())
    difference = parity(model, OnnxEncoder.open(scratch), check_images)
    if difference > PARITY:
        scratch.unlink()
        raise ModelError(f"the exported model differs from PyTorch by {difference:.2g}, at most {PARITY} is allowed")
    scratch.replace(path)
    return difference


def parity(model: Encoder, exported: OnnxEncoder, images: int = 4, seed: int = 0) -> float:
    """Largest absolute difference of any embedding value between the two, on random photos and sketches."""
    rng = np.random.default_rng(seed)
    side = model.size_px
    photos = rng.integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    sketches = (rng.random((images, side, side)) < 0.1).astype(np.uint8) * 255
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(photos), torch.from_numpy(sketches)).numpy()
    found = np.concatenate([exported.encode_photos(photos), exported.encode_sketches(sketches)])
    return float(np.abs(expected - found).max())
