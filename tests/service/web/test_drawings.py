"""The sketchpad in a real browser: what goes with a drawing when it is saved, opened, replayed and undone."""

import base64
import io
import json

from PIL import Image

from tests.service.conftest import serving
from tests.service.web.browser import choose, in_chromium, opened
from tests.service.web.page import page_for
from tests.service.web.test_purpose import written_by

pytestmark = in_chromium


def target_of(pad, folder):
    """The confirmed photo, as a file has it that the page saves."""
    with pad.tab.expect_download() as file:
        pad.tab.click("#save")
    file.value.save_as(folder / "saved.json")
    return json.loads((folder / "saved.json").read_text()).get("target")


def confirm(pad, photo_id):
    pad.tab.keyboard.press("r")
    pad.tab.wait_for_selector("#stage:enabled", timeout=30_000)
    pad.tab.select_option("#target", photo_id)
    pad.tab.keyboard.press("Escape")


def open_drawing(pad, **drawing):
    file = {"name": "drawing.json", "mimeType": "application/json", "buffer": json.dumps(drawing).encode()}
    pad.tab.set_input_files("#file", file)


def test_a_confirmed_photo_is_that_of_its_drawing_and_of_no_other(browser, address, episode, tmp_path):
    with opened(browser, address) as pad:
        choose(pad.tab, "people")
        pad.draw(episode.episode.strokes[:2])
        pad.settled(2)
        confirm(pad, "person0007")
        pad.draw(episode.episode.strokes[2:3])
        assert target_of(pad, tmp_path) == "person0007"
        pad.tab.reload()
        pad.settled(3)
        assert target_of(pad, tmp_path) == "person0007"
        pad.tab.click("#clear")
        pad.draw(episode.episode.strokes[3:4])
        assert target_of(pad, tmp_path) is None
        pad.settled(1)
        confirm(pad, "person0008")
        choose(pad.tab, "faceless")
        assert target_of(pad, tmp_path) is None


def test_an_opened_drawing_brings_its_confirmed_photo_and_undo_takes_it_away(browser, address, episode, tmp_path):
    line = [{"points": [[0.3, 0.3], [0.6, 0.3]]}]
    with opened(browser, address) as pad:
        choose(pad.tab, "people")
        pad.draw(episode.episode.strokes[:2])
        pad.settled(2)
        open_drawing(pad, strokes=line, target="person0009", gallery="people")
        pad.settled(1)
        assert target_of(pad, tmp_path) == "person0009"
        pad.tab.click("#undo")
        pad.settled(2)
        assert target_of(pad, tmp_path) is None
        open_drawing(pad, strokes=line, target="person0009", gallery="elsewhere")
        pad.settled(1)
        assert target_of(pad, tmp_path) is None


def test_a_pinned_photo_is_offered_and_not_confirmed(browser, address, episode, tmp_path):
    with opened(browser, address) as pad:
        tab = pad.tab
        choose(tab, "people")
        pad.draw(episode.episode.strokes[:2])
        pad.settled(2)
        tab.click("#ranking li[data-rank='3'] button")
        pinned = tab.inner_text("#candidate-name")
        tab.click("#pin")
        tab.keyboard.press("Escape")
        tab.focus("#pins button")
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#candidate[open]")
        tab.keyboard.press("Escape")
        assert tab.evaluate("document.activeElement.className") == "pinned-photo"  # who came from it is back at it
        tab.keyboard.press("r")
        tab.wait_for_selector("#stage:enabled", timeout=30_000)
        assert tab.locator("#target option").nth(1).inner_text() == pinned
        tab.keyboard.press("Escape")
        assert target_of(pad, tmp_path) is None


def test_a_replay_that_is_still_ranked_shows_nothing_of_an_earlier_one(browser, galleries, model, episode):
    with (
        serving(galleries, model) as running,
        page_for(running.address) as page,
        opened(browser, page.address, script=RANKS_NO_STAGE) as pad,
    ):
        tab = pad.tab
        choose(tab, "people")
        pad.draw(episode.episode.strokes[:3])
        pad.settled(3)
        confirm(pad, "person0007")
        tab.evaluate("window.ranksNoStage = true")
        tab.keyboard.press("r")
        tab.wait_for_selector("#replay-note:has-text('Ranking every stage')")
        assert tab.locator("#replay-hits li, #curve svg").count() == 0
        assert tab.inner_text("#stage-label") == ""
        assert tab.is_disabled("#target")


RANKS_NO_STAGE = """
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (text) {
    if (!window.ranksNoStage) send.call(this, text);
};
"""


def test_what_is_no_number_in_a_file_is_saved_as_none(browser, address, tmp_path):
    with opened(browser, address) as pad:
        choose(pad.tab, "people")
        points = [[0.3, 0.3], [0.6, 0.3]]
        open_drawing(pad, strokes=[{"points": points, "width": "0.02", "times_ms": ["a", None], "pressure": [2, 0]}])
        pad.settled(1)
        with pad.tab.expect_download() as file:
            pad.tab.click("#save")
        assert json.loads(file.value.path().read_text())["strokes"] == [{"points": points, "width": 0.008}]


def test_strokes_whose_picture_is_refused_are_not_the_drawing_that_is_ranked(browser, address):
    gif = io.BytesIO()
    Image.new("L", (1, 1)).save(gif, "GIF")  # browsers show it
    with opened(browser, address) as pad:
        tab = pad.tab
        choose(tab, "people")
        picture = base64.b64encode(gif.getvalue()).decode()
        open_drawing(pad, strokes=[{"points": [[0.3, 0.3], [0.6, 0.3]]}], picture=picture)
        tab.wait_for_selector("#toast:has-text('must be a whole PNG, JPEG or WebP file')")
        tab.wait_for_selector("#ranking > li")
        tab.click("#record-png")
        tab.wait_for_selector("#toast:has-text('not ranked yet')")
        assert tab.get_attribute("#ranking", "aria-busy") == "true"


def test_a_record_has_photos_as_they_are_searched_and_the_whole_purpose(browser, address, episode, tmp_path):
    wide = Image.new("RGB", (96, 48), "blue")
    wide.paste("red", (24, 0, 72, 48))  # the centred square is what is searched
    file = io.BytesIO()
    wide.save(file, "PNG")
    purpose = "".join(f"{number:5d}" for number in range(40))
    with opened(browser, address, script=f"sessionStorage.setItem('mgrl-purpose', '{purpose}')") as pad:
        tab = pad.tab
        tab.route("**/api/thumbnail?*", lambda route: route.fulfill(body=file.getvalue(), content_type="image/png"))
        choose(tab, "people")
        pad.draw(episode.episode.strokes[:2])
        pad.settled(2)
        assert f"purpose: {purpose}" in "".join(written_by(tab, "#record-png"))
        with tab.expect_download() as record:
            tab.click("#record-png")
        with Image.open(record.value.path()) as picture:
            first = picture.convert("RGB").crop((95, 935, 280, 1100))
        assert first.getextrema()[2][1] < 100  # nothing blue
        assert first.getextrema()[0][0] > 150
