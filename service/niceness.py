"""Threads that work in the background of a service, and let searches have the cores first."""

import os
import sys
import threading
from collections.abc import Callable


def nice(level: int) -> Callable[[], None]:
    """For a pool's `initializer`: its threads, and those that they start, are so much nicer than the process.

    On Linux alone a thread has a niceness of its own; elsewhere nothing happens.
    """

    def begin() -> None:
        if sys.platform == "linux":
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + level)

    return begin
