r"""Write a model card: facts, accuracy on every set, by group and by share of ink, in tables that are computed.

What else a card says is written by hand, in a template: card.md beside the model, or a general one (--template names
another). Embeddings are kept in --cache; that of a report of the same model is read, and then this takes a minute.

Needs the extra: pip install 'mgrl[train]'.

examples:
  mgrl card --data fs2k --out indexer/models/README.md --cache report/cache --run runs/default/run.json
  mgrl card --data fs2k --model mine.onnx --out mine.md --data-sets dataset2
"""

import argparse
import sys
from pathlib import Path

from indexer.encoding import DEFAULT_MODEL
from indexer.episode import DEFAULT_STAGES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `mgrl card`."""
    parser.add_argument("--data", type=Path, required=True, help="folder in FS2K's layout, with anno_train.json")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="ONNX file (default: the shipped one)")
    parser.add_argument("--run", dest="record", type=Path, help="run.json of its training")
    parser.add_argument("--template", type=Path, help="Markdown with placeholders (default: card.md beside the model)")
    parser.add_argument("--splits", type=Path, help="folder of NAME-fit.txt and NAME-val.txt (default: DATA/splits)")
    parser.add_argument(
        "--data-sets", nargs="+", default=["dataset1", "dataset2"], help="NAMEs of the splits (default %(default)s)"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("report/cache"), help="folder of embeddings (default %(default)s)"
    )
    parser.add_argument("--stages", type=int, default=20, help="T of the disturbed drawings (default %(default)s)")
    parser.add_argument(
        "--model-stages", type=int, default=DEFAULT_STAGES, help="T of the drawings as they are (default %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Measure what is not kept yet, and write."""
    from indexer.encoding import OnnxEncoder
    from indexer.errors import ConfigError
    from training.report.card import card_values, fill, find_template, read_record
    from training.report.groups import read_attributes
    from training.report.study import find_data_sets, model_sets, run_model

    if args.stages < 2 or args.model_stages < 2:
        raise ConfigError("--stages and --model-stages must be at least 2")
    args.data_sets = [*dict.fromkeys(args.data_sets)]
    if args.out.is_dir():
        raise ConfigError(f"--out must be a file, {args.out} is a folder; name one in it")
    record = read_record(args.record) if args.record else None
    read_attributes(args.data)  # told now, not after the measuring
    template = args.template or find_template(args.model)
    splits = args.splits or args.data / "splits"
    data_sets = find_data_sets(args.data, splits, args.data_sets, args.cache / "episodes", args.stages)
    encoder = OnnxEncoder.open(args.model)
    sets = model_sets(args.model_stages, args.stages)
    results = list(run_model(encoder, args.model.stem, data_sets, sets, args.cache, _say))
    text = fill(template, card_values(args.model, data_sets, results, record))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text, encoding="utf-8")
    print(f"card: {args.out}")
    return 0


def _say(what: str) -> None:
    print(what, file=sys.stderr)
