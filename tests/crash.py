"""For children that are to die at a chosen call: what the crash tests of the store put into their scripts."""

import os
import signal
from collections.abc import Callable
from typing import Any


class Fatal:
    """Wraps functions; the process kills itself when they are called for the `at`-th time together."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call
