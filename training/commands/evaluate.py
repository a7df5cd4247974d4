"""Rank drawings against a gallery of photos and print the paper's metrics.

Every photo of the split is a target: its sketch becomes a drawing of T stages, and at each stage the photo is ranked
among all photos of the split (and of --gallery). Encoder, fusion and rasteriser are the service's own.

examples:
  mgrl evaluate --data fs2k --split fs2k/splits/dataset2-val.txt --json result.json
  mgrl evaluate --data fs2k --split val.txt --gallery fit.txt --set moved --seed 1
  mgrl evaluate --data fs2k --split val.txt --model runs/mine/model.onnx --stages 20
"""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.device import DEVICES, choose_device
from indexer.episode import DEFAULT_STAGES
from training.variants import PROBE_SETS

if TYPE_CHECKING:
    from training.metrics import Scores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `mgrl evaluate`."""
    parser.add_argument("--data", type=Path, required=True, help="folder in FS2K's layout: photo/ and sketch/")
    parser.add_argument("--split", type=Path, required=True, help="file with one name a line, such as photo1/image0001")
    parser.add_argument("--stages", type=int, default=DEFAULT_STAGES, help="stages of a drawing (default %(default)s)")
    parser.add_argument(
        "--gallery", type=Path, nargs="*", default=[], help="split files whose photos are ranked, too, as distractors"
    )
    parser.add_argument("--model", type=Path, help="ONNX file of `mgrl export` (default: the model that is shipped)")
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where to encode (default: a GPU if there is one)"
    )
    parser.add_argument(
        "--set",
        dest="probe_set",
        default="aligned",
        choices=tuple(PROBE_SETS),
        help="how the drawings are disturbed (default aligned: not at all)",
    )
    parser.add_argument(
        "--weights",
        type=float,
        nargs=3,
        default=(1.0, 1.0, 1.0),
        metavar=("ALPHA", "BETA", "GAMMA"),
        help="weights of the 1x1, 2x2 and 3x3 distances (default 1 1 1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="decides drawing order and disturbance (default 0)")
    parser.add_argument("--episodes", type=Path, help="folder that keeps the drawings for the next time")
    parser.add_argument("--json", type=Path, help="write the result there, too")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    from indexer.console import print_table, progress, write_json
    from indexer.encoding import DEFAULT_MODEL, OnnxEncoder
    from indexer.regions import GRANULARITIES
    from training.data import find_pair, read_split, split_hash
    from training.episodes import make_episodes
    from training.evaluate import Protocol, encode_gallery, evaluate_ranks
    from training.metrics import score

    weights = dict(zip(GRANULARITIES, args.weights, strict=True))
    protocol = Protocol(args.stages, args.probe_set, args.seed, weights)
    encoder = OnnxEncoder.open(args.model or DEFAULT_MODEL, device=choose_device(args.device))
    names = read_split(args.split)
    gallery_names = list(dict.fromkeys([*names, *(name for file in args.gallery for name in read_split(file))]))
    pairs = [find_pair(args.data, name) for name in names]
    with tempfile.TemporaryDirectory() as scratch, progress("drawings", len(pairs), "sketches") as update:
        episodes = make_episodes(pairs, args.episodes or Path(scratch), args.stages, args.seed, on_progress=update)
    with progress("gallery", len(gallery_names)) as update:
        gallery = encode_gallery(args.data, gallery_names, encoder, update)
    with progress("ranking", len(pairs), "drawings") as update:
        ranks = evaluate_ranks(episodes, gallery_names, gallery, encoder, protocol, update)
    scores = score(ranks, len(gallery_names))
    title = f"{len(names)} drawings, {args.stages} stages, {args.probe_set}, ranked among {len(gallery_names)} photos"
    print_table(title, *_summary(scores))
    print_table("by share of the drawing", *_curve(scores))
    curve = zip(scores.m_at_a_per_stage, scores.m_at_b_per_stage, strict=True)
    result = {key: value for key, value in asdict(scores).items() if not key.endswith("_per_stage")}
    write_json(args.json, {
        **result,
        "stages": args.stages, "probes": len(names), "gallery": len(gallery_names),
        "set": args.probe_set, "seed": args.seed, "weights": list(args.weights),
        "model": encoder.model_hash, "split_hash": split_hash(names), "gallery_hash": split_hash(gallery_names),
        "per_stage": [{"stage": number + 1, "m_at_a": a, "m_at_b": b} for number, (a, b) in enumerate(curve)],
    })  # fmt: skip
    return 0


def _summary(scores: "Scores") -> tuple[list[str], list[list[object]]]:
    columns = ["", "m@A", "m@B", "w@mA", "w@mB", "A@1", "A@5", "A@10"]
    values = [scores.m_at_a, scores.m_at_b, scores.w_m_at_a, scores.w_m_at_b]
    accuracies = [scores.acc_at_1, scores.acc_at_5, scores.acc_at_10]
    ceilings = [100.0, 100.0, scores.ceiling, scores.ceiling, 100.0, 100.0, 100.0]
    return columns, [["percent", *values, *accuracies], ["best possible", *ceilings]]


def _curve(scores: "Scores") -> tuple[list[str], list[list[object]]]:
    """Ten stages at most: 10 %, 20 %, ... of the drawing."""
    stages = len(scores.m_at_b_per_stage)
    shown = sorted({max(1, round(stages * tenth / 10)) for tenth in range(1, 11)})
    rows: list[list[object]] = [
        [f"stage {stage}", scores.m_at_a_per_stage[stage - 1], scores.m_at_b_per_stage[stage - 1]] for stage in shown
    ]
    return ["stage", "rank percentile", "1 / rank"], rows
