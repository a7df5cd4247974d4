"""The error catalog: which status code each public error has on the wire, and the way back to the exception.

A `PublicError` crosses the wire with its message. Anything else is a fault of ours: the caller gets an id, the log
gets the traceback.
"""

import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from indexer.errors import (
    ConfigError,
    DataError,
    GalleryError,
    GalleryHeldError,
    ImageError,
    ModelError,
    ModelMismatchError,
    PublicError,
    QueryError,
    ShapeError,
    SketchError,
    StaleSnapshotError,
    UnknownPhotoError,
)
from service.logs import request_id

logger = logging.getLogger(__name__)

DOMAIN: Final = "mgrl"
DETAILS_KEY: Final = "grpc-status-details-bin"
"""Trailing metadata that holds a serialised google.rpc.Status, by gRPC's convention."""

_MOST_BYTES: Final = 1000
"""Of a message: that of a call which ends travels as metadata, of which clients take no more than 8 or 16 KiB."""

_OTHER_KIND: Final = re.compile("handshake failed|Socket closed|reset by peer")
"""How gRPC says that somebody took a connection and did not talk to us: one of us encrypts, or it went away."""


class UnknownGalleryError(PublicError):
    """No gallery of this name is served."""


class ExistingGalleryError(PublicError):
    """There is a gallery of this name already."""


class ServiceError(PublicError):
    """The service cannot answer: it is not there, it is stopping, or it failed."""


class AuthenticationError(PublicError):
    """Nobody knows who calls: no key or token, or one that is wrong, expired or revoked."""


class ForbiddenError(PublicError):
    """The caller is known and may not do this: its role is another, or the gallery is none of its own."""


class LimitError(PublicError):
    """The caller has used up what it may ask for; the same call succeeds after `retry_after_s` seconds, 0 if never."""

    @classmethod
    def after(cls, retry_after_s: float, message: str) -> Self:
        """An error that says when to come back."""
        return cls(message, retry_after_s=retry_after_s)


class OverloadedError(LimitError):
    """The service does as much as it can: what runs goes on, what is new comes back later."""


class UnknownTokenError(PublicError):
    """No drawing can be resumed with this token here: never given out, too old, or finished."""


class LateError(PublicError):
    """No answer within the time that the message allowed."""


class IdleError(PublicError):
    """A stream on which nothing happened for too long."""


class SupersededError(PublicError):
    """The drawing goes on, on another stream."""


class AuditError(PublicError):
    """A search that must be on record cannot be recorded."""


CATALOG: Final[Mapping[type[PublicError], grpc.StatusCode]] = {
    ShapeError: grpc.StatusCode.INVALID_ARGUMENT,
    SketchError: grpc.StatusCode.INVALID_ARGUMENT,
    ImageError: grpc.StatusCode.INVALID_ARGUMENT,
    QueryError: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownGalleryError: grpc.StatusCode.NOT_FOUND,
    UnknownPhotoError: grpc.StatusCode.NOT_FOUND,
    ExistingGalleryError: grpc.StatusCode.ALREADY_EXISTS,
    GalleryError: grpc.StatusCode.FAILED_PRECONDITION,
    ModelMismatchError: grpc.StatusCode.FAILED_PRECONDITION,
    GalleryHeldError: grpc.StatusCode.FAILED_PRECONDITION,
    StaleSnapshotError: grpc.StatusCode.FAILED_PRECONDITION,
    ModelError: grpc.StatusCode.FAILED_PRECONDITION,
    DataError: grpc.StatusCode.FAILED_PRECONDITION,
    ConfigError: grpc.StatusCode.FAILED_PRECONDITION,
    ServiceError: grpc.StatusCode.UNAVAILABLE,
    AuthenticationError: grpc.StatusCode.UNAUTHENTICATED,
    ForbiddenError: grpc.StatusCode.PERMISSION_DENIED,
    LimitError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnknownTokenError: grpc.StatusCode.NOT_FOUND,
    LateError: grpc.StatusCode.DEADLINE_EXCEEDED,
    IdleError: grpc.StatusCode.DEADLINE_EXCEEDED,
    SupersededError: grpc.StatusCode.ABORTED,
    AuditError: grpc.StatusCode.UNAVAILABLE,
}


def reason(kind: type[PublicError]) -> str:
    """How an error type is called on the wire.

    Example:
        >>> reason(UnknownPhotoError)
        'UNKNOWN_PHOTO_ERROR'
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).upper()


def status_of(error: Exception) -> status_pb2.Status:
    """What the caller may know of an error; an unexpected one is logged under the id that the caller gets."""
    if isinstance(error, DecodeError):
        error = QueryError("a message cannot be decoded: it is none of this contract, or nested more than 100 deep")
    for kind in type(error).__mro__:
        if isinstance(error, PublicError) and kind in CATALOG:
            message = _shortened(str(error))
            return _status(CATALOG[kind], message, reason(kind), *_details(error, message))
    failed = request_id()
    logger.error("request %s failed", failed, exc_info=error)
    message = f"internal error {failed}; the service's log tells more under this id"
    return _status(grpc.StatusCode.INTERNAL, message, "INTERNAL")


def _shortened(text: str) -> str:
    """A text that a status can hold."""
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= _MOST_BYTES else data[:_MOST_BYTES].decode("utf-8", "ignore") + "..."


@asynccontextmanager
async def public_errors(context: "grpc.aio.ServicerContext[Any, Any]") -> AsyncIterator[None]:
    """End the call with the catalog's status when the body raises."""
    try:
        yield
    except Exception as error:  # the border: what is not in the catalog must not cross it
        status = status_of(error)
        code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
        await context.abort(code, status.message, ((DETAILS_KEY, status.SerializeToString()),))


def reason_of(status: status_pb2.Status) -> str:
    """The reason that one of our statuses gives; empty for any other."""
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for detail in status.details if detail.Unpack(info) and info.domain == DOMAIN), "")


def error_from_status(status: status_pb2.Status) -> PublicError:
    """The exception that the service raised, with its message; ServiceError where it is none of ours."""
    given = reason_of(status)
    found = next((kind(status.message) for kind in CATALOG if reason(kind) == given), None)
    retry = error_details_pb2.RetryInfo()
    if found is not None and any(detail.Unpack(retry) for detail in status.details):
        found.retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    blamed = error_details_pb2.BadRequest()
    if found is not None and any(detail.Unpack(blamed) for detail in status.details):
        found.field = blamed.field_violations[0].field
    return found or ServiceError(status.message)


def error_from_rpc(error: grpc.RpcError | grpc.aio.AioRpcError, target: str) -> PublicError:
    """The exception behind a failed call.

    Args:
        error: what a stub raised.
        target: the address that was called, for the message.
    """
    code, message = error.code(), error.details() or ""
    metadata: Any = error.trailing_metadata()  # pairs, whatever the stubs say
    for key, value in metadata or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return error_from_status(status_pb2.Status.FromString(value))
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in message:
        return SketchError(
            f"the message is above the service's limit; scale the picture down, or thin out the strokes ({message})"
        )
    if code is grpc.StatusCode.UNAVAILABLE:
        if message.startswith("failed to connect") and _OTHER_KIND.search(message):
            return ServiceError(
                f"what answers at {target} took the connection and closed it: it may have stopped, or want another "
                "kind; a service that encrypts takes its root certificates (ca), and may take a certificate of yours "
                f"({message})"
            )
        return ServiceError(f"no service answers at {target}; start one with: mgrl serve GALLERY ({message})")
    return ServiceError(f"the call to {target} ended with {code.name}: {message}")


def _details(error: PublicError, message: str) -> list[Message]:
    details: list[Message] = []
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_s:
        details.append(error_details_pb2.RetryInfo(retry_delay=_duration(error.retry_after_s)))
    return details


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def _status(code: grpc.StatusCode, message: str, reason: str, *more: Message) -> status_pb2.Status:
    details = []
    for detail in (error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN), *more):
        details.append(any_pb2.Any())
        details[-1].Pack(detail)
    return status_pb2.Status(code=code.value[0], message=message, details=details)
