"""The life of one `UpsertPhotos` stream: a reader takes photos in, a loop stores what waits and says how far it is.

As many photos as wait are stored together, so a slow client hears of each at once and a fast one gets large batches.
The client is told how far it may send; what it has sent and has no answer to is all that the service holds of it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Final

from indexer.errors import PublicError, QueryError, blaming
from indexer.upload import Upload
from indexer.upserting import Upserted, Upserter
from mgrl.v1 import gallery_pb2
from service.convert_metadata import asked_fields, metadata_from_wire
from service.errors import IdleError, status_of
from service.patience import FIRST_MESSAGE_S, Patience, first_message
from service.writing import GalleryWriter

WINDOW: Final = 64
"""Photos that a client may have sent without an answer; of 4 MiB at most."""

MOST_TOGETHER: Final = 32
"""Photos of one commit."""

IDLE_S: Final = 60.0
"""Without a message for so long a stream is ended: it keeps others from the gallery. Storing does not count."""


class UpsertSession:
    """Stores the photos of one stream.

    Args:
        writer: of the gallery.
        fields: metadata fields that the client declared.
        idle_s: seconds without a message, while nothing is being stored, that end the stream.
    """

    def __init__(self, writer: GalleryWriter, begin: gallery_pb2.UpsertBegin, idle_s: float) -> None:
        self._writer = writer
        self._begin = begin
        self._idle_s = idle_s
        self._waiting: deque[gallery_pb2.UpsertPhoto] = deque()
        self._wake = asyncio.Event()
        self._patience = Patience([(idle_s, self._end_idle)])
        self._received = self._durable = self._stored = self._unchanged = self._without_face = 0
        self._is_closed = False
        self._end: PublicError | None = None

    def end(self, error: PublicError) -> None:
        """End the stream with an error once what waits is stored."""
        self._end = error
        self._wake.set()

    async def answers(
        self, requests: AsyncIterator[gallery_pb2.UpsertPhotosRequest]
    ) -> AsyncGenerator[gallery_pb2.UpsertPhotosResponse, None]:
        """The stream's answers, the one to `begin` first.

        Raises:
            PublicError: what ended it.
        """
        with blaming("begin"):
            kinds = asked_fields(self._begin.fields)
        with self._patience.working():  # other streams may be storing much
            await self._writer.do(lambda upserter: upserter.declare(kinds))
        reader = asyncio.create_task(self._read(requests))
        try:
            async with aclosing(self._patience.watch(self._replies())) as replies:
                async for response in replies:
                    yield response
            await reader
        finally:
            self._patience.stop()
            reader.cancel()

    async def _replies(self) -> AsyncGenerator[gallery_pb2.UpsertPhotosResponse, None]:
        yield self._answer([])
        while True:
            if self._waiting:
                with self._patience.working():
                    response = await self._store_some()
                yield response
            elif self._end is not None:
                raise self._end
            elif self._is_closed:
                return
            else:
                await self._wake.wait()
                self._wake.clear()

    async def _read(self, requests: AsyncIterator[gallery_pb2.UpsertPhotosRequest]) -> None:
        try:
            async for request in requests:
                if self._end is not None:
                    break  # a client that goes on sending would keep the stream for ever
                self._patience.heard()
                self._accept(request)
                self._wake.set()
        except PublicError as error:
            self.end(error)
        finally:
            self._is_closed = True
            self._wake.set()

    def _end_idle(self) -> None:
        self.end(IdleError(f"no photo came for {self._idle_s:g} s; go on in another stream"))

    def _accept(self, request: gallery_pb2.UpsertPhotosRequest) -> None:
        if request.WhichOneof("message") != "photo":
            raise QueryError("every message but the first must hold a photo")
        expected, most = self._received + 1, self._durable + WINDOW
        if request.photo.sequence != expected:
            raise QueryError(f"photos must be numbered one by one, got {request.photo.sequence} in place of {expected}")
        if expected > most:
            raise QueryError(f"photo {expected} came before its time, {most} was the last that might be sent")
        self._received = expected
        self._waiting.append(request.photo)

    async def _store_some(self) -> gallery_pb2.UpsertPhotosResponse:
        photos = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]
        done, unread = await self._writer.do(partial(_store, photos))
        self._durable = photos[-1].sequence
        self._stored += done.stored
        self._unchanged += done.unchanged
        self._without_face += done.without_face
        failures = {**unread, **done.failures}
        return self._answer(
            [
                gallery_pb2.UpsertFailure(
                    sequence=photos[place].sequence,
                    photo_id=photos[place].photo_id[:1000],
                    error=status_of(failures[place]),
                )
                for place in sorted(failures)
            ]
        )

    def _answer(self, failures: list[gallery_pb2.UpsertFailure]) -> gallery_pb2.UpsertPhotosResponse:
        return gallery_pb2.UpsertPhotosResponse(
            durable_through=self._durable,
            may_send_through=self._durable + WINDOW,
            failures=failures,
            stored=self._stored,
            unchanged=self._unchanged,
            without_face=self._without_face,
        )


def _store(photos: list[gallery_pb2.UpsertPhoto], upserter: Upserter) -> tuple[Upserted, dict[int, PublicError]]:
    """Store photos; their places in both answers are those among `photos`."""
    uploads: dict[int, Upload] = {}
    unread: dict[int, PublicError] = {}
    for place, photo in enumerate(photos):
        try:
            uploads[place] = Upload(photo.photo_id, photo.image, metadata_from_wire(photo.metadata), photo.source)
        except QueryError as error:
            unread[place] = error
    done = upserter.store(list(uploads.values()))
    places = list(uploads)
    failures = {places[place]: error for place, error in done.failures.items()}
    return replace(done, failures=failures), unread


async def first_of(requests: AsyncIterator[gallery_pb2.UpsertPhotosRequest]) -> gallery_pb2.UpsertBegin:
    """The message that opens a stream.

    Raises:
        QueryError: it is another.
        IdleError: none comes.
    """
    request = await first_message(requests, "a stream of photos", min(FIRST_MESSAGE_S, IDLE_S))
    if request is None or request.WhichOneof("message") != "begin":
        raise QueryError("the first message of a stream of photos must be `begin`")
    return request.begin
