"""What a drawing is beyond one stream, and where it is kept while it has none, so that a client can come back to it.

For one thread, the event loop. Times are the loop's own, monotonic: a clock that is set does not shorten or lengthen
them.
"""

import asyncio
import secrets
from collections import OrderedDict, deque
from typing import Any, Final, Protocol

from mgrl.v1 import search_pb2
from service.auth.callers import current_call
from service.drawing import Drawing
from service.errors import UnknownTokenError

RESUMABLE_S: Final = 300.0
"""Long enough for a lift, a tunnel and a restart of the browser."""

MAX_KEPT: Final = 1000
MAX_KEPT_BYTES: Final = 256 * 1024 * 1024
"""Of drawings without a stream; the oldest go first."""

MAX_REFUSED: Final = 64
"""Refusals that are told again to who comes back."""


class Stream(Protocol):
    """Where a drawing is drawn at the moment."""

    def release(self) -> None:
        """Let go of the drawing; its `reader` ends soon."""


class Ongoing:
    """A drawing in progress, whichever stream it is on.

    Args:
        drawing: what is drawn.
        sequence: number of the last message that was accepted or refused.

    Attributes:
        caller: who began it, and alone may resume it.
        purpose: what it is for, see `service.auth.callers.Call`.
        reader: what applied messages last; one does at a time, and the one before may not have ended yet.
        ranking: the latest ranking, which may outlast the stream that asked for it; one runs at a time.
        refused: the latest refusals.
        stream: the one that the drawing is on.
    """

    def __init__(self, drawing: Drawing, sequence: int) -> None:
        self.drawing = drawing
        self.sequence = sequence
        self.caller = _caller()
        self.purpose = call.purpose if (call := current_call()) else ""
        self.token = secrets.token_urlsafe(24)
        self.reader: asyncio.Future[None] | None = None
        self.ranking: asyncio.Future[Any] | None = None
        self.refused: deque[search_pb2.DrawResponse] = deque(maxlen=MAX_REFUSED)
        self.stream: Stream | None = None


class Resumption:
    """Drawings by token: those on a stream, and for a while those that lost theirs.

    Args:
        resumable_s: seconds that the latter are kept.
        most: how many of them.
        most_bytes: how much of their strokes.
    """

    def __init__(
        self, resumable_s: float = RESUMABLE_S, most: int = MAX_KEPT, most_bytes: int = MAX_KEPT_BYTES
    ) -> None:
        self.resumable_s = resumable_s
        self._most, self._most_bytes = most, most_bytes
        self._on_stream: dict[str, Ongoing] = {}
        self._kept: OrderedDict[str, tuple[Ongoing, int, asyncio.TimerHandle]] = OrderedDict()
        self._kept_bytes = 0

    def __len__(self) -> int:
        """Drawings without a stream."""
        return len(self._kept)

    def put(self, ongoing: Ongoing, stream: Stream) -> None:
        """Put a drawing on a stream; one that it may still be on lets go of it."""
        if ongoing.stream is not None:
            ongoing.stream.release()
        if ongoing.token in self._kept:
            self._drop(ongoing.token)
        self._on_stream[ongoing.token] = ongoing
        ongoing.stream = stream

    def keep(self, ongoing: Ongoing) -> None:
        """Its stream is gone; somebody may come back for it."""
        ongoing.stream = None
        del self._on_stream[ongoing.token]
        timer = asyncio.get_running_loop().call_later(self.resumable_s, self._drop, ongoing.token)
        size = ongoing.drawing.held_bytes()
        self._kept[ongoing.token] = ongoing, size, timer
        self._kept_bytes += size
        while len(self._kept) > self._most or self._kept_bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def forget(self, ongoing: Ongoing) -> None:
        """It is finished."""
        ongoing.stream = None
        del self._on_stream[ongoing.token]

    def close(self) -> None:
        """Forget what is kept."""
        for token in list(self._kept):
            self._drop(token)

    def find(self, token: str) -> Ongoing:
        """The drawing of a token.

        Raises:
            UnknownTokenError: there is none, or it is another caller's.
        """
        ongoing = self._on_stream.get(token) or (self._kept[token][0] if token in self._kept else None)
        if ongoing is not None and ongoing.caller == _caller():
            return ongoing
        raise UnknownTokenError(
            f"no drawing has this token here; it is kept for {self.resumable_s:.0f} s after its stream breaks off. "
            "Begin again and send the drawing anew",
            field="token",
        )

    def _drop(self, token: str) -> None:
        _, size, timer = self._kept.pop(token)
        timer.cancel()
        self._kept_bytes -= size


def _caller() -> str:
    call = current_call()
    return "" if call is None else str(call.caller)
