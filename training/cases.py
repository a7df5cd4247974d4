"""Drawings that somebody made and saved, each with the photo that was confirmed: test cases beside the made ones."""

import json
from collections.abc import Sequence
from pathlib import Path

from indexer.drawing_order import ink
from indexer.episode import Episode, visible_stage_ends
from indexer.errors import DataError, SketchError
from training.data import PLAIN_PHOTOS


def read_cases(files: Sequence[Path], names: Sequence[str], stages: int) -> dict[str, Episode]:
    """Name of the target -> its drawing, in as many stages as asked for.

    Args:
        files: drawings as the sketchpad saves them, with a "target".
        names: of the split; a target is one of them, or the part after `photos/` of one.
        stages: T.

    Raises:
        DataError: a file is no drawing, has no target or one that is not in the split, has too little ink for so many
            stages, or two files have one target.
    """
    cases: dict[str, Episode] = {}
    for file in files:
        try:
            episode = Episode.load(file)
        except SketchError as error:
            raise DataError(str(error)) from error
        try:
            ends = visible_stage_ends(episode.strokes, [ink(stroke) for stroke in episode.strokes], stages)
        except SketchError as error:
            raise DataError(f"{file.name}: {error}") from error
        target = json.loads(file.read_text(encoding="utf-8")).get("target")
        name = next((name for name in names if target in (name, name.removeprefix(f"{PLAIN_PHOTOS}/"))), None)
        if target is None:
            raise DataError(f'{file.name} names no "target"; confirm a photo in the sketchpad\'s replay and save again')
        if name is None:
            raise DataError(f"{file.name} is a drawing of {str(target)[:80]!r}, which is not in the split")
        if name in cases:
            raise DataError(
                f"several drawings are of {name}, and one can be evaluated at a time; leave out {file.name}"
            )
        cases[name] = Episode(episode.strokes, ends)
    return cases
