"""What the processes of a pool owe the one that started them: to be gone when it is."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """End this process when the one that started it was killed; it would wait for its work for ever.

    Call it in a process of a pool, as its initializer or first thing in it.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "called in a process that nobody started"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="mgrl-end-with-parent", daemon=True).start()
