"""In which order a person would draw the strokes of a finished face: large scale first.

FS2K-SDE's published order is hair outline, face contour, hair fill, mouth, neck, eyes, brows and nose, wrinkles.
There is no face parsing here: a stroke's part follows from where it lies relative to the head, which the ink shows.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt
from PIL import Image

from indexer.episode import DEFAULT_STAGES, Episode, visible_stage_ends
from indexer.errors import SketchError
from indexer.sketch import Stroke
from indexer.tracing import trace


class Part(IntEnum):
    """Parts of a portrait in drawing order."""

    OUTLINE = 0
    HAIR_FILL = 1
    MOUTH = 2
    NECK = 3
    FEATURES = 4
    WRINKLES = 5


def episode_from_sketch(
    image: Image.Image, stages: int = DEFAULT_STAGES, seed: int = 0, *, shuffled: bool = False
) -> Episode:
    """Turn a finished sketch into a drawing of `stages` stages.

    Args:
        image: the sketch, any mode and polarity; its centred square becomes the canvas.
        stages: T, at least 1.
        seed: decides ties and the hand's choices; the same seed gives the same drawing.
        shuffled: draw the strokes in random order instead of large scale first.

    Raises:
        SketchError: no pencil line in the picture, or too little ink for so many stages.
    """
    if stages < 1:
        raise SketchError(f"a drawing must have at least 1 stage, got {stages}")
    return order_episode(trace(image), stages, seed, shuffled=shuffled)


def order_episode(strokes: Sequence[Stroke], stages: int, seed: int = 0, *, shuffled: bool = False) -> Episode:
    """Put strokes into drawing order and cut them into stages (see `episode_from_sketch`)."""
    rng = np.random.default_rng(seed)
    pieces = _enough(list(strokes), stages)
    order = rng.permutation(len(pieces)).tolist() if shuffled else drawing_order(pieces, rng)
    ordered = tuple(pieces[index] for index in order)
    return Episode(ordered, visible_stage_ends(ordered, [ink(stroke) for stroke in ordered], stages))


def ink(stroke: Stroke) -> float:
    """Length times width in squared canvas units, with round caps."""
    return (length(stroke) + stroke.width) * stroke.width


def length(stroke: Stroke) -> float:
    """Path length in canvas units."""
    return float(np.hypot(*np.diff(stroke.points, axis=0).T).sum())


def drawing_order(strokes: Sequence[Stroke], rng: np.random.Generator) -> list[int]:
    """Indices of the strokes: part by part, large first, then wherever the pen is nearest."""
    parts = head_parts(strokes)
    order: list[int] = []
    pen = np.array([0.5, 0.0])
    for part in Part:
        members = [i for i in range(len(strokes)) if parts[i] == part]
        # Coarse classes of size (powers of two) keep "large first" and leave the pen a choice within a class.
        sizes = {i: int(np.log2(max(ink(strokes[i]), 1e-7))) for i in members}
        for size in sorted(set(sizes.values()), reverse=True):
            here = [i for i in members if sizes[i] == size]
            nearest, pen = _nearest_first(strokes, here, pen, rng)
            order += nearest
    return order


def head_parts(strokes: Sequence[Stroke]) -> npt.NDArray[np.int64]:
    """(strokes,) `Part` of each stroke, from its place relative to the head that all the ink outlines."""
    centres = np.array([stroke.points.mean(axis=0) for stroke in strokes], dtype=np.float64)
    lengths = np.array([length(stroke) for stroke in strokes])
    every = np.concatenate([stroke.points for stroke in strokes])
    top = np.quantile(every[:, 1], 0.01)
    upper = every[every[:, 1] < top + 0.6 * (1 - top)]
    left, right = np.quantile(upper[:, 0], [0.04, 0.96])
    middle, half_width = (left + right) / 2, max((right - left) / 2, 0.1)
    height = min(2.7 * half_width, 0.95 - top)
    chin = top + height
    across = (centres[:, 0] - middle) / half_width
    down = (centres[:, 1] - top) / height
    # A contour's centre lies in the middle of the face: what counts is whether all of the stroke does.
    inner = np.array([_inside(stroke, middle, half_width, top, height) for stroke in strokes])
    parts = np.full(len(strokes), Part.HAIR_FILL, dtype=np.int64)
    parts[inner] = Part.FEATURES
    parts[inner & (down > 0.72) & (np.abs(across) < 0.42)] = Part.MOUTH
    parts[inner & (lengths < 0.035)] = Part.WRINKLES
    parts[~inner & (centres[:, 1] > chin)] = Part.NECK
    outer = ~inner & (centres[:, 1] <= chin)
    if outer.any():
        parts[outer & (lengths >= np.quantile(lengths[outer], 0.85))] = Part.OUTLINE
    return parts


def _inside(stroke: Stroke, middle: float, half_width: float, top: float, height: float) -> bool:
    """Whether nine tenths of a stroke lie within the ellipse of eyes, nose and mouth."""
    across = (stroke.points[:, 0] - middle) / half_width
    down = (stroke.points[:, 1] - top) / height
    return bool(np.mean((across / 0.62) ** 2 + ((down - 0.62) / 0.34) ** 2 < 1) > 0.9)


def _nearest_first(
    strokes: Sequence[Stroke], members: list[int], pen: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Walk from stroke to stroke, always to the nearest start, with a little of a hand's arbitrariness."""
    starts = np.array([strokes[i].points[0] for i in members], dtype=np.float64)
    jitter = rng.uniform(0, 0.02, len(members))
    left = np.ones(len(members), bool)
    order = []
    for _ in members:
        distance = np.hypot(*(starts - pen).T) + jitter
        chosen = int(np.argmin(np.where(left, distance, np.inf)))
        left[chosen] = False
        order.append(members[chosen])
        pen = strokes[members[chosen]].points[-1].astype(np.float64)
    return order, pen


def _enough(strokes: list[Stroke], stages: int) -> list[Stroke]:
    """Halve the longest strokes until every stage can have two, so that none needs to be invisible."""
    wanted = 2 * stages if stages > 1 else 1
    lengths = [length(stroke) for stroke in strokes]
    while len(strokes) < wanted and max(lengths) >= 0.02:
        longest = lengths.index(max(lengths))
        halves = _halves(strokes[longest])
        strokes[longest : longest + 1] = halves
        lengths[longest : longest + 1] = [length(half) for half in halves]
    return strokes


def _halves(stroke: Stroke) -> list[Stroke]:
    """Two strokes that meet in the middle of the path."""
    points = stroke.points.astype(np.float64)
    run = np.concatenate([[0.0], np.hypot(*np.diff(points, axis=0).T).cumsum()])
    half = run[-1] / 2
    at = int(np.searchsorted(run, half, side="left"))
    share = (half - run[at - 1]) / max(run[at] - run[at - 1], 1e-12)
    middle = points[at - 1] + share * (points[at] - points[at - 1])
    first, second = np.vstack([points[:at], middle]), np.vstack([middle, points[at:]])
    return [Stroke(part.astype(np.float32), stroke.width) for part in (first, second)]
