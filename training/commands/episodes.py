"""Turn finished sketches into drawings, stroke by stroke: large scale first, as in FS2K-SDE.

Each drawing is a JSON file of vector strokes with its stages; `mgrl train` and `mgrl evaluate` read them, `mgrl query
--live` replays one against a running service. FS2K-SDE's own frames can be read back as raster stages and counted.

examples:
  mgrl episodes --data fs2k --split fs2k/splits/dataset2-val.txt --out drawings
  mgrl episodes --data fs2k --split val.txt --out drawings --shuffled --stages 20 --seed 3
  mgrl episodes --sketch scan.jpg --out drawings          one picture, whatever its name
  mgrl episodes --frames fs2k-sde/sketch1                 ink per stage of FS2K-SDE's own frames
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.episode import DEFAULT_STAGES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `mgrl episodes`."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--split", type=Path, help="file with one name a line, such as photo1/image0001; needs --data")
    source.add_argument("--sketch", type=Path, nargs="+", help="pictures of finished sketches")
    source.add_argument("--frames", type=Path, help="folder with FS2K-SDE's own frames, sketchNNNN_TT.png")
    parser.add_argument("--data", type=Path, help="folder of photos/ and sketches/, or in FS2K's layout")
    parser.add_argument("--out", type=Path, help="folder for the drawings; what is there already is kept")
    parser.add_argument("--stages", type=int, default=DEFAULT_STAGES, help="stages of a drawing (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same drawings (default 0)")
    parser.add_argument("--shuffled", action="store_true", help="strokes in random order")
    parser.add_argument("--json", type=Path, help="write the share of ink per stage there, too")


def run(args: argparse.Namespace) -> int:
    """Make the drawings and print how their ink grows."""
    import numpy as np

    from indexer.console import print_table, write_json
    from indexer.episode import ink_share
    from indexer.errors import DataError

    if args.frames is None and args.out is None:
        raise DataError("name the folder for the drawings with --out")
    if args.frames is None and args.split is not None and args.data is None:
        raise DataError("--split needs --data, the folder that its names lie in")
    # One drawing at a time: the stages of a thousand would fill 3 GB.
    shares = [ink_share(canvases) for canvases in (_frames(args.frames) if args.frames else _drawings(args))]
    stages = min(map(len, shares))
    shown = sorted({max(1, round(stages * seventh / 7)) for seventh in range(1, 8)})
    mean = {
        stage: float(np.mean([share[round(stage * len(share) / stages) - 1] for share in shares])) for stage in shown
    }
    print_table(
        f"{len(shares)} drawings of {stages} stages: share of the final ink",
        ["stage", "percent"],
        [[stage, 100 * share] for stage, share in mean.items()],
    )
    write_json(args.json, {"drawings": len(shares), "stages": stages, "ink_share": mean})
    return 0


def _drawings(args: argparse.Namespace) -> Iterator["npt.NDArray[np.uint8]"]:
    """The stages of each drawing, made where --out does not hold it."""
    from indexer.console import progress
    from training.data import Pair, find_pair, read_split
    from training.episodes import make_episodes

    if args.sketch:
        pairs = [Pair(path.stem, path, path) for path in args.sketch]
    else:
        pairs = [find_pair(args.data, name) for name in read_split(args.split)]
    with progress("drawings", len(pairs), "sketches") as update:
        episodes = make_episodes(pairs, args.out, args.stages, args.seed, shuffled=args.shuffled, on_progress=update)
    with progress("ink per stage", len(episodes), "drawings") as update:
        for number, episode in enumerate(episodes.values(), start=1):
            yield episode.canvases()
            update(number)


def _frames(folder: Path) -> Iterator["npt.NDArray[np.uint8]"]:
    """The stages of each of FS2K-SDE's drawings."""
    from indexer.console import progress
    from training.episodes import list_frames, read_frames

    drawings = list_frames(folder)
    with progress("frames", len(drawings), "drawings") as update:
        for number, frames in enumerate(drawings.values(), start=1):
            yield read_frames(frames)
            update(number)
