"""A drawing in the client for asyncio: `service.client_drawing`, awaited. Arguments and errors are documented there."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt

from indexer.erasing import Eraser
from indexer.filters import Filter
from indexer.fusion import EQUAL_WEIGHTS
from indexer.modes import EXACT, Mode
from indexer.sketch import DEFAULT_WIDTH, Stroke, as_float32
from mgrl.v1 import search_pb2
from service.answers import DEFAULT_K, Answer, SearchOptions
from service.base_drawing import BaseDrawing
from service.calls import Points
from service.errors import ServiceError
from service.journal import may_come_back


class AsyncClientDrawing(BaseDrawing):
    """A drawing in progress, for one task at a time; see `service.client_drawing.ClientDrawing`."""

    async def stroke(
        self, points: Points, width: float = DEFAULT_WIDTH, pressure: npt.NDArray[np.float32] | None = None
    ) -> Answer:
        """Draw one stroke."""
        return await self.strokes([Stroke(as_float32(points), width, pressure)])

    async def strokes(self, strokes: Iterable[Stroke | Points]) -> Answer:
        """Draw several strokes at once; one answer for all."""
        return await self.answer(await self.send_strokes(strokes))

    async def extend(self, points: Points, pressure: npt.ArrayLike | None = None) -> Answer:
        """Make the latest stroke longer."""
        return await self.answer(await self._send(self._outbox.extend(points, pressure)))

    async def undo(self, count: int = 1) -> Answer:
        """Take back the latest steps: strokes and erasures."""
        return await self.answer(await self._send(self._outbox.undo(count)))

    async def redo(self, count: int = 1) -> Answer:
        """Do again what was undone last."""
        return await self.answer(await self._send(self._outbox.redo(count)))

    async def erase(self, target: Eraser | Iterable[int]) -> Answer:
        """Take strokes off the canvas by number, or cut them where an eraser passes."""
        return await self.answer(await self._send(self._outbox.erase(target)))

    async def options(
        self,
        *,
        k: int = DEFAULT_K,
        weights: Mapping[int, float] = EQUAL_WEIGHTS,
        include_thumbnails: bool = False,
        mode: Mode = EXACT,
        filter: Filter | None = None,
    ) -> Answer:
        """Rank otherwise from now on; what is not given has its default."""
        options = SearchOptions(k, weights, include_thumbnails, mode, filter)
        return await self.answer(await self._send(self._outbox.options(options)))

    async def clear(self) -> Answer:
        """Empty the canvas, strokes and picture alike."""
        return await self.answer(await self._send(self._outbox.clear()))

    async def raster(self, image: bytes) -> Answer:
        """Lay a picture (PNG, JPEG, WebP file) under the strokes."""
        return await self.answer(await self._send(self._outbox.raster(image)))

    async def finish(self) -> Answer:
        """End the drawing; the last answer."""
        return await self.answer(await self._send(self._outbox.finish()))

    async def send_strokes(self, strokes: Iterable[Stroke | Points]) -> int:
        """Draw without waiting for the answer; the sequence number to give to `answer`."""
        return await self._send(self._outbox.strokes(strokes))

    async def answer(self, sequence: int) -> Answer:
        """The first answer that includes the message with this sequence number."""
        while (answer := self._inbox.answer_to(sequence)) is None:
            await self._receive()
        return answer

    async def __aenter__(self) -> Self:
        self._connect()
        try:
            await self.answer(await self._send(self._outbox.begin(self._begin)))
        except BaseException:
            self._call.cancel()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and not self._has_ended and not self._outbox.is_finished:
                await self.finish()
        finally:
            self._call.cancel()

    async def _send(self, request: search_pb2.DrawRequest) -> int:
        self._note(request)
        await self._write(request)
        return request.sequence

    async def _write(self, *requests: search_pb2.DrawRequest) -> None:
        # A stream that has ended takes no more messages; reading then says why it ended.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            try:
                for request in requests:
                    await self._call.write(request)
            except asyncio.CancelledError:
                # gRPC does so by itself, but not while the stream is being opened: what came next would open it.
                self._call.cancel()
                raise

    def _connect(self) -> None:
        self._call = self._stub.Draw(metadata=self._metadata)

    async def _receive(self) -> None:
        self._check_goes_on()
        try:
            if self._call.cancelled():
                # gRPC cancels the stream of an edit that its caller stops waiting for; the drawing goes on.
                await self._resume()
            else:
                await self._take()
        except grpc.aio.AioRpcError as error:
            await self._come_back(error)

    async def _take(self) -> search_pb2.DrawResponse:
        response: Any = await self._call.read()
        if response is grpc.aio.EOF:  # type: ignore[attr-defined]  # missing in its stubs
            self._has_ended = True
            raise ServiceError("the drawing has ended; begin another")
        return self._take_in(response)

    async def _come_back(self, error: grpc.aio.AioRpcError) -> None:
        """Go on, on another stream."""
        first = error
        pauses_s = self._pauses()
        while True:
            self._call.cancel()
            pause_s = next(pauses_s, None) if may_come_back(error) else None
            if pause_s is None:
                raise self._given_up(first, error) from error
            await asyncio.sleep(self._wait_s(pause_s, error))
            try:
                return await self._resume()
            except grpc.aio.AioRpcError as again:
                error = again

    async def _resume(self) -> None:
        if (resume := self._journal.resume()) is not None:
            self._connect()
            await self._write(resume)
            try:
                while not self._journal.is_taken_up(response := await self._take()):
                    pass
            except grpc.aio.AioRpcError as error:
                if not self._journal.is_forgotten(error, self._target):
                    raise
            else:
                return await self._write(*self._journal.after(response.sequence))
        self._connect()
        await self._write(*self._journal.tell_again())
        await self._take()
