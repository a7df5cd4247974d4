"""A drawing from its first stroke to its last, cut into stages, and its file format."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from indexer.errors import SketchError
from indexer.regions import INK_LEVEL
from indexer.sketch import CANVAS_PX, DEFAULT_WIDTH, MAX_STROKES, Canvas, Stroke, as_float32

FORMAT: Final = "mgrl-drawing/1"
DEFAULT_STAGES: Final = 70


@dataclass(frozen=True)
class Episode:
    """Strokes in drawing order and how many of them are there at the end of each stage.

    Args:
        strokes: at least one.
        stage_ends: strictly increasing numbers of strokes; the last is all of them.

    Raises:
        SketchError: no strokes, or stage ends that do not climb to the number of strokes.
    """

    strokes: tuple[Stroke, ...]
    stage_ends: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.strokes:
            raise SketchError("a drawing must have at least one stroke, got none")
        ends = (0, *self.stage_ends)
        if ends[-1] != len(self.strokes) or any(a >= b for a, b in pairwise(ends)):
            raise SketchError(
                f"stage ends must climb from at least 1 to the {len(self.strokes)} strokes of the drawing, "
                f"got {list(self.stage_ends[:8])} with {ends[-1]} as the last"
            )

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.stage_ends)

    def added_at(self, stage: int) -> tuple[Stroke, ...]:
        """The strokes that are new in a stage, 0-based."""
        start = self.stage_ends[stage - 1] if stage else 0
        return self.strokes[start : self.stage_ends[stage]]

    def canvases(self, size_px: int = CANVAS_PX) -> npt.NDArray[np.uint8]:
        """(stages, size_px, size_px) uint8, the drawing at the end of each stage, ink bright on 0."""
        return render_stages([self.added_at(stage) for stage in range(self.stages)], size_px)

    def save(self, path: Path) -> None:
        """Write the drawing as JSON; points keep four decimals, a fiftieth of a pixel at 192 px."""
        path.write_text(json.dumps(self.to_json(), separators=(",", ":")), encoding="utf-8")

    def to_json(self) -> dict[str, Any]:
        """The drawing as plain JSON values."""
        strokes = []
        for stroke in self.strokes:
            entry: dict[str, Any] = {
                "points": [[round(x, 4), round(y, 4)] for x, y in stroke.points.tolist()],
                "width": float(f"{stroke.width:.4g}"),
            }
            if stroke.pressure is not None:
                entry["pressure"] = [round(p, 3) for p in stroke.pressure.tolist()]
            strokes.append(entry)
        return {"format": FORMAT, "strokes": strokes, "stages": list(self.stage_ends)}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a drawing; without "stages" every stroke is a stage of its own.

        Raises:
            SketchError: no such file, not JSON, or not a drawing.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SketchError(f"the drawing {path.name} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise SketchError(f"{path.name} must be a JSON file with a drawing: {error}") from error
        try:
            return cls.from_json(raw)
        except SketchError as error:
            raise SketchError(f"{path.name}: {error}") from error

    @classmethod
    def from_json(cls, raw: object) -> Self:
        """The drawing in plain JSON values.

        Raises:
            SketchError: what is missing or malformed.
        """
        if not isinstance(raw, dict) or not isinstance(raw.get("strokes"), list):
            raise SketchError('a drawing must be a JSON object with a list "strokes"')
        if raw.get("format", FORMAT) != FORMAT:
            raise SketchError(f"this version reads drawings of the format {FORMAT}, got {raw['format']!r}")
        if raw.get("picture"):
            raise SketchError(
                'this drawing lies on a picture, which only the sketchpad opens; take "picture" out of the file to '
                "have its strokes alone"
            )
        if len(raw["strokes"]) > MAX_STROKES:
            raise SketchError(f"a drawing may have {MAX_STROKES} strokes, got {len(raw['strokes'])}")
        strokes = tuple(_stroke(number, entry) for number, entry in enumerate(raw["strokes"]))
        ends = raw.get("stages", list(range(1, len(strokes) + 1)))
        if not isinstance(ends, list) or not all(isinstance(end, int) for end in ends):
            raise SketchError('"stages" must be a list of whole numbers: the strokes drawn at the end of each stage')
        return cls(strokes, tuple(ends))


def render_stages(added: Sequence[Sequence[Stroke]], size_px: int = CANVAS_PX) -> npt.NDArray[np.uint8]:
    """(stages, size_px, size_px) uint8 canvases from the strokes that are new in each stage."""
    canvas = Canvas(size_px)
    frames = np.empty((len(added), size_px, size_px), np.uint8)
    for stage, strokes in enumerate(added):
        canvas.draw(strokes)
        frames[stage] = canvas.pixels()
    return frames


def stage_ends(ink: Sequence[float], stages: int) -> tuple[int, ...]:
    """Cut strokes into stages so that the ink grows as in FS2K-SDE, with at least one stroke a stage.

    Args:
        ink: ink of each stroke in drawing order, any unit, positive; at least `stages` of them.
        stages: T.

    Source: share of the final ink at stages 10, 20, ..., 60 of 70 in FS2K-SDE: 28, 49, 70, 84, 92, 99 %.
    """
    share = np.interp(np.arange(1, stages + 1) / stages, np.arange(8) / 7, [0, 0.28, 0.49, 0.70, 0.84, 0.92, 0.99, 1])
    drawn = np.cumsum(ink) / np.sum(ink)
    ideal = np.searchsorted(drawn, share - 1e-9) + 1
    ends: list[int] = []
    for stage in range(stages):
        least = ends[-1] + 1 if ends else 1
        ends.append(int(np.clip(ideal[stage], least, len(drawn) - (stages - 1 - stage))))
    ends[-1] = len(drawn)
    return tuple(ends)


def visible_stage_ends(strokes: Sequence[Stroke], ink: Sequence[float], stages: int) -> tuple[int, ...]:
    """Stage ends as in `stage_ends`, set so that every stage adds ink that the network can see.

    A stroke that lies wholly under earlier ink never ends a stage: it goes with the next one that shows.

    Returns:
        (stages,) strictly increasing; the last is the number of strokes.

    Raises:
        SketchError: fewer strokes show than there are stages.
    """
    canvas = Canvas()
    shows = [number for number, stroke in enumerate(strokes) if canvas.add(stroke)]
    if len(shows) < stages:
        raise SketchError(f"the sketch has ink for {len(shows)} stages, {stages} were asked for; ask for fewer")
    groups = np.add.reduceat(np.asarray(ink, dtype=np.float64), [0, *(number + 1 for number in shows[:-1])])
    ends = [shows[group - 1] + 1 for group in stage_ends(groups.tolist(), stages)]
    return (*ends[:-1], len(strokes))


def ink_share(canvases: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """(stages,) share of the final ink pixels that are there at each stage."""
    inked = (canvases >= INK_LEVEL).sum(axis=(1, 2)).astype(np.float64)
    return np.asarray(inked / max(inked[-1], 1.0))


def _stroke(number: int, entry: object) -> Stroke:
    if not isinstance(entry, dict) or "points" not in entry:
        raise SketchError(f'stroke {number} must be an object with "points"')
    try:
        points = as_float32(entry["points"])
        pressure = as_float32(entry["pressure"]) if "pressure" in entry else None
        return Stroke(points, float(entry.get("width", DEFAULT_WIDTH)), pressure)
    except SketchError as error:
        raise SketchError(f"stroke {number}: {error}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise SketchError(f'stroke {number}: "width" must be a number') from error
