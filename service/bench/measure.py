"""What is asked of a service under load: how fast, up to how many, what in overload, and what memory."""

import asyncio
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from indexer.errors import ConfigError
from service.bench.load import Crowd, Load, Outcome
from service.bench.target import Target

Row = dict[str, float]
Told = Callable[[str], None]

_MOST_SESSIONS: Final = 4096
_IDLE_FOR_S = 8.0
"""A drawing gives its canvas back when nothing came for five seconds."""

_CLOSE_ENOUGH: Final = 1.15
"""Of the highest load that fails over the highest that holds: the search ends there."""


async def step(crowd: Crowd, load: Load) -> Row:
    """One load: latencies in ms, strokes, errors, and drawings refused.

    Raises:
        ConfigError: nothing was drawn, so there is nothing to tell.
    """
    row = as_row(load, await crowd.draw(load))
    if not (row["strokes"] or row["errors"] or row["shed"]):
        raise ConfigError("nobody drew a stroke in so short a time; give more --seconds, --per-s or --sessions")
    return row


def as_row(load: Load, outcome: Outcome) -> Row:
    """What is told of a load."""
    counts: Row = {
        "sessions": load.sessions,
        "strokes_per_s": len(outcome.samples) / load.seconds,
        "strokes": len(outcome.samples),
        "skipped": outcome.skipped,
        "shed": outcome.shed,
        "errors": sum(outcome.errors.values()),
    }
    return counts | outcome.ms()


async def find_capacity(crowd: Crowd, load: Load, target_p99_ms: float, told: Told) -> tuple[list[Row], int]:
    """The most sessions whose strokes keep p99 at the target, nobody refused and nothing failed.

    Returns:
        Every load that was tried, by sessions, and the number; 0 when not even one holds.
    """
    rows: dict[int, Row] = {}

    async def holds(sessions: int) -> bool:
        rows[sessions] = await step(crowd, replace(load, sessions=sessions))
        told(f"{sessions} sessions: p99 {rows[sessions]['p99']:.0f} ms")
        row = rows[sessions]
        return row["p99"] <= target_p99_ms and not row["errors"] and not row["shed"]

    good, bad, sessions = 0, 0, load.sessions
    while not bad and sessions <= _MOST_SESSIONS:
        if await holds(sessions):
            good, sessions = sessions, sessions * 2
        else:
            bad = sessions
    while bad and bad > max(good, 1) * _CLOSE_ENOUGH and bad - good > 1:
        middle = (good + bad) // 2
        if await holds(middle):
            good = middle
        else:
            bad = middle
    return [rows[sessions] for sessions in sorted(rows)], good


async def overload(crowd: Crowd, load: Load, times: float, target_p99_ms: float) -> Mapping[str, float]:
    """Sessions at a load that the service can carry, joined in mid-drawing by more, until `times` as many ask.

    Each phase takes `load.seconds`: alone, joined, alone again.

    Returns:
        p99 in ms of those who drew from the start while the others were there, how often those were refused, errors
        of all, and after how many seconds, once they had gone, nine in ten strokes of a second took no longer than the
        target and a new drawing was let in.
    """
    base, crush = Outcome(), Outcome()
    started = time.monotonic()
    drawing = asyncio.create_task(crowd.draw(replace(load, seconds=3 * load.seconds), base))
    await asyncio.sleep(load.seconds)
    joined = time.monotonic()
    more = replace(load, sessions=max(1, round(load.sessions * (times - 1))), seed=load.seed + 1)
    await crowd.draw(more, crush)
    gone = time.monotonic()
    admitted_s = await crowd.let_in() - gone
    await drawing
    during = sorted(took for due, took in base.samples if joined <= due < gone)
    before = sorted(took for due, took in base.samples if started <= due < joined)
    return {
        "sessions": load.sessions,
        "joined_by": more.sessions,
        "before_p99_ms": _p99_ms(before),
        "running_p99_ms": _p99_ms(during),
        "running_strokes": len(during),
        "shed": crush.shed,
        "let_in": len(crush.let_in),
        "let_in_p99_ms": crush.ms()["p99"],
        "errors": sum(base.errors.values()) + sum(crush.errors.values()),
        "recovery_s": max(admitted_s, _fast_again_s(base.samples, gone, target_p99_ms / 1e3)),
    }


async def memory_of_idle(crowd: Crowd, target: Target, sessions: int) -> Mapping[str, float]:
    """KB that each drawing takes at which nobody draws, with three strokes on its canvas."""
    warm = await crowd.hold(max(16, sessions // 20))
    for call in warm:
        call.cancel()
    await asyncio.sleep(_IDLE_FOR_S)
    before = await asyncio.to_thread(target.memory_bytes)
    held = await crowd.hold(sessions)
    await asyncio.sleep(_IDLE_FOR_S)
    after = await asyncio.to_thread(target.memory_bytes)
    for call in held:
        call.cancel()
    return {"idle_sessions": len(held), "kb_each": (after - before) / 1024 / len(held)}


async def soak(crowd: Crowd, target: Target, load: Load, strokes: int, told: Told) -> Mapping[str, float]:
    """Memory in the last tenth of so many strokes over that in the second tenth, when the service is warm.

    It is read after every round, when nobody draws. One reading differs from the next by some percent, for freed pages
    go back to the system now and then: of each tenth the median counts.
    """
    done, errors, readings = 0, 0, list[tuple[int, float]]()
    for number in _numbers():
        outcome = await crowd.draw(replace(load, seed=load.seed + number))
        if not outcome.samples:
            raise ConfigError("no stroke was answered; is the service in overload?")
        done += len(outcome.samples)
        errors += sum(outcome.errors.values())
        await asyncio.sleep(_IDLE_FOR_S)
        memory = await asyncio.to_thread(target.memory_bytes)
        readings.append((done, memory))
        told(f"{done} strokes: {memory / 2**20:.0f} MB")
        if done >= strokes:
            early, end = (_tenth_mb(readings, done, tenth) for tenth in (2, 10))
            return {"strokes": done, "errors": errors, "early_mb": early, "end_mb": end, "ratio": end / early}
    raise AssertionError("numbers do not end")


def _tenth_mb(readings: Sequence[tuple[int, float]], strokes: int, tenth: int) -> float:
    """Median of what was read in a tenth of the strokes; where nothing was, what was read next."""
    begun = [(done, memory) for done, memory in readings if done > (tenth - 1) * strokes / 10]
    within = [memory for done, memory in begun if done <= tenth * strokes / 10]
    return statistics.median(within or [begun[0][1]]) / 2**20


def _fast_again_s(samples: Sequence[tuple[float, float]], gone: float, target_s: float) -> float:
    """Seconds from a moment to the first second, of those that begin on a quarter, of which nine in ten are fast."""
    for quarter in range(int(4 * (max((due for due, _ in samples), default=gone) - gone)) + 1):
        begins = gone + quarter / 4
        took = [took for due, took in samples if begins <= due < begins + 1]
        if took and sum(each <= target_s for each in took) >= 0.9 * len(took):
            return quarter / 4
    return math.inf


def _numbers() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def _p99_ms(took_s: list[float]) -> float:
    """Of ascending seconds."""
    return took_s[min(int(len(took_s) * 0.99), len(took_s) - 1)] * 1e3 if took_s else float("nan")
