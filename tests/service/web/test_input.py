"""The sketchpad in a real browser: pens, fingers, wheels, drops and pastes, as hardware gives them."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from indexer.episode import Episode
from tests.service.web.browser import choose, in_chromium, opened, scan
from tests.service.web.page import Hands

pytestmark = in_chromium

DOWN, UP, MOVE = "mousePressed", "mouseReleased", "mouseMoved"


@pytest.fixture
def pad(browser, address):
    with opened(browser, address, has_touch=True) as pad:
        choose(pad.tab, "people")
        yield pad


def saved(pad, folder):
    with pad.tab.expect_download() as file:
        pad.tab.click("#save")
    file.value.save_as(folder / "drawing.json")
    return json.loads((folder / "drawing.json").read_text())["strokes"]


def test_a_pen_draws_with_its_pressure(pad, tmp_path):
    hands = Hands(pad)
    hands.pen(DOWN, 0.3, 0.3, 0.2)
    for step in range(1, 9):
        hands.pen(MOVE, 0.3 + 0.05 * step, 0.3, 0.2 + 0.1 * step)
    hands.pen(UP, 0.7, 0.3, 0)
    pad.settled(1)
    (stroke,) = saved(pad, tmp_path)
    assert stroke["pressure"] == pytest.approx([0.2 + 0.1 * step for step in range(9)], abs=0.01)
    # What is saved is what the service takes.
    assert Episode.load(tmp_path / "drawing.json").strokes[0].pressure.max() == pytest.approx(1.0)
    # Once a pen was seen, a hand on the sheet draws nothing.
    hands.fingers("touchStart", (0.5, 0.6))
    hands.fingers("touchMove", (0.6, 0.6))
    hands.fingers("touchEnd")
    assert pad.strokes() == 1


def test_a_hand_that_lies_on_the_sheet_keeps_no_pen_from_drawing(pad):
    hands = Hands(pad)

    def line(y):
        hands.pen(DOWN, 0.3, y, 0.5)
        for step in range(1, 5):
            hands.pen(MOVE, 0.3 + 0.05 * step, y, 0.5)

    line(0.3)
    hands.fingers("touchStart", (0.8, 0.8))
    hands.fingers("touchEnd")  # ends no line either
    assert pad.strokes() == 0
    hands.pen(UP, 0.5, 0.3, 0)
    pad.settled(1)
    hands.fingers("touchStart", (0.8, 0.8))
    line(0.4)
    hands.fingers("touchEnd")
    hands.pen(UP, 0.5, 0.4, 0)
    pad.settled(2)


OTHER_END = """(path) => {
    const sheet = document.querySelector("#pad");
    sheet.setPointerCapture = () => {};  // of a pen that does not exist
    const box = sheet.getBoundingClientRect();
    const pen = { pointerId: 9, pointerType: "pen", buttons: 32, pressure: 0.5, bubbles: true };
    path.forEach(([x, y], i) => {
        const [type, button] = i === 0 ? ["down", 5] : i === path.length - 1 ? ["up", 5] : ["move", -1];
        const spot = { clientX: box.left + x * box.width, clientY: box.top + y * box.height };
        sheet.dispatchEvent(new PointerEvent(`pointer${type}`, { ...pen, ...spot, button }));
    });
}"""


def test_the_other_end_of_a_pen_erases(pad):
    hands = Hands(pad)
    hands.pen(DOWN, 0.3, 0.3, 0.5)
    hands.pen(MOVE, 0.7, 0.3, 0.5)
    hands.pen(UP, 0.7, 0.3, 0)
    pad.settled(1)
    # Made up, for DevTools has no pen with two ends.
    pad.tab.evaluate(OTHER_END, [[0.5, 0.2], [0.5, 0.4], [0.5, 0.4]])
    pad.settled(2)


def test_keys_and_the_mouse_draw_lines_of_their_own(pad, tmp_path):
    tab, hands = pad.tab, Hands(pad)
    tab.focus("#pad")
    for key in ("Enter", "ArrowRight", "ArrowRight"):
        tab.keyboard.press(key)
    start, end = hands.at(0.3, 0.3), hands.at(0.4, 0.3)
    tab.mouse.move(start["x"], start["y"])
    tab.mouse.down()
    for key in ("ArrowDown", "Enter"):  # while the mouse draws
        tab.keyboard.press(key)
    tab.mouse.move(end["x"], end["y"], steps=4)
    tab.mouse.up()
    pad.settled(2)
    by_key, by_mouse = ([point[1] for point in stroke["points"]] for stroke in saved(pad, tmp_path))
    assert by_key == [0.5] * 3
    assert by_mouse == pytest.approx([0.3] * 5, abs=0.002)


def test_undo_while_the_eraser_is_down_stays_undone(pad):
    tab, hands = pad.tab, Hands(pad)
    for y in (0.3, 0.4, 0.5):
        start, end = hands.at(0.3, y), hands.at(0.7, y)
        tab.mouse.move(start["x"], start["y"])
        tab.mouse.down()
        tab.mouse.move(end["x"], end["y"], steps=4)
        tab.mouse.up()
    pad.settled(3)
    tab.keyboard.press("e")
    start, end = hands.at(0.5, 0.25), hands.at(0.5, 0.35)
    tab.mouse.move(start["x"], start["y"])
    tab.mouse.down()
    tab.mouse.move(end["x"], end["y"], steps=4)
    tab.keyboard.press("Control+z")
    tab.mouse.up()
    pad.settled(3)  # two pieces of the first line, and the second


def test_a_finger_draws_and_two_fingers_zoom(pad, tmp_path):
    hands = Hands(pad)
    hands.fingers("touchStart", (0.3, 0.4))
    for step in range(1, 8):
        hands.fingers("touchMove", (0.3 + 0.05 * step, 0.4))
    hands.fingers("touchEnd")
    pad.settled(1)
    hands.fingers("touchStart", (0.4, 0.5))
    hands.fingers("touchStart", (0.4, 0.5), (0.6, 0.5))
    for step in range(1, 6):
        hands.fingers("touchMove", (0.4 - 0.04 * step, 0.5), (0.6 + 0.04 * step, 0.5))
    hands.fingers("touchEnd")
    zoomed = int(pad.tab.inner_text("#zoom-value").split()[0])
    assert zoomed == pytest.approx(300, abs=20)  # the fingers went from 0.2 apart to 0.6
    # What the first finger drew before the second came is no stroke, on the page or at the service.
    pad.settled(1)
    # A finger on the zoomed sheet draws where it is seen: its middle is still the sheet's middle.
    hands.fingers("touchStart", (0.5, 0.5))
    hands.fingers("touchMove", (0.8, 0.5))
    hands.fingers("touchEnd")
    pad.settled(2)
    x, y = np.transpose(saved(pad, tmp_path)[1]["points"])
    assert (x[0], y[0]) == pytest.approx((0.5, 0.5), abs=0.02)
    assert x[-1] == pytest.approx(0.6, abs=0.02)


def test_the_wheel_zooms_about_the_pointer_and_0_shows_all(pad, tmp_path):
    tab, spot = pad.tab, Hands(pad).at(0.25, 0.75)
    tab.mouse.move(spot["x"], spot["y"])
    for _ in range(4):
        tab.mouse.wheel(0, -150)
    tab.wait_for_function("() => parseInt(document.querySelector('#zoom-value').textContent) > 300")
    tab.mouse.down()
    tab.mouse.move(spot["x"] + 20, spot["y"])
    tab.mouse.up()
    pad.settled(1)
    assert saved(pad, tmp_path)[0]["points"][0] == pytest.approx([0.25, 0.75], abs=0.01)
    tab.keyboard.press("0")
    assert tab.inner_text("#zoom-value") == "100 %"


def test_a_scan_is_dropped(pad, tmp_path):
    Hands(pad).drop(scan(tmp_path / "scan.jpg"))
    pad.tab.wait_for_selector("#toast:has-text('Scan cleaned')")
    pad.settled(0)
    assert "person0003" in pad.ranked()


def test_a_scan_is_pasted(pad, tmp_path):
    tab = pad.tab
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    picture = Image.open(scan(tmp_path / "scan.jpg"))
    picture.save(tmp_path / "scan.png")
    copy = """async (bytes) => {
        const blob = new Blob([new Uint8Array(bytes)], { type: "image/png" });
        await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
    }"""
    tab.evaluate(copy, list((tmp_path / "scan.png").read_bytes()))
    tab.keyboard.press("Control+v")
    tab.wait_for_selector("#toast:has-text('Scan cleaned')")
    pad.settled(0)
    assert "person0003" in pad.ranked()


@contextmanager
def pen_down(pad, *places):
    hands = Hands(pad)
    for kind, (x, y) in zip([DOWN, *[MOVE] * len(places)], places, strict=False):
        hands.pen(kind, x, y, 0.5)
    yield hands
    hands.pen(UP, *places[-1], 0)


def test_a_pen_that_rests_has_its_ranking_before_it_leaves(pad):
    with pen_down(pad, *[(0.3 + 0.02 * step, 0.3) for step in range(11)]) as hands:
        pad.tab.wait_for_selector("#ranking > li")
        resting = pad.ranked()
        assert pad.strokes() == 0
        first = pad.tab.locator("#ranking .distance").all_inner_texts()
        for step in range(1, 11):
            hands.pen(MOVE, 0.5, 0.3 + 0.04 * step, 0.5)
    pad.settled(1)
    assert pad.tab.locator("#ranking .distance").all_inner_texts() != first
    assert len(resting) == 12
    # The ranking is that of the whole stroke sent at once.
    found = pad.ranked()
    pad.tab.click("#undo")
    pad.tab.wait_for_function("() => !document.querySelector('#ranking li')")
    pad.tab.click("#redo")
    pad.settled(1)
    assert pad.ranked() == found


def test_a_stroke_that_is_given_up_leaves_the_service_too(pad):
    hands = Hands(pad)
    hands.fingers("touchStart", (0.3, 0.4))
    for step in range(1, 8):
        hands.fingers("touchMove", (0.3 + 0.05 * step, 0.4))
    pad.tab.wait_for_selector("#ranking > li")
    hands.fingers("touchStart", (0.65, 0.4), (0.2, 0.8))
    pad.tab.wait_for_function("() => !document.querySelector('#ranking li')")
    hands.fingers("touchEnd")
    assert pad.strokes() == 0


SLOWLY = """async () => {
    const sheet = document.querySelector("#pad");
    const [send, times] = [WebSocket.prototype.send, []];
    WebSocket.prototype.send = function (text) {
        times.push(performance.now());
        send.call(this, text);
    };
    sheet.focus();
    const press = (key) => sheet.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    press("Enter");
    for (let point = 0; point < 20; point++) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        press("ArrowRight");
    }
    return times;
}"""


def test_a_slow_line_is_not_sent_point_by_point(pad):
    times = pad.tab.evaluate(SLOWLY)
    assert len(times) > 1
    assert np.diff(times).min() > 95  # a tenth of a second, as the browser's clocks go
