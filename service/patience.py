"""How long a stream may rest: until its first message, between messages, and while its client takes no answer."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, Final, TypeVar

from service.errors import IdleError

Request = TypeVar("Request")
Response = TypeVar("Response")

FIRST_MESSAGE_S: Final = 30.0

_STALLED_S: Final = 120.0
"""An answer that a client does not take for so long ends its stream."""

_LOOK_EVERY_S: Final = 30.0

Limit = tuple[float, Callable[[], None]]
"""Seconds without a message, and what is then to be done."""


async def first_message(requests: AsyncIterator[Request], stream: str, limit_s: float) -> Request | None:
    """The message that opens a stream; None where the client closes it without any.

    Raises:
        IdleError: it does not come in time.
    """
    try:
        return await asyncio.wait_for(anext(aiter(requests), None), limit_s)
    except TimeoutError:
        raise IdleError(f"the first message of {stream} must come within {limit_s:g} s") from None


class Patience:
    """Watches over one stream, on its event loop, from `watch` on.

    Args:
        limits: at each, and at every later look, its function is called.
    """

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._limits = limits
        self._heard = time.monotonic()
        self._sending_since = math.inf
        self._is_working = False
        self._timer: asyncio.TimerHandle | None = None

    def heard(self) -> None:
        """A message has come."""
        self._heard = time.monotonic()

    @contextmanager
    def working(self) -> Iterator[None]:
        """The client waits for us: meanwhile its silence does not count."""
        self._is_working = True
        try:
            yield
        finally:
            self._is_working = False
            self.heard()

    async def watch(self, answers: AsyncGenerator[Response, None]) -> AsyncGenerator[Response, None]:
        """The answers, as they are; where the client takes one no longer, the stream's task is cancelled."""
        self._look(asyncio.current_task())
        async with aclosing(answers):
            async for answer in answers:
                self._sending_since = time.monotonic()
                yield answer
                self._sending_since = math.inf

    def stop(self) -> None:
        """The stream is over: whoever's functions were to be called is let go of.

        Both know each other. Unless that ends, a drawing stays in memory until Python looks for cycles, minutes later.
        """
        self._limits = ()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, task: "asyncio.Task[Any] | None") -> None:
        """Look whether anything happens, and again when something might be due."""
        now = time.monotonic()
        quiet_s = 0.0 if self._is_working else now - self._heard
        if now - self._sending_since >= _STALLED_S and task is not None:
            task.cancel()
        for limit_s, act in self._limits:
            if quiet_s >= limit_s:
                act()
        due_s = min([limit_s - quiet_s for limit_s, _ in self._limits if limit_s > quiet_s], default=math.inf)
        self._timer = asyncio.get_running_loop().call_later(min(due_s, _LOOK_EVERY_S), self._look, task)
