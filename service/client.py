"""The Python client: one call to search with a finished sketch, one context to draw and be answered stroke by stroke.

Errors come back as the exceptions that the service raised, with its messages; `ServiceError` when it cannot be
reached. `service.async_client` is the same for asyncio.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Self, TypeVar

import grpc

from indexer.filters import Filter
from indexer.fusion import EQUAL_WEIGHTS
from indexer.metadata import Kind
from indexer.modes import EXACT, Mode
from indexer.sketch import Stroke
from indexer.upload import Upload
from mgrl.v1 import gallery_pb2, gallery_pb2_grpc, search_pb2_grpc
from service.answers import DEFAULT_K, Answer, SearchOptions
from service.calls import (
    CHANNEL_OPTIONS,
    GalleryDetails,
    GalleryInfo,
    PhotoInfo,
    Points,
    ReplayedStage,
    VersionInfo,
    create_request,
    delete_request,
    draw_begin,
    gallery_details,
    gallery_info,
    listed_photo,
    photo_info,
    replay_request,
    replayed_stage,
    search_request,
    version_info,
)
from service.client_drawing import ClientDrawing
from service.config import DEFAULT_ADDRESS
from service.convert import answer_from_search_response
from service.credentials import NO_CREDENTIALS, Credentials
from service.errors import error_from_rpc
from service.journal import RESUME_S
from service.uploading import Uploads, UpsertReport
from service.uploading_sync import upsert

Response = TypeVar("Response")


class Client:
    """Talks to one service; safe to share between threads. Close it, or use it in a `with` block.

    Args:
        target: HOST:PORT.
        timeout_s: for every call but `draw`, `replay` and `upsert`, which last as long as they have to.
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
        return answer_from_search_response(self._asked(self._sketches.Search, request))

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
        deadline_ms: int | None = None,
        resume_s: float = RESUME_S,
    ) -> ClientDrawing:
        """A drawing to be opened with `with`; the first arguments are those of `search`.

        Args:
            gallery: as in `search`, like those that follow.
            k: photos to return.
            weights: granularity -> weight.
            include_thumbnails: whether every hit carries its thumbnail.
            mode: how exact a search shall be.
            filter: which photos take part.
            purpose: what the drawing is for.
            include_canvas: whether answers hold the strokes on the canvas (`Answer.state.canvas`) when some were taken
                away or put back.
            deadline_ms: how long an answer may take before it is given up (`LateError`); the change is made all the
                same.
            resume_s: for how long a connection that breaks is sought again, 0 for not at all. The drawing goes on where
                it was, also on a service that was started anew.
        """
        begin = draw_begin(
            gallery, SearchOptions(k, weights, include_thumbnails, mode, filter), purpose, include_canvas
        )
        return ClientDrawing(
            self._sketches, self._target, begin, metadata=self._metadata, deadline_ms=deadline_ms, resume_s=resume_s
        )

    def replay(
        self,
        strokes: Iterable[Stroke | Points],
        gallery: str = "",
        *,
        stage_ends: Iterable[int] = (),
        k: int = DEFAULT_K,
        weights: Mapping[int, float] = EQUAL_WEIGHTS,
        include_thumbnails: bool = False,
        mode: Mode = EXACT,
        filter: Filter | None = None,
        purpose: str = "",
    ) -> Iterator[ReplayedStage]:
        """What every stage of a drawing would have been answered, in order, as the service computes them.

        Args:
            strokes: of the whole drawing, in the order in which they were drawn.
            gallery: as in `search`, like those that follow.
            stage_ends: strokes on the canvas at the end of each stage; by default every stroke is a stage.
            k: photos to return for each.
            weights: granularity -> weight.
            include_thumbnails: whether every hit carries its thumbnail.
            mode: how exact a search shall be.
            filter: which photos take part.
            purpose: what the drawing is for.

        Raises:
            SketchError: a stroke cannot be drawn, or the stage ends do not climb to the number of strokes.
            QueryError, UnknownGalleryError, ServiceError: as `search`. A stage that fails alone has its error.
        """
        options = SearchOptions(k, weights, include_thumbnails, mode, filter)
        request = replay_request(gallery, strokes, stage_ends, options, purpose)
        call = self._sketches.Replay(request, metadata=self._metadata)
        try:
            yield from map(replayed_stage, call)
        except grpc.RpcError as error:
            raise error_from_rpc(error, self._target) from error
        finally:
            call.cancel()

    def create(self, gallery: str, *, fields: Mapping[str, Kind] | None = None, crop: str = "") -> GalleryInfo:
        """Make an empty gallery in the service's folder for them, with a key of the role `admin`.

        Args:
            gallery: its name, 1 to 64 letters, digits, dots, underscores and hyphens.
            fields: metadata fields of its photos.
            crop: how they are cropped, "face", "stray" or "none"; by default to the face, where the service can.

        Raises:
            QueryError: no gallery can have this name or these fields.
            ExistingGalleryError: there is one of this name.
            ConfigError: the service makes no galleries, or cannot crop photos.
            GalleryError: the disk refuses.
            ForbiddenError: the key has not the role `admin`.
        """
        request = create_request(gallery, fields or {}, crop)
        return gallery_info(self._asked(self._galleries.CreateGallery, request).summary)

    def delete_gallery(self, gallery: str) -> None:
        """Remove a gallery with every photo in it, with a key of the role `admin`.

        Raises:
            UnknownGalleryError: there is none of this name.
            ConfigError: it does not lie in the service's folder for galleries.
            GalleryError: it is being written, or the disk refuses.
            ForbiddenError: the key has not the role `admin`.
        """
        self._asked(self._galleries.DeleteGallery, gallery_pb2.DeleteGalleryRequest(gallery=gallery))

    def versions(self, gallery: str = "") -> list[VersionInfo]:
        """A gallery's versions, one for each model that made or makes it; the one in use first.

        Raises:
            UnknownGalleryError, QueryError, ServiceError: as `search`.
        """
        request = gallery_pb2.ListVersionsRequest(gallery=gallery)
        return list(map(version_info, self._asked(self._galleries.ListVersions, request).versions))

    def galleries(self) -> list[GalleryInfo]:
        """The galleries that are served, by name."""
        response = self._asked(self._galleries.ListGalleries, gallery_pb2.ListGalleriesRequest())
        return [gallery_info(summary) for summary in response.galleries]

    def describe(self, gallery: str = "") -> GalleryDetails:
        """What a gallery is and what it takes of the service's disk, measured now.

        Raises:
            UnknownGalleryError, QueryError, ServiceError: as `search`.
        """
        request = gallery_pb2.DescribeGalleryRequest(gallery=gallery)
        return gallery_details(self._asked(self._galleries.DescribeGallery, request))

    def photos(self, gallery: str = "", *, page_size: int = 100) -> Iterator[PhotoInfo]:
        """All photos in the order of ingestion, without thumbnails, fetched page by page of 1 to 1000.

        Raises:
            UnknownGalleryError, QueryError, ServiceError: as `search`.
        """
        request = gallery_pb2.ListPhotosRequest(gallery=gallery, page_size=page_size)
        while True:
            response = self._asked(self._galleries.ListPhotos, request)
            yield from map(listed_photo, response.photos)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def photo(self, gallery: str, photo_id: str) -> PhotoInfo:
        """One photo's thumbnail, source and metadata.

        Raises:
            UnknownPhotoError: no such photo in that gallery.
        """
        request = gallery_pb2.GetPhotoRequest(gallery=gallery, photo_id=photo_id)
        return photo_info(self._asked(self._galleries.GetPhoto, request))

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
        request = delete_request(gallery, photo_ids)
        return int(self._asked(self._galleries.DeletePhotos, request).deleted)

    def close(self) -> None:
        """End the connection, and with it open drawings."""
        self._channel.close()

    def _asked(self, method: Callable[..., Response], request: object) -> Response:
        try:
            return method(request, **self._call)
        except grpc.RpcError as error:
            raise error_from_rpc(error, self._target) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
