"""Stands before every call: who calls, may they, how often, and with which purpose.

An interceptor, so that no servicer can forget. What a call may see of the galleries follows from
`service.auth.callers.current_call`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, nullcontext
from typing import Any, Final

import grpc

from indexer.errors import QueryError, blaming
from service.audit import AuditLog
from service.auth.authenticator import Authenticator
from service.auth.callers import Call, Caller, current_call, enter_call
from service.auth.limits import Limiter
from service.auth.methods import ANY, DRAW, OPEN, ROLE_OF, WHOLE_SERVICE
from service.errors import ForbiddenError, public_errors
from service.galleries import Galleries
from service.handlers import shape_of

MAX_PURPOSE: Final = 200
"""Characters."""

_DENIED: Final = grpc.StatusCode.PERMISSION_DENIED

Context = grpc.aio.ServicerContext[Any, Any]


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Lets calls through, or ends them with the reason.

    Args:
        galleries: what is served.
        authenticator: knows the callers.
        log: told who was refused what, although known.
    """

    def __init__(self, galleries: Galleries, authenticator: Authenticator, log: AuditLog | None = None) -> None:
        self._galleries = galleries
        self.authenticator = authenticator
        self._log = log
        self._limiter = Limiter()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """The handler of a method, with the guard before it."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or ROLE_OF.get(method) == OPEN:
            return handler
        make, behaviour = shape_of(handler)
        guarded = self._stream(method, behaviour) if handler.response_streaming else self._once(method, behaviour)
        return make(guarded, handler.request_deserializer, handler.response_serializer)

    def _once(self, method: str, behaviour: Callable[[Any, Context], Awaitable[Any]]) -> Any:
        async def guarded(asked: Any, context: Context) -> Any:
            with self._refusals_noted(method, context):
                async with public_errors(context):
                    call = self._admit(method, asked, context)
                return await behaviour(self._checked(call, method, asked, context), context)

        return guarded

    def _stream(self, method: str, behaviour: Callable[[Any, Context], Any]) -> Any:
        async def guarded(asked: Any, context: Context) -> AsyncIterator[Any]:
            with self._refusals_noted(method, context):
                async with public_errors(context):
                    call = self._admit(method, asked, context)
                async with aclosing(behaviour(self._checked(call, method, asked, context), context)) as answers:
                    async for answer in answers:
                        yield answer

        return guarded

    def _admit(self, method: str, asked: Any, context: Context) -> Call:
        """The call, entered; a single request is checked with it."""
        caller = self._identify(context)
        call = Call(caller, ROLE_OF.get(method, ""), self._limiter)
        enter_call(call)
        check_role(caller, method)
        self._limiter.take_call(caller)
        if not _is_stream(asked):
            self._limiter.check_size(caller, asked.ByteSize())
            self._check_opening(call, asked)
            if "strokes" in asked.DESCRIPTOR.fields_by_name:
                call.take_strokes(max(1, len(asked.strokes.strokes)))  # a picture counts as one
        return call

    def _identify(self, context: Context) -> Caller:
        metadata: Any = context.invocation_metadata() or ()
        return self.authenticator.identify(metadata, context.auth_context())

    def _checked(self, call: Call, method: str, asked: Any, context: Context) -> Any:
        """The request, or the requests, each of which is checked as it passes."""
        return self._each(call, method, asked, context) if _is_stream(asked) else asked

    async def _each(
        self, call: Call, method: str, requests: AsyncIterator[Any], context: Context
    ) -> AsyncIterator[Any]:
        is_first = True
        async for request in requests:
            # A stream may outlast the key that began it, its roles, the settings, and its gallery.
            call.caller = self._identify(context)
            check_role(call.caller, method)
            if call.gallery:
                self._galleries.find(call.gallery)
            # Later messages of a drawing are refused one by one, by its session.
            if is_first or method != DRAW:
                self._limiter.check_size(call.caller, request.ByteSize())
            if is_first:
                self._check_opening(call, request)
            is_first = False
            yield request

    @contextmanager
    def _refusals_noted(self, method: str, context: Context) -> Iterator[None]:
        """Whatever a known caller may not do ends with the same status, wherever that was found out."""
        try:
            yield
        finally:
            call, code = current_call(), context.code()
            if self._log is not None and call is not None and code in (_DENIED, _DENIED.value[0]):
                who = {"caller": call.caller.name, "kind": call.caller.kind}
                self._log.post({"event": "refused", "method": method, "reason": context.details(), **who})

    def _check_opening(self, call: Call, request: Any) -> None:
        opening = _opening_of(request)
        if opening is not None:
            self._galleries.check_caller(opening.gallery)
        if opening is not None and "purpose" in opening.DESCRIPTOR.fields_by_name:
            gallery = self._galleries.find(opening.gallery)
            is_required = self._galleries.settings(gallery.name).purpose_required
            with nullcontext() if opening is request else blaming("begin"):
                check_purpose(opening.purpose, gallery.name, is_required)
            call.purpose = opening.purpose


def check_role(caller: Caller, method: str) -> None:
    """Refuse a method that takes a role which the caller does not have.

    Raises:
        ForbiddenError: the caller does not have it, the method has none, or it reaches beyond the caller's galleries.
    """
    role = ROLE_OF.get(method)
    if role is None:
        raise ForbiddenError(f"{method} is open to nobody")
    if role != ANY and role not in caller.roles:
        held = ", ".join(sorted(caller.roles)) or "none"
        raise ForbiddenError(f"this call takes the role {role}, {caller} has: {held}")
    if method in WHOLE_SERVICE and caller.galleries is not None:
        raise ForbiddenError(f"this call concerns all galleries, {caller} is limited to some")


def _is_stream(asked: Any) -> bool:
    return hasattr(asked, "__aiter__")


def _opening_of(request: Any) -> Any:
    """The message that names the gallery: the request, or the `begin` of a stream; None for one that goes on."""
    if "gallery" in request.DESCRIPTOR.fields_by_name:
        return request
    return request.begin if "begin" in request.DESCRIPTOR.fields_by_name and request.HasField("begin") else None


def check_purpose(purpose: str, gallery: str, is_required: bool) -> None:
    """Refuse a purpose that cannot be kept, or none where one is required.

    Raises:
        QueryError: so.
    """
    if len(purpose) > MAX_PURPOSE or not purpose.isprintable():
        raise QueryError(
            f"a purpose must be printable text of at most {MAX_PURPOSE} characters, got {len(purpose)}", field="purpose"
        )
    if is_required and not purpose.strip():
        raise QueryError(
            f"gallery {gallery} wants to know what a search is for; set `purpose`, such as a case number",
            field="purpose",
        )
