"""From the pen's leaving the sheet to the repainted ranking, as the page measures it: prints it, holds it to a ratio.

python -m pytest -m long -s tests/service/web/test_latency.py
"""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.service.web.browser import in_chromium, opened

pytestmark = [*in_chromium, pytest.mark.long]

ROOT = Path(__file__).parents[3]
STROKES = 50
REST_MS = 50
"""Of a pen before it is lifted; a hand that stops a mouse and lets go of its button takes longer."""


@contextmanager
def sketchpad(gallery):
    """The address of `mgrl sketchpad`, in a process of its own as it is when somebody draws."""
    command = [sys.executable, "-m", "service.cli", "sketchpad", str(gallery), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield process.stdout.readline().split()[2]
    finally:
        process.terminate()
        process.communicate()


def measured(pad, strokes, rest_ms):
    """(strokes, 2): ms of the service's own, and ms from pen up to the frame with the ranking."""
    rows = []
    for number, stroke in enumerate(strokes, 1):
        pad.draw([stroke], rest_ms=rest_ms)
        pad.settled(number)
        pad.tab.wait_for_function("() => document.querySelector('#timing').dataset.shown !== ''", polling=50)
        pad.tab.wait_for_timeout(400)  # cards have moved, pictures are fetched: as between two strokes of a hand
        rows.append([float(pad.tab.get_attribute("#timing", f"data-{name}")) for name in ("own", "shown")])
    return np.array(rows)


def test_the_ranking_is_repainted_within_one_and_a_half_times_the_services_own_time(browser, galleries, episode):
    strokes = episode.episode.strokes[:STROKES]
    found = {}
    with sketchpad(galleries[0].folder) as address:
        for rest_ms in (REST_MS, 0):
            with opened(browser, address, reduced_motion="no-preference") as pad:
                found[rest_ms] = np.median(measured(pad, strokes, rest_ms), axis=0)
    for rest_ms, (own, shown) in found.items():
        print(f"resting {rest_ms} ms: service {own:.1f} ms, pen up to ranking {shown:.1f} ms, {shown / own:.2f} times")
    own, shown = found[REST_MS]
    assert shown <= 1.5 * own
