"""Memory that is freed goes back to the system."""

import asyncio
import subprocess
import sys
import threading

import pytest

from service.memory import Tidying

CODE = """
import sys
import numpy as np
from service.memory import give_memory_back
def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) / 256
first = np.ones(4_000_000, np.uint8)
del first  # from here on glibc takes blocks of this size from its heap
canvases = []
for _ in range(60):
    canvases.append(np.ones(1_000_000, np.uint8))
    canvases.append(bytes(100))
before = resident_mb()
canvases[:-2:2] = [None] * len(canvases[:-2:2])
kept = before - resident_mb()
assert give_memory_back()
print(kept, before - resident_mb())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is asked, and /proc read")
def test_freed_canvases_are_given_back_although_others_lie_behind_them():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    by_itself, asked = map(float, done.stdout.split())
    if by_itself > 40:
        pytest.skip("this C library gives large blocks back anyway")
    assert asked > 50


HEAPS = """
import ctypes, sys, threading
from service.memory import share_heaps
assert share_heaps(3)
libc, met = ctypes.CDLL(None), threading.Barrier(12)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
def take():
    libc.malloc(5000)
    met.wait()
threads = [threading.Thread(target=take) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
print(open(sys.argv[1]).read().count("<heap nr="))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is asked")
def test_many_threads_share_few_heaps(tmp_path):
    command = [sys.executable, "-c", HEAPS, str(tmp_path / "heaps.xml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 2 <= int(done.stdout) <= 3


def test_who_asks_while_it_is_due_is_served_by_the_same_tidying():
    tidied = []

    async def ask():
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def tidy():
            tidied.append(threading.get_ident())
            loop.call_soon_threadsafe(done.set)

        tidying = Tidying(tidy, wait_s=0.05)
        for times in (3, 2):
            for _ in range(times):
                tidying.soon()
            async with asyncio.timeout(5):
                await done.wait()
            done.clear()
        tidying.soon()
        tidying.close()
        await asyncio.sleep(0.2)

    asyncio.run(ask())
    assert len(tidied) == 2
    assert threading.get_ident() not in tidied
