"""What the sync and the asyncio client share: the messages they send, and finding the answers to them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from indexer.erasing import Eraser
from indexer.errors import PublicError, SketchError
from indexer.metadata import Kind, Value
from indexer.sketch import MAX_STROKES, Stroke, as_float32
from mgrl.v1 import gallery_pb2, search_pb2, sketch_pb2
from service.answers import Answer, SearchOptions
from service.config_access import MAX_MESSAGE_BYTES
from service.convert import (
    answer_from_draw_result,
    eraser_to_wire,
    options_to_wire,
    stroke_to_wire,
    strokes_to_wire,
)
from service.convert_gallery import crop_from_wire, crop_to_wire, state_from_wire
from service.convert_metadata import fields_from_wire, fields_to_wire, metadata_from_wire
from service.errors import ServiceError, error_from_status

Points = Sequence[Sequence[float]] | npt.NDArray[np.floating]
"""(n, 2) canvas units, x to the right and y down, 0 to 1."""

Metadata = tuple[tuple[str, str], ...]
"""Of a call: name and value."""

CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # People pause while they draw; pings keep routers and proxies from forgetting the connection.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A drawing that lost its service wants it back soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


@dataclass(frozen=True)
class GalleryInfo:
    """A gallery that the service answers for; `fields` are those that a filter may name."""

    name: str
    photos: int
    dim: int
    model_hash: str
    fields: Mapping[str, Kind] = field(default_factory=dict)


@dataclass(frozen=True)
class PhotoInfo:
    """A photo: its id, the name it was ingested under, a JPEG thumbnail, and what is known about it by field.

    The thumbnail is empty where the photo was ingested as embeddings.
    """

    photo_id: str
    source: str
    thumbnail: bytes
    metadata: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class GalleryDetails:
    """A gallery and what it takes of the service's disk.

    Args:
        info: as `galleries` gives it.
        version: grows with every change.
        created: RFC 3339, UTC.
        aliases: further ids of its photos.
        deleted: photos whose vectors are still in its files.
        usage: bytes by kind: vectors, thumbnails, metadata, index, reclaimable, total.
        crop: how its photos are cropped: "face", "stray" or "none"; empty as long as nobody has said it, and where the
            service names a way that this client does not know.
    """

    info: GalleryInfo
    version: int
    created: str
    aliases: int
    deleted: int
    usage: Mapping[str, int]
    crop: str


@dataclass(frozen=True)
class VersionInfo:
    """A gallery as one model makes it.

    Args:
        state: "current", "unfinished" or "superseded".
        model_hash: of the model.
        dim: numbers in a region's embedding.
        created: RFC 3339, UTC.
        photos: in it.
        bytes: of its files.
    """

    state: str
    model_hash: str
    dim: int
    created: str
    photos: int
    bytes: int


@dataclass(frozen=True, eq=False)
class ReplayedStage:
    """What one stage of a drawing was answered.

    Args:
        stage: which, from 0.
        answer: the ranking; None where there is none.
        error: why there is none; None where there is one.
    """

    stage: int
    answer: Answer | None
    error: PublicError | None


class Outbox:
    """Numbers the messages of one drawing.

    Args:
        deadline_ms: how long each may wait for its answer; None for ever.
    """

    def __init__(self, deadline_ms: int | None = None) -> None:
        self._deadline_ms = deadline_ms
        self._sequence = 0
        self._is_finished = False

    @property
    def is_finished(self) -> bool:
        """Whether `finish` has been sent."""
        return self._is_finished

    def begin(self, begin: search_pb2.DrawBegin) -> search_pb2.DrawRequest:
        """Opens the drawing."""
        return self._request(begin=begin)

    def strokes(self, strokes: Iterable[Stroke | Points]) -> search_pb2.DrawRequest:
        """Draws strokes.

        Raises:
            SketchError: one of them cannot be drawn.
        """
        drawn = search_pb2.DrawStrokes(strokes=strokes_to_wire(map(as_stroke, strokes)))
        return self._request(strokes=drawn)

    def extend(self, points: Points, pressure: npt.ArrayLike | None = None) -> search_pb2.DrawRequest:
        """Makes the latest stroke longer.

        Raises:
            SketchError: the points cannot be drawn.
        """
        more = stroke_to_wire(Stroke(as_float32(points), pressure=None if pressure is None else as_float32(pressure)))
        extend = search_pb2.DrawExtend(x=more.x, y=more.y, pressure=more.pressure)
        return self._request(extend=extend)

    def undo(self, count: int) -> search_pb2.DrawRequest:
        """Takes back steps.

        Raises:
            SketchError: the count is below 1, or above what any drawing has.
        """
        undo = search_pb2.DrawUndo(count=_steps(count, "undo"))
        return self._request(undo=undo)

    def redo(self, count: int) -> search_pb2.DrawRequest:
        """Does steps again that were undone.

        Raises:
            SketchError: the count is below 1, or above what any drawing has.
        """
        redo = search_pb2.DrawRedo(count=_steps(count, "redo"))
        return self._request(redo=redo)

    def erase(self, target: Eraser | Iterable[int]) -> search_pb2.DrawRequest:
        """Takes strokes off the canvas by number, or what an eraser passes over.

        Raises:
            SketchError: a number that no stroke can have.
        """
        if isinstance(target, Eraser):
            return self._request(erase=search_pb2.DrawErase(path=eraser_to_wire(target)))
        try:
            numbers = search_pb2.StrokeNumbers(numbers=target)
        except ValueError as error:
            raise SketchError("strokes are numbered from 0, below 2**32; erase those that are on the canvas") from error
        return self._request(erase=search_pb2.DrawErase(strokes=numbers))

    def options(self, options: SearchOptions) -> search_pb2.DrawRequest:
        """Ranks otherwise from now on."""
        return self._request(options=options_to_wire(options))

    def clear(self) -> search_pb2.DrawRequest:
        """Empties the canvas."""
        return self._request(clear=search_pb2.DrawClear())

    def raster(self, image: bytes) -> search_pb2.DrawRequest:
        """Lays a picture under the strokes."""
        return self._request(raster=sketch_pb2.RasterSketch(image=image))

    def finish(self) -> search_pb2.DrawRequest:
        """Ends the drawing."""
        request = self._request(finish=search_pb2.DrawFinish())
        self._is_finished = True
        return request

    def _request(self, **action: Any) -> search_pb2.DrawRequest:
        if self._is_finished:
            raise ServiceError("the drawing is finished; begin another")
        request = search_pb2.DrawRequest(sequence=self._sequence + 1, deadline_ms=self._deadline_ms, **action)
        if (size := request.ByteSize()) > MAX_MESSAGE_BYTES:
            # Sent, it would end the stream, and with it the drawing.
            raise SketchError(
                f"a message may have {MAX_MESSAGE_BYTES} bytes, this one has {size}; scale the picture down, or send "
                "the strokes in several messages"
            )
        self._sequence += 1
        return request


class Inbox:
    """Finds the answer to a message among replies that may skip some and refuse others."""

    def __init__(self) -> None:
        self._latest: Answer | None = None
        self._refused: dict[int, Exception] = {}

    def put(self, response: search_pb2.DrawResponse) -> None:
        """Take in a reply."""
        if response.HasField("error"):
            self._refused[response.sequence] = error_from_status(response.error)
        else:
            self._latest = answer_from_draw_result(response.result, response.sequence)

    def answer_to(self, sequence: int) -> Answer | None:
        """The answer that includes the message, or None when there is none yet.

        Raises:
            PublicError: the message was refused.
        """
        if sequence in self._refused:
            raise self._refused.pop(sequence)
        return self._latest if self._latest is not None and self._latest.sequence >= sequence else None


def draw_begin(
    gallery: str, options: SearchOptions, purpose: str = "", include_canvas: bool = False
) -> search_pb2.DrawBegin:
    """The message that opens a drawing."""
    return search_pb2.DrawBegin(
        gallery=gallery, options=options_to_wire(options), purpose=purpose, include_canvas=include_canvas
    )


def search_request(
    gallery: str,
    strokes: Iterable[Stroke | Points] | None,
    raster: bytes | None,
    options: SearchOptions,
    purpose: str = "",
) -> search_pb2.SearchRequest:
    """The message for a search, with strokes or with a picture."""
    if (strokes is None) == (raster is None):
        raise TypeError("search takes either strokes or raster")
    request = search_pb2.SearchRequest(gallery=gallery, options=options_to_wire(options), purpose=purpose)
    if strokes is None:
        request.raster.image = raster or b""
    else:
        request.strokes.CopyFrom(sketch_pb2.StrokeSketch(strokes=strokes_to_wire(map(as_stroke, strokes))))
    return request


def replay_request(
    gallery: str,
    strokes: Iterable[Stroke | Points],
    stage_ends: Iterable[int],
    options: SearchOptions,
    purpose: str,
) -> search_pb2.ReplayRequest:
    """The message for a whole drawing."""
    return search_pb2.ReplayRequest(
        gallery=gallery,
        strokes=sketch_pb2.StrokeSketch(strokes=strokes_to_wire(map(as_stroke, strokes))),
        stage_ends=stage_ends,
        options=options_to_wire(options),
        purpose=purpose,
    )


def replayed_stage(response: search_pb2.ReplayResponse) -> ReplayedStage:
    """A stage's answer."""
    if response.HasField("error"):
        return ReplayedStage(response.stage, None, error_from_status(response.error))
    return ReplayedStage(response.stage, answer_from_draw_result(response.result, 0), None)


def create_request(gallery: str, fields: Mapping[str, Kind], crop: str) -> gallery_pb2.CreateGalleryRequest:
    """The message that has a gallery made.

    Raises:
        QueryError: there is no such way to crop.
    """
    return gallery_pb2.CreateGalleryRequest(gallery=gallery, fields=fields_to_wire(fields), crop=crop_to_wire(crop))


def delete_request(gallery: str, photo_ids: Iterable[str]) -> gallery_pb2.DeletePhotosRequest:
    """The message that has photos deleted."""
    if isinstance(photo_ids, str):  # which iterates, too: of "12" the photos 1 and 2 would go
        raise TypeError(f"delete takes several ids, such as [{photo_ids!r}], got one text")
    return gallery_pb2.DeletePhotosRequest(gallery=gallery, photo_ids=photo_ids)


def version_info(version: gallery_pb2.GalleryVersion) -> VersionInfo:
    """A version as the service lists it."""
    state = state_from_wire(version.state)
    return VersionInfo(state, version.model_hash, version.dim, version.created, version.photos, version.bytes)


def gallery_info(summary: gallery_pb2.GallerySummary) -> GalleryInfo:
    """A gallery as the service describes it."""
    fields = fields_from_wire(summary.fields)
    return GalleryInfo(summary.name, summary.photos, summary.dim, summary.model_hash, fields)


def gallery_details(response: gallery_pb2.DescribeGalleryResponse) -> GalleryDetails:
    """A gallery as the service measured it."""
    usage = {name: getattr(response.usage, name) for name in response.usage.DESCRIPTOR.fields_by_name}
    info = gallery_info(response.summary)
    crop = crop_from_wire(response.crop)
    return GalleryDetails(info, response.version, response.created, response.aliases, response.deleted, usage, crop)


def listed_photo(photo: gallery_pb2.PhotoSummary) -> PhotoInfo:
    """A photo of a list, without its thumbnail."""
    return PhotoInfo(photo.photo_id, photo.source, b"", metadata_from_wire(photo.metadata))


def photo_info(photo: gallery_pb2.GetPhotoResponse) -> PhotoInfo:
    """A photo as the service describes it."""
    return PhotoInfo(photo.photo_id, photo.source, photo.thumbnail, metadata_from_wire(photo.metadata))


def as_stroke(stroke: Stroke | Points) -> Stroke:
    """A `Stroke`; points get the default width.

    Raises:
        SketchError: they cannot be drawn.
    """
    return stroke if isinstance(stroke, Stroke) else Stroke(as_float32(stroke))


def _steps(count: int, action: str) -> int:
    if not 1 <= count <= MAX_STROKES:
        raise SketchError(f"{action} must be of 1 to {MAX_STROKES} steps, got {count}")
    return count
