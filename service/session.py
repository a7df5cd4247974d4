"""The life of one `Draw` stream: a reader applies messages as they come, a loop answers with the newest state.

While a ranking is computed the reader goes on, so whatever arrives meanwhile shares the next answer: the latest stroke
wins and no stale work is done. Every message is answered: by an error with its own sequence number, or by a result
whose sequence number is at least its own.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Final

from indexer.errors import PublicError, QueryError
from mgrl.v1 import search_pb2
from service.auth.callers import current_call
from service.convert import answer_to_draw_result
from service.drawing import Drawing
from service.edits import apply
from service.errors import status_of
from service.telemetry import Telemetry
from service.workers import Workers, abandoned_on_exit

_MAX_UNSENT_ERRORS: Final = 64
"""A client that sends bad messages and reads nothing is not read any further from here on."""


class DrawSession:
    """Answers one drawing.

    Args:
        drawing: an empty drawing.
        sequence: sequence number of the `begin` that opened it.
        workers: where reading and ranking run.
        telemetry: told of every answer.
    """

    def __init__(self, drawing: Drawing, sequence: int, workers: Workers, telemetry: Telemetry) -> None:
        self._drawing = drawing
        self._workers = workers
        self._telemetry = telemetry
        self._last_sequence = sequence
        self._unanswered = [sequence]
        self._waiting_since = time.perf_counter()
        self._changes = 0
        self._errors: asyncio.Queue[search_pb2.DrawResponse] = asyncio.Queue(_MAX_UNSENT_ERRORS)
        self._wake = asyncio.Event()
        self._is_closed = False
        self._end: PublicError | None = None

    def end(self, error: PublicError) -> None:
        """End the stream with an error as soon as it waits for messages."""
        self._end = error
        self._wake.set()

    async def answers(
        self, requests: AsyncIterator[search_pb2.DrawRequest]
    ) -> AsyncGenerator[search_pb2.DrawResponse, None]:
        """The replies to the messages after `begin`, until the drawing is finished.

        Raises:
            PublicError: the one given to `end`.
        """
        reader = asyncio.create_task(self._read(requests))
        try:
            with abandoned_on_exit() as abandoned:
                while True:
                    while not self._errors.empty():
                        yield self._errors.get_nowait()
                    if self._unanswered:
                        for response in await self._answer(abandoned.is_set):
                            yield response
                    elif self._end is not None:
                        raise self._end
                    elif self._is_closed:
                        break
                    else:
                        await self._wake.wait()
                        self._wake.clear()
            await reader
        finally:
            reader.cancel()

    async def _read(self, requests: AsyncIterator[search_pb2.DrawRequest]) -> None:
        try:
            async for request in requests:
                await self._accept(request)
                if request.WhichOneof("action") == "finish":
                    break
        finally:
            self._is_closed = True
            self._wake.set()

    async def _accept(self, request: search_pb2.DrawRequest) -> None:
        try:
            if request.sequence <= self._last_sequence:
                raise QueryError(
                    f"sequence numbers must climb, got {request.sequence} after {self._last_sequence}; "
                    "the message was not applied",
                    field="sequence",
                )
            self._last_sequence = request.sequence
            if (call := current_call()) is not None and request.WhichOneof("action") != "finish":
                call.take_strokes(len(request.strokes.strokes))
            changed = await apply(request, self._drawing, self._workers)
        except Exception as error:
            # The stroke is refused, the drawing goes on; what is no PublicError is logged and masked by status_of.
            await self._errors.put(search_pb2.DrawResponse(sequence=request.sequence, error=status_of(error)))
        else:
            if not self._unanswered:
                self._waiting_since = time.perf_counter()
            self._changes += changed
            self._unanswered.append(request.sequence)
        self._wake.set()

    async def _answer(self, is_abandoned: Callable[[], bool]) -> list[search_pb2.DrawResponse]:
        sequences, self._unanswered = self._unanswered, []
        changes, self._changes = self._changes, 0
        since, skipped = self._waiting_since, max(0, changes - 1)
        work = partial(self._drawing.rank, self._drawing.snapshot(), is_abandoned)
        try:
            answer = await self._workers.rank(work)
        except Exception as error:
            # Each message hears of it: a client that waits for the first must not wait for ever.
            status = status_of(error)
            return [search_pb2.DrawResponse(sequence=sequence, error=status) for sequence in sequences]
        self._telemetry.answered(self._drawing.gallery.name, since, answer.timings, skipped)
        result = answer_to_draw_result(replace(answer, skipped=skipped))
        return [search_pb2.DrawResponse(sequence=sequences[-1], result=result)]
