"""A stream of photos for the client without asyncio: gRPC's own thread sends, the caller's reads the answers."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from indexer.upload import Upload
from mgrl.v1 import gallery_pb2
from service.errors import error_from_rpc
from service.uploading import Uploads, UpsertReport


def upsert(
    method: Any,
    target: str,
    photos: Iterable[Upload],
    uploads: Uploads,
    on_durable: Callable[[int], None] | None,
) -> UpsertReport:
    """What became of the photos.

    Args:
        method: the stub's UpsertPhotos.
        target: the address that is called, for messages.
        photos: what to store; what its iteration raises ends the stream and is raised here, once what was sent is
            stored.
        uploads: a fresh one.
        on_durable: told of every answer that makes photos durable.

    Raises:
        PublicError: the call failed.
    """
    sender = _Sender(photos, uploads)
    call = method(sender.requests())
    try:
        for response in call:
            sender.take(response)
            if on_durable is not None:
                on_durable(uploads.durable)
    except grpc.RpcError as error:
        raise error_from_rpc(error, target) from error
    finally:
        sender.stop()
        call.cancel()
    if uploads.failure is not None:
        raise uploads.failure
    return uploads.report()


class _Sender:
    """Gives gRPC's thread one photo after the other, each when it may be sent."""

    def __init__(self, photos: Iterable[Upload], uploads: Uploads) -> None:
        self._photos = photos
        self._uploads = uploads
        self._changed = threading.Condition()

    def requests(self) -> Iterator[gallery_pb2.UpsertPhotosRequest]:
        yield self._uploads.begin
        try:
            for photo in self._photos:
                with self._changed:
                    self._changed.wait_for(lambda: self._uploads.is_open or self._uploads.has_ended)
                    if self._uploads.has_ended:
                        return
                    request = self._uploads.photo(photo)
                if request is not None:
                    yield request
        except Exception as error:
            self._uploads.failure = error

    def take(self, response: gallery_pb2.UpsertPhotosResponse) -> None:
        with self._changed:
            self._uploads.take(response)
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._uploads.has_ended = True
            self._changed.notify()
