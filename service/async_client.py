"""The Python client for asyncio: `service.client`, awaited. Arguments and errors are documented there."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Self

import grpc

from indexer.errors import PublicError
from indexer.filters import Filter
from indexer.fusion import EQUAL_WEIGHTS
from indexer.metadata import Kind
from indexer.modes import EXACT, Mode
from indexer.sketch import Stroke
from indexer.upload import Upload
from mgrl.v1 import gallery_pb2, gallery_pb2_grpc, search_pb2_grpc
from service.answers import DEFAULT_K, Answer, SearchOptions
from service.async_drawing import AsyncClientDrawing
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
from service.config import DEFAULT_ADDRESS
from service.convert import answer_from_search_response
from service.credentials import NO_CREDENTIALS, Credentials
from service.errors import error_from_rpc
from service.journal import RESUME_S
from service.uploading import Uploads, UpsertReport


class AsyncClient:
    """Talks to one service. Make it on the event loop, close it, or use it in an `async with` block.

    Example:
        async with AsyncClient() as client, client.draw() as drawing:
            answer = await drawing.stroke([(0.3, 0.4), (0.4, 0.38), (0.5, 0.4)])
    """

    def __init__(
        self, target: str = DEFAULT_ADDRESS, *, timeout_s: float = 30.0, credentials: Credentials = NO_CREDENTIALS
    ) -> None:
        self._target = target
        self._metadata = credentials.metadata
        self._call: dict[str, Any] = {"timeout": timeout_s, "metadata": self._metadata}
        self._channel = credentials.channel(target, CHANNEL_OPTIONS, grpc.aio.insecure_channel, grpc.aio.secure_channel)
        self._sketches: Any = search_pb2_grpc.SketchSearchServiceStub(self._channel)
        self._galleries: Any = gallery_pb2_grpc.GalleryServiceStub(self._channel)

    async def search(
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
        """The photos for one sketch."""
        request = search_request(
            gallery, strokes, raster, SearchOptions(k, weights, include_thumbnails, mode, filter), purpose
        )
        return answer_from_search_response(await self._asked(self._sketches.Search, request))

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
    ) -> AsyncClientDrawing:
        """A drawing to be opened with `async with`."""
        begin = draw_begin(
            gallery, SearchOptions(k, weights, include_thumbnails, mode, filter), purpose, include_canvas
        )
        return AsyncClientDrawing(
            self._sketches, self._target, begin, metadata=self._metadata, deadline_ms=deadline_ms, resume_s=resume_s
        )

    def open_draw(self) -> Any:
        """The bare `Draw` call, for who brings messages of their own: `write` a DrawRequest, iterate DrawResponses.

        It raises grpc.aio.AioRpcError, which `public_error` turns into ours.
        """
        return self._sketches.Draw(metadata=self._metadata)

    def public_error(self, error: grpc.aio.AioRpcError) -> PublicError:
        """The exception behind a failed call."""
        return error_from_rpc(error, self._target)

    async def replay(
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
    ) -> AsyncIterator[ReplayedStage]:
        """What every stage of a drawing would have been answered, in order, as the service computes them."""
        options = SearchOptions(k, weights, include_thumbnails, mode, filter)
        request = replay_request(gallery, strokes, stage_ends, options, purpose)
        call = self._sketches.Replay(request, metadata=self._metadata)
        try:
            async for response in call:
                yield replayed_stage(response)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self._target) from error
        finally:
            call.cancel()

    async def create(self, gallery: str, *, fields: Mapping[str, Kind] | None = None, crop: str = "") -> GalleryInfo:
        """Make an empty gallery in the service's folder for them, with a key of the role `admin`."""
        request = create_request(gallery, fields or {}, crop)
        return gallery_info((await self._asked(self._galleries.CreateGallery, request)).summary)

    async def delete_gallery(self, gallery: str) -> None:
        """Remove a gallery with every photo in it, with a key of the role `admin`."""
        await self._asked(self._galleries.DeleteGallery, gallery_pb2.DeleteGalleryRequest(gallery=gallery))

    async def versions(self, gallery: str = "") -> list[VersionInfo]:
        """A gallery's versions, one for each model that made or makes it; the one in use first."""
        request = gallery_pb2.ListVersionsRequest(gallery=gallery)
        return list(map(version_info, (await self._asked(self._galleries.ListVersions, request)).versions))

    async def galleries(self) -> list[GalleryInfo]:
        """The galleries that are served, by name."""
        response = await self._asked(self._galleries.ListGalleries, gallery_pb2.ListGalleriesRequest())
        return [gallery_info(summary) for summary in response.galleries]

    async def describe(self, gallery: str = "") -> GalleryDetails:
        """What a gallery is and what it takes of the service's disk, measured now."""
        request = gallery_pb2.DescribeGalleryRequest(gallery=gallery)
        return gallery_details(await self._asked(self._galleries.DescribeGallery, request))

    async def photos(self, gallery: str = "", *, page_size: int = 100) -> AsyncIterator[PhotoInfo]:
        """All photos in the order of ingestion, without thumbnails, fetched page by page of 1 to 1000."""
        request = gallery_pb2.ListPhotosRequest(gallery=gallery, page_size=page_size)
        while True:
            response = await self._asked(self._galleries.ListPhotos, request)
            for photo in response.photos:
                yield listed_photo(photo)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def photo(self, gallery: str, photo_id: str) -> PhotoInfo:
        """One photo's thumbnail, source and metadata."""
        request = gallery_pb2.GetPhotoRequest(gallery=gallery, photo_id=photo_id)
        return photo_info(await self._asked(self._galleries.GetPhoto, request))

    async def upsert(
        self,
        photos: Iterable[Upload] | AsyncIterable[Upload],
        gallery: str = "",
        *,
        fields: Mapping[str, Kind] | None = None,
        on_durable: Callable[[int], None] | None = None,
    ) -> UpsertReport:
        """Store photos, each under its id."""
        uploads = Uploads(gallery, fields or {})
        opened = asyncio.Event()
        call = self._galleries.UpsertPhotos(_requests(photos, uploads, opened), metadata=self._metadata)
        try:
            async for response in call:
                uploads.take(response)
                opened.set()
                if on_durable is not None:
                    on_durable(uploads.durable)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self._target) from error
        finally:
            call.cancel()
            uploads.has_ended = True
            opened.set()
        if uploads.failure is not None:
            raise uploads.failure
        return uploads.report()

    async def delete(self, photo_ids: Iterable[str], gallery: str = "") -> int:
        """Delete photos, at most 1000, all or none; how many there were."""
        request = delete_request(gallery, photo_ids)
        return int((await self._asked(self._galleries.DeletePhotos, request)).deleted)

    async def close(self) -> None:
        """End the connection, and with it open drawings."""
        await self._channel.close(None)

    async def _asked(self, method: Any, request: object) -> Any:
        try:
            return await method(request, **self._call)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self._target) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _requests(
    photos: Iterable[Upload] | AsyncIterable[Upload], uploads: Uploads, opened: asyncio.Event
) -> AsyncIterator[gallery_pb2.UpsertPhotosRequest]:
    """The messages of a stream of photos, each when it may be sent."""
    yield uploads.begin
    try:
        async for photo in _each(photos):
            while not (uploads.is_open or uploads.has_ended):
                opened.clear()
                await opened.wait()
            if uploads.has_ended:
                return  # gRPC cancels nobody who waits here when the call fails
            if (request := uploads.photo(photo)) is not None:
                yield request
    except Exception as error:
        uploads.failure = error


async def _each(photos: Iterable[Upload] | AsyncIterable[Upload]) -> AsyncIterator[Upload]:
    if isinstance(photos, AsyncIterable):
        async for photo in photos:
            yield photo
    else:
        for photo in photos:
            yield photo
