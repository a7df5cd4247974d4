"""What the drawings of both clients have: what was sent, what came back, and when a lost connection is given up."""

from collections.abc import Iterator
from typing import Any

import grpc

from indexer.errors import PublicError
from mgrl.v1 import search_pb2
from service.calls import Inbox, Metadata, Outbox
from service.errors import ServiceError, error_from_rpc
from service.journal import RESUME_S, Journal, may_come_back, pauses


class BaseDrawing:
    """A drawing in progress, without its stream.

    Args:
        stub: of the service.
        target: the address that is called, for messages.
        begin: what opens the drawing.
        metadata: of every call.
        deadline_ms: how long each message may wait for its answer; None for ever.
        resume_s: for how long a connection that breaks is sought again.
    """

    def __init__(
        self,
        stub: Any,
        target: str,
        begin: search_pb2.DrawBegin,
        *,
        metadata: Metadata = (),
        deadline_ms: int | None = None,
        resume_s: float = RESUME_S,
    ) -> None:
        self._stub = stub
        self._target = target
        self._begin = begin
        self._metadata = metadata
        self._resume_s = resume_s
        self._outbox = Outbox(deadline_ms)
        self._inbox = Inbox()
        self._journal = Journal()
        self._has_ended = False
        self._call: Any = None

    def _note(self, request: search_pb2.DrawRequest) -> None:
        """Remember a message that is about to be sent.

        Raises:
            ServiceError: there is no stream to send it on.
        """
        if self._call is None:
            raise ServiceError("the drawing is not open; open it with: with client.draw() as drawing")
        self._journal.send(request)

    def _check_goes_on(self) -> None:
        """Refuse to read on.

        Raises:
            ServiceError: the drawing has ended; what a stream might still say is not about all of it.
        """
        if self._has_ended:
            raise ServiceError("the drawing has ended; begin another")

    def _take_in(self, response: search_pb2.DrawResponse) -> search_pb2.DrawResponse:
        try:
            self._journal.receive(response)
        except ServiceError:
            self._has_ended = True
            raise
        self._inbox.put(response)
        return response

    def _pauses(self) -> Iterator[float]:
        """Seconds before each attempt to get the connection back."""
        return pauses(self._resume_s if self._journal.is_begun else 0.0)

    def _wait_s(self, pause_s: float, error: grpc.RpcError) -> float:
        """Seconds to wait after an error: the pause, or longer where the service says when to come back."""
        return max(pause_s, error_from_rpc(error, self._target).retry_after_s)

    def _given_up(self, first: grpc.RpcError, last: grpc.RpcError) -> PublicError:
        """What ended the drawing for good: what broke its connection first, or what then refused it."""
        self._has_ended = True
        return error_from_rpc(first if may_come_back(last) else last, self._target)
