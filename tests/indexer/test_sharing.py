import os
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from indexer import sharing
from indexer.sharing import Helpers


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("parts", [1, 3, 200])
def test_every_part_is_done_once(threads: int, parts: int) -> None:
    helpers, done = Helpers(threads, "test"), []
    for _ in range(20):
        helpers.share(parts, done.append)
    assert sorted(done) == sorted(20 * list(range(parts)))


def test_the_caller_and_a_helper_work_at_the_same_time() -> None:
    helpers, both = Helpers(2, "test"), threading.Barrier(2, timeout=20)
    helpers.share(2, lambda part: both.wait())
    assert both.broken is False


def test_threads_end_with_their_helpers() -> None:
    """A service makes new ones with every batch that it takes in."""
    helpers, all_three = Helpers(3, "passing"), threading.Barrier(3, timeout=20)
    helpers.share(3, lambda part: all_three.wait())
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("passing")]
    assert len(threads) == 2
    del helpers
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def test_the_caller_does_everything_while_the_helpers_are_busy() -> None:
    helpers, begun, end, names = Helpers(2, "test"), threading.Barrier(2, timeout=20), threading.Event(), []

    def hold(part: int) -> None:
        begun.wait()
        end.wait(20)

    other = threading.Thread(target=helpers.share, args=(2, hold))
    other.start()
    while begun.n_waiting or not helpers._ids:
        time.sleep(0.001)
    helpers.share(5, lambda part: names.append(threading.current_thread().name))
    assert names == 5 * [threading.current_thread().name]
    end.set()
    other.join(20)


@pytest.mark.parametrize("failing", [0, 1])
def test_what_a_part_raises_is_raised_when_no_part_is_running(failing: int) -> None:
    helpers, both, running = Helpers(2, "test"), threading.Barrier(2, timeout=20), []

    def work(part: int) -> None:
        both.wait()
        if part == failing:
            raise OSError("no")
        time.sleep(0.05)
        running.append(part)

    with pytest.raises(OSError, match="no"):
        helpers.share(2, work)
    assert running == [1 - failing]


@pytest.mark.skipif(sys.platform != "linux", reason="threads are bound to processors on Linux alone")
@pytest.mark.skipif(
    sys.platform == "linux" and len(os.sched_getaffinity(0)) == 1,
    reason="there must be another processor to help on",
)
def test_a_helper_is_kept_off_the_processor_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    helpers, both, allowed = Helpers(2, "test"), threading.Barrier(2, timeout=20), os.sched_getaffinity(0)
    helpers.share(2, lambda part: both.wait())
    for mine in sorted(allowed)[:2]:
        monkeypatch.setattr(sharing, "_LIBC", SimpleNamespace(sched_getcpu=lambda mine=mine: mine))
        helpers.share(2, lambda part: both.wait())
        assert os.sched_getaffinity(helpers._ids[0]) == allowed - {mine}
    assert os.sched_getaffinity(0) == allowed


@pytest.mark.skipif(sys.platform != "linux", reason="threads are bound to processors on Linux alone")
def test_where_helpers_may_not_be_moved_they_help_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    helpers, both = Helpers(2, "test"), threading.Barrier(2, timeout=20)
    for _ in range(2):
        helpers.share(2, lambda part: both.wait())
    assert both.broken is False
