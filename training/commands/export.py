"""Write a trained encoder as ONNX, checked against PyTorch; this file is what `ingest`, `serve` and `evaluate` take.

examples:
  mgrl export runs/default/best.pt model.onnx
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `mgrl export`."""
    parser.add_argument("checkpoint", type=Path, help="best.pt of `mgrl train`")
    parser.add_argument("model", type=Path, help="ONNX file to write")


def run(args: argparse.Namespace) -> int:
    """Export and say how well the two runtimes agree."""
    from indexer.encoding import OnnxEncoder
    from training.encoder.checkpoint import load_checkpoint
    from training.export import export

    difference = export(load_checkpoint(args.checkpoint).model, args.model)
    encoder = OnnxEncoder.open(args.model)
    size = args.model.stat().st_size / 2**20
    print(f"{args.model}: {encoder.dim}-d, {encoder.size_px} px, {size:.1f} MiB, sha256 {encoder.model_hash}")
    print(f"largest difference from PyTorch: {difference:.1e}")
    return 0
