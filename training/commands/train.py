r"""Train the single-pass MGRL encoder on photo and sketch pairs; stop it whenever you like, the same command goes on.

The folder --out keeps checkpoint.pt (after every epoch), best.pt (the best validation) and run.json (data, splits,
settings, versions, validations). The defaults are the shipped model's: under an hour on two CPU cores.

examples:
  mgrl train --data fs2k --weights inception_v3.safetensors --out runs/default \
      --fit fs2k/splits/dataset1-fit.txt fs2k/splits/dataset2-fit.txt \
      --val fs2k/splits/dataset1-val.txt fs2k/splits/dataset2-val.txt
  mgrl export runs/default/best.pt model.onnx
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from indexer.episode import DEFAULT_STAGES

if TYPE_CHECKING:
    from training.batches import PairSet


_SETTINGS: Final = {
    "dim": "numbers a region",
    "epochs": "passes over the pairs",
    "stem_epochs": "last epochs that train the stem, too",
    "batch": "pairs a step",
    "trunk_rate": "peak learning rate of the trunk",
    "head_rate": "peak learning rate of the heads",
    "validate_every": "epochs between validations",
    "align_rounds": "moved drawings a person that the aligner learns from",
    "align_epochs": "the aligner's passes over them; 0 for no aligner",
    "seed": "of order, disturbances and heads",
}
_SHARES: Final = {
    "moved_share": "share of drawings moved as in the probe set `moved`",
    "thinned_share": "share of drawings that lack a random part of their strokes",
    "wobbly_share": "share of drawings by a shaky hand",
    "scan_share": "share of finished sketches shown as scanned",
    "grey_share": "share of photos without colour",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `mgrl train`."""
    from training.batches import Augmentation
    from training.fit import FitConfig

    config, augmentation = FitConfig(), Augmentation()
    parser.add_argument("--data", type=Path, required=True, help="folder in FS2K's layout: photo/ and sketch/")
    parser.add_argument("--fit", type=Path, nargs="+", required=True, help="split files to train on, one a data set")
    parser.add_argument(
        "--val",
        type=Path,
        nargs="+",
        required=True,
        help="split files to select on, in the same order; ranked among their data set's fit photos",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run; a run that is there is gone on with"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        help="Inception-V3 as safetensors in torchvision's names (default: random, for tests only)",
    )
    parser.add_argument("--episodes", type=Path, help="folder that keeps the drawings (default: OUT/episodes)")
    parser.add_argument("--stages", type=int, default=DEFAULT_STAGES, help="stages of a drawing (default %(default)s)")
    for options, meanings in ((config, _SETTINGS), (augmentation, _SHARES)):
        for name, meaning in meanings.items():
            default = getattr(options, name)
            flag = f"--{name.replace('_', '-')}"
            parser.add_argument(flag, type=type(default), default=default, help=f"{meaning} (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Train, or go on."""
    from dataclasses import asdict

    from indexer.console import progress, write_json
    from indexer.errors import ConfigError
    from training.batches import Augmentation
    from training.fit import FitConfig, Validation, fit

    if len(args.fit) != len(args.val):
        raise ConfigError(f"--fit and --val must name as many split files, got {len(args.fit)} and {len(args.val)}")
    augmentation = Augmentation(**{name: getattr(args, name) for name in _SHARES})
    config = FitConfig(**{name: getattr(args, name) for name in _SETTINGS}, augmentation=augmentation)
    if len({split.stem for split in args.val}) < len(args.val):
        raise ConfigError("the --val files must differ in name: it labels their validation; rename one")
    fit_sets = [_load(args, split, config.size_px) for split in args.fit]
    validations = [
        Validation(split.stem, _load(args, split, config.size_px), pairs.photos)
        for split, pairs in zip(args.val, fit_sets, strict=True)
    ]
    record = {
        "config": asdict(config),
        "stages": args.stages,
        "data": {"fit": _splits(args.fit), "val": _splits(args.val)},
        "versions": _versions(),
    }

    def on_validation(history: Sequence[dict[str, Any]]) -> None:
        write_json(args.out / "run.json", {**record, "validations": history})
        print(", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in history[-1].items()))

    with progress("training", None, "steps") as update, progress("aligner", None, "steps") as update_align:
        best = fit(
            config,
            fit_sets,
            validations,
            args.out,
            args.weights,
            lambda step, steps, loss: update(step, steps),
            on_validation,
            lambda step, steps, loss: update_align(step, steps),
        )
    print(f"best weights: {best}; next: mgrl export {best} model.onnx", file=sys.stderr)
    return 0


def _load(args: argparse.Namespace, split: Path, size_px: int) -> "PairSet":
    from indexer.console import progress
    from training.batches import PairSet
    from training.data import find_pair, read_split
    from training.episodes import make_episodes

    pairs = [find_pair(args.data, name) for name in read_split(split)]
    with progress(f"drawings of {split.stem}", len(pairs), "sketches") as update:
        episodes = make_episodes(pairs, args.episodes or args.out / "episodes", args.stages, on_progress=update)
    return PairSet(pairs, episodes, size_px)


def _splits(files: Sequence[Path]) -> list[dict[str, object]]:
    from training.data import read_split, split_hash

    names = {file: read_split(file) for file in files}
    return [{"split": file.stem, "pairs": len(names[file]), "sha256": split_hash(names[file])} for file in files]


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in ("mgrl", "torch", "torchvision", "numpy", "pillow")}
