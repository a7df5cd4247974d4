"""Wire types to domain types and back, in one place; both the server and the client convert here."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from indexer.episode import Episode
from indexer.erasing import DEFAULT_RADIUS, Eraser
from indexer.errors import SketchError, blaming
from indexer.fusion import EQUAL_WEIGHTS
from indexer.modes import EXACT, Approximate, Budget, Exact, Mode
from indexer.regions import GRANULARITIES, REGIONS
from indexer.sketch import DEFAULT_WIDTH, MAX_DRAWING_POINTS, MAX_STROKE_POINTS, MAX_STROKES, Stroke
from mgrl.v1 import search_pb2, sketch_pb2
from service.answers import DEFAULT_K, Answer, CanvasState, RankedPhoto, SearchOptions, Stability, Timings
from service.convert_metadata import filter_from_wire, filter_to_wire


def stroke_from_wire(stroke: sketch_pb2.Stroke) -> Stroke:
    """A checked stroke.

    Raises:
        SketchError: x and y disagree, or what `Stroke` refuses.
    """
    # `Stroke` checks this too, but only after the numbers have been copied.
    if len(stroke.x) > MAX_STROKE_POINTS:
        raise SketchError(
            f"a stroke may have {MAX_STROKE_POINTS} points, got {len(stroke.x)}; thin it out or split it", field="x"
        )
    return Stroke(
        _points_from_wire(stroke, "a stroke"),
        stroke.width if stroke.HasField("width") else DEFAULT_WIDTH,
        np.array(stroke.pressure, dtype=np.float32) if stroke.pressure else None,
    )


def strokes_from_wire(strokes: Sequence[sketch_pb2.Stroke]) -> list[Stroke]:
    """Checked strokes; an error names the stroke by its 0-based place in the message.

    Raises:
        SketchError: too many strokes, or one that cannot be drawn.
    """
    if len(strokes) > MAX_STROKES:
        raise SketchError(f"a drawing may have {MAX_STROKES} strokes, got {len(strokes)}", field="strokes")
    checked = []
    for place, stroke in enumerate(strokes):
        try:
            checked.append(stroke_from_wire(stroke))
        except SketchError as error:
            raise SketchError(f"stroke {place}: {error}", field=f"strokes[{place}].{error.field}") from error
    return checked


def extension_from_wire(
    extend: search_pb2.DrawExtend,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """Checked points that make a stroke longer, and their pressure.

    Raises:
        SketchError: what `Stroke` refuses.
    """
    pressure = np.array(extend.pressure, dtype=np.float32) if extend.pressure else None
    more = Stroke(_points_from_wire(extend, "an extension"), DEFAULT_WIDTH, pressure)
    return more.points, more.pressure


def episode_from_wire(request: search_pb2.ReplayRequest) -> Episode:
    """A checked drawing with its stages.

    Raises:
        SketchError: a stroke that cannot be drawn, or stages that do not climb to the last one.
    """
    with blaming("strokes"):
        strokes = strokes_from_wire(request.strokes.strokes)
        points = sum(len(stroke.points) for stroke in strokes)
        if points > MAX_DRAWING_POINTS:
            raise SketchError(f"a drawing may have {MAX_DRAWING_POINTS} points, got {points}; thin out its strokes")
        if not strokes:
            raise SketchError("a replay needs at least one stroke, got none", field="strokes")
    with blaming("stage_ends"):
        return Episode(tuple(strokes), tuple(request.stage_ends or range(1, len(strokes) + 1)))


def eraser_from_wire(path: search_pb2.EraserPath) -> Eraser:
    """A checked eraser.

    Raises:
        SketchError: what `Eraser` refuses.
    """
    radius = path.radius if path.HasField("radius") else DEFAULT_RADIUS
    return Eraser(_points_from_wire(path, "an eraser's path"), radius, path.whole_strokes)


def eraser_to_wire(eraser: Eraser) -> search_pb2.EraserPath:
    """The message for an eraser."""
    x, y = eraser.points.T.tolist()
    return search_pb2.EraserPath(x=x, y=y, radius=eraser.radius, whole_strokes=eraser.whole_strokes)


def stroke_to_wire(stroke: Stroke) -> sketch_pb2.Stroke:
    """The message for a stroke."""
    x, y = stroke.points.T.tolist()
    pressure = [] if stroke.pressure is None else stroke.pressure.tolist()
    return sketch_pb2.Stroke(x=x, y=y, width=stroke.width, pressure=pressure)


def strokes_to_wire(strokes: Iterable[Stroke]) -> list[sketch_pb2.Stroke]:
    """The messages for strokes."""
    return [stroke_to_wire(stroke) for stroke in strokes]


def options_from_wire(options: search_pb2.SearchOptions) -> SearchOptions:
    """Checked options, with the contract's defaults for what is absent.

    Raises:
        QueryError: an option is out of range.
    """
    with blaming("filter"):
        filter = filter_from_wire(options.filter) if options.HasField("filter") else None
    return SearchOptions(
        k=options.k if options.HasField("k") else DEFAULT_K,
        weights=_weights_from_wire(options.weights),
        include_thumbnails=options.include_thumbnails,
        mode=_mode_from_wire(options),
        filter=filter,
    )


def options_to_wire(options: SearchOptions) -> search_pb2.SearchOptions:
    """The message for options."""
    one, two, three = (options.weights[granularity] for granularity in GRANULARITIES)
    message = search_pb2.SearchOptions(
        k=options.k,
        weights=search_pb2.GranularityWeights(granularity_1=one, granularity_2=two, granularity_3=three),
        include_thumbnails=options.include_thumbnails,
        filter=None if options.filter is None else filter_to_wire(options.filter),
    )
    match options.mode:
        case Exact():
            message.exact.SetInParent()
        case Approximate(recall):
            message.approximate.recall = recall
        case Budget(ms):
            message.budget_ms = ms
    return message


def answer_to_search_response(answer: Answer) -> search_pb2.SearchResponse:
    """The reply to a `Search`."""
    return search_pb2.SearchResponse(
        ranking=_ranking_to_wire(answer),
        no_ink=answer.no_ink,
        timings=_timings_to_wire(answer.timings),
        gallery_version=answer.gallery_version,
    )


def answer_from_search_response(response: search_pb2.SearchResponse) -> Answer:
    """The answer in a reply to a `Search`."""
    return _answer(response)


def answer_to_draw_result(answer: Answer) -> search_pb2.DrawResult:
    """The result in a reply to messages of a `Draw`, or to a stage of a `Replay`."""
    state = answer.state
    return search_pb2.DrawResult(
        ranking=_ranking_to_wire(answer),
        no_ink=answer.no_ink,
        strokes=state.strokes,
        skipped=answer.skipped,
        timings=_timings_to_wire(answer.timings),
        gallery_version=answer.gallery_version,
        undo_steps=state.undo_steps,
        redo_steps=state.redo_steps,
        next_stroke=state.next_stroke,
        canvas=None if state.canvas is None else _canvas_to_wire(state.canvas),
        stability=None if answer.stability is None else search_pb2.Stability(**vars(answer.stability)),
    )


def answer_from_draw_result(result: search_pb2.DrawResult, sequence: int = 0) -> Answer:
    """The answer in such a result."""
    state = CanvasState(
        strokes=result.strokes,
        undo_steps=result.undo_steps,
        redo_steps=result.redo_steps,
        next_stroke=result.next_stroke,
        canvas=_canvas_from_wire(result.canvas) if result.HasField("canvas") else None,
    )
    stability = _stability_from_wire(result.stability) if result.HasField("stability") else None
    return replace(_answer(result), state=state, skipped=result.skipped, sequence=sequence, stability=stability)


def _answer(result: search_pb2.SearchResponse | search_pb2.DrawResult) -> Answer:
    ranking, timings = result.ranking, result.timings
    return Answer(
        hits=tuple(_hit_from_wire(hit) for hit in ranking.hits),
        gallery_photos=ranking.gallery_photos,
        exact=ranking.exact,
        ink=_ink_mask_from_ids(ranking.inked_regions),
        timings=Timings(timings.raster_ms, timings.encode_ms, timings.search_ms),
        unseen_from=ranking.unseen_from if ranking.HasField("unseen_from") else math.inf,
        no_ink=result.no_ink,
        gallery_version=result.gallery_version,
    )


def _stability_from_wire(stability: search_pb2.Stability) -> Stability:
    overlap = stability.overlap if stability.HasField("overlap") else None
    return Stability(overlap, stability.settled_strokes, stability.too_early)


def _canvas_to_wire(canvas: Mapping[int, Stroke]) -> search_pb2.DrawCanvas:
    strokes = (
        search_pb2.CanvasStroke(number=number, stroke=stroke_to_wire(stroke)) for number, stroke in canvas.items()
    )
    return search_pb2.DrawCanvas(strokes=strokes)


def _canvas_from_wire(canvas: search_pb2.DrawCanvas) -> dict[int, Stroke]:
    return {each.number: stroke_from_wire(each.stroke) for each in canvas.strokes}


def _ranking_to_wire(answer: Answer) -> search_pb2.Ranking | None:
    if answer.no_ink:
        return None
    return search_pb2.Ranking(
        hits=[_hit_to_wire(hit) for hit in answer.hits],
        gallery_photos=answer.gallery_photos,
        exact=answer.exact,
        inked_regions=np.flatnonzero(answer.ink).tolist(),
        unseen_from=_rounded_down(answer.unseen_from) if math.isfinite(answer.unseen_from) else None,
    )


def _hit_to_wire(hit: RankedPhoto) -> search_pb2.Hit:
    return search_pb2.Hit(
        photo_id=hit.photo_id,
        rank=hit.rank,
        distance=hit.distance,
        granularity_distances=[hit.granularity_distances[granularity] for granularity in GRANULARITIES],
        region_distances=hit.region_distances.tolist(),
        contributions=hit.contributions.tolist(),
        rank_change=hit.rank_change,
        is_new=hit.is_new,
        thumbnail=hit.thumbnail,
    )


def _hit_from_wire(hit: search_pb2.Hit) -> RankedPhoto:
    return RankedPhoto(
        photo_id=hit.photo_id,
        rank=hit.rank,
        distance=hit.distance,
        granularity_distances=dict(zip(GRANULARITIES, hit.granularity_distances, strict=True)),
        # The slice is a list, which numpy reads twice as fast as the field itself.
        region_distances=np.array(hit.region_distances[:], dtype=np.float32),
        contributions=np.array(hit.contributions[:], dtype=np.float32),
        rank_change=hit.rank_change if hit.HasField("rank_change") else None,
        is_new=hit.is_new,
        thumbnail=hit.thumbnail,
    )


def _points_from_wire(
    path: sketch_pb2.Stroke | search_pb2.DrawExtend | search_pb2.EraserPath, what: str
) -> npt.NDArray[np.float32]:
    """(n, 2) points, unchecked but for their number."""
    if len(path.y) != len(path.x):
        raise SketchError(f"{what} must have as many y as x, got {len(path.y)} y and {len(path.x)} x", field="y")
    return np.array([path.x, path.y], dtype=np.float32).T.reshape(len(path.x), 2)


def _weights_from_wire(weights: search_pb2.GranularityWeights) -> dict[int, float]:
    return {
        1: weights.granularity_1 if weights.HasField("granularity_1") else EQUAL_WEIGHTS[1],
        2: weights.granularity_2 if weights.HasField("granularity_2") else EQUAL_WEIGHTS[2],
        3: weights.granularity_3 if weights.HasField("granularity_3") else EQUAL_WEIGHTS[3],
    }


def _mode_from_wire(options: search_pb2.SearchOptions) -> Mode:
    match options.WhichOneof("mode"):
        case "approximate":
            asked = options.approximate
            return Approximate(asked.recall) if asked.HasField("recall") else Approximate()
        case "budget_ms":
            return Budget(options.budget_ms)
    return EXACT


def _rounded_down(bound: float) -> float:
    """A lower bound that still is one as float32, which the wire carries."""
    rounded = np.float32(bound)
    return float(rounded if float(rounded) <= bound else np.nextafter(rounded, np.float32(0)))


def _timings_to_wire(timings: Timings) -> search_pb2.Timings:
    return search_pb2.Timings(raster_ms=timings.raster_ms, encode_ms=timings.encode_ms, search_ms=timings.search_ms)


def _ink_mask_from_ids(ids: Iterable[int]) -> npt.NDArray[np.bool_]:
    ink = np.zeros(REGIONS, bool)
    ink[list(ids)] = True
    return ink
