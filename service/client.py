"""The Python client: one call to search with a finished sketch, one context to draw and be answered stroke by stroke.

Errors come back as the exceptions that the service raised, with its messages; `ServiceError` when it cannot be
reached. `service.async_client` is the same for asyncio.
"""

import queue
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt

from indexer.erasing import Eraser
from indexer.filters import Filter
from indexer.fusion import EQUAL_WEIGHTS
from indexer.metadata import Kind
from indexer.modes import EXACT, Mode
from indexer.sketch import DEFAULT_WIDTH, Stroke
from indexer.upload import Upload
from mgrl.v1 import gallery_pb2, gallery_pb2_grpc, search_pb2, search_pb2_grpc
from service.answers import DEFAULT_K, Answer, SearchOptions
from service.calls import (
    CHANNEL_OPTIONS,
    GalleryInfo,
    Inbox,
    Metadata,
    Outbox,
    PhotoInfo,
    Points,
    gallery_info,
    photo_info,
    search_request,
)
from service.config import DEFAULT_ADDRESS
from service.convert import answer_from_search_response
from service.credentials import NO_CREDENTIALS, Credentials
from service.errors import ServiceError, error_from_rpc
from service.uploading import Uploads, UpsertReport
from service.uploading_sync import upsert


class Client:
    """Talks to one service; safe to share between threads. Close it, or use it in a `with` block.

    Args:
        target: HOST:PORT.
        timeout_s: for every call but `draw`, which lasts as long as the drawing.
        credentials: for a service that asks for a key, or that encrypts.

    Example:
        with Client("127.0.0.1:50051") as client, client.draw() as drawing:
            answer = drawing.stroke([(0.3, 0.4), (0.4, 0.38), (0.5, 0.4)])
            print(answer.hits[0].photo_id, answer.hits[0].distance)
    """

    def __init__(
        self, target: str = DEFAULT_ADDRESS, *, timeout_s: float = 30.0, credentials: Credentials = NO_CREDENTIALS
    ) -> None:
        self._target = target
        self._metadata = credentials.metadata
        self._call: dict[str, Any] = {"timeout": timeout_s, "metadata": self._metadata}
        self._channel = credentials.channel(target, CHANNEL_OPTIONS, grpc.insecure_channel, grpc.secure_channel)
        self._sketches = search_pb2_grpc.SketchSearchServiceStub(self._channel)
        self._galleries = gallery_pb2_grpc.GalleryServiceStub(self._channel)

    def search(
        self,
        gallery: str = "",
        *,
        strokes: Iterable[Stroke | Points] | None = None,
        raster: bytes | None = None,
        k: int = DEFAULT_K,
        weights: Mapping[int, float] = EQUAL_WEIGHTS,
        include_thumbnails: bool = False,
        mode: Mode = EXACT,
        filter: Filter | None = None,
        purpose: str = "",
    ) -> Answer:
        """The photos for one sketch, given as strokes or as a PNG, JPEG or WebP file.

        Args:
            gallery: its name; empty takes the only one that is served.
            strokes: `Stroke`s, or (n, 2) points in canvas units.
            raster: bytes of a picture.
            k: photos to return, at most 1000, or 100 with thumbnails.
            weights: granularity -> weight.
            include_thumbnails: whether every hit carries its thumbnail.
            mode: `Exact()`, `Approximate(recall)` or `Budget(ms)` of `indexer.modes`.
            filter: which photos take part, of `indexer.filters`; all if None.
            purpose: what the search is for, such as a case number; kept in the audit log, required by some galleries.

        Raises:
            SketchError: the sketch cannot be drawn.
            QueryError: an option is out of range, the filter does not fit the gallery's fields, or several galleries
                are served and none is named.
            UnknownGalleryError: no gallery of that name.
            ServiceError: the service cannot answer.
        """
        options = SearchOptions(k, weights, include_thumbnails, mode, filter)
        request = search_request(gallery, strokes, raster, options, purpose)
        try:
            return answer_from_search_response(self._sketches.Search(request, **self._call))
        except grpc.RpcError as error:
            raise error_from_rpc(error, self._target) from error

    def draw(
        self,
        gallery: str = "",
        *,
        k: int = DEFAULT_K,
        weights: Mapping[int, float] = EQUAL_WEIGHTS,
        include_thumbnails: bool = False,
        mode: Mode = EXACT,
        filter: Filter | None = None,
        purpose: str = "",
        include_canvas: bool = False,
    ) -> "ClientDrawing":
        """A drawing to be opened with `with`; the arguments are those of `search`.

        With `include_canvas` answers hold the strokes on the canvas (`Answer.state.canvas`) when some were taken away
        or put back.
        """
        options = SearchOptions(k, weights, include_thumbnails, mode, filter)
        return ClientDrawing(self._sketches, self._target, gallery, options, purpose, include_canvas, self._metadata)

    def galleries(self) -> list[GalleryInfo]:
        """The galleries that are served, by name."""
        try:
            response = self._galleries.ListGalleries(gallery_pb2.ListGalleriesRequest(), **self._call)
        except grpc.RpcError as error:
            raise error_from_rpc(error, self._target) from error
        return [gallery_info(summary) for summary in response.galleries]

    def photo(self, gallery: str, photo_id: str) -> PhotoInfo:
        """One photo's thumbnail, source and metadata.

        Raises:
            UnknownPhotoError: no such photo in that gallery.
        """
        request = gallery_pb2.GetPhotoRequest(gallery=gallery, photo_id=photo_id)
        try:
            response = self._galleries.GetPhoto(request, **self._call)
        except grpc.RpcError as error:
            raise error_from_rpc(error, self._target) from error
        return photo_info(response)

    def upsert(
        self,
        photos: Iterable[Upload],
        gallery: str = "",
        *,
        fields: Mapping[str, Kind] | None = None,
        on_durable: Callable[[int], None] | None = None,
    ) -> UpsertReport:
        """Store photos, each under its id, in a service started with `--writable`.

        Photos are taken from `photos` as the service has room for them. A failed call may be made again with the same
        photos: those that are there are not stored twice.

        Args:
            photos: may be endless; another thread iterates over it.
            gallery: its name; empty takes the only one that is served.
            fields: metadata fields that the gallery gets if it lacks them.
            on_durable: called with how many of the photos survive a crash of the service from now on, or have failed.

        Raises:
            QueryError: a field has another kind in the gallery, or several galleries are served and none is named.
            ConfigError: the service takes no photos.
            GalleryError: another process writes the gallery, or the disk refuses.
            UnknownGalleryError: no gallery of that name.
            ServiceError: the service cannot answer.
        """
        method = partial(self._galleries.UpsertPhotos, metadata=self._metadata)
        return upsert(method, self._target, photos, Uploads(gallery, fields or {}), on_durable)

    def delete(self, photo_ids: Iterable[str], gallery: str = "") -> int:
        """Delete photos, at most 1000, all or none, from a service started with `--writable`; how many there were.

        Raises:
            UnknownPhotoError: one of them is not there.
            ConfigError, GalleryError, QueryError, UnknownGalleryError, ServiceError: as `upsert`.
        """
        request = gallery_pb2.DeletePhotosRequest(gallery=gallery, photo_ids=photo_ids)
        try:
            response: gallery_pb2.DeletePhotosResponse = self._galleries.DeletePhotos(request, **self._call)
        except grpc.RpcError as error:
            raise error_from_rpc(error, self._target) from error
        return response.deleted

    def close(self) -> None:
        """End the connection, and with it open drawings."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ClientDrawing:
    """A drawing in progress; one thread at a time. Made by `Client.draw`, opened by `with`.

    Every edit waits for its answer and returns it. `send_strokes` does not wait: of several strokes sent in a row the
    service answers the latest and says how many it skipped. A refused edit raises and the drawing goes on.
    """

    def __init__(
        self,
        stub: search_pb2_grpc.SketchSearchServiceStub,
        target: str,
        gallery: str,
        options: SearchOptions,
        purpose: str = "",
        include_canvas: bool = False,
        metadata: Metadata = (),
    ) -> None:
        self._stub = stub
        self._target = target
        self._gallery = gallery
        self._options = options
        self._purpose = purpose
        self._include_canvas = include_canvas
        self._metadata = metadata
        self._unsent: queue.SimpleQueue[search_pb2.DrawRequest | None] = queue.SimpleQueue()
        self._outbox = Outbox()
        self._inbox = Inbox()
        self._has_ended = False

    def stroke(
        self, points: Points, width: float = DEFAULT_WIDTH, pressure: npt.NDArray[np.float32] | None = None
    ) -> Answer:
        """Draw one stroke: (n, 2) points in canvas units, width in canvas units, pressure 0 to 1 by point.

        Raises:
            SketchError: the stroke cannot be drawn.
        """
        return self.strokes([Stroke(np.asarray(points, np.float32), width, pressure)])

    def strokes(self, strokes: Iterable[Stroke | Points]) -> Answer:
        """Draw several strokes at once; one answer for all."""
        return self.answer(self.send_strokes(strokes))

    def extend(self, points: Points, pressure: npt.ArrayLike | None = None) -> Answer:
        """Make the latest stroke longer: (n, 2) more points, and their pressure if it was begun with pressure.

        Raises:
            SketchError: the latest step drew no stroke, or the points cannot be drawn.
        """
        return self._answered(self._outbox.extend(points, pressure))

    def undo(self, count: int = 1) -> Answer:
        """Take back the latest steps: strokes and erasures."""
        return self._answered(self._outbox.undo(count))

    def redo(self, count: int = 1) -> Answer:
        """Do again what was undone last."""
        return self._answered(self._outbox.redo(count))

    def erase(self, target: Eraser | Iterable[int]) -> Answer:
        """Take strokes off the canvas by number, or cut them where an `indexer.erasing.Eraser` passes.

        Strokes are numbered from 0 as they come to be; `Answer.state` knows the next number.

        Raises:
            SketchError: no such stroke is on the canvas.
        """
        return self._answered(self._outbox.erase(target))

    def options(
        self,
        *,
        k: int = DEFAULT_K,
        weights: Mapping[int, float] = EQUAL_WEIGHTS,
        include_thumbnails: bool = False,
        mode: Mode = EXACT,
        filter: Filter | None = None,
    ) -> Answer:
        """Rank otherwise from now on; what is not given has its default.

        Raises:
            QueryError: an option is out of range, or the filter does not fit the gallery's fields.
        """
        return self._answered(self._outbox.options(SearchOptions(k, weights, include_thumbnails, mode, filter)))

    def clear(self) -> Answer:
        """Empty the canvas, strokes and picture alike."""
        return self._answered(self._outbox.clear())

    def raster(self, image: bytes) -> Answer:
        """Lay a picture (PNG, JPEG, WebP file) under the strokes."""
        return self._answered(self._outbox.raster(image))

    def finish(self) -> Answer:
        """End the drawing; the last answer."""
        return self._answered(self._outbox.finish())

    def send_strokes(self, strokes: Iterable[Stroke | Points]) -> int:
        """Draw without waiting; the sequence number to give to `answer`."""
        request = self._outbox.strokes(strokes)
        self._unsent.put(request)
        return request.sequence

    def answer(self, sequence: int) -> Answer:
        """The first answer that includes the message with this sequence number.

        Raises:
            PublicError: the message was refused.
            ServiceError: the drawing has ended.
        """
        while (answer := self._inbox.answer_to(sequence)) is None:
            self._inbox.put(self._receive())
        return answer

    def __enter__(self) -> Self:
        self._call: Any = self._stub.Draw(self._requests(), metadata=self._metadata)
        self._answered(self._outbox.begin(self._gallery, self._options, self._purpose, self._include_canvas))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and not self._has_ended and not self._outbox.is_finished:
            self.finish()
        self._unsent.put(None)
        self._call.cancel()

    def _answered(self, request: search_pb2.DrawRequest) -> Answer:
        self._unsent.put(request)
        return self.answer(request.sequence)

    def _requests(self) -> Iterator[search_pb2.DrawRequest]:
        while (request := self._unsent.get()) is not None:
            yield request

    def _receive(self) -> search_pb2.DrawResponse:
        try:
            response: search_pb2.DrawResponse = next(self._call)
        except StopIteration:
            self._has_ended = True
            raise ServiceError("the drawing has ended; begin another") from None
        except grpc.RpcError as error:
            self._has_ended = True
            self._unsent.put(None)  # lets gRPC's sending thread go
            raise error_from_rpc(error, self._target) from error
        return response
