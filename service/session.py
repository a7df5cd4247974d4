"""The life of one `Draw` stream: a reader applies messages as they come, a loop answers with the newest state.

While a ranking is computed the reader goes on, so whatever arrives meanwhile shares the next answer: the latest stroke
wins and no stale work is done. Every message is answered: by an error with its own sequence number, or by a result
whose sequence number is at least its own.
"""

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from indexer.errors import PublicError, QueryError
from mgrl.v1 import search_pb2
from service.answers import Answer
from service.auth.callers import current_call
from service.convert import answer_to_draw_result
from service.edits import apply
from service.errors import IdleError, LateError, SupersededError, status_of
from service.patience import Patience
from service.resumption import MAX_REFUSED, Ongoing, Resumption
from service.telemetry import Telemetry
from service.workers import Workers

_MAX_UNANSWERED: Final = 4096
"""A client that sends and does not read is not read any further from here on."""

_MAX_DEADLINE_MS: Final = 600_000

_REST_S: Final = 5.0
"""Without a message for so long a drawing gives its canvas back."""


@dataclass(frozen=True)
class _Message:
    """A message that waits for its answer, until a moment of the monotonic clock."""

    sequence: int
    until: float = math.inf


class DrawSession:
    """Answers one drawing on one stream.

    Args:
        ongoing: the drawing; the stream begins with an answer for it as it is.
        answered: highest sequence number whose answer the client has; 0 on the first stream.
        resumption: where the drawing is kept when the stream breaks off.
        workers: where reading and ranking run.
        telemetry: told of every answer.
        idle_timeout_s: seconds without a message after which the stream ends.
    """

    def __init__(
        self,
        ongoing: Ongoing,
        answered: int,
        resumption: Resumption,
        workers: Workers,
        telemetry: Telemetry,
        idle_timeout_s: float,
    ) -> None:
        self._ongoing = ongoing
        self._drawing = ongoing.drawing
        self._answered = answered
        self._resumption = resumption
        self._workers = workers
        self._telemetry = telemetry
        self._idle_timeout_s = idle_timeout_s
        self._patience = Patience([(idle_timeout_s, self._end_idle), (_REST_S, self._rest)])
        self._unanswered: list[_Message] = []
        self._waiting_since = time.perf_counter()
        self._changes = 0
        self._accepted: str | None = None  # the latest message's action
        self._errors: asyncio.Queue[search_pb2.DrawResponse] = asyncio.Queue(MAX_REFUSED)
        self._wake = asyncio.Event()
        self._taken = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._is_introduced = self._is_finished = self._is_closed = False
        self._end: PublicError | None = None

    def end(self, error: PublicError) -> None:
        """End the stream with an error as soon as it waits for messages."""
        self._end = error
        self._wake.set()

    async def answers(
        self, requests: AsyncIterator[search_pb2.DrawRequest]
    ) -> AsyncGenerator[search_pb2.DrawResponse, None]:
        """The replies to the messages after the first, until the drawing is finished. `close` afterwards.

        Raises:
            PublicError: the one given to `end`.
        """
        if self._ongoing.reader is not None:
            await asyncio.wait({self._ongoing.reader})
        self._check_holds()
        self._unanswered.append(_Message(self._ongoing.sequence))
        for refused in self._ongoing.refused:
            if refused.sequence > self._answered:
                self._errors.put_nowait(refused)
        self._reader = self._ongoing.reader = asyncio.create_task(self._read(requests))
        self._reader.add_done_callback(_noticed)
        async with aclosing(self._patience.watch(self._replies())) as replies:
            async for response in replies:
                yield response
        await self._reader

    def close(self) -> None:
        """The stream is over: the drawing is kept for a while, unless it is finished or on another stream."""
        self._patience.stop()
        if self._reader is not None:
            self._reader.cancel()
        if self._ongoing.stream is self:
            if self._is_finished:
                self._resumption.forget(self._ongoing)
            else:
                self._rest()
                if self._ongoing.ranking is not None:  # it runs still, and fills the canvas
                    self._ongoing.ranking.add_done_callback(lambda _: self._rest())
                self._resumption.keep(self._ongoing)

    def release(self) -> None:
        """Let go of the drawing, for another stream."""
        self._ongoing.stream = None
        self.end(SupersededError("the drawing was resumed on another stream"))
        if self._reader is not None:
            self._reader.cancel()

    def _check_holds(self) -> None:
        if self._ongoing.stream is not self:
            raise self._end or AssertionError("who releases a drawing says why")

    async def _replies(self) -> AsyncGenerator[search_pb2.DrawResponse, None]:
        while True:
            while not self._errors.empty():
                yield self._errors.get_nowait()
            self._check_holds()
            if self._unanswered:
                async with aclosing(self._rank()) as responses:
                    async for response in responses:
                        yield response
            elif self._end is not None:
                raise self._end
            elif self._is_closed:
                return
            else:
                await self._wake.wait()
                self._wake.clear()

    async def _read(self, requests: AsyncIterator[search_pb2.DrawRequest]) -> None:
        try:
            async for request in requests:
                self._patience.heard()
                await self._accept(request)
                if request.WhichOneof("action") == "finish":
                    self._is_finished = True
                    break
                while len(self._unanswered) >= _MAX_UNANSWERED:
                    self._taken.clear()
                    await self._taken.wait()
        finally:
            self._is_closed = True
            self._wake.set()

    async def _accept(self, request: search_pb2.DrawRequest) -> None:
        until = math.inf
        try:
            if request.sequence <= self._ongoing.sequence:
                raise QueryError(
                    f"sequence numbers must climb, got {request.sequence} after {self._ongoing.sequence}; "
                    "the message was not applied",
                    field="sequence",
                )
            if (call := current_call()) is not None:
                call.take_strokes(self._counted_strokes(request), request.ByteSize())
            if request.HasField("deadline_ms"):
                until = time.monotonic() + _deadline_s(request.deadline_ms)
            changed = await apply(request, self._drawing, self._workers)
        except Exception as error:
            # The stroke is refused, the drawing goes on; what is no PublicError is logged and masked by status_of.
            refused = search_pb2.DrawResponse(sequence=request.sequence, error=status_of(error))
            self._ongoing.refused.append(refused)
            self._ongoing.sequence = max(self._ongoing.sequence, request.sequence)
            await self._errors.put(refused)
        else:
            # Only now: a message that a broken stream cut short is not told to be there.
            self._ongoing.sequence = request.sequence
            self._accepted = request.WhichOneof("action")
            if not self._unanswered:
                self._waiting_since = time.perf_counter()
            self._changes += changed
            self._unanswered.append(_Message(request.sequence, until))
        self._wake.set()

    def _counted_strokes(self, request: search_pb2.DrawRequest) -> int:
        """How many strokes a message counts as: what leads to a ranking of its own counts as one.

        But for the first extension of a stroke, which a pen that rests before it is lifted leaves over.
        """
        action = request.WhichOneof("action")
        if action == "finish" or (action == "extend" and self._accepted == "strokes"):
            return 0
        return max(1, len(request.strokes.strokes))

    async def _rank(self) -> AsyncGenerator[search_pb2.DrawResponse, None]:
        """One ranking: the answers to all who wait for it now."""
        await self._earlier_ranking()
        if not self._errors.empty():
            return  # refused meanwhile: errors arrive before results that follow them
        waiting, self._unanswered = self._unanswered, []
        changes, self._changes = self._changes, 0
        self._taken.set()
        since, last, stop = self._waiting_since, waiting[-1].sequence, threading.Event()
        work = partial(self._drawing.rank, self._drawing.snapshot(), stop.is_set)
        ranking = self._ongoing.ranking = self._workers.rank(work)
        ranking.add_done_callback(_noticed)
        try:
            while waiting and not ranking.done():
                patience = min(message.until for message in waiting) - time.monotonic()
                await asyncio.wait({ranking}, timeout=None if patience == math.inf else max(0.0, patience))
                if not ranking.done():
                    now = time.monotonic()
                    late = [message.sequence for message in waiting if message.until <= now]
                    waiting = [message for message in waiting if message.until > now]
                    if not waiting:
                        stop.set()
                    for sequence in late:
                        yield search_pb2.DrawResponse(sequence=sequence, error=_LATE)
        finally:
            stop.set()
        if not waiting:
            # Nobody waits any more; the next answer includes these changes.
            self._changes += changes
            return
        for response in self._outcome(ranking, waiting, last, since, max(0, changes - 1)):
            yield response

    def _outcome(
        self, ranking: "asyncio.Future[Answer]", waiting: list[_Message], last: int, since: float, skipped: int
    ) -> list[search_pb2.DrawResponse]:
        if error := ranking.exception():
            # Each message hears of it: a client that waits for the first must not wait for ever.
            status = status_of(error if isinstance(error, Exception) else RuntimeError("the ranking was cancelled"))
            return [search_pb2.DrawResponse(sequence=message.sequence, error=status) for message in waiting]
        answer = ranking.result()
        self._telemetry.answered(self._drawing.gallery.name, since, answer.timings, skipped)
        result = answer_to_draw_result(replace(answer, skipped=skipped))
        if not self._is_introduced:
            result.session.resume_token = self._ongoing.token
            result.session.resumable_s = math.ceil(self._resumption.resumable_s)
            result.session.idle_timeout_s = math.ceil(self._idle_timeout_s)
            self._is_introduced = True
        return [search_pb2.DrawResponse(sequence=last, result=result)]

    async def _earlier_ranking(self) -> None:
        """Wait for the one before, which may be of a stream that broke off: a drawing is ranked once at a time.

        Streams that broke off may wait here, too, and be the first to go on.
        """
        while self._ongoing.ranking is not None and not self._ongoing.ranking.done():
            await asyncio.wait({self._ongoing.ranking})

    def _end_idle(self) -> None:
        self.end(IdleError(f"nothing came for {self._idle_timeout_s:.0f} s; resume the drawing with its resume_token"))

    def _rest(self) -> None:
        if self._ongoing.ranking is None or self._ongoing.ranking.done():
            self._ongoing.ranking = None
            if self._drawing.rest():
                self._workers.tidying.soon()


def _deadline_s(deadline_ms: int) -> float:
    if not 1 <= deadline_ms <= _MAX_DEADLINE_MS:
        raise QueryError(f"deadline_ms must be from 1 to {_MAX_DEADLINE_MS}, got {deadline_ms}", field="deadline_ms")
    return deadline_ms / 1e3


def _noticed(work: "asyncio.Future[Any]") -> None:
    """An error that nobody waits for is no fault to report."""
    if not work.cancelled():
        work.exception()


_LATE: Final = status_of(LateError("no answer within deadline_ms; the change is made, the next answer shows it"))
