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

PARITY = 1e-4
"""Largest difference in any number of any embedding between the two runtimes that an export may show."""


def export(model: SinglePassEncoder, path: Path, *, check_images: int = 4) -> float:
    """Write the model as ONNX with a dynamic batch.

    Input `images` (n, size, size, 3) uint8 RGB, output `embeddings` (n, 14, dim) float32 unit rows.

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
            (torch.zeros(2, side, side, 3, dtype=torch.uint8),),
            buffer,  # type: ignore[arg-type]  # a file object is fine, says the documentation
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_axes={"images": {0: "n"}, "embeddings": {0: "n"}},
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


def parity(model: SinglePassEncoder, exported: OnnxEncoder, images: int = 4, seed: int = 0) -> float:
    """Largest absolute difference of any embedding value between the two, on random images."""
    pixels = np.random.default_rng(seed).integers(0, 256, (images, model.size_px, model.size_px, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(pixels)).numpy()
    return float(np.abs(expected - exported.encode_photos(pixels)).max())
