r"""Train the single-pass MGRL encoder on photo and sketch pairs; stop it whenever you like, the same command goes on.

Ctrl-C saves and stops; a killed run goes back by --checkpoint-minutes at most. With the same seed, data, machine and
versions a run on CPU reaches the same weights, stopped or not; on a GPU sums are taken in another order each time, so
runs agree within rounding. Several GPUs or machines train together under torchrun: a step's loss is over the whole
batch, as in one process.

Without --fit and --val all pairs of --data are used: photos/NAME.jpg with sketches/NAME.png, or FS2K's layout; about
one person in ten is kept apart to select on. The folder --out keeps checkpoint.pt (after every epoch), best.pt (the
best validation), run.json (data, splits, start, settings, versions, validations) and splits/. The defaults are the
shipped model's: under an hour on two CPU cores.

--weights says where to start: `default` is the model that comes with mgrl, `imagenet` is torchvision's Inception-V3
where it is on this machine, `random` learns little; a file is an exported .onnx, or Inception-V3 as .safetensors.
`default` has learnt FS2K's fit people: to select on any of them, start from another.

Needs the extra: pip install 'mgrl[train]'.

examples:
  mgrl train --data faces
  mgrl train --data fs2k --weights inception_v3.safetensors --out runs/default \
      --fit fs2k/splits/dataset1-fit.txt fs2k/splits/dataset2-fit.txt \
      --val fs2k/splits/dataset1-val.txt fs2k/splits/dataset2-val.txt
  mgrl export runs/default/best.pt model.onnx
  torchrun --nproc-per-node 2 -m service.cli train --data faces     two GPUs of one machine
  tensorboard --logdir runs/faces/tensorboard
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from indexer.device import DEVICES
from indexer.episode import DEFAULT_STAGES

if TYPE_CHECKING:
    from indexer.console import Update
    from training.batches import PairSet
    from training.fit import Watcher
    from training.settings import FitConfig, Setup
    from training.team import Team
    from training.validate import Validation

INTERRUPTED: Final = 130

_SETTINGS: Final = {
    "dim": "numbers a region",
    "epochs": "passes over the pairs",
    "stem_epochs": "last epochs that train the stem, too",
    "batch": "pairs a step",
    "trunk_rate": "peak learning rate of the trunk",
    "head_rate": "peak learning rate of the heads",
    "validate_every": "epochs between validations",
    "patience": "validations without improvement that end the run; 0 for none",
    "ema": "average of the weights that is validated and exported, such as 0.999; 0 for none",
    "align_rounds": "moved drawings a person that the aligner learns from",
    "align_epochs": "the aligner's passes over them; 0 leaves it as --weights has it",
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
    from training.settings import PRECISIONS, Augmentation, FitConfig, Setup

    config, augmentation, setup = FitConfig(), Augmentation(), Setup()
    parser.add_argument("--data", type=Path, required=True, help="folder of photos/ and sketches/, or in FS2K's layout")
    parser.add_argument("--fit", type=Path, nargs="+", help="split files to train on, one a data set (default: all)")
    parser.add_argument(
        "--val",
        type=Path,
        nargs="+",
        help="split files to select on, in the same order; ranked among their data set's fit photos",
    )
    parser.add_argument(
        "--skip-unpaired",
        action="store_true",
        help="leave out photos without a sketch, sketches without a photo, and pictures in folders below",
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the run; a run that is there is gone on with (default: runs/NAME OF DATA)"
    )
    parser.add_argument(
        "--weights", default="default", help="default, imagenet, random or a file to start from (default: %(default)s)"
    )
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="auto takes a GPU that torch can use (default: %(default)s)"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=setup.precision, help="of the trunk (default: auto, half on a GPU)"
    )
    parser.add_argument(
        "--workers", type=int, default=setup.workers, help="processes that draw batches (default %(default)s)"
    )
    parser.add_argument(
        "--checkpoint-minutes",
        type=float,
        default=setup.checkpoint_minutes,
        help="between checkpoints within an epoch (default %(default)s)",
    )
    parser.add_argument(
        "--tensorboard",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write curves into OUT/tensorboard, where the package is installed (default: do)",
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
    from training.team import joined

    with joined(args.device) as team:
        return _run(args, team)


def _run(args: argparse.Namespace, team: "Team") -> int:
    from indexer.errors import ConfigError
    from training.encoder.start import weights_file
    from training.holding import held
    from training.settings import Augmentation, FitConfig, Setup

    if args.stages < 1:
        raise ConfigError(f"a drawing must have at least 1 stage, got {args.stages}")
    augmentation = Augmentation(**{name: getattr(args, name) for name in _SHARES})
    config = FitConfig(**{name: getattr(args, name) for name in _SETTINGS}, augmentation=augmentation)
    setup = Setup(args.device, args.precision, args.workers, args.checkpoint_minutes)
    weights = weights_file(args.weights)
    args.out = args.out or Path("runs") / args.data.resolve().name
    with held(args.out) if team.is_first else nullcontext():
        return _train(args, config, setup, weights, team)


def _train(args: argparse.Namespace, config: "FitConfig", setup: "Setup", weights: Path | None, team: "Team") -> int:
    from dataclasses import asdict

    from training.encoder.start import weights_name
    from training.fit import fit
    from training.stopping import StopSignals

    splits = team.share(_read_splits(args) if team.is_first else [])
    with team.first_on_each_machine():
        fit_sets, validations = _load(args, splits, config.size_px, team)
    record = {
        "config": asdict(config),
        "setup": {**asdict(setup), "device": str(team.device), "processes": team.size},
        "weights": weights_name(weights),
        "stages": args.stages,
        "data": {"fit": [_described(*fit) for fit, _ in splits], "val": [_described(*val) for _, val in splits]},
        "versions": _versions(),
    }
    with StopSignals() as signals, _watching(args, record, lambda: signals.asked, team) as watcher:
        best = fit(config, fit_sets, validations, args.out, weights, watcher, setup, team)
    if team.is_first and best is None:
        print(
            f"stopped and saved in {args.out / 'checkpoint.pt'}; the same command goes on from there", file=sys.stderr
        )
    elif team.is_first:
        print(f"best weights: {best}; next: mgrl export {best} model.onnx", file=sys.stderr)
    return INTERRUPTED if best is None else 0


@contextmanager
def _watching(
    args: argparse.Namespace, record: Mapping[str, Any], asked: Callable[[], bool], team: "Team"
) -> Iterator["Watcher"]:
    """Bars, run.json and curves of a run, in the first process; in the others only a way to stop."""
    from indexer.console import write_json
    from training.curves import Curves, tensorboard_is_there
    from training.fit import Watcher

    curves = Curves(args.out / "tensorboard") if args.tensorboard and tensorboard_is_there() else None
    with _bar(team, "training", None, "steps") as update:  # one for all: two draw over each other

        class Console(Watcher):
            def moved(self, done: int, total: int) -> None:
                if asked():
                    raise KeyboardInterrupt  # nothing to save yet
                update(done, total, "moved drawings for the aligner")

            def aligned(self, step: int, steps: int, loss: float) -> None:
                if asked():
                    raise KeyboardInterrupt
                update(step, steps, "the aligner")

            def stepped(self, step: int, steps: int, loss: float, rates: Sequence[float]) -> None:
                update(step, steps, f"loss {loss:.2f}")
                if curves:
                    curves.stepped(step, steps, loss, rates)

            def validated(self, history: Sequence[Mapping[str, Any]], step: int) -> None:
                write_json(args.out / "run.json", {**record, "validations": history})
                shown = {name: value for name, value in history[-1].items() if not isinstance(value, dict)}
                print(", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()))
                if curves:
                    curves.validated(history[-1], step)

            def should_stop(self) -> bool:
                return asked()

        try:
            yield Console()
        finally:
            if curves:
                curves.close()


@contextmanager
def _bar(team: "Team", label: str, total: int | None, unit: str) -> Iterator["Update"]:
    """A progress bar in the first process of a machine."""
    from indexer.console import progress

    if team.local_rank:
        yield lambda done, total=None, notes="": None
        return
    with progress(label, total, unit) as update:
        yield update


Split = tuple[str, list[str]]
"""A split file's stem, which labels it, and its names."""


def _read_splits(args: argparse.Namespace) -> list[tuple[Split, Split]]:
    """What to train and to select on, one pair a data set."""
    from training.data import read_split
    from training.pairs import check_people

    splits = [
        ((fit.stem, read_split(fit)), (val.stem, read_split(val))) for fit, val in zip(*_split_files(args), strict=True)
    ]
    check_people([fit[1] for fit, _ in splits], [val[1] for _, val in splits])
    return splits


def _split_files(args: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """The files of --fit and --val; without them those of the splits made here, one each a folder of photos."""
    from indexer.errors import ConfigError
    from training.pairs import find_pairs, require_paired, split_people
    from training.validate import NOTED

    if (args.fit is None) != (args.val is None):
        raise ConfigError("--fit and --val come together: name both, or neither to use all pairs of --data")
    if args.fit is not None:
        if len(args.fit) != len(args.val):
            raise ConfigError(f"--fit and --val must name as many split files, got {len(args.fit)} and {len(args.val)}")
        if len({split.stem for split in args.val}) < len(args.val):
            raise ConfigError("the --val files must differ in name: it labels their validation; rename one")
        if {split.stem for split in args.val} & {*NOTED}:
            *most, last = sorted(NOTED)
            raise ConfigError(f"a --val file must not be called {', '.join(most)} or {last}: these label other figures")
        return args.fit, args.val
    found = find_pairs(args.data)
    if args.skip_unpaired:
        below = f", {len(found.below)} pictures in folders below" if found.below else ""
        left_out = f"{len(found.lone_photos)} photos, {len(found.lone_sketches)} sketches{below}"
        print(f"left out: {left_out}", file=sys.stderr)
    else:
        require_paired(found)
    splits = {folder: split_people(names) for folder, names in found.names.items()}
    files: tuple[list[Path], list[Path]] = [], []
    (args.out / "splits").mkdir(parents=True, exist_ok=True)
    for folder, (fit, val) in splits.items():
        for paths, kind, names in zip(files, ("fit", "val"), (fit, val), strict=True):
            paths.append(args.out / "splits" / f"{folder}-{kind}.txt")
            _write_split(paths[-1], names, args)
        where = args.out / "splits"
        print(f"{folder}: {len(fit)} people to train on, {len(val)} to select on ({where})", file=sys.stderr)
    return files


def _write_split(path: Path, names: Sequence[str], args: argparse.Namespace) -> None:
    """Write a split, but never over that of a run which is there: nothing else says whom it was trained on."""
    from indexer.errors import ConfigError
    from training.data import read_split

    if path.exists() and (args.out / "checkpoint.pt").exists() and read_split(path) != names:
        raise ConfigError(
            f"{args.out} holds a run on other people than there are now in {path.stem.rpartition('-')[0]}; name its "
            f"splits, those in {path.parent}, with --fit and --val to go on with it, or use another folder"
        )
    path.write_text("\n".join(names) + "\n", encoding="utf-8")


def _load(
    args: argparse.Namespace, splits: Sequence[tuple[Split, Split]], size_px: int, team: "Team"
) -> "tuple[list[PairSet], list[Validation]]":
    """Both splits of every data set, each checked whole before the first drawing is made."""
    from training.batches import PairSet
    from training.episodes import make_episodes
    from training.pairs import check_apart, check_pictures, locate
    from training.validate import Validation

    located = [[(label, locate(args.data, names)) for label, names in both] for both in splits]
    everybody = [pair for both in located for _, pairs in both for pair in pairs]
    with _bar(team, "checking", len(everybody), "pairs") as update:
        check_pictures(everybody, update)
    check_apart(*([pair for both in located for pair in both[part][1]] for part in (0, 1)))
    fit_sets, validations = [], []
    for both in located:
        sets = []
        for label, pairs in both:
            with _bar(team, f"drawings of {label}", len(pairs), "sketches") as update:
                drawings = args.episodes or args.out / "episodes"
                sets.append(PairSet(pairs, make_episodes(pairs, drawings, args.stages, on_progress=update), size_px))
        fit_sets.append(sets[0])
        validations.append(Validation(both[1][0], sets[1], sets[0].photos))
    return fit_sets, validations


def _described(label: str, names: Sequence[str]) -> dict[str, object]:
    from training.data import split_hash

    return {"split": label, "pairs": len(names), "sha256": split_hash(names)}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in ("mgrl", "torch", "torchvision", "numpy", "pillow")}
