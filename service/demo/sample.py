"""The sample gallery on disk: photos of invented people, made on all cores."""

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from indexer.children import end_with_parent
from indexer.encoding import default_threads
from indexer.errors import ConfigError
from service.demo.painting import render_photo
from service.demo.portraits import Portrait

_STAMP: Final = "demo.json"
_WORTH_PROCESSES: Final = 60
"""Portraits from which on starting processes pays off."""


def person(seed: int, number: int) -> Portrait:
    """The invented person with this number, 1-based, in the sample of this seed."""
    return Portrait.random(seed * 1_000_000 + number)


def person_id(number: int) -> str:
    """Photo id and file name without suffix."""
    return f"person{number:04d}"


def make_sample(folder: Path, count: int, seed: int, on_progress: Callable[[int], None] = lambda done: None) -> None:
    """Paint `count` people into a folder as JPEG files; those that are there already are kept.

    Args:
        folder: where to; made if missing.
        count: people, at least 1.
        seed: another one gives other people.
        on_progress: called with the number of photos there are so far.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder / f"{person_id(number)}.jpg", seed, number) for number in range(1, count + 1)]
    missing = [job for job in jobs if not job[0].is_file()]
    done = count - len(missing)
    processes = min(default_threads(), 8) if len(missing) >= _WORTH_PROCESSES else 1
    if processes == 1:
        for number, job in enumerate(missing, start=1):
            _paint(job)
            on_progress(done + number)
        return
    # Spawned, not forked: threads of ONNX Runtime or gRPC do not survive a fork.
    with ProcessPoolExecutor(processes, get_context("spawn"), end_with_parent) as pool:
        for number, _ in enumerate(pool.map(_paint, missing, chunksize=8), start=1):
            on_progress(done + number)


def claim(folder: Path, contents: str) -> None:
    """Note what a demo folder holds, so that two demos never mix in one gallery.

    Args:
        folder: the demo's folder; made if missing.
        contents: what its gallery is made of, in words.

    Raises:
        ConfigError: the folder holds another demo or something else, or cannot be made.
    """
    stamp = folder / _STAMP
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if stamp.is_file():
            held = _held(stamp)
        elif any(folder.iterdir()):
            held = "other files"
        else:
            stamp.write_text(json.dumps({"gallery": contents}) + "\n", encoding="utf-8")
            return
    except OSError as error:
        raise ConfigError(f"cannot use the folder {folder}: {error.strerror}") from error
    if held != contents:
        raise ConfigError(
            f"the folder {folder} holds {held}, this demo is of {contents}; choose another with --folder, or remove it"
        )


def _held(stamp: Path) -> str:
    try:
        return str(json.loads(stamp.read_text(encoding="utf-8"))["gallery"])
    except (ValueError, KeyError, TypeError):
        return "a damaged demo"


def _paint(job: tuple[Path, int, int]) -> None:
    path, seed, number = job
    # Under another name first: an interrupted demo leaves no half photo behind.
    scratch = path.with_suffix(".part")
    render_photo(person(seed, number)).save(scratch, "JPEG", quality=90)
    scratch.replace(path)
