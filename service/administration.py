"""The servicer of those who run the service: wire types in, wire types out, and nothing else."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc

from indexer.backup import Copy, copy_gallery
from indexer.errors import ConfigError
from indexer.gallery import Gallery
from indexer.verification import Fault, verify
from mgrl.v1 import admin_pb2, admin_pb2_grpc
from service.errors import ServiceError, public_errors
from service.galleries import Galleries

T = TypeVar("T")

_LISTED: Final = 100
"""Photos that are named with a fault."""

Context = grpc.aio.ServicerContext[Any, Any]


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Says how a service is, copies what it serves, and stops it.

    Args:
        galleries: what is served.
        backups: folder that copies are made in; None for a service that makes none.
        reload: reads the settings again and says whether they could be used; None where there are none to read.
        is_stopping: whether the service stops already.
        drain: begins to stop it.
    """

    def __init__(
        self,
        galleries: Galleries,
        backups: Path | None,
        reload: Callable[[], Awaitable[bool]] | None,
        is_stopping: Callable[[], bool],
        drain: Callable[[], None],
    ) -> None:
        self._galleries = galleries
        self._backups = backups
        self._reload = reload
        self._is_stopping = is_stopping
        self._drain = drain
        # Reading a gallery whole is work for a disk, and for one reader at a time, also after its caller has gone.
        self._thread = ThreadPoolExecutor(1, "mgrl-admin")

    async def ListModels(self, request: admin_pb2.ListModelsRequest, context: Context) -> admin_pb2.ListModelsResponse:
        async with public_errors(context):
            made: dict[str, list[str]] = {}
            for gallery in self._galleries:
                made.setdefault(gallery.model_hash, []).append(gallery.name)
            models = sorted(self._galleries.encoders, key=lambda encoder: encoder.model_hash)
            return admin_pb2.ListModelsResponse(
                models=[
                    admin_pb2.ModelInfo(
                        model_hash=encoder.model_hash,
                        dim=encoder.dim,
                        size_px=encoder.size_px,
                        galleries=made.get(encoder.model_hash, []),
                    )
                    for encoder in models
                ]
            )
        raise AssertionError("public_errors ends the call")

    async def VerifyGallery(
        self, request: admin_pb2.VerifyGalleryRequest, context: Context
    ) -> admin_pb2.VerifyGalleryResponse:
        async with public_errors(context):
            gallery = self._galleries.find(request.gallery)
            found = await self._in_turn(partial(verify, gallery.folder))
            return admin_pb2.VerifyGalleryResponse(
                photos=found.photos, segments=found.segments, faults=map(_fault, found.faults)
            )
        raise AssertionError("public_errors ends the call")

    async def BackupGallery(
        self, request: admin_pb2.BackupGalleryRequest, context: Context
    ) -> admin_pb2.BackupGalleryResponse:
        async with public_errors(context):
            gallery = self._galleries.find(request.gallery)
            if self._backups is None:
                raise ConfigError("this service has no folder of backups; set backups in [server], or use mgrl backup")
            name, copy = await self._in_turn(partial(_backup, gallery, self._backups))
            return admin_pb2.BackupGalleryResponse(backup=name, photos=copy.photos, copied_bytes=copy.copied_bytes)
        raise AssertionError("public_errors ends the call")

    async def _in_turn(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def ReloadSettings(
        self, request: admin_pb2.ReloadSettingsRequest, context: Context
    ) -> admin_pb2.ReloadSettingsResponse:
        async with public_errors(context):
            if self._reload is None:
                raise ConfigError("this service was not started from settings; start it by mgrl serve")
            if not await self._reload():
                raise ConfigError("the settings cannot be used and stay as they were; the service's log says why")
            return admin_pb2.ReloadSettingsResponse()
        raise AssertionError("public_errors ends the call")

    async def Drain(self, request: admin_pb2.DrainRequest, context: Context) -> admin_pb2.DrainResponse:
        async with public_errors(context):
            if self._is_stopping():
                raise ServiceError("the service is stopping already")
            # Not before the answer has left: the end of the service would cut it off.
            context.add_done_callback(lambda _: self._drain())  # type: ignore[arg-type]  # its stubs take no function
            return admin_pb2.DrainResponse()
        raise AssertionError("public_errors ends the call")


def _backup(gallery: Gallery, backups: Path) -> tuple[str, Copy]:
    name = f"{gallery.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    return name, copy_gallery(gallery.folder, backups / name)


def _fault(fault: Fault) -> admin_pb2.GalleryFault:
    return admin_pb2.GalleryFault(what=fault.what, photo_ids=fault.photo_ids[:_LISTED])
