"""Drawings as people make them: moved, incomplete, shaky, in another order. Augmentation and robustness sets alike."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.drawing_order import ink
from indexer.episode import Episode, visible_stage_ends
from indexer.sketch import Stroke

Points = npt.NDArray[np.float64]
Stages = list[list[Stroke]]
"""The strokes that are new in each stage."""

MOVED_SHIFT: Final = 0.06
MOVED_TURN_DEGREES: Final = 5.0
MOVED_SCALE: Final = 0.08
DROPPED_SHARE: Final = 1 / 3
WOBBLE: Final = 0.006
"""Standard deviation of a shaky hand's detour, in canvas units: a pixel of 192, half a millimetre on a phone."""

_STEP: Final = 0.01


def move(
    strokes: Sequence[Stroke], shift: tuple[float, float], turn_degrees: float, scale: float, *, flip: bool = False
) -> list[Stroke]:
    """Strokes mirrored, turned and scaled about the centre of the canvas, then shifted; what leaves it is cut off.

    The cut is at a path's last point inside: of traced sketches moved as in `moved` that loses 0.3 % of the ink.

    Args:
        strokes: in canvas units.
        shift: (x, y) in canvas units.
        turn_degrees: clockwise on the screen, y being down.
        scale: 1 keeps the size.
        flip: mirror left and right first.
    """
    angle = np.deg2rad(turn_degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if flip:
        turn = turn @ np.diag([-1.0, 1.0])
    moved: list[Stroke] = []
    for stroke in strokes:
        points = (stroke.points.astype(np.float64) - 0.5) @ turn.T + 0.5 + np.asarray(shift)
        for run in _inside_runs(points):
            pressure = None if stroke.pressure is None else stroke.pressure[run]
            moved.append(Stroke(points[run].astype(np.float32), stroke.width, pressure))
    return moved


def wobble(strokes: Sequence[Stroke], rng: np.random.Generator, amount: float = WOBBLE) -> list[Stroke]:
    """Strokes with a smooth random detour, as from a shaky hand.

    Args:
        strokes: in canvas units.
        rng: source of the detour.
        amount: its standard deviation in canvas units.
    """
    shaky = []
    for stroke in strokes:
        points, pressure = _resample(stroke)
        detour = rng.normal(size=(len(points) + 4, 2))
        smooth = sum(detour[lag : lag + len(points)] for lag in range(5)) / np.sqrt(5)
        shaky.append(Stroke(np.clip(points + amount * smooth, 0, 1).astype(np.float32), stroke.width, pressure))
    return shaky


def aligned(episode: Episode, rng: np.random.Generator) -> Stages:
    """The drawing as it was made."""
    return [list(episode.added_at(stage)) for stage in range(episode.stages)]


def shuffled(episode: Episode, rng: np.random.Generator) -> Stages:
    """The same strokes in random order."""
    return _restage([episode.strokes[index] for index in rng.permutation(len(episode.strokes))], episode.stages)


def moved(episode: Episode, rng: np.random.Generator) -> Stages:
    """The whole drawing shifted up to 6 %, turned up to 5 degrees, scaled up to 8 %."""
    x, y = rng.uniform(-MOVED_SHIFT, MOVED_SHIFT, 2)
    turn = rng.uniform(-MOVED_TURN_DEGREES, MOVED_TURN_DEGREES)
    scale = 1 + rng.uniform(-MOVED_SCALE, MOVED_SCALE)
    return [move(stage, (x, y), turn, scale) for stage in aligned(episode, rng)]


def dropped(episode: Episode, rng: np.random.Generator) -> Stages:
    """A random third of the strokes is never drawn."""
    kept = max(1, round(len(episode.strokes) * (1 - DROPPED_SHARE)))
    chosen = np.sort(rng.permutation(len(episode.strokes))[:kept])
    return _restage([episode.strokes[index] for index in chosen], episode.stages)


def wobbly(episode: Episode, rng: np.random.Generator) -> Stages:
    """Every stroke drawn by a shaky hand."""
    return [wobble(stage, rng) for stage in aligned(episode, rng)]


PROBE_SETS: Final[Mapping[str, Callable[[Episode, np.random.Generator], Stages]]] = {
    "aligned": aligned,
    "shuffled": shuffled,
    "moved": moved,
    "dropped": dropped,
    "wobbly": wobbly,
}
"""Name -> how the probes of that robustness set are drawn."""


def probe_stages(name: str, episode: Episode, seed: int) -> Stages:
    """The strokes new in each stage, drawn as the named set of `PROBE_SETS` says.

    Raises:
        SketchError: too little ink is left for so many stages.
    """
    return PROBE_SETS[name](episode, np.random.default_rng(seed))


def _restage(strokes: list[Stroke], stages: int) -> Stages:
    ends = visible_stage_ends(strokes, [ink(stroke) for stroke in strokes], stages)
    return [strokes[start:end] for start, end in zip((0, *ends), ends, strict=False)]


def _inside_runs(points: Points) -> list[slice]:
    """The stretches of a path that lie on the canvas."""
    inside = np.asarray(((points >= 0) & (points <= 1)).all(axis=1))
    if inside.all():
        return [slice(len(points))]
    edges = [0, *(np.flatnonzero(np.diff(inside.astype(int))) + 1).tolist(), len(points)]
    return [slice(first, end) for first, end in pairwise(edges) if inside[first]]


def _resample(stroke: Stroke) -> tuple[Points, npt.NDArray[np.float32] | None]:
    """Points every hundredth of the canvas along the path, ends kept, and their pressure."""
    points = stroke.points.astype(np.float64)
    run = np.concatenate([[0.0], np.hypot(*np.diff(points, axis=0).T).cumsum()])
    at = np.linspace(0, run[-1], max(2, round(run[-1] / _STEP) + 1)) if run[-1] else np.zeros(1)
    pressure = None if stroke.pressure is None else np.interp(at, run, stroke.pressure).astype(np.float32)
    return np.stack([np.interp(at, run, points[:, 0]), np.interp(at, run, points[:, 1])], axis=1), pressure
