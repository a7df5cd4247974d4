"""Drawing episodes for a whole split: generated from finished sketches and cached, or read from FS2K-SDE's frames."""

import re
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.drawing_order import episode_from_sketch
from indexer.encoding import default_threads
from indexer.episode import DEFAULT_STAGES, Episode
from indexer.errors import DataError, SketchError
from indexer.sketch import CANVAS_PX, ink_on_black, square
from training.data import Pair, open_image

_FRAME: Final = re.compile(r"(?P<sketch>.+)_(?P<stage>\d+)\.(png|jpg|jpeg|webp)$", re.IGNORECASE)


def make_episodes(
    pairs: Sequence[Pair],
    folder: Path,
    stages: int = DEFAULT_STAGES,
    seed: int = 0,
    *,
    shuffled: bool = False,
    workers: int | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Episode]:
    """The episode of every pair, made where `folder` does not hold it yet.

    Args:
        pairs: identities whose sketches are turned into drawings.
        folder: cache; one JSON file an identity, named after it, under a folder for stages, seed and order.
        stages: T.
        seed: together with the name decides each drawing.
        shuffled: strokes in random order.
        workers: processes; all cores by default.
        on_progress: called with the number of episodes there are so far.

    Raises:
        DataError: a sketch is unreadable or has too little ink for so many stages.
    """
    cache = folder / f"T{stages}-seed{seed}{'-shuffled' if shuffled else ''}"
    wanted = {pair.name: cache / f"{pair.name}.json" for pair in pairs}
    missing = [(pair, wanted[pair.name]) for pair in pairs if not wanted[pair.name].is_file()]
    done = len(pairs) - len(missing)
    on_progress(done)
    jobs = [(pair, path, stages, seed, shuffled) for pair, path in missing]
    processes = min(workers or default_threads(), max(1, len(jobs)))
    if processes == 1:
        for job in jobs:
            _make(job)
            on_progress(done := done + 1)
    else:
        # Spawned, not forked: the caller may hold threads of torch or ONNX Runtime.
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(_make, jobs, chunksize=8):
                on_progress(done := done + 1)
    return {name: Episode.load(path) for name, path in wanted.items()}


def name_seed(name: str, seed: int) -> int:
    """A seed of its own for every identity, the same on every machine and in every order."""
    return zlib.crc32(f"{seed}/{name}".encode())


def sketches_with_frames(folder: Path) -> list[str]:
    """Names of the sketches that FS2K-SDE's frames in a folder show, sorted.

    Raises:
        DataError: no folder there, or no frame in it.
    """
    names = {match["sketch"] for path in _listed(folder) if (match := _FRAME.fullmatch(path.name))}
    if not names:
        raise DataError(f"{folder} holds no frames named as FS2K-SDE's are: sketch0001_1.png, sketch0001_2.png, ...")
    return sorted(names)


def read_frames(folder: Path, sketch: str, size_px: int = CANVAS_PX) -> npt.NDArray[np.uint8]:
    """FS2K-SDE's own frames of one drawing: flat files `sketchNNNN_TT.*`, sorted by the number TT.

    Args:
        folder: where the frames lie.
        sketch: `sketch0001`.
        size_px: side of the canvases.

    Returns:
        (stages, size_px, size_px) uint8, ink bright on 0.

    Raises:
        DataError: no frame of that sketch, or an unreadable one.
    """
    found = [
        (int(match["stage"]), path)
        for path in _listed(folder)
        if (match := _FRAME.fullmatch(path.name)) and match["sketch"] == sketch
    ]
    if not found:
        raise DataError(f"{folder} holds no frames {sketch}_1.png, {sketch}_2.png, ... of a drawing")
    return np.stack([ink_on_black(square(open_image(path).convert("L")), size_px) for _, path in sorted(found)])


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _make(job: tuple[Pair, Path, int, int, bool]) -> None:
    pair, path, stages, seed, shuffled = job
    try:
        episode = episode_from_sketch(open_image(pair.sketch), stages, name_seed(pair.name, seed), shuffled=shuffled)
    except SketchError as error:
        raise DataError(f"{pair.sketch}: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    episode.save(scratch)
    scratch.replace(path)
