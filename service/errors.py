"""The error catalog: which status code each public error has on the wire, and the way back to the exception.

A `PublicError` crosses the wire with its message. Anything else is a fault of ours: the caller gets an id, the log
gets the traceback.
"""

import logging
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from indexer.errors import (
    ConfigError,
    DataError,
    GalleryError,
    ImageError,
    ModelError,
    ModelMismatchError,
    PublicError,
    QueryError,
    ShapeError,
    SketchError,
    UnknownPhotoError,
)

logger = logging.getLogger(__name__)

DOMAIN: Final = "mgrl"
DETAILS_KEY: Final = "grpc-status-details-bin"
"""Trailing metadata that holds a serialised google.rpc.Status, by gRPC's convention."""


class UnknownGalleryError(PublicError):
    """No gallery of this name is served."""


class ServiceError(PublicError):
    """The service cannot answer: it is not there, it is stopping, or it failed."""


CATALOG: Final[Mapping[type[PublicError], grpc.StatusCode]] = {
    ShapeError: grpc.StatusCode.INVALID_ARGUMENT,
    SketchError: grpc.StatusCode.INVALID_ARGUMENT,
    ImageError: grpc.StatusCode.INVALID_ARGUMENT,
    QueryError: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownGalleryError: grpc.StatusCode.NOT_FOUND,
    UnknownPhotoError: grpc.StatusCode.NOT_FOUND,
    GalleryError: grpc.StatusCode.FAILED_PRECONDITION,
    ModelMismatchError: grpc.StatusCode.FAILED_PRECONDITION,
    ModelError: grpc.StatusCode.FAILED_PRECONDITION,
    DataError: grpc.StatusCode.FAILED_PRECONDITION,
    ConfigError: grpc.StatusCode.FAILED_PRECONDITION,
    ServiceError: grpc.StatusCode.UNAVAILABLE,
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
        if kind in CATALOG:
            return _status(CATALOG[kind], str(error), reason(kind))
    request_id = uuid.uuid4().hex[:12]
    logger.error("request %s failed", request_id, exc_info=error)
    message = f"internal error {request_id}; the service's log tells more under this id"
    return _status(grpc.StatusCode.INTERNAL, message, "INTERNAL")


@asynccontextmanager
async def public_errors(context: "grpc.aio.ServicerContext[Any, Any]") -> AsyncIterator[None]:
    """End the call with the catalog's status when the body raises."""
    try:
        yield
    except Exception as error:  # the border: what is not in the catalog must not cross it
        status = status_of(error)
        code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
        await context.abort(code, status.message, ((DETAILS_KEY, status.SerializeToString()),))


def error_from_status(status: status_pb2.Status) -> PublicError:
    """The exception that the service raised, with its message; ServiceError where it is none of ours."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info) and info.domain == DOMAIN:
            for kind in CATALOG:
                if reason(kind) == info.reason:
                    return kind(status.message)
    return ServiceError(status.message)


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
        return SketchError(f"the message is above the service's limit; split or thin out the strokes ({message})")
    if code is grpc.StatusCode.UNAVAILABLE:
        return ServiceError(f"no service answers at {target}; start one with: mgrl serve GALLERY ({message})")
    return ServiceError(f"the call to {target} ended with {code.name}: {message}")


def _status(code: grpc.StatusCode, message: str, reason: str) -> status_pb2.Status:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
    return status_pb2.Status(code=code.value[0], message=message, details=[detail])
