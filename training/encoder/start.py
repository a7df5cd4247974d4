"""Where a new run's weights come from: an exported encoder, ImageNet's Inception-V3, or chance."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
import torchvision
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from torch import Tensor, nn

from indexer.encoding import DEFAULT_MODEL
from indexer.errors import ModelError
from training.encoder.layers import weights_hash
from training.encoder.single_pass import SinglePassEncoder, Standardise
from training.encoder.trunk import FrozenNormConv

STARTS: Final = ("default", "imagenet", "random")
"""What `mgrl train --weights` takes besides a file."""


def weights_file(start: str) -> Path | None:
    """The file that one of `STARTS` means, or the file named; None is random weights.

    Raises:
        ModelError: no such file; or `imagenet`, and torchvision has not downloaded its weights on this machine.
    """
    if start == "default":
        return DEFAULT_MODEL
    if start == "random":
        return None
    if start != "imagenet":
        if not Path(start).is_file():
            raise ModelError(f"there is no file {start} to start from; --weights takes {', '.join(STARTS)} or a file")
        return Path(start)
    weights = torchvision.models.Inception_V3_Weights.DEFAULT
    path = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    if not path.is_file():
        raise ModelError(
            f"torchvision's Inception-V3 is not on this machine ({path}); fetch it once with: python3 -c 'import "
            "torchvision; torchvision.models.Inception_V3_Weights.DEFAULT.get_state_dict()', or copy it there from a "
            "machine that may, or start from --weights default"
        )
    return path


def weights_name(weights: Path | None) -> str:
    """What a run began from, for its record: `default`, `random`, or the hash of a file."""
    return "default" if weights == DEFAULT_MODEL else weights_hash(weights)


def build_encoder(dim: int, size_px: int, weights: Path | None) -> SinglePassEncoder:
    """A new encoder: from an exported one (.onnx) with its aligner and heads, or on Inception-V3 (other files).

    Raises:
        ModelError: the file cannot be read or does not fit.
    """
    if weights is None or weights.suffix != ".onnx":
        return SinglePassEncoder(dim, size_px, weights)
    model = SinglePassEncoder(dim, size_px)
    state = _exported_state(weights)
    found = len(state.get("heads.2.bias", ()))  # the 3x3 head's; the others' are shorter by the number they share
    if not found:
        raise ModelError(f"{weights} is no export of a run of `mgrl train`: it has no heads; start from another")
    if found != dim:
        raise ModelError(
            f"{weights} has {found} numbers a region, the run asks for {dim}; use --dim {found}, or start from another "
            "file"
        )
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ModelError(f"{weights} is of another network: {error}") from error
    kept = (".scale", ".mean", ".running_mean", ".running_var", ".num_batches_tracked")
    if unexpected or [name for name in missing if not name.endswith(kept) and "aligner" not in name]:
        raise ModelError(f"{weights} is no export of ours: it lacks {missing[:3]}, and has {unexpected[:3]} besides")
    for module in model.trunk.modules():
        if isinstance(module, FrozenNormConv):
            module.scale.fill_(1.0)  # the exported weight holds it
    return model


@torch.no_grad()
def calibrate(model: SinglePassEncoder, photos: Tensor, sketches: Tensor, *, trained_heads: bool) -> None:
    """Set the standardisation before the heads from a sample; trained heads go on giving what they gave.

    Args:
        model: as `build_encoder` made it.
        photos: (n, size, size, 3) uint8.
        sketches: (m, size, size) uint8.
        trained_heads: they come from an exported encoder, in which the standardisation is folded.
    """
    model.calibrate(photos, sketches)
    for norm, head in zip(model.norms, model.heads, strict=True) if trained_heads else ():
        assert isinstance(norm, Standardise)
        assert isinstance(head, nn.Linear)
        head.bias.add_(head.weight @ norm.mean)
        head.weight.div_(norm.scale)


def _exported_state(path: Path) -> dict[str, Tensor]:
    """Parameters under the model's own names: the exporter keeps those of biases only, so weights go by their bias."""
    try:
        graph = onnx.load(path).graph
    except (OSError, DecodeError) as error:
        raise ModelError(f"{path} cannot be read as ONNX: {error}") from error
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in values:  # equal parameters are exported once
            values[node.output[0]] = values[node.input[0]]
    made_by = {output: node for node in graph.node for output in node.output}
    state: dict[str, Any] = {name: value for name, value in values.items() if name.startswith(("aligner.", "heads."))}
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) == 3:
            weight, bias = values.get(node.input[1]), values.get(node.input[2])
            if node.input[2].startswith("trunk."):
                state[node.input[2]] = bias
                state[node.input[2].replace(".bias", ".weight")] = weight
            elif node.name.startswith("/aligner/layers/layers."):
                state |= _folded_norm(node.name.split("/")[-2].removesuffix(".0"), weight, bias)
        elif node.op_type == "Add" and node.input[0].startswith("heads.") and node.input[1] in made_by:
            state[node.input[0].replace(".bias", ".weight")] = values[made_by[node.input[1]].input[1]].T
    return {name: torch.from_numpy(np.array(value)) for name, value in state.items()}


def _folded_norm(layer: str, weight: Any, bias: Any) -> dict[str, Any]:
    """A convolution with its norm folded in, as that convolution and a norm that adds the bias alone."""
    norm = nn.BatchNorm2d(len(bias))
    prefix = f"aligner.{layer}"
    return {
        f"{prefix}.0.weight": weight,
        f"{prefix}.1.bias": bias,
        f"{prefix}.1.weight": np.full(len(bias), (1 + norm.eps) ** 0.5, np.float32),
    }
