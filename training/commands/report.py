r"""Reproduce the paper's evaluation: every system on the same data in one run, as tables, curves and one page.

Baselines and MGRL's fourteen crops are trained here on a frozen trunk, whose features are computed once and kept in
OUT/cache; the finished model (the shipped one, or --model) stands beside them, fine-tuned. The folder --out gets
index.html, table1, table1-val-alone, table2 and robustness as .md and .csv, the figures as .svg, result.json and
manifest.json; all but table2 are there before its other dimensions are trained. Stop it whenever you like: the same
command goes on.

What takes long is the fourteen crops of every image: a quarter of a second each on two cores. --systems single-pass
leaves them out.

Needs the extra: pip install 'mgrl[train]'.

examples:
  mgrl report --data fs2k --weights inception_v3.safetensors --out report
  mgrl report --data fs2k --weights inception_v3.safetensors --out report --data-sets dataset2 --seeds 1
  mgrl report --data fs2k --out quick --systems none
  mgrl report --data fs2k --weights inception_v3.safetensors --out full --full
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from indexer.episode import DEFAULT_STAGES

if TYPE_CHECKING:
    from indexer.encoding import OnnxEncoder
    from training.full import FullWorkshop
    from training.report.study import DataSet, Result

SYSTEMS: Final = (
    "b1",
    "b2",
    "b3",
    "b4-as-released",
    "b4-causal",
    "mgrl-as-released",
    "mgrl-as-written",
    "mgrl-corrected",
    "single-pass",
)
"""Those of `training.systems`, which needs torch: the help does not."""

_SOME_STAGES: Final = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `mgrl report`."""
    parser.add_argument("--data", type=Path, required=True, help="folder of photos/ and sketches/, or in FS2K's layout")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of the report (default %(default)s)")
    parser.add_argument("--splits", type=Path, help="folder of NAME-fit.txt and NAME-val.txt (default: DATA/splits)")
    parser.add_argument(
        "--data-sets", nargs="+", default=["dataset1", "dataset2"], help="NAMEs of the splits (default %(default)s)"
    )
    parser.add_argument("--weights", type=Path, help="Inception-V3 as safetensors (default: random, for tests only)")
    parser.add_argument("--model", type=Path, help="ONNX file of the finished model (default: the shipped one)")
    parser.add_argument(
        "--systems", nargs="+", default=list(SYSTEMS), choices=[*SYSTEMS, "none"], metavar="SYSTEM",
        help=f"which to train: {', '.join(SYSTEMS)}, or none (default: all)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, help="seeds each system is trained with (default %(default)s)")
    parser.add_argument(
        "--stages", type=int, default=_SOME_STAGES, help="T of frozen systems and probe sets (default %(default)s)"
    )
    parser.add_argument(
        "--model-stages", type=int, default=DEFAULT_STAGES, help="T of the finished model besides (default %(default)s)"
    )
    parser.add_argument(
        "--fit-stages", type=int, default=4, help="stages a training drawing that frozen systems see (default 4)"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="the paper's own setting: trunks trained, too, on all stages; for a GPU, has not run on one yet",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="of --full (default: a GPU, or nothing)"
    )
    parser.add_argument("--json", type=Path, help="write the result there, too")


def run(args: argparse.Namespace) -> int:
    """Train what is missing, evaluate, write."""
    from indexer.encoding import DEFAULT_MODEL, OnnxEncoder
    from indexer.errors import ConfigError
    from training.holding import held
    from training.report.study import find_data_sets

    if args.seeds < 1 or args.model_stages < 1 or args.stages < 2 or args.fit_stages < 2:
        raise ConfigError("--seeds and --model-stages must be at least 1, --stages and --fit-stages at least 2")
    if args.weights and not args.weights.is_file():
        raise ConfigError(f"there is no file {args.weights}; --weights takes Inception-V3 as safetensors")
    # Named twice, a system would count as one of twice the seeds.
    args.systems, args.data_sets = ([*dict.fromkeys(names)] for names in (args.systems, args.data_sets))
    if args.full:
        args.stages = args.fit_stages = args.model_stages
    full = _full_workshop(args) if args.full else None
    if args.out.is_file():
        raise ConfigError(f"--out must be a folder, {args.out} is a file; name another")
    cache = args.out / "cache"
    splits = args.splits or args.data / "splits"
    data_sets = find_data_sets(args.data, splits, args.data_sets, cache / "episodes", args.stages)
    encoder = OnnxEncoder.open(args.model or DEFAULT_MODEL)
    with held(cache):  # another report would take features that are half there for its own
        return _report(args, cache, data_sets, encoder, full)


def _report(
    args: argparse.Namespace,
    cache: Path,
    data_sets: "list[DataSet]",
    encoder: "OnnxEncoder",
    full: "FullWorkshop | None",
) -> int:
    from indexer.console import print_table, write_json
    from training.report.jobs import dim_jobs, main_jobs, run_jobs
    from training.report.study import draw_all, model_sets, run_model
    from training.report.tables import table_1
    from training.report.write import write_report
    from training.workshop import Workshop

    draw_all(data_sets, _say)
    title = args.model.stem if args.model else "default model"
    sets = model_sets(args.model_stages, args.stages)
    results = [*run_model(encoder, title, data_sets, sets, cache, _say)]
    dims: list[Result] = []
    # The finished model is what --full would make of the single pass: `mgrl train` trains all of it.
    if systems := [name for name in args.systems if name in SYSTEMS and not (full and name == "single-pass")]:
        workshop = Workshop(cache, args.weights, args.fit_stages, _show_progress) if full is None else full
        results += run_jobs(workshop, main_jobs(data_sets, systems, args.seeds, args.model_stages), _say)
        # Table 2 takes as long again: whoever stops there has all the rest.
        write_report(args.out, results, dims, _manifest(args, data_sets, encoder.model_hash))
        dims += run_jobs(workshop, dim_jobs(data_sets, systems, args.seeds), _say)
    content = write_report(args.out, results, dims, _manifest(args, data_sets, encoder.model_hash))
    table = table_1(results, alone=False)
    print_table(table.title, table.columns, table.rows)
    write_json(args.json, content)
    print(f"report: {args.out / 'index.html'}")
    return 0


def _full_workshop(args: argparse.Namespace) -> "FullWorkshop":
    import torch

    from indexer.errors import ConfigError
    from training.full import FullWorkshop

    if args.device != "cpu" and not torch.cuda.is_available():
        raise ConfigError(
            "--full takes days without a GPU, and torch finds none here; leave it out, or wait for it with --device cpu"
        )
    return FullWorkshop(args.out / "cache", args.weights, torch.device("cpu" if args.device == "cpu" else "cuda"))


def _say(what: str) -> None:
    print(what, file=sys.stderr)


def _show_progress(what: str, done: int, total: int) -> None:
    if done == total or done % 50 == 0:
        print(f"  features of {what}: {done}/{total}", file=sys.stderr)


def _manifest(args: argparse.Namespace, data_sets: "list[DataSet]", model_hash: str) -> dict[str, Any]:
    import hashlib
    import platform
    from datetime import UTC, datetime
    from importlib.metadata import version

    from training.data import split_hash

    weights = hashlib.sha256(args.weights.read_bytes()).hexdigest() if args.weights else "random"
    return {
        "command": ["mgrl", "report", *sys.argv[2:]],
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": model_hash,
        "weights": weights,
        "systems": args.systems,
        "seeds": list(range(args.seeds)),
        "stages": args.stages,
        "model_stages": args.model_stages,
        "fit_stages": args.fit_stages,
        "full": args.full,
        "data": {
            data_set.name: {
                part: {"people": len(people.names), "split_sha256": split_hash(people.names), "sha256": people.key}
                for part, people in (("fit", data_set.fit), ("val", data_set.val))
            }
            for data_set in data_sets
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("mgrl", "torch", "torchvision", "numpy", "onnxruntime")},
        },
    }
