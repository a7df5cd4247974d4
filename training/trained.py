"""Files of systems that `mgrl report` trained: written by its workshop, read by it and by `mgrl export`."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from indexer.errors import DataError, ModelError
from training.encoder.layers import CropLayers, Layers, PassLayers
from training.encoder.system import SystemEncoder
from training.networks import FrozenNetwork
from training.systems import SYSTEMS


def trained_path(cache: Path, name: str, key: str) -> Path:
    """Where a trained system lies: `name` is for people, `key` holds all that decides its weights."""
    return cache / "trained" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.pt"


def keep_trained(path: Path, name: str, network: FrozenNetwork, layers: Layers | str) -> None:
    """Write a trained system.

    Args:
        path: file to write; the old one stays until the new one is whole.
        name: one of `SYSTEMS`.
        network: trained.
        layers: that were trained with it, or the name of the frozen ones that it was trained on.

    Raises:
        DataError: the disk.
    """
    scratch = path.with_suffix(".tmp")
    content = {"system": name, "dim": network.dim, "model": network.state_dict()}
    if isinstance(layers, Layers):
        content |= {"layers": layers.name, "trunk": layers.state_dict()}
    else:
        content["layers"] = layers
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, scratch)
        scratch.replace(path)
    except (OSError, RuntimeError) as error:  # torch tells a full disk as a RuntimeError
        scratch.unlink(missing_ok=True)
        raise DataError(f"what was trained cannot be kept in {path.parent}: {error}; free some space there") from error


def read_trained(path: Path) -> dict[str, Any] | None:
    """What `keep_trained` wrote; None where there is no such file, or only a torn one."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return dict(content) if content["system"] in SYSTEMS and isinstance(content["model"], dict) else None
    except Exception:  # unpickling foreign bytes raises almost anything
        return None


def trained_network(content: Mapping[str, Any]) -> FrozenNetwork:
    """The network in a trained file, in evaluation mode.

    Raises:
        ModelError: its weights do not fit the system that it names.
    """
    try:
        network = SYSTEMS[content["system"]].build(int(content["dim"]))
        network.load_state_dict(content["model"])
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the weights do not fit {content['system']}; train it again with `mgrl report`") from error
    return network.eval()


def system_encoder(content: Mapping[str, Any], weights: Path | None) -> SystemEncoder:
    """The whole encoder of a trained file: from pixels to embeddings.

    Args:
        content: of the file.
        weights: Inception-V3, the same as in training; None stands for random ones, in tests. A file that holds its
            trunk needs none.

    Raises:
        ModelError: other weights than it was trained on.
    """
    if "trunk" in content:
        return SystemEncoder(trained_layers(content), trained_network(content)).eval()
    kind = CropLayers if SYSTEMS[content["system"]].features == "crops" else PassLayers
    layers: Layers = kind(weights)
    if content.get("layers") != layers.name:
        raise ModelError(
            f"{content['system']} was trained on {content.get('layers', 'unknown layers')}, --weights gives"
            f" {layers.name}; name the file that `mgrl report` was given"
        )
    return SystemEncoder(layers, trained_network(content)).eval()


def trained_layers(content: Mapping[str, Any]) -> CropLayers:
    """The layers that were trained with a system, in evaluation mode.

    Raises:
        ModelError: they are not those of the paper.
    """
    layers = CropLayers(None, None)
    try:
        layers.load_state_dict(content["trunk"])
    except (RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"the trunk of {content['system']} is damaged; train it again with `mgrl report`") from error
    return layers.eval()
