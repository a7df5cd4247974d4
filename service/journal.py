"""What a client remembers of a drawing that it sends, so that another stream can go on where one broke off.

Both clients use it alike. A service that kept the drawing is asked to resume it, and sent what it had not accepted;
another one, or the same started anew, is sent the whole drawing again.
"""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
from google.rpc import status_pb2

from mgrl.v1 import search_pb2
from service.errors import (
    DETAILS_KEY,
    IdleError,
    ServiceError,
    UnknownTokenError,
    error_from_rpc,
    error_from_status,
)

RESUME_S: Final = 60.0
"""For so long a drawing tries to get its connection back."""

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0

_REFUSED: Final = (grpc.StatusCode.INVALID_ARGUMENT.value[0], grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
"""Of a message that changed nothing: it holds what cannot be, or its caller sends too many or too large ones."""


class Journal:
    """The messages of one drawing; of what an accepted `clear` made irrelevant, nothing."""

    def __init__(self) -> None:
        self._sent: list[search_pb2.DrawRequest] = []
        self._clears: list[int] = []  # sent, and neither accepted nor refused yet
        self._answered = self._told_again = 0
        self._token = ""

    @property
    def is_begun(self) -> bool:
        """Whether the service has answered: before, there is nothing to go on with."""
        return self._answered > 0

    @property
    def sent(self) -> list[search_pb2.DrawRequest]:
        """All that makes the drawing what it is, from `begin` on."""
        return list(self._sent)

    def tell_again(self) -> list[search_pb2.DrawRequest]:
        """The same, for a service that knows nothing of it."""
        self._told_again = self._answered
        return self.sent

    def send(self, request: search_pb2.DrawRequest) -> None:
        """A message was sent, or will be."""
        if request.HasField("clear"):
            self._clears.append(request.sequence)
        self._sent.append(request)

    def receive(self, response: search_pb2.DrawResponse) -> None:
        """A reply has come.

        Raises:
            ServiceError: a service that was told the drawing again refuses what another one had accepted: what it ranks
                is not the drawing, though the messages that come after are answered.
        """
        self._answered = max(self._answered, response.sequence)
        if response.HasField("result") and response.result.HasField("session"):
            self._token = response.result.session.resume_token
        if response.HasField("error") and response.error.code in _REFUSED:
            if response.sequence <= self._told_again:
                why = response.error.message
                raise ServiceError(
                    f"the service was started anew and takes the drawing no longer ({why}); begin another"
                )
            self._sent = [request for request in self._sent if request.sequence != response.sequence]
            self._clears = [sequence for sequence in self._clears if sequence != response.sequence]
        while response.HasField("result") and self._clears and self._clears[0] <= response.sequence:
            self._forget_before(self._clears.pop(0))

    def resume(self) -> search_pb2.DrawRequest | None:
        """The message that asks for the drawing; None where no service keeps it."""
        if not self._token:
            return None
        return search_pb2.DrawRequest(resume=search_pb2.DrawResume(token=self._token, answered=self._answered))

    def is_taken_up(self, response: search_pb2.DrawResponse) -> bool:
        """Whether a reply says up to which message the service has the drawing that it was asked to resume.

        Its ranking does, and so does the error of one that failed. Refusals that got lost come before.
        """
        return response.HasField("result") or response.error.code not in _REFUSED

    def after(self, sequence: int) -> list[search_pb2.DrawRequest]:
        """What a service that accepted the messages up to this one has not seen."""
        return [request for request in self._sent if request.sequence > sequence]

    def _forget_before(self, clear: int) -> None:
        """An empty canvas is as good as new, but for the options."""
        begin, *rest = self._sent
        options = [request for request in rest if request.sequence < clear and request.HasField("options")]
        self._sent = [begin, *options[-1:], *(request for request in rest if request.sequence >= clear)]

    def is_forgotten(self, error: grpc.RpcError | grpc.aio.AioRpcError, target: str) -> bool:
        """Whether the service does not keep the drawing; from now on it is not asked for it."""
        if not isinstance(error_from_rpc(error, target), UnknownTokenError):
            return False
        self._token = ""
        return True


def may_come_back(error: grpc.RpcError | grpc.aio.AioRpcError) -> bool:
    """Whether another stream may do better: the connection broke, or the service stops, is busy, or was idle."""
    trailing: Any = error.trailing_metadata()
    for key, value in trailing or ():
        if key == DETAILS_KEY:
            ours = error_from_status(status_pb2.Status.FromString(value))
            is_stopping = type(ours) is ServiceError and error.code() is grpc.StatusCode.UNAVAILABLE
            return is_stopping or isinstance(ours, IdleError) or ours.retry_after_s > 0
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)


def pauses(limit_s: float, clock: Callable[[], float] = time.monotonic) -> Iterator[float]:
    """Seconds to wait before each attempt, doubling, a random half of each, until the limit is over.

    The attempts count, too: one at a machine that does not answer takes 20 s.
    """
    pause_s, until = _FIRST_PAUSE_S, clock() + limit_s
    while (left_s := until - clock()) > 0:
        yield min(pause_s * random.uniform(0.5, 1.0), left_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
