"""The servicer of galleries: wire types in, wire types out, and nothing else."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import grpc

from indexer.errors import ConfigError, QueryError
from indexer.gallery import Gallery
from indexer.listing import list_photos
from indexer.usage import usage
from indexer.version_list import Version, list_versions
from mgrl.v1 import gallery_pb2, gallery_pb2_grpc
from service.convert_gallery import asked_crop, crop_to_wire, state_to_wire
from service.convert_metadata import asked_fields, fields_to_wire, metadata_to_wire
from service.creating import GalleryMaker
from service.errors import OverloadedError, ServiceError, public_errors
from service.galleries import Galleries
from service.upserting import IDLE_S, UpsertSession, first_of
from service.watch import GalleryWatch
from service.workers import Workers
from service.writing import GalleryWriters

MAX_DELETED: Final = 1000
"""Photos that one call may delete."""

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000

MAX_STREAMS: Final = 4
"""Streams of photos at once, each of which may hold 256 MiB: `service.upserting.WINDOW` messages."""

Context = grpc.aio.ServicerContext[Any, Any]


class GalleryServicer(gallery_pb2_grpc.GalleryServiceServicer):
    """Describes the galleries, hands out photos, and takes them in or out where it may."""

    def __init__(
        self,
        galleries: Galleries,
        workers: Workers,
        writers: GalleryWriters,
        watch: GalleryWatch,
        maker: GalleryMaker | None = None,
    ) -> None:
        self._galleries = galleries
        self._maker = maker
        self._workers = workers
        self.writers = writers
        self._watch = watch
        self._streams: set[UpsertSession] = set()
        self._room = asyncio.Semaphore(MAX_STREAMS)

    async def CreateGallery(
        self, request: gallery_pb2.CreateGalleryRequest, context: Context
    ) -> gallery_pb2.CreateGalleryResponse:
        async with public_errors(context):
            kinds, crop = asked_fields(request.fields), asked_crop(request.crop)
            gallery = await self._making.create(request.gallery, kinds, crop)
            return gallery_pb2.CreateGalleryResponse(summary=_summary(gallery))
        raise AssertionError("public_errors ends the call")

    async def DeleteGallery(
        self, request: gallery_pb2.DeleteGalleryRequest, context: Context
    ) -> gallery_pb2.DeleteGalleryResponse:
        async with public_errors(context):
            await self._making.delete(request.gallery)
            return gallery_pb2.DeleteGalleryResponse()
        raise AssertionError("public_errors ends the call")

    async def ListGalleries(
        self, request: gallery_pb2.ListGalleriesRequest, context: Context
    ) -> gallery_pb2.ListGalleriesResponse:
        async with public_errors(context):
            return gallery_pb2.ListGalleriesResponse(galleries=map(_summary, self._galleries))
        raise AssertionError("public_errors ends the call")

    async def DescribeGallery(
        self, request: gallery_pb2.DescribeGalleryRequest, context: Context
    ) -> gallery_pb2.DescribeGalleryResponse:
        async with public_errors(context):
            gallery = self._galleries.find(request.gallery)
            # Seconds for millions of photos: not on the thread that drawings wait for.
            used = await asyncio.to_thread(usage, gallery.folder)
            return gallery_pb2.DescribeGalleryResponse(
                summary=_summary(gallery),
                version=gallery.version,
                created=gallery.manifest.created,
                aliases=used.aliases,
                deleted=used.deleted,
                crop=crop_to_wire(used.crop),
                usage=gallery_pb2.GalleryUsage(
                    vectors=used.vectors,
                    thumbnails=used.thumbnails,
                    metadata=used.metadata,
                    index=used.index,
                    reclaimable=used.reclaimable,
                    total=used.total,
                ),
            )
        raise AssertionError("public_errors ends the call")

    async def ListVersions(
        self, request: gallery_pb2.ListVersionsRequest, context: Context
    ) -> gallery_pb2.ListVersionsResponse:
        async with public_errors(context):
            gallery = self._galleries.find(request.gallery)
            listed = await asyncio.to_thread(list_versions, gallery.folder)
            return gallery_pb2.ListVersionsResponse(versions=map(_version, listed))
        raise AssertionError("public_errors ends the call")

    async def ListPhotos(
        self, request: gallery_pb2.ListPhotosRequest, context: Context
    ) -> gallery_pb2.ListPhotosResponse:
        async with public_errors(context):
            gallery = self._galleries.find(request.gallery)
            size = request.page_size if request.HasField("page_size") else DEFAULT_PAGE
            if not 1 <= size <= MAX_PAGE:
                raise QueryError(f"a page may have 1 to {MAX_PAGE} photos, got {size}", field="page_size")
            after = _row_of(request.page_token, gallery.name)
            # One more than is asked for tells whether there is another page.
            listed = await self._workers.read(partial(list_photos, gallery.folder, after, size + 1))
            photos = [
                gallery_pb2.PhotoSummary(
                    photo_id=photo.photo_id, source=photo.source, metadata=metadata_to_wire(photo.metadata)
                )
                for photo in listed[:size]
            ]
            token = _page_token(listed[size - 1].row, gallery.name) if len(listed) > size else ""
            return gallery_pb2.ListPhotosResponse(photos=photos, next_page_token=token)
        raise AssertionError("public_errors ends the call")

    async def GetPhoto(self, request: gallery_pb2.GetPhotoRequest, context: Context) -> gallery_pb2.GetPhotoResponse:
        async with public_errors(context):
            gallery = self._galleries.find(request.gallery)
            photo = await self._workers.read(partial(gallery.photo, request.photo_id))
            return gallery_pb2.GetPhotoResponse(
                photo_id=photo.photo_id,
                source=photo.source,
                thumbnail=photo.thumbnail,
                metadata=metadata_to_wire(photo.metadata),
            )
        raise AssertionError("public_errors ends the call")

    async def UpsertPhotos(
        self, requests: AsyncIterator[gallery_pb2.UpsertPhotosRequest], context: Context
    ) -> AsyncIterator[gallery_pb2.UpsertPhotosResponse]:
        async with public_errors(context):
            begin = await first_of(requests)
            if self._room.locked():
                raise OverloadedError.after(10, f"the service takes {MAX_STREAMS} streams of photos at once")
            gallery = self._galleries.find(begin.gallery)
            async with self._room, self.writers.writing(gallery) as writer:
                session = UpsertSession(writer, begin, IDLE_S)
                self._streams.add(session)
                try:
                    async with aclosing(session.answers(requests)) as responses:
                        async for response in responses:
                            yield response
                finally:
                    self._streams.discard(session)

    async def DeletePhotos(
        self, request: gallery_pb2.DeletePhotosRequest, context: Context
    ) -> gallery_pb2.DeletePhotosResponse:
        async with public_errors(context):
            photo_ids = list(dict.fromkeys(request.photo_ids))
            if not 1 <= len(photo_ids) <= MAX_DELETED:
                raise QueryError(
                    f"a call must name 1 to {MAX_DELETED} photos to delete, got {len(photo_ids)}", field="photo_ids"
                )
            gallery = self._galleries.find(request.gallery)
            async with self.writers.writing(gallery) as writer:
                await writer.do(lambda upserter: upserter.delete(photo_ids))
            await self._watch.look()
            return gallery_pb2.DeletePhotosResponse(deleted=len(photo_ids))
        raise AssertionError("public_errors ends the call")

    @property
    def _making(self) -> GalleryMaker:
        if self._maker is None:
            raise ConfigError("this service was not started from settings, which say where galleries are made")
        return self._maker

    async def drain(self) -> None:
        """End the streams of photos, once what they have received is stored, and write no more."""
        for session in self._streams:
            session.end(ServiceError("the service is stopping; send what has no answer to another one"))
        await self.writers.close()


def _summary(gallery: Gallery) -> gallery_pb2.GallerySummary:
    return gallery_pb2.GallerySummary(
        name=gallery.name,
        photos=gallery.photos,
        dim=gallery.dim,
        model_hash=gallery.model_hash,
        fields=fields_to_wire(gallery.fields),
    )


def _version(version: Version) -> gallery_pb2.GalleryVersion:
    said = version.manifest
    return gallery_pb2.GalleryVersion(
        state=state_to_wire(version.state),
        model_hash=said.model_hash,
        dim=said.dim,
        created=said.created,
        photos=version.photos,
        bytes=version.bytes,
    )


def _page_token(row: int, gallery: str) -> str:
    return base64.urlsafe_b64encode(f"{row}:{gallery}".encode()).decode()


def _row_of(token: str, gallery: str) -> int:
    """Row of the last photo of the page before.

    Raises:
        QueryError: the token is none that this gallery has given.
    """
    if not token:
        return 0
    try:
        row, _, name = base64.b64decode(token, b"-_", validate=True).decode().partition(":")
        if name == gallery and row.isascii() and row.isdigit() and len(row) < 19:
            return int(row)
    except ValueError:  # of base64 and of UTF-8
        pass
    raise QueryError("a page token must come from the answer before, of the same gallery", field="page_token")
