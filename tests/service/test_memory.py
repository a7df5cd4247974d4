"""Memory that is freed goes back to the system."""

import subprocess
import sys

import pytest

CODE = """
import sys
import numpy as np
from service.memory import give_large_blocks_back
if sys.argv[1] == "yes":
    assert give_large_blocks_back()
def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) / 256
first = np.ones(4_000_000, np.uint8)
del first  # from here on glibc would take blocks of this size from its heap
canvases = []
for _ in range(60):
    canvases.append(np.ones(1_000_000, np.uint8))
    canvases.append(bytes(100))
before = resident_mb()
canvases[:-2:2] = [None] * len(canvases[:-2:2])
print(before - resident_mb())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is tuned, and /proc read")
def test_freed_canvases_are_given_back_although_others_lie_behind_them():
    given_back = {}
    for tuned in ("yes", "no"):
        done = subprocess.run([sys.executable, "-c", CODE, tuned], capture_output=True, text=True, check=True)
        given_back[tuned] = float(done.stdout)
    if given_back["no"] > 40:
        pytest.skip("this C library gives large blocks back anyway")
    assert given_back["yes"] > 50
