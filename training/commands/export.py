"""Write a trained encoder as ONNX, checked against PyTorch; this file is what `ingest`, `serve` and `evaluate` take.

Besides checkpoints of `mgrl train` it takes every system that `mgrl report` has trained, from OUT/cache/trained: its
trunk and its head become one model of the same kind, so a baseline is ingested, served and queried as MGRL is.

Needs the extra: pip install 'mgrl[train]'.

examples:
  mgrl export runs/default/best.pt model.onnx
  mgrl export report/cache/trained/b2-16-0123456789abcdef01234567.pt b2.onnx --weights inception_v3.safetensors
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.export import Encoder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `mgrl export`."""
    parser.add_argument("checkpoint", type=Path, help="best.pt of `mgrl train`, or a system that `mgrl report` trained")
    parser.add_argument("model", type=Path, help="ONNX file to write")
    parser.add_argument("--weights", type=Path, help="for a system of `mgrl report`: the trunk it was trained on")


def run(args: argparse.Namespace) -> int:
    """Export and say how well the two runtimes agree."""
    from indexer.encoding import OnnxEncoder
    from training.export import export

    difference = export(_load(args.checkpoint, args.weights), args.model)
    encoder = OnnxEncoder.open(args.model)
    size = args.model.stat().st_size / 2**20
    print(f"{args.model}: {encoder.dim}-d, {encoder.size_px} px, {size:.1f} MiB, sha256 {encoder.model_hash}")
    print(f"largest difference from PyTorch: {difference:.1e}")
    return 0


def _load(path: Path, weights: Path | None) -> "Encoder":
    from training.encoder.checkpoint import load_checkpoint
    from training.trained import read_trained, system_encoder

    trained = read_trained(path)
    return load_checkpoint(path).model if trained is None else system_encoder(trained, weights)
