"""What the page expects of a hand, beside hands that move as people's do."""

import math
import time

import numpy as np
import pytest

from tests.service.web.browser import choose, in_chromium, opened
from tests.service.web.page import FRAME_S, Hands, by_hand

pytestmark = in_chromium

LEAST_STEP = 0.0015
"""Of the page: a point that is nearer to the one before is none."""

AHEAD = """async (points) => {
    const { Pace } = await import("/pace.js");
    const pace = new Pace();
    return points.map(([x, y, time]) => pace.ahead([x, y], time)).map((way) => (way === Infinity ? -1 : way));
}"""


@pytest.fixture(scope="module")
def tab(browser, address):
    with opened(browser, address) as pad:
        choose(pad.tab, "people")
        yield pad.tab


def ahead(tab, points):
    """(frames,) what the page expects to be ahead in each frame; infinite while the hand does not slow down."""
    timed = [[x, y, 1000 * FRAME_S * frame] for frame, (x, y) in enumerate(points)]
    return np.array([math.inf if way < 0 else way for way in tab.evaluate(AHEAD, timed)])


@pytest.mark.parametrize("length", [0.02, 0.05, 0.2, 0.6])
@pytest.mark.parametrize("speed", [0.25, 1.0])
def test_it_is_known_where_a_line_by_hand_ends(tab, length, speed):
    points = by_hand(np.array([[0.2, 0.3], [0.2 + length * 0.8, 0.3 + length * 0.6]]), speed)
    way = np.hypot(*(np.array(points[-1]) - points).T)
    found = ahead(tab, points)
    ends = np.flatnonzero(found < LEAST_STEP)[0]
    assert way[ends] < LEAST_STEP
    # Of lines that take a third of a second: before their last frame.
    assert len(points) // 2 < ends < len(points) - (len(points) > 20)
    assert found[ends:] == pytest.approx(way[ends:], abs=LEAST_STEP / 2)


def test_nothing_is_known_of_a_hand_that_keeps_its_speed_or_hurries(tab):
    t = np.arange(20) / 20
    for gone in (t, t**2):
        assert np.all(ahead(tab, np.stack([0.2 + 0.5 * gone, 0.3 + 0 * gone], axis=1).tolist()) > 0.05)


def test_events_at_one_time_and_a_hand_that_stands_still_are_no_fault(tab):
    found = tab.evaluate(
        AHEAD, [[x, 0.1, t] for x, t in [(0.1, 0), (0.2, 16), (0.2, 16), (0.3, 32), (0.3, 48), (0.3, 64)]]
    )
    assert found == [-1, -1, -1, -1, 0, -1]


NEVER_RESTS = """
const later = setTimeout;
window.rests = 0;
window.setTimeout = (act, ms, ...more) => (ms === 30 ? ++window.rests : later(act, ms, ...more));
"""


@pytest.fixture
def pad(browser, address):
    """A page that takes no pen for resting, so that what is ranked before the pen is up was foreseen."""
    with opened(browser, address, script=NEVER_RESTS) as pad:
        choose(pad.tab, "people")
        yield pad
        assert pad.tab.evaluate("rests")  # or a pen rests after another time than that


def draw_on(pad, points):
    """A pen put down at the first point and not lifted; every event has its frame's time, however late it comes."""
    hands, began = Hands(pad), time.time()
    for frame, (x, y) in enumerate(points):
        hands.pen("mouseMoved" if frame else "mousePressed", x, y, 0.5, at=began + frame * FRAME_S)


def test_a_line_whose_end_is_foreseen_is_ranked_before_the_pen_is_up(pad):
    draw_on(pad, by_hand(np.array([[0.3, 0.3], [0.6, 0.7]])))
    pad.tab.wait_for_selector("#ranking > li")
    assert pad.strokes() == 0


def test_a_line_that_goes_on_is_not_ranked_before_it_ends(pad):
    draw_on(pad, np.linspace([0.3, 0.3], [0.6, 0.7], 30).tolist())
    pad.tab.wait_for_timeout(300)
    assert pad.ranked() == []
