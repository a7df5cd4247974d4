"""Drawing episodes for a whole split: generated from finished sketches and cached, or read from FS2K-SDE's frames."""

import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.children import end_with_parent
from indexer.drawing_order import episode_from_sketch, ink
from indexer.encoding import default_threads
from indexer.episode import DEFAULT_STAGES, Episode
from indexer.errors import ConfigError, DataError, SketchError
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
        folder: cache; one JSON file an identity, named after it, under a folder for stages, seed and order. A file
            that is torn, or was made from another sketch, is made again.
        stages: T.
        seed: together with the name decides each drawing.
        shuffled: strokes in random order.
        workers: processes; all cores by default.
        on_progress: called with the number of episodes there are so far.

    Raises:
        DataError: a sketch is unreadable or has too little ink for so many stages, two pairs have one name, or the
            folder cannot be written.
        MemoryError: a process was killed, which only the kernel does, and for its memory.
        ConfigError: stages is below 1.
    """
    if stages < 1:
        raise ConfigError(f"a drawing must have at least 1 stage, got {stages}")
    if twice := [name for name, count in Counter(pair.name for pair in pairs).items() if count > 1]:
        raise DataError(f"several sketches are named {twice[0]}, so their drawings would be one file; rename them")
    cache = folder / f"T{stages}-seed{seed}{'-shuffled' if shuffled else ''}"
    files = {pair.name: cache / f"{pair.name}.json" for pair in pairs}
    cached = {pair.name: _cached(files[pair.name], pair.sketch, stages) for pair in pairs}
    jobs = [(pair, files[pair.name], stages, seed, shuffled) for pair in pairs if cached[pair.name] is None]
    done = len(pairs) - len(jobs)
    on_progress(done)
    processes = min(workers or default_threads(), max(1, len(jobs)))
    if processes == 1:
        for job in jobs:
            _make(job)
            on_progress(done := done + 1)
    else:
        # Spawned, not forked: the caller may hold threads of torch or ONNX Runtime.
        try:
            with ProcessPoolExecutor(processes, get_context("spawn"), end_with_parent) as pool:
                for _ in pool.map(_make, jobs, chunksize=8):
                    on_progress(done := done + 1)
        except BrokenProcessPool as error:
            raise MemoryError("a process that drew was killed; run the same again: what is drawn is kept") from error
    return {name: episode or Episode.load(files[name]) for name, episode in cached.items()}


def name_seed(name: str, seed: int) -> int:
    """A seed of its own for every identity, the same on every machine and in every order."""
    return zlib.crc32(f"{seed}/{name}".encode())


def ink_shares(episodes: Iterable[Episode]) -> npt.NDArray[np.float64]:
    """(drawings, stages) share of the finished drawing's ink at the end of each stage; all of equally many stages."""
    rows = []
    for episode in episodes:
        drawn = np.cumsum([ink(stroke) for stroke in episode.strokes])
        rows.append(drawn[np.array(episode.stage_ends) - 1] / drawn[-1])
    return np.stack(rows)


def list_frames(folder: Path) -> dict[str, list[Path]]:
    """FS2K-SDE's own frames: flat files `sketchNNNN_TT.*`.

    Returns:
        Name of the sketch -> its frames by the number TT; names are sorted.

    Raises:
        DataError: no folder there, no frame in it, or a stage twice.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; it holds frames named sketch0001_1.png, sketch0001_2.png, ...")
    frames: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        if match := _FRAME.fullmatch(path.name):
            other = frames.setdefault(match["sketch"], {}).setdefault(int(match["stage"]), path)
            if other != path:
                raise DataError(f"{other.name} and {path.name} in {folder} are the same stage; remove one of them")
    if not frames:
        raise DataError(f"{folder} holds no frames named as FS2K-SDE's are: sketch0001_1.png, sketch0001_2.png, ...")
    return {name: [stages[number] for number in sorted(stages)] for name, stages in sorted(frames.items())}


def read_frames(frames: Sequence[Path], size_px: int = CANVAS_PX) -> npt.NDArray[np.uint8]:
    """(stages, size_px, size_px) uint8 canvases of one drawing of `list_frames`, ink bright on 0.

    Raises:
        DataError: a frame is unreadable.
    """
    return np.stack([ink_on_black(square(open_image(path)), size_px) for path in frames])


def _cached(path: Path, sketch: Path, stages: int) -> Episode | None:
    """The drawing made of this very sketch by an earlier call; None where there is none, or only a torn one."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        episode = Episode.from_json(raw)
        return episode if raw.get("sketch_sha256") == _sha256(sketch) and episode.stages == stages else None
    except (OSError, ValueError, RecursionError, SketchError):
        return None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _make(job: tuple[Pair, Path, int, int, bool]) -> None:
    pair, path, stages, seed, shuffled = job
    try:
        episode = episode_from_sketch(open_image(pair.sketch), stages, name_seed(pair.name, seed), shuffled=shuffled)
    except SketchError as error:
        raise DataError(f"{pair.sketch}: {error}") from error
    content = {**episode.to_json(), "sketch_sha256": _sha256(pair.sketch)}
    scratch = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        raise DataError(f"cannot write the drawing {path}: {error.strerror}") from error
