"""One drawing in progress: what a stream remembers between strokes. No gRPC, no asyncio.

Edits are cheap and belong to one thread (the event loop); `rank` does the work and may run in another, one call at a
time, on a `Snapshot` that later edits do not touch.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.errors import SketchError, UnknownPhotoError
from indexer.fusion import region_weights
from indexer.gallery import Gallery, Hit
from indexer.regions import ink_mask
from indexer.sketch import MAX_STROKES, Canvas, Stroke
from service.answers import Answer, RankedPhoto, SearchOptions, Timings
from service.engine import Engine, Query

MAX_DRAWING_POINTS: Final = 1_000_000
"""Points of all strokes together: 8 MB, a thousand times a careful drawing."""


class DrawingAbandonedError(Exception):
    """Nobody waits for this answer any more; raised between two pieces of work."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A drawing at one moment.

    Args:
        strokes: in drawing order.
        raster: (size, size) uint8 canvas under the strokes, or None.
        epoch: changes whenever ink was taken away, so that strokes cannot just be added.
        version: changes with every edit.
    """

    strokes: tuple[Stroke, ...]
    raster: npt.NDArray[np.uint8] | None
    epoch: int
    version: int


class Drawing:
    """Strokes over an optional picture, and the previous answer to compare the next one with."""

    def __init__(self, gallery: Gallery, engine: Engine, options: SearchOptions | None = None) -> None:
        self._gallery = gallery
        self._engine = engine
        self._options = options or SearchOptions()
        self._strokes: list[Stroke] = []
        self._points = 0
        self._raster: npt.NDArray[np.uint8] | None = None
        self._epoch = 0
        self._version = 0
        self._encoder = engine.encoders.for_gallery(gallery)
        self._canvas = Canvas(self._encoder.size_px)
        self._drawn = Snapshot((), None, 0, 0)
        self._answer: tuple[int, Answer] | None = None

    @property
    def size_px(self) -> int:
        """Side of the canvas in pixels."""
        return self._encoder.size_px

    @property
    def gallery(self) -> str:
        """Name of the gallery that is searched."""
        return self._gallery.name

    def add(self, strokes: Sequence[Stroke]) -> None:
        """Draw on top; all of the strokes or, when they are too many, none.

        Raises:
            SketchError: no strokes, or more strokes or points than a drawing may have.
        """
        if not strokes:
            raise SketchError("adding strokes needs at least one stroke, got none")
        if len(self._strokes) + len(strokes) > MAX_STROKES:
            raise SketchError(
                f"a drawing may have {MAX_STROKES} strokes, this one has {len(self._strokes)} and got {len(strokes)} "
                "more; clear it or begin another"
            )
        points = sum(len(stroke.points) for stroke in strokes)
        if self._points + points > MAX_DRAWING_POINTS:
            raise SketchError(
                f"a drawing may have {MAX_DRAWING_POINTS} points, this one has {self._points} and got {points} more; "
                "thin out its strokes"
            )
        self._strokes.extend(strokes)
        self._points += points
        self._version += 1

    def undo(self, count: int = 1) -> None:
        """Take back the latest strokes; the drawing is then as if they had never been drawn.

        Raises:
            SketchError: fewer strokes are on the canvas, or count is below 1.
        """
        if not 1 <= count <= len(self._strokes):
            raise SketchError(f"undo must take back 1 to {len(self._strokes)} strokes (all there are), got {count}")
        self._points -= sum(len(stroke.points) for stroke in self._strokes[-count:])
        del self._strokes[-count:]
        self._take_away()

    def clear(self) -> None:
        """Empty the canvas, strokes and picture alike."""
        self._strokes.clear()
        self._points = 0
        self._raster = None
        self._take_away()

    def put_raster(self, canvas: npt.NDArray[np.uint8]) -> None:
        """Lay a (size_px, size_px) uint8 canvas under the strokes, in place of an earlier one."""
        self._raster = canvas
        self._version += 1

    def snapshot(self) -> Snapshot:
        """The drawing as it stands."""
        return Snapshot(tuple(self._strokes), self._raster, self._epoch, self._version)

    def rank(self, snapshot: Snapshot | None = None, is_abandoned: Callable[[], bool] = lambda: False) -> Answer:
        """Rank the gallery for a snapshot, by default the drawing as it stands.

        Args:
            snapshot: no older than that of an earlier call.
            is_abandoned: asked between pieces of work whether anybody still waits.

        Raises:
            DrawingAbandonedError: nobody does.
        """
        snapshot = snapshot or self.snapshot()
        if self._answer is not None and self._answer[0] == snapshot.version:
            answer = _unmoved(self._answer[1])
        else:
            answer = self._compute(snapshot, is_abandoned)
        self._answer = snapshot.version, answer
        return answer

    def _compute(self, snapshot: Snapshot, is_abandoned: Callable[[], bool]) -> Answer:
        with self._engine.slot:
            clock = _Clock(is_abandoned)
            pixels = self._render(snapshot)
            ink = ink_mask(pixels)
            raster_ms = clock.lap_ms()
            if not region_weights(ink, self._options.weights).any():
                return Answer((), 0, False, ink, Timings(raster_ms), len(snapshot.strokes), no_ink=True)
            probe = self._encoder.encode_sketches(pixels[None])[0]
            encode_ms = clock.lap_ms()
        ranking, search_ms = self._engine.search(Query(self._gallery, probe, ink, self._options))
        clock.lap_ms()
        timings = Timings(raster_ms, encode_ms, search_ms)
        hits = tuple(self._ranked(hit) for hit in ranking.hits)
        return Answer(
            hits,
            ranking.gallery_photos,
            ranking.exact,
            ink,
            timings,
            len(snapshot.strokes),
            unseen_from=ranking.unseen_from,
        )

    def _render(self, snapshot: Snapshot) -> npt.NDArray[np.uint8]:
        already = len(self._drawn.strokes)
        if snapshot.epoch != self._drawn.epoch:
            self._canvas, already = Canvas(self.size_px), 0
            self._drawn = Snapshot((), None, snapshot.epoch, 0)
        # Drawing a stroke twice changes nothing, so a failure in between needs no repair.
        self._canvas.draw(snapshot.strokes[already:])
        if snapshot.raster is not None and snapshot.raster is not self._drawn.raster:
            self._canvas.put_raster(snapshot.raster)
        self._drawn = snapshot
        return self._canvas.pixels()

    def _ranked(self, hit: Hit) -> RankedPhoto:
        previous = self._answer[1] if self._answer else None
        before = previous.rank_of(hit.photo_id) if previous else None
        return RankedPhoto(
            photo_id=hit.photo_id,
            rank=hit.rank,
            distance=hit.distance,
            granularity_distances=hit.granularity_distances,
            region_distances=hit.region_distances,
            rank_change=None if before is None else before - hit.rank,
            is_new=previous is not None and not previous.no_ink and before is None,
            thumbnail=self._thumbnail(hit.photo_id) if self._options.include_thumbnails else b"",
        )

    def _thumbnail(self, photo_id: str) -> bytes:
        try:
            return self._gallery.photo(photo_id).thumbnail
        except UnknownPhotoError:
            return b""  # deleted since this drawing began

    def _take_away(self) -> None:
        self._epoch += 1
        self._version += 1


class _Clock:
    """Times the pieces of an answer, and gives up between them when nobody waits."""

    def __init__(self, is_abandoned: Callable[[], bool]) -> None:
        self._is_abandoned = is_abandoned
        self._last = time.perf_counter()

    def lap_ms(self) -> float:
        now = time.perf_counter()
        lap, self._last = (now - self._last) * 1e3, now
        if self._is_abandoned():
            raise DrawingAbandonedError("nobody waits for this answer")
        return lap


def _unmoved(answer: Answer) -> Answer:
    hits = tuple(replace(hit, rank_change=0, is_new=False) for hit in answer.hits)
    return replace(answer, hits=hits, timings=Timings())
