"""One drawing in progress: what a stream remembers between strokes. No gRPC, no asyncio.

Edits are cheap and belong to one thread (the event loop); `rank` does the work and may run in another, one call at a
time, on a `Snapshot` that later edits do not touch.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from indexer.errors import GalleryError, UnknownPhotoError
from indexer.fusion import region_weights
from indexer.gallery import Gallery, Hit
from indexer.regions import ink_mask
from indexer.sketch import Canvas, Stroke
from service.answers import Answer, CanvasState, RankedPhoto, SearchOptions, Stability, Timings
from service.engine import Engine, Query
from service.stability import Settling
from service.strokes import StrokeHistory


class DrawingAbandonedError(Exception):
    """Nobody waits for this answer any more; raised between two pieces of work."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A drawing at one moment.

    Args:
        strokes: those on the canvas; within an epoch more only come at the end, and the last may grow.
        raster: (size, size) uint8 canvas under the strokes, or None.
        options: how to rank.
        epoch: changes whenever the strokes are no longer what they were with more at their end.
        ink_version: changes with the strokes and the raster.
        version: changes with every edit.
        state: what the answer says about the canvas.
    """

    strokes: tuple[Stroke, ...]
    raster: npt.NDArray[np.uint8] | None
    options: SearchOptions
    epoch: int
    ink_version: int
    version: int
    state: CanvasState


@dataclass(frozen=True, eq=False)
class _Probe:
    """What a canvas became: its embeddings, None where no weight looks at its ink."""

    ink_version: int
    ink: npt.NDArray[np.bool_]
    embeddings: npt.NDArray[np.float32] | None


class Drawing:
    """Strokes over an optional picture, and the previous answer to compare the next one with.

    Args:
        gallery: searched from the first answer to the last, whatever becomes of its folder; or, where it has no photos
            yet, from when the first come.
        engine: encodes and searches.
        options: how to rank, until `set_options`.
        tells_canvas: whether answers hold the strokes when some were taken away or put back.
        latest: a gallery as it is now.
    """

    def __init__(
        self,
        gallery: Gallery,
        engine: Engine,
        options: SearchOptions | None = None,
        tells_canvas: bool = False,
        latest: Callable[[Gallery], Gallery] = lambda gallery: gallery,
    ) -> None:
        self._gallery = gallery
        self._engine = engine
        self._options = options or SearchOptions()
        self._tells_canvas = tells_canvas
        self._latest = latest
        self._history = StrokeHistory()
        self._raster: npt.NDArray[np.uint8] | None = None
        self._ink_version = 0
        self._version = 0
        self._encoder = engine.encoders.for_gallery(gallery)
        # The rest belongs to `rank`. A canvas takes 600 KB, so there is none before there is ink.
        self._canvas: Canvas | None = None
        self._drawn: Snapshot | None = None
        self._probe: _Probe | None = None
        self._answer: tuple[Snapshot, Answer] | None = None
        # Of the previous answer by photo id; None where it was no ranking.
        self._ranks: dict[str, int] | None = None
        self._told: int | None = None
        self._settling = Settling()

    @property
    def size_px(self) -> int:
        """Side of the canvas in pixels."""
        return self._encoder.size_px

    @property
    def gallery(self) -> Gallery:
        """The gallery that is searched, in the state that it had when the drawing began."""
        return self._gallery

    def add(self, strokes: Sequence[Stroke]) -> None:
        """Draw on top; see `StrokeHistory.add`, as for the other edits."""
        self._history.add(strokes)
        self._inked()

    def extend(self, points: npt.NDArray[np.float32], pressure: npt.NDArray[np.float32] | None = None) -> None:
        """Make the latest stroke longer."""
        self._history.extend(points, pressure)
        self._inked()

    def undo(self, count: int = 1) -> None:
        """Take back the latest steps."""
        self._history.undo(count)
        self._inked()

    def redo(self, count: int = 1) -> None:
        """Do again what was undone last."""
        self._history.redo(count)
        self._inked()

    def strokes(self) -> dict[int, Stroke]:
        """Those on the canvas, by number."""
        return self._history.numbered

    def erase(self, left: Mapping[int, Sequence[Stroke]]) -> None:
        """Take strokes off the canvas: number -> what is left of the stroke."""
        self._history.replace(left)
        self._inked()

    def clear(self) -> None:
        """Empty the canvas, strokes and picture alike."""
        self._history.clear()
        self._raster = None
        self._inked()

    def put_raster(self, canvas: npt.NDArray[np.uint8]) -> None:
        """Lay a (size_px, size_px) uint8 canvas under the strokes, in place of an earlier one."""
        self._raster = canvas
        self._inked()

    def set_options(self, options: SearchOptions) -> None:
        """Rank otherwise from now on; what is on the canvas is not encoded again."""
        self._options = options
        self._version += 1

    def tell_canvas(self) -> None:
        """Let the next answer hold the strokes, if answers do: the one who asks may not know them."""
        self._told = None

    def held_bytes(self) -> int:
        """About the memory that the drawing takes while it rests."""
        return self._history.held_bytes() + (0 if self._raster is None else self._raster.nbytes)

    def rest(self) -> bool:
        """Give back what can be made again from the strokes, and tell whether there was any; not while `rank` runs."""
        had_any = self._answer is not None
        self._canvas = self._drawn = self._answer = None
        return had_any

    def snapshot(self) -> Snapshot:
        """The drawing as it stands."""
        history = self._history
        moved = self._told != history.rearranged
        state = CanvasState(
            strokes=len(history),
            undo_steps=history.undo_steps,
            redo_steps=history.redo_steps,
            next_stroke=history.next_number,
            rearranged=history.rearranged,
            canvas=history.numbered if moved and self._tells_canvas else None,
        )
        return Snapshot(
            history.strokes, self._raster, self._options, history.epoch, self._ink_version, self._version, state
        )

    def rank(self, snapshot: Snapshot | None = None, is_abandoned: Callable[[], bool] = lambda: False) -> Answer:
        """Rank the gallery for a snapshot, by default the drawing as it stands.

        Args:
            snapshot: no older than that of an earlier call.
            is_abandoned: asked between pieces of work whether anybody still waits.

        Raises:
            DrawingAbandonedError: nobody does.
        """
        snapshot = snapshot or self.snapshot()
        self._await_photos()
        if self._answer is not None and self._answer[0].version == snapshot.version:
            answer = replace(_unmoved(self._answer[1]), state=snapshot.state)
        else:
            answer = self._compute(snapshot, is_abandoned)
        if not answer.no_ink:
            answer = replace(answer, stability=self._judge(answer, snapshot))
        self._answer, self._told = (snapshot, answer), snapshot.state.rearranged
        self._ranks = None if answer.no_ink else {hit.photo_id: hit.rank for hit in answer.hits}
        return answer

    def _await_photos(self) -> None:
        """Hold to the first state of the gallery that has photos: one without has no ranking to be true to."""
        if not self._gallery.photos:
            latest = self._latest(self._gallery)
            if latest.model_hash == self._gallery.model_hash:
                self._gallery = latest

    def _compute(self, snapshot: Snapshot, is_abandoned: Callable[[], bool]) -> Answer:
        probe, timings = self._encoded(snapshot, is_abandoned)
        answer = Answer(
            hits=(),
            gallery_photos=0,
            exact=False,
            ink=probe.ink,
            timings=timings,
            state=snapshot.state,
            no_ink=True,
            gallery_version=self._gallery.version,
        )
        per_region = region_weights(probe.ink, snapshot.options.weights)
        if probe.embeddings is None or not per_region.any():
            return answer
        ranking, search_ms = self._engine.search(Query(self._gallery, probe.embeddings, probe.ink, snapshot.options))
        give_up_if(is_abandoned)
        return replace(
            answer,
            hits=tuple(self._ranked(hit, per_region, snapshot.options) for hit in ranking.hits),
            gallery_photos=ranking.gallery_photos,
            exact=ranking.exact,
            timings=replace(timings, search_ms=search_ms),
            unseen_from=ranking.unseen_from,
            no_ink=False,
        )

    def _encoded(self, snapshot: Snapshot, is_abandoned: Callable[[], bool]) -> tuple[_Probe, Timings]:
        """Embeddings of the canvas, those of the previous answer if only options have changed."""
        known = self._probe if self._probe and self._probe.ink_version == snapshot.ink_version else None
        needed = known is None or region_weights(known.ink, snapshot.options.weights).any()
        if known is not None and (known.embeddings is not None or not needed):
            return known, Timings()
        with self._engine.slot:
            give_up_if(is_abandoned)
            clock = _Clock(is_abandoned)
            pixels = self._render(snapshot)
            ink = ink_mask(pixels)
            raster_ms, encode_ms, embeddings = clock.lap_ms(), 0.0, None
        if region_weights(ink, snapshot.options.weights).any():
            embeddings, encode_ms = self._engine.encode(self._encoder, pixels)
            clock.lap_ms()
        self._probe = _Probe(snapshot.ink_version, ink, embeddings)
        return self._probe, Timings(raster_ms, encode_ms)

    def _render(self, snapshot: Snapshot) -> npt.NDArray[np.uint8]:
        if not snapshot.strokes and snapshot.raster is None:
            return np.zeros((self.size_px, self.size_px), np.uint8)
        drawn = self._drawn
        if self._canvas is None or drawn is None or snapshot.epoch != drawn.epoch:
            self._canvas, drawn = Canvas(self.size_px), None
        already = len(drawn.strokes) if drawn else 0
        if drawn and already and snapshot.strokes[already - 1] is not drawn.strokes[-1]:
            self._canvas.extend(snapshot.strokes[already - 1])
        # Drawing a stroke twice changes nothing, so a failure in between needs no repair.
        self._canvas.draw(snapshot.strokes[already:])
        if snapshot.raster is not None and (drawn is None or snapshot.raster is not drawn.raster):
            self._canvas.put_raster(snapshot.raster)
        self._drawn = snapshot
        return self._canvas.pixels()

    def _ranked(self, hit: Hit, per_region: npt.NDArray[np.float64], options: SearchOptions) -> RankedPhoto:
        before = None if self._ranks is None else self._ranks.get(hit.photo_id)
        return RankedPhoto(
            photo_id=hit.photo_id,
            rank=hit.rank,
            distance=hit.distance,
            granularity_distances=hit.granularity_distances,
            region_distances=hit.region_distances,
            contributions=per_region * hit.region_distances,
            rank_change=None if before is None else before - hit.rank,
            is_new=self._ranks is not None and before is None,
            thumbnail=self._thumbnail(hit.photo_id) if options.include_thumbnails else b"",
        )

    def _judge(self, answer: Answer, snapshot: Snapshot) -> Stability:
        photo_ids = [hit.photo_id for hit in answer.hits]
        has_picture = snapshot.raster is not None
        return self._settling.judge(photo_ids, self._ranks, answer.ink, snapshot.state.next_stroke, has_picture)

    def _thumbnail(self, photo_id: str) -> bytes:
        try:
            return self._gallery.photo(photo_id).thumbnail
        except (UnknownPhotoError, GalleryError):
            return b""  # deleted since this drawing began, it or the whole folder

    def _inked(self) -> None:
        self._ink_version += 1
        self._version += 1


def give_up_if(is_abandoned: Callable[[], bool]) -> None:
    """Between two pieces of work, and after waiting for one.

    Raises:
        DrawingAbandonedError: nobody waits for the answer.
    """
    if is_abandoned():
        raise DrawingAbandonedError("nobody waits for this answer")


class _Clock:
    """Times the pieces of an answer, and gives up between them when nobody waits."""

    def __init__(self, is_abandoned: Callable[[], bool]) -> None:
        self._is_abandoned = is_abandoned
        self._last = time.perf_counter()

    def lap_ms(self) -> float:
        now = time.perf_counter()
        lap, self._last = (now - self._last) * 1e3, now
        give_up_if(self._is_abandoned)
        return lap


def _unmoved(answer: Answer) -> Answer:
    hits = tuple(replace(hit, rank_change=0, is_new=False) for hit in answer.hits)
    return replace(answer, hits=hits, timings=Timings())
