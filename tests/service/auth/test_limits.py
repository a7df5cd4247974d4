"""Token buckets."""

import pytest

from service.auth.callers import Caller
from service.auth.limits import Bucket, Limiter
from service.config_access import LimitsConfig
from service.errors import LimitError


def caller(name="desk", **limits):
    return Caller(name, "key", frozenset({"search"}), limits=LimitsConfig(**limits))


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_two_seconds_worth_may_come_at_once_and_then_the_rate_holds():
    clock, taken = Clock(), 0
    limiter, desk = Limiter(clock), caller(calls_per_s=5)
    for _ in range(10):
        limiter.take_call(desk)
    with pytest.raises(LimitError, match=r"key desk may ask for 5 calls a second; try again in 0\.2 s") as refused:
        limiter.take_call(desk)
    assert refused.value.retry_after_s == pytest.approx(0.2)
    for step in range(1000):  # ten seconds, a hundred attempts each
        clock.now = 100 + (step + 1) / 100
        try:
            limiter.take_call(desk)
            taken += 1
        except LimitError:
            pass
    assert taken == 50


def test_waiting_as_long_as_told_is_enough():
    bucket = Bucket(3.0, 0.0)
    now = 0.0
    for _ in range(100):
        wait = bucket.take(1, now)
        if wait:
            now += wait
            assert bucket.take(1, now) == 0.0


def test_more_than_a_bucket_holds_is_paid_for_afterwards():
    bucket = Bucket(10.0, 0.0)
    assert bucket.take(100, 0.0) == 0.0
    assert bucket.take(1, 0.0) == pytest.approx(8.1)
    assert bucket.take(1, 8.2) == 0.0


def test_a_long_wait_is_told_in_seconds():
    limiter, desk = Limiter(Clock()), caller(strokes_per_s=1)
    limiter.take_strokes(desk, 400)
    with pytest.raises(LimitError, match=r"1 strokes a second; try again in 399\.0 s"):
        limiter.take_strokes(desk, 1)


def test_callers_and_kinds_of_limit_are_apart():
    clock = Clock()
    limiter = Limiter(clock)
    desk, till = caller("desk", calls_per_s=0.5, strokes_per_s=1), caller("till", calls_per_s=0.5)
    limiter.take_call(desk)
    limiter.take_call(till)
    limiter.take_strokes(desk, 2)
    for refused in (lambda: limiter.take_call(desk), lambda: limiter.take_strokes(desk, 1)):
        with pytest.raises(LimitError):
            refused()
    for _ in range(100):
        limiter.take_strokes(till, 1000)


def test_buckets_of_many_callers_do_not_pile_up(monkeypatch):
    monkeypatch.setattr("service.auth.limits._MOST_CALLERS", 50)
    limiter = Limiter()
    for number in range(200):
        limiter.take_call(caller(f"desk{number}", calls_per_s=1))
    assert len(limiter._buckets) == 50
