"""Inception-V3 up to Mixed_5d, with its batch norms frozen and folded into the convolutions on the fly."""

from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.inception import BasicConv2d

from indexer.errors import ModelError

STEM_LAYERS = (
    "Conv2d_1a_3x3",
    "Conv2d_2a_3x3",
    "Conv2d_2b_3x3",
    "maxpool1",
    "Conv2d_3b_1x1",
    "Conv2d_4a_3x3",
    "maxpool2",
)
"""The layers that the paper keeps frozen."""

MIXED_5D_LAYERS = (*STEM_LAYERS, "Mixed_5b", "Mixed_5c", "Mixed_5d")
MIXED_5D_CHANNELS = 288


class FrozenNormConv(nn.Module):
    """Convolution, batch norm with fixed statistics, ReLU, computed as one convolution.

    The weight keeps torchvision's scale, so that a learning rate means what it means there; the norm's scale is
    multiplied in at every call, which costs a weight-sized product and saves two passes over the activations.
    """

    scale: Tensor

    def __init__(self, source: BasicConv2d) -> None:
        super().__init__()
        norm = source.bn
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        self.stride, self.padding = source.conv.stride, source.conv.padding
        self.weight = nn.Parameter(source.conv.weight.detach().clone())
        self.bias = nn.Parameter((norm.bias - norm.running_mean * scale).detach().clone())
        self.register_buffer("scale", scale[:, None, None, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, out, h', w')."""
        y = F.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)
        return F.relu(y, inplace=True)

    def fold(self) -> None:
        """Multiply the norm's scale into the weight for good, for export."""
        with torch.no_grad():
            self.weight.mul_(self.scale)
            self.scale.fill_(1.0)


def inception_v3(weights: Path | None = None) -> nn.Module:
    """Torchvision's Inception-V3 without auxiliary classifier, in evaluation mode, inputs RGB in [0, 1].

    Args:
        weights: a safetensors file in torchvision's names without `fc` (float16 or float32) for inputs in [0, 1],
            torchvision's own .pth file, or None for random weights.

    Raises:
        ModelError: the file is missing or is not Inception-V3.
    """
    network: nn.Module = torchvision.models.inception_v3(
        weights=None, init_weights=weights is None, aux_logits=False, transform_input=False
    )
    network.fc = nn.Identity()
    if weights is not None:
        try:
            state = {name: tensor.float() for name, tensor in _read_weights(weights).items()}
            state = {name: tensor for name, tensor in state.items() if not name.startswith(("fc.", "AuxLogits."))}
            missing, unexpected = network.load_state_dict(state, strict=False)
        except Exception as error:  # foreign bytes raise almost anything, and what they unpickle to may be anything
            why = str(error) or "it is cut short"
            raise ModelError(f"{weights} does not hold Inception-V3 in torchvision's names: {why}") from error
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
        if missing or unexpected:
            raise ModelError(
                f"{weights} does not hold Inception-V3: missing {missing[:3]}, unexpected {unexpected[:3]}"
            )
    return network.eval()


def _read_weights(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".pth":
        return load_file(path)
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    # torchvision's own expect inputs in [-1, 1]: w(2x - 1) = 2wx - sum(w), and the norm can subtract that sum,
    # since the first convolution has no padding.
    first = state["Conv2d_1a_3x3.conv.weight"]
    shift = first.sum(dim=(1, 2, 3))
    return {
        **state,
        "Conv2d_1a_3x3.conv.weight": 2 * first,
        "Conv2d_1a_3x3.bn.running_mean": state["Conv2d_1a_3x3.bn.running_mean"] + shift,
    }


def mixed_5d(weights: Path | None = None) -> nn.Sequential:
    """(n, 3, 192, 192) in [0, 1] -> (n, 288, 21, 21), batch norms frozen."""
    network = inception_v3(weights)
    trunk = nn.Sequential()
    for name in MIXED_5D_LAYERS:
        trunk.add_module(name, _freeze_norms(getattr(network, name)))
    return trunk


def _freeze_norms(module: nn.Module) -> nn.Module:
    """The module with every convolution block turned into a `FrozenNormConv`."""
    if isinstance(module, BasicConv2d):
        frozen: nn.Module = FrozenNormConv(module)
        return frozen
    for name, child in list(module.named_children()):
        setattr(module, name, _freeze_norms(child))
    return module
