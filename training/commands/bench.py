"""Time one stroke, in process, against the released MGRL encode; both in the same run, in turn.

`stroke` draws one more stroke on a half finished canvas, encodes it and searches a gallery. The released encode is the
paper's network (whole image at 299 px and thirteen crops at 170 px through Inception-V3) in PyTorch eager mode: it
needs the `train` extra. Its speed does not depend on its weights; --weights only loads real ones.

examples:
  mgrl bench stroke
  mgrl bench stroke --photos 100000 --rounds 20 --json stroke.json
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `mgrl bench`."""
    benches = parser.add_subparsers(dest="bench", required=True, metavar="BENCH")
    stroke = benches.add_parser(
        "stroke",
        description=__doc__,
        help="one stroke against the released MGRL encode",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stroke.add_argument("--photos", type=int, default=10_000, help="photos in the gallery (default %(default)s)")
    stroke.add_argument("--rounds", type=int, default=15, help="rounds that count (default %(default)s)")
    stroke.add_argument("--model", type=Path, help="ONNX file of `mgrl export` (default: the model that is shipped)")
    stroke.add_argument("--weights", type=Path, help="Inception-V3 as safetensors for the released network")
    stroke.add_argument("--json", type=Path, help="write rows (ms) and ratios there, too")


def run(args: argparse.Namespace) -> int:
    """Run the bench and print rows and ratios."""
    from indexer.console import print_table, write_json
    from indexer.encoding import DEFAULT_MODEL, OnnxEncoder
    from indexer.errors import ConfigError
    from training.bench import StrokePath, released_encode, time_in_turn

    if args.photos < 1 or args.rounds < 1:
        raise ConfigError(f"--photos and --rounds must be at least 1, got {args.photos} and {args.rounds}")
    path = StrokePath(OnnxEncoder.open(args.model or DEFAULT_MODEL), args.photos)
    rows = time_in_turn(
        {
            "raster": path.raster,
            "encode": path.encode,
            "search": path.search,
            "stroke": path.whole,
            "released_encode": released_encode(args.weights),
        },
        args.rounds,
    )
    ratios = {"stroke_over_released_encode": rows["stroke"] / rows["released_encode"]}
    print_table(
        f"one stroke, {args.photos} photos, median of {args.rounds} rounds",
        ["step", "ms"],
        [[name, ms] for name, ms in rows.items()],
    )
    print(f"stroke / released encode: 1/{1 / ratios['stroke_over_released_encode']:.1f}")
    write_json(
        args.json, {"bench": "stroke", "photos": args.photos, "rounds": args.rounds, "rows": rows, "ratios": ratios}
    )
    return 0
