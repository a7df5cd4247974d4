r"""Train the single-pass MGRL encoder on photo and sketch pairs; stop it whenever you like, the same command goes on.

Without --fit and --val all pairs of --data are used: photos/NAME.jpg with sketches/NAME.png, or FS2K's layout; about
one person in ten is kept apart to select on. The folder --out keeps checkpoint.pt (after every epoch), best.pt (the
best validation), run.json (data, splits, settings, versions, validations) and splits/. The defaults are the shipped
model's: under an hour on two CPU cores.

--weights says where to start: `default` is the model that comes with mgrl, `imagenet` is torchvision's Inception-V3
where it is on this machine, `random` learns little; a file is an exported .onnx, or Inception-V3 as .safetensors.

examples:
  mgrl train --data faces
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
    from training.fit import Validation


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
    parser.add_argument("--data", type=Path, required=True, help="folder of photos/ and sketches/, or in FS2K's layout")
    parser.add_argument("--fit", type=Path, nargs="+", help="split files to train on, one a data set (default: all)")
    parser.add_argument(
        "--val",
        type=Path,
        nargs="+",
        help="split files to select on, in the same order; ranked among their data set's fit photos",
    )
    parser.add_argument(
        "--skip-unpaired", action="store_true", help="leave out photos without a sketch and sketches without a photo"
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the run; a run that is there is gone on with (default: runs/NAME OF DATA)"
    )
    parser.add_argument(
        "--weights", default="default", help="default, imagenet, random or a file to start from (default: %(default)s)"
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
    from training.encoder.start import weights_file
    from training.fit import FitConfig, fit

    if args.stages < 1:
        raise ConfigError(f"a drawing must have at least 1 stage, got {args.stages}")
    augmentation = Augmentation(**{name: getattr(args, name) for name in _SHARES})
    config = FitConfig(**{name: getattr(args, name) for name in _SETTINGS}, augmentation=augmentation)
    weights = weights_file(args.weights)
    args.out = args.out or Path("runs") / args.data.resolve().name
    args.fit, args.val = _split_files(args)
    fit_sets, validations = _load(args, config.size_px)
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
            weights,
            lambda step, steps, loss: update(step, steps),
            on_validation,
            lambda step, steps, loss: update_align(step, steps),
        )
    print(f"best weights: {best}; next: mgrl export {best} model.onnx", file=sys.stderr)
    return 0


def _split_files(args: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """The files of --fit and --val; without them those of the splits made here, one each a folder of photos."""
    from indexer.errors import ConfigError
    from training.pairs import find_pairs, require_paired, split_people

    if (args.fit is None) != (args.val is None):
        raise ConfigError("--fit and --val come together: name both, or neither to use all pairs of --data")
    if args.fit is not None:
        if len(args.fit) != len(args.val):
            raise ConfigError(f"--fit and --val must name as many split files, got {len(args.fit)} and {len(args.val)}")
        if len({split.stem for split in args.val}) < len(args.val):
            raise ConfigError("the --val files must differ in name: it labels their validation; rename one")
        return args.fit, args.val
    found = find_pairs(args.data)
    if args.skip_unpaired:
        print(f"left out: {len(found.lone_photos)} photos, {len(found.lone_sketches)} sketches", file=sys.stderr)
    else:
        require_paired(found)
    splits = {folder: split_people(names) for folder, names in found.names.items()}
    files: tuple[list[Path], list[Path]] = [], []
    (args.out / "splits").mkdir(parents=True, exist_ok=True)
    for folder, (fit, val) in splits.items():
        for paths, kind, names in zip(files, ("fit", "val"), (fit, val), strict=True):
            paths.append(args.out / "splits" / f"{folder}-{kind}.txt")
            paths[-1].write_text("\n".join(names) + "\n", encoding="utf-8")
        where = args.out / "splits"
        print(f"{folder}: {len(fit)} people to train on, {len(val)} to select on ({where})", file=sys.stderr)
    return files


def _load(args: argparse.Namespace, size_px: int) -> "tuple[list[PairSet], list[Validation]]":
    """Both splits of every data set, each checked whole before the first drawing is made."""
    from indexer.console import progress
    from training.batches import PairSet
    from training.data import read_split
    from training.episodes import make_episodes
    from training.fit import Validation
    from training.pairs import check_people, check_pictures, locate

    names = {split: read_split(split) for split in (*args.fit, *args.val)}
    check_people([names[split] for split in args.fit], [names[split] for split in args.val])
    pairs = {split: locate(args.data, names[split]) for split in names}
    everybody = [pair for located in pairs.values() for pair in located]
    with progress("checking", len(everybody), "pairs") as update:
        check_pictures(everybody, update)
    sets = {}
    for split, located in pairs.items():
        with progress(f"drawings of {split.stem}", len(located), "sketches") as update:
            episodes = make_episodes(located, args.episodes or args.out / "episodes", args.stages, on_progress=update)
        sets[split] = PairSet(located, episodes, size_px)
    validations = [
        Validation(val.stem, sets[val], sets[fit].photos) for val, fit in zip(args.val, args.fit, strict=True)
    ]
    return [sets[split] for split in args.fit], validations


def _splits(files: Sequence[Path]) -> list[dict[str, object]]:
    from training.data import read_split, split_hash

    names = {file: read_split(file) for file in files}
    return [{"split": file.stem, "pairs": len(names[file]), "sha256": split_hash(names[file])} for file in files]


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in ("mgrl", "torch", "torchvision", "numpy", "pillow")}
