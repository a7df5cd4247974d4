"""Watches every call of ours from outside: its request id, its line in the log, its counters and its span.

The outermost interceptor, so that calls which another one refuses are counted as well. Health checks and reflection
pass by unseen.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Final

import grpc
from google.rpc import status_pb2

from service.errors import DETAILS_KEY, reason_of
from service.handlers import shape_of
from service.logs import begin_request, request_id
from service.telemetry import Telemetry

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
REQUEST_ID_KEY: Final = "x-request-id"
_OURS: Final = "/mgrl."
_CODES: Final = {code.value[0]: code.name for code in grpc.StatusCode}


class CallObserver(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Counts, logs and traces calls."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's handler, watched."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(_OURS):
            return handler
        make, behaviour = shape_of(handler)
        watched = self._stream(method, behaviour) if handler.response_streaming else self._once(method, behaviour)
        return make(watched, handler.request_deserializer, handler.response_serializer)

    def _once(self, method: str, behaviour: Callable[[Any, Context], Awaitable[Any]]) -> Any:
        async def watched(request: Any, context: Context) -> Any:
            with self._call(method, context) as began:
                await _tell_request_id(context)
                response = await behaviour(request, context)
            self._telemetry.metrics.call_seconds.labels(_short(method)).observe(time.perf_counter() - began)
            return response

        return watched

    def _stream(self, method: str, behaviour: Callable[[Any, Context], Any]) -> Any:
        async def watched(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._call(method, context):
                await _tell_request_id(context)
                async with aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        self._count_error_inside(method, response)
                        yield response

        return watched

    @contextmanager
    def _call(self, method: str, context: Context) -> Iterator[float]:
        headers = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        begin_request(headers.get(REQUEST_ID_KEY, ""))
        name, metrics, began = _short(method), self._telemetry.metrics, time.perf_counter()
        metrics.calls_open.labels(name).inc()
        code = "UNKNOWN"
        with self._telemetry.call(method, headers) as span:
            try:
                yield began
                code = _code(context, "OK")
            except (asyncio.CancelledError, GeneratorExit):
                code = _code(context, "CANCELLED")
                raise
            except BaseException:
                code = _code(context, "UNKNOWN")
                raise
            finally:
                metrics.calls_open.labels(name).dec()
                metrics.calls.labels(name, code).inc()
                if code not in ("OK", "CANCELLED"):
                    metrics.errors.labels(name, _reason(context) or code).inc()
                if span is not None:
                    span.set_attribute("rpc.grpc.status_code", code)
                ms = round((time.perf_counter() - began) * 1e3, 1)
                logger.info("call ended", extra={"fields": {"method": name, "code": code, "ms": ms}})

    def _count_error_inside(self, method: str, response: Any) -> None:
        """A stream answers a message that it refuses with a status of its own, and goes on."""
        error = getattr(response, "error", None)
        if isinstance(error, status_pb2.Status) and error.code:
            reason = reason_of(error) or _CODES.get(error.code, "UNKNOWN")
            self._telemetry.metrics.errors.labels(_short(method), reason).inc()


async def _tell_request_id(context: Context) -> None:
    """In the initial metadata: a call that ends with an error has it, too.

    Raises:
        CancelledError: the client is gone already. gRPC would log that as a fault of the service.
    """
    try:
        await context.send_initial_metadata(((REQUEST_ID_KEY, request_id()),))
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error


def _short(method: str) -> str:
    """`Draw` of `/mgrl.v1.SketchSearchService/Draw`."""
    return method.rpartition("/")[2]


def _code(context: Context, otherwise: str) -> str:
    """The status that the call was given, by name; `otherwise` where it was given none."""
    code: Any = context.code()
    code = code.value[0] if isinstance(code, grpc.StatusCode) else code
    return _CODES.get(code, otherwise) if code else otherwise


def _reason(context: Context) -> str:
    trailing: Any = context.trailing_metadata()
    for key, value in trailing or ():
        if key == DETAILS_KEY:
            return reason_of(status_pb2.Status.FromString(value))
    return ""
