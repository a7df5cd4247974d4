"""From a browser's WebSocket to a `Draw` call and back: the contract's messages in their JSON form, passed through.

The page sends one DrawRequest a message and gets one DrawResponse a message, with the field names of search.proto.
When the call ends, the last message is `{"ended": {"message": ..., "then": ...}}`, and `then` is what the page may do:
`again` (come back soon), `draw` (come back when somebody draws: nobody did for long), `anew` (the service does not keep
the drawing that was to be resumed; send all of it), `purpose` (begin again and say what the drawing is for) or `stop`
(the same drawing would end again).
"""

import asyncio
import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from starlette.websockets import WebSocket, WebSocketDisconnect

from indexer.errors import PublicError, QueryError
from mgrl.v1 import search_pb2
from service.async_client import AsyncClient
from service.errors import AuditError, IdleError, LimitError, ServiceError, UnknownTokenError

_THEN: Final[Mapping[type[PublicError], str]] = {
    ServiceError: "again",
    LimitError: "again",
    AuditError: "again",
    IdleError: "draw",
    UnknownTokenError: "anew",
}


async def carry_drawing(socket: WebSocket, client: AsyncClient) -> None:
    """Carry one drawing until the page or the service ends it."""
    await socket.accept()
    call = client.open_draw()
    ways = [asyncio.create_task(_to_service(socket, call)), asyncio.create_task(_to_page(socket, call))]
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in done:
            await way
        await _end(socket, ServiceError("the drawing has ended; begin another"))
    except WebSocketDisconnect:
        pass
    except grpc.aio.AioRpcError as error:
        await _end(socket, client.public_error(error))
    except PublicError as error:
        await _end(socket, error)
    finally:
        for way in ways:
            way.cancel()
        call.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


def request_from_json(text: str) -> search_pb2.DrawRequest:
    """The message that a page sent.

    Raises:
        QueryError: no JSON, or not the JSON form of a DrawRequest.

    Example:
        >>> request_from_json('{"sequence": 2, "undo": {"count": 1}}').undo.count
        1
    """
    try:
        plain = json.loads(text)
        if not isinstance(plain, dict):
            raise TypeError("it is no object")
        return ParseDict(plain, search_pb2.DrawRequest())
    # TypeError and AttributeError also come from json_format, for a list where it expects an object.
    except (ValueError, RecursionError, ParseError, TypeError, AttributeError) as error:
        raise QueryError(f"a message must be the JSON form of a DrawRequest: {str(error)[:200]}") from error


def response_to_json(response: search_pb2.DrawResponse) -> str:
    """The message for a page, names as in search.proto; what is absent or has its default is left out.

    Not json_format's: it spends 4 ms on the shortest spelling of 700 floats, which is a fifth of a whole answer.

    Example:
        >>> response_to_json(search_pb2.DrawResponse(sequence=3, result=search_pb2.DrawResult(no_ink=True, strokes=1)))
        '{"sequence":3,"result":{"no_ink":true,"strokes":1}}'
    """
    return json.dumps(_plain(response), separators=(",", ":"))


def _plain(value: Any) -> Any:
    match value:
        case float():  # most of what there is
            return round(value, 6)  # a float32 has no more
        case Status():
            return MessageToDict(value, preserving_proto_field_name=True)  # knows what its details are
        case Message():
            return {field.name: _plain(held) for field, held in value.ListFields()}
        case bytes():
            return base64.b64encode(value).decode()
        case bool() | int() | str():
            return value
    return [_plain(one) for one in value]


async def _to_service(socket: WebSocket, call: Any) -> None:
    while True:
        request = request_from_json(await _text(socket))
        # A stream that has ended takes no more messages; `_to_page` then says why it ended.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(request)


async def _text(socket: WebSocket) -> str:
    # Not receive_text: it fails on bytes, and on a socket that another task found gone.
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    text: str | None = message.get("text")
    if text is None:
        raise QueryError("a message must be text, got bytes")
    return text


async def _to_page(socket: WebSocket, call: Any) -> None:
    async for response in call:
        await socket.send_text(response_to_json(response))


async def _end(socket: WebSocket, error: PublicError) -> None:
    message = {"message": str(error), "then": _then(error)}
    with suppress(WebSocketDisconnect, RuntimeError):  # the page has gone meanwhile
        await socket.send_text(json.dumps({"ended": message}))
        await socket.close(1000)


def _then(error: PublicError) -> str:
    if error.field == "begin.purpose":
        return "purpose"
    return next((then for kind, then in _THEN.items() if isinstance(error, kind)), "stop")
