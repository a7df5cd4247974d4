"""Puts calls on record: the interceptor behind the guard, which knows by then who calls.

A search is recorded when its answer is known and before it leaves. A stream is recorded with its first answer, then
every half minute and at its end, with what was shown up to there. Where the gallery requires a record, no record
means no answer; elsewhere the failure is logged and the answer leaves.
"""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

import grpc

from service.audit import AuditLog
from service.auth.callers import current_call
from service.auth.methods import ADMIN, INGEST, ROLE_OF
from service.errors import AuditError, public_errors
from service.galleries import Galleries
from service.handlers import shape_of

Context = grpc.aio.ServicerContext[Any, Any]

_EVERY_S: Final = 30.0

_MOST_BYTES: Final = 1024 * 1024
"""Of a drawing's messages that wait for their record."""

_SEARCHES: Final = ("Search", "Draw", "Replay", "GetPhoto")


class Auditor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Records searches, photos that were looked at, and whatever takes the roles ingest and admin.

    Args:
        galleries: what is served.
        log: where to.
    """

    def __init__(self, galleries: Galleries, log: AuditLog) -> None:
        self._galleries = galleries
        self._log = log

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """The handler of a method, with its record."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method.rpartition("/")[2]
        changes = ROLE_OF.get(handler_call_details.method) in (INGEST, ADMIN)
        if handler is None or not (changes or method in _SEARCHES):
            return handler
        make, behaviour = shape_of(handler)
        recorded = self._stream(method, behaviour) if handler.response_streaming else self._once(method, behaviour)
        return make(recorded, handler.request_deserializer, handler.response_serializer)

    def _once(self, method: str, behaviour: Callable[[Any, Context], Awaitable[Any]]) -> Any:
        async def recorded(asked: Any, context: Context) -> Any:
            account = Account(self._galleries, self._log, method, is_stream=False)
            try:
                response = await behaviour(account.watched(asked), context)
            except BaseException as error:
                account.broken_off("cancelled" if isinstance(error, asyncio.CancelledError) else "failed")
                raise
            async with public_errors(context):
                account.shown(response)
                await account.record()
            return response

        return recorded

    def _stream(self, method: str, behaviour: Callable[[Any, Context], Any]) -> Any:
        async def recorded(asked: Any, context: Context) -> AsyncIterator[Any]:
            account = Account(self._galleries, self._log, method, is_stream=True)
            try:
                async with aclosing(behaviour(account.watched(asked), context)) as answers:
                    async for answer in answers:
                        account.shown(answer)
                        if account.is_due:
                            async with public_errors(context):
                                await account.record()
                        yield answer
            finally:
                # Not awaited: the call may be over because nobody waits for it any more.
                account.end()

        return recorded


class Account:
    """What one call has shown so far, and of that what is on record.

    Args:
        galleries: what is served.
        log: where records go.
        method: its short name.
        is_stream: whether it answers more than once.
    """

    def __init__(self, galleries: Galleries, log: AuditLog, method: str, *, is_stream: bool) -> None:
        self._galleries, self._log, self._method, self._is_stream = galleries, log, method, is_stream
        self._answers = self._results = self._bytes = 0
        self._photos: set[str] = set()
        self._unrecorded: list[str] = []
        self._messages: list[str] = []
        self._recorded_at: float | None = None

    def watched(self, asked: Any) -> Any:
        """The request or requests, looked at as they pass."""
        if hasattr(asked, "__aiter__"):
            return self._each(asked)
        self._look(asked)
        return asked

    async def _each(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            self._look(request)
            yield request

    def _look(self, request: Any) -> None:
        is_token = self._method == "Draw" and request.HasField("resume")  # a secret, and no sketch
        if self._log.config.sketches and self._method in _SEARCHES and not is_token:
            data = request.SerializeToString()
            self._messages.append(base64.b64encode(data).decode())
            self._bytes += len(data)

    def shown(self, answer: Any) -> None:
        """Count what an answer shows."""
        self._answers += 1
        if self._method not in _SEARCHES:
            return
        result = answer.result if "result" in answer.DESCRIPTOR.fields_by_name else answer
        if "ranking" in result.DESCRIPTOR.fields_by_name:
            ids = [hit.photo_id for hit in result.ranking.hits]
        else:
            ids = [answer.photo_id] if "photo_id" in answer.DESCRIPTOR.fields_by_name else []
        self._results += len(ids)
        for photo_id in ids:
            if photo_id not in self._photos:
                self._photos.add(photo_id)
                self._unrecorded.append(photo_id)

    @property
    def is_due(self) -> bool:
        """Whether a stream's next record is to be written before its next answer leaves."""
        return (
            self._recorded_at is None
            or (self._is_required and self._log.is_failing)
            or time.monotonic() - self._recorded_at > _EVERY_S
            or self._bytes > _MOST_BYTES
        )

    async def record(self) -> None:
        """Put on record what was shown up to here.

        Raises:
            AuditError: it could not be, and the gallery requires it.
        """
        record = self._record("begun" if self._is_stream and self._recorded_at is None else "shown")
        try:
            await self._log.write(record)
        except AuditError:
            # Shown before, or about to be where no record is required: the next record names them.
            self._unrecorded = [*record.get("photo_ids", ()), *self._unrecorded]
            if self._is_required:
                raise
        self._recorded_at = time.monotonic()

    def end(self) -> None:
        """Put on record that a stream has ended, soon."""
        if self._recorded_at is not None:
            self._log.post(self._record("ended"))

    def broken_off(self, state: str) -> None:
        """Put on record, soon, that a change has no answer, by its caller's will or by a fault: some of it may be done.

        Args:
            state: "cancelled" or "failed".
        """
        if self._method not in _SEARCHES:
            self._log.post(self._record(state))

    @property
    def _is_required(self) -> bool:
        call = current_call()
        is_search = self._method in _SEARCHES
        return is_search and call is not None and self._galleries.settings(call.gallery).audit_required

    def _record(self, state: str) -> dict[str, Any]:
        call = current_call()
        record: dict[str, Any] = {
            "event": self._method,
            "state": state,
            "caller": call.caller.name if call else "",
            "kind": call.caller.kind if call else "",
            "gallery": call.gallery if call else "",
            "purpose": call.purpose if call else "",
            "answers": self._answers,
            "results": self._results,
            "photos": len(self._photos),
        }
        if self._log.config.photos:
            record["photo_ids"], self._unrecorded = self._unrecorded, []
        if self._log.config.sketches:
            record["messages"], self._messages, self._bytes = self._messages, [], 0
        return record
