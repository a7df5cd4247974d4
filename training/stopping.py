"""Ctrl-C and `kill` ask a run to stop; it does so after the step at hand, and loses nothing."""

import signal
from types import FrameType, TracebackType
from typing import Any, Final, Self

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While it is entered, the first SIGINT or SIGTERM sets `asked`; the second raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def leave_to_parent(worker: int = 0) -> None:
    """In a process that draws batches: pass over the signals, which Ctrl-C and torchrun send to the whole group."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
