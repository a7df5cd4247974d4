"""The strokes of a drawing and the steps that led to them: drawing, erasing, undo, redo. No pixels, no gRPC.

Strokes are numbered in the order in which they came to be. Every step knows what it took off the canvas and what it
put there, so that taking it back costs what it touched, however much else is on the canvas.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.errors import SketchError
from indexer.sketch import MAX_DRAWING_POINTS, MAX_STROKES, Stroke

_STROKE_BYTES = 700
"""Of one without points: the objects, its array's head, its step."""

Numbered = tuple[int, Stroke]


@dataclass(frozen=True, eq=False)
class _Step:
    """What can be taken back as one: strokes that went off the canvas, and strokes that came onto it."""

    gone: tuple[Numbered, ...]
    come: tuple[Numbered, ...]


@dataclass
class _Size:
    """Of some strokes together."""

    strokes: int = 0
    points: int = 0

    def add(self, strokes: Iterable[Numbered], sign: int = 1) -> None:
        for _, stroke in strokes:
            self.strokes += sign
            self.points += sign * len(stroke.points)

    @property
    def is_too_large(self) -> bool:
        return self.strokes > MAX_STROKES or self.points > MAX_DRAWING_POINTS


class StrokeHistory:
    """Strokes on a canvas. A refused edit changes nothing.

    Attributes:
        epoch: changes whenever `strokes` is no longer what it was with more at its end.
        rearranged: changes whenever strokes were taken away or put back.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.rearranged = 0
        self._present: dict[int, Stroke] = {}
        self._done: deque[_Step] = deque()
        self._undone: list[_Step] = []
        self._next = 0
        self._size = _Size()
        # What is not on the canvas but can come back: gone by steps that are done, come by steps that are undone.
        self._kept = _Size()

    def __len__(self) -> int:
        return len(self._present)

    @property
    def strokes(self) -> tuple[Stroke, ...]:
        """Those on the canvas. The order says nothing, but within an epoch more only come at the end."""
        return tuple(self._present.values())

    @property
    def numbered(self) -> dict[int, Stroke]:
        """Those on the canvas by number, in the order of `strokes`."""
        return dict(self._present)

    @property
    def next_number(self) -> int:
        """The number that the next stroke gets."""
        return self._lowest_undone() if self._undone else self._next

    @property
    def undo_steps(self) -> int:
        """Steps that can be taken back."""
        return len(self._done)

    @property
    def redo_steps(self) -> int:
        """Steps that can be done again."""
        return len(self._undone)

    def held_bytes(self) -> int:
        """About the memory that the strokes take, those that undo and redo bring back included."""
        strokes, points = self._size.strokes + self._kept.strokes, self._size.points + self._kept.points
        return strokes * _STROKE_BYTES + points * 12

    def add(self, strokes: Sequence[Stroke]) -> None:
        """Draw on top, each stroke a step; all of them or, when they are too many, none.

        Raises:
            SketchError: no strokes, or more strokes or points than a drawing may have.
        """
        if not strokes:
            raise SketchError("adding strokes needs at least one stroke, got none", field="strokes")
        self._check_room(len(strokes), sum(len(stroke.points) for stroke in strokes))
        self._forget_undone()
        for stroke in strokes:
            self._do(_Step((), ((self._next, stroke),)))

    def extend(self, points: npt.NDArray[np.float32], pressure: npt.NDArray[np.float32] | None) -> None:
        """Make the stroke that the latest step drew longer; no step of its own.

        Args:
            points: (n, 2) canvas units.
            pressure: (n,) 0..1, exactly when the stroke has pressure.

        Raises:
            SketchError: the latest step drew no stroke, or the points or their number are out of range.
        """
        if not self._done or self._done[-1].gone:
            raise SketchError("there is no stroke to extend: the latest step drew none; begin one with `strokes`")
        ((number, stroke),) = self._done[-1].come
        if (pressure is None) != (stroke.pressure is None):
            has = "no pressure" if stroke.pressure is None else "pressure"
            raise SketchError(f"the stroke was begun with {has}; go on as it was begun", field="pressure")
        self._check_room(0, len(points))
        both = None if stroke.pressure is None or pressure is None else np.concatenate([stroke.pressure, pressure])
        longer = Stroke(np.concatenate([stroke.points, points]), stroke.width, both)
        self._forget_undone()
        if next(reversed(self._present)) != number:
            self.epoch += 1
        self._size.points += len(points)
        self._present[number] = longer
        self._done[-1] = _Step((), ((number, longer),))

    def replace(self, left: Mapping[int, Sequence[Stroke]]) -> None:
        """Take strokes off the canvas and put what is left of each in its place, as one step.

        Args:
            left: number of a stroke -> its pieces, none if it goes as a whole. Nothing at all is no step.

        Raises:
            SketchError: no stroke of that number is on the canvas, or the pieces are too many.
        """
        for number in left:
            if number not in self._present:
                raise SketchError(
                    f"no stroke {number} is on the canvas; strokes are numbered from 0 as they are drawn, and those "
                    "that an eraser leaves count as new",
                    field="numbers",
                )
        if not left:
            return
        gone = tuple((number, self._present[number]) for number in left)
        pieces = [piece for several in left.values() for piece in several]
        more = sum(len(piece.points) for piece in pieces) - sum(len(stroke.points) for _, stroke in gone)
        self._check_room(len(pieces) - len(gone), more)
        self._forget_undone()
        self._do(_Step(gone, tuple(enumerate(pieces, self._next))))
        self._rearrange()

    def undo(self, count: int = 1) -> None:
        """Take back the latest steps.

        Raises:
            SketchError: count is below 1, or above the steps that can be taken back.
        """
        if not 1 <= count <= len(self._done):
            raise SketchError(
                f"undo must take back 1 to {len(self._done)} steps (all there are), got {count}", field="count"
            )
        for _ in range(count):
            step = self._done.pop()
            self._exchange(step.come, step.gone)
            self._kept.add(step.come)
            self._kept.add(step.gone, -1)
            self._undone.append(step)
        self._rearrange()

    def redo(self, count: int = 1) -> None:
        """Do again what was undone last.

        Raises:
            SketchError: count is below 1, or above the steps that can be done again.
        """
        if not 1 <= count <= len(self._undone):
            raise SketchError(
                f"redo must repeat 1 to {len(self._undone)} steps (all that were undone), got {count}", field="count"
            )
        for _ in range(count):
            step = self._undone.pop()
            self._kept.add(step.come, -1)
            self._exchange(step.gone, step.come)
            self._kept.add(step.gone)
            self._done.append(step)
        self._rearrange()

    def clear(self) -> None:
        """Forget strokes and steps; the next stroke is number 0."""
        self._present.clear()
        self._done.clear()
        self._undone.clear()
        self._next, self._size, self._kept = 0, _Size(), _Size()
        self._rearrange()

    def _do(self, step: _Step) -> None:
        self._exchange(step.gone, step.come)
        self._kept.add(step.gone)
        self._done.append(step)
        self._next += len(step.come)
        while self._kept.is_too_large or len(self._done) > MAX_STROKES:
            self._kept.add(self._done.popleft().gone, -1)

    def _exchange(self, off: Iterable[Numbered], on: Iterable[Numbered]) -> None:
        for number, _ in off:
            del self._present[number]
        self._size.add(off, -1)
        self._present.update(on)
        self._size.add(on)

    def _rearrange(self) -> None:
        self.epoch += 1
        self.rearranged += 1

    def _forget_undone(self) -> None:
        self._next = self.next_number
        for step in self._undone:
            self._kept.add(step.come, -1)
        self._undone.clear()

    def _lowest_undone(self) -> int:
        # The step undone last is the earliest of them; one that only took strokes away gave out no number.
        return next((step.come[0][0] for step in reversed(self._undone) if step.come), self._next)

    def _check_room(self, strokes: int, points: int) -> None:
        if self._size.strokes + strokes > MAX_STROKES:
            raise SketchError(
                f"a drawing may have {MAX_STROKES} strokes, this one has {self._size.strokes} and got {strokes} "
                "more; clear it or begin another",
                field="strokes",
            )
        if self._size.points + points > MAX_DRAWING_POINTS:
            raise SketchError(
                f"a drawing may have {MAX_DRAWING_POINTS} points, this one has {self._size.points} and got {points} "
                "more; thin out its strokes",
                field="strokes",
            )
