"""The load: many drawings at once, each on its own times, and what became of every stroke."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

from mgrl.v1 import search_pb2, search_pb2_grpc
from service.bench.people import Drawings, timeline
from service.calls import CHANNEL_OPTIONS
from service.credentials import NO_CREDENTIALS, Credentials
from service.errors import LimitError, ServiceError, error_from_rpc

_HIGHEST_US: Final = 60_000_000
_LAST_ANSWER_S: Final = 10.0
_ASK_AGAIN_S: Final = 0.1
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True)
class Load:
    """So many people.

    Args:
        sessions: drawings at once.
        seconds: how long they are drawn.
        per_s: strokes a second of each, on average.
        schedule: one of `people.SCHEDULES`.
        seed: of everything random.
    """

    sessions: int
    seconds: float
    per_s: float = 2.0
    schedule: str = "people"
    seed: int = 0


@dataclass(eq=False)
class Outcome:
    """What became of a load; latencies count from the moment at which a stroke should have been sent."""

    histogram: Any = field(default_factory=lambda: HdrHistogram(1, _HIGHEST_US, 3))
    lateness: Any = field(default_factory=lambda: HdrHistogram(1, _HIGHEST_US, 3))
    """How late this tool itself sent: where it is not small, the tool was the bottleneck."""
    samples: list[tuple[float, float]] = field(default_factory=list)
    """(when a stroke was due by `time.monotonic`, seconds to its answer)."""
    errors: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    shed: int = 0
    """Times that a drawing was refused at its beginning."""
    let_in: list[float] = field(default_factory=list)
    """When, by `time.monotonic`, a drawing was let in."""

    def answered(self, due: float) -> None:
        """A stroke got its ranking."""
        took_s = time.monotonic() - due
        self.samples.append((due, took_s))
        self.histogram.record_value(min(max(int(took_s * 1e6), 1), _HIGHEST_US))

    def sent(self, due: float) -> None:
        """A stroke was sent."""
        self.lateness.record_value(min(max(int((time.monotonic() - due) * 1e6), 1), _HIGHEST_US))

    def ms(self) -> dict[str, float]:
        """p50, p90, p99, p99.9 and max in milliseconds, and p99 of the tool's own lateness."""
        row = {f"p{share:g}": self.histogram.get_value_at_percentile(share) / 1e3 for share in PERCENTILES}
        late = self.lateness.get_value_at_percentile(99) / 1e3
        return row | {"max": self.histogram.get_max_value() / 1e3, "tool_late_p99": late}


class Crowd:
    """People who draw at one service.

    Args:
        address: HOST:PORT.
        galleries: names; sessions take them in turn.
        drawings: what they draw.
        connections: channels that the sessions share.
        credentials: for a service that asks for a key, or that encrypts.
        purpose: of every drawing.

    Raises:
        ConfigError: see `Credentials.channel`.
    """

    def __init__(
        self,
        address: str,
        galleries: Sequence[str],
        drawings: Drawings,
        connections: int = 16,
        credentials: Credentials = NO_CREDENTIALS,
        purpose: str = "",
    ) -> None:
        self._address, self._galleries, self._drawings, self._purpose = address, galleries, drawings, purpose
        self._metadata = credentials.metadata
        # Channels of equal options to one address would share a connection.
        local = ("grpc.use_local_subchannel_pool", 1)
        options = (*CHANNEL_OPTIONS, local)
        self._channels = [
            credentials.channel(address, options, grpc.aio.insecure_channel, grpc.aio.secure_channel)
            for _ in range(connections)
        ]
        self._stubs: list[Any] = [search_pb2_grpc.SketchSearchServiceStub(channel) for channel in self._channels]

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(channel.close(None) for channel in self._channels))

    async def draw(self, load: Load, outcome: Outcome | None = None) -> Outcome:
        """Have a load of people draw; returns when the last answer is there.

        Raises:
            PublicError: they may not draw at all, as without the purpose that a gallery wants to know.
        """
        outcome = outcome or Outcome()
        times = [
            timeline(load.schedule, np.random.default_rng([load.seed, n]), load.per_s, load.seconds)
            for n in range(load.sessions)
        ]
        start = time.monotonic() + 0.05
        await asyncio.gather(*(self._session(n, start + each, outcome) for n, each in enumerate(times)))
        return outcome

    async def let_in(self) -> float:
        """When, by `time.monotonic`, one more drawing is let in; it is given up at once.

        Raises:
            PublicError: it is refused for another reason than overload, or nobody answers.
        """
        while True:
            call = self._open(0)
            try:
                await call.write(self._begin(0))
                await call.read()
                return time.monotonic()
            except grpc.aio.AioRpcError as error:
                refused = error_from_rpc(error, self._address)
                if not isinstance(refused, LimitError):
                    raise refused from error
                await asyncio.sleep(_ASK_AGAIN_S)
            finally:
                call.cancel()

    async def hold(self, sessions: int) -> list[Any]:
        """Drawings with three strokes each, at which nobody draws any more; cancel them.

        The service must not turn them away: its limits are for people who go on drawing.

        Raises:
            PublicError: it does, or nobody answers.
        """
        calls = []
        for number in range(sessions):
            call = self._open(number)
            strokes = search_pb2.DrawStrokes(strokes=self._drawings.first(number, 3))
            try:
                await call.write(self._begin(number))
                await call.read()  # before more is written: into a call that is refused nothing may be
                await call.write(search_pb2.DrawRequest(sequence=2, strokes=strokes))
                await call.read()
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error, self._address) from error
            calls.append(call)
        return calls

    async def _session(self, number: int, due: npt.NDArray[np.float64], outcome: Outcome) -> None:
        """One person; turned away, they come back when they were told to, and draw what is left of their time."""
        while len(due):
            await asyncio.sleep(max(0.0, due[0] - time.monotonic() - 0.02))
            call = self._open(number)
            try:
                await call.write(self._begin(number))
                await call.read()
            except grpc.aio.AioRpcError as error:
                refused = error_from_rpc(error, self._address)
                if type(refused) is not ServiceError and not isinstance(refused, LimitError):
                    raise refused from error  # a key, a purpose: no load is to blame
                if not isinstance(refused, LimitError):
                    outcome.errors[error.code().name] += len(due)
                    return
                outcome.shed += 1
                await asyncio.sleep(refused.retry_after_s or 1.0)
                due = due[due > time.monotonic()]
                continue
            outcome.let_in.append(time.monotonic())
            await self._drawing(call, number, due, outcome)
            return

    async def _drawing(self, call: Any, number: int, due: Iterable[float], outcome: Outcome) -> None:
        """Send strokes when they are due, settle them as answers come, and finish, as our clients do.

        A stream that only ends is kept for who may come back: five minutes of them would be taken for a leak.
        """
        unanswered: deque[tuple[int, float]] = deque()
        reading = asyncio.create_task(_read(call, unanswered, outcome))
        sequence = 1
        try:
            for at, messages in zip(due, self._drawings.messages(number), strict=False):
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                sequence = messages[-1].sequence
                unanswered.append((sequence, at))
                for message in messages:
                    await call.write(message)
                outcome.sent(at)
            finish = search_pb2.DrawRequest(sequence=sequence + 1, finish=search_pb2.DrawFinish())
            await call.write(finish)
            await call.done_writing()
            await asyncio.wait_for(reading, _LAST_ANSWER_S)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
            code = "UNANSWERED" if not call.done() else (await call.code()).name
            outcome.errors[code] += max(1, len(unanswered))
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                await reading
            call.cancel()

    def _open(self, number: int) -> Any:
        return self._stubs[number % len(self._stubs)].Draw(metadata=self._metadata)

    def _begin(self, number: int) -> search_pb2.DrawRequest:
        gallery = self._galleries[number % len(self._galleries)]
        return search_pb2.DrawRequest(sequence=1, begin=search_pb2.DrawBegin(gallery=gallery, purpose=self._purpose))


async def _read(call: Any, unanswered: deque[tuple[int, float]], outcome: Outcome) -> None:
    """Settle strokes with the answers that come, until the drawing ends."""
    while (response := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]  # missing in its stubs
        if response.HasField("error"):
            outcome.errors[f"code {response.error.code}"] += 1
            # Refused, it has no ranking, and no latency; those before it still wait for theirs.
            for refused in [one for one in unanswered if one[0] == response.sequence]:
                unanswered.remove(refused)
            continue
        outcome.skipped += response.result.skipped
        while unanswered and unanswered[0][0] <= response.sequence:
            outcome.answered(unanswered.popleft()[1])
