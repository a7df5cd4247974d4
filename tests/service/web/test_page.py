"""The sketchpad in a real browser: drawn on by pointer events, looked at, and cut off from its service.

Screenshots of desktop and phone sizes are kept in the folder that MGRL_SCREENSHOTS names, or in pytest's own.
"""

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.encoding import OnnxEncoder
from indexer.episode import Episode
from indexer.gallery import Gallery
from indexer.ingest import ingest
from indexer.sketch import rasterise
from service.client import Client
from service.config import Config
from service.config_access import CreatedConfig
from service.demo.pencil import draw_strokes
from service.demo.sample import make_sample, person
from service.demo.subject import invented_subject
from tests.service.conftest import make_gallery, serving
from tests.service.web.page import Sketchpad, page_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
]

PEOPLE, SEED = 40, 2
HOSTILE = "<img src=x onerror=document.title='broken'>"
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1360, "height": 900}


@pytest.fixture(scope="module")
def encoder():
    return OnnxEncoder.open()


@pytest.fixture(scope="module")
def galleries(tmp_path_factory, encoder):
    """Forty painted people, one of them of a hostile name, with metadata; and a gallery whose thumbnails are broken."""
    folder = tmp_path_factory.mktemp("sample")
    make_sample(folder / "photos", PEOPLE, SEED)
    shutil.copy(folder / "photos" / "person0040.jpg", folder / "photos" / f"{HOSTILE}.jpg")
    (folder / "photos" / "person0040.jpg").unlink()
    known = [{"photo_id": f"person{n:04d}", "age": n, "seen": n % 2 == 0, "place": "north"} for n in range(1, PEOPLE)]
    known.append({"photo_id": HOSTILE, "age": 40, "place": "<script>document.title='broken'</script>"})
    (folder / "known.jsonl").write_text("".join(json.dumps(one) + "\n" for one in known))
    ingest(folder / "people", [folder / "photos"], encoder, metadata=folder / "known.jsonl")
    people, faceless = Gallery.open(folder / "people"), make_gallery(folder / "faceless", encoder, photos=5)
    yield [people, faceless]
    people.close()
    faceless.close()


@pytest.fixture(scope="module")
def episode():
    return invented_subject(PEOPLE, SEED, 20)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    folder = Path(os.environ.get("MGRL_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"screenshots: {folder}")
    return folder


@contextmanager
def opened(browser, address, **context):
    """A tab on the page; fails on anything that the browser complains about."""
    complaints = []
    inside = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **context})
    tab = inside.new_page()

    def complain(text, when=True):
        if when:
            complaints.append(text)

    tab.on("console", lambda message: complain(message.text, message.type in ("error", "warning")))
    tab.on("pageerror", lambda error: complain(str(error)))
    ours = (address, "data:", "blob:")
    tab.on("request", lambda request: complain(request.url, not request.url.startswith(ours)))
    tab.goto(address)
    tab.wait_for_selector("#connection[data-way=on]")
    try:
        yield Sketchpad(tab), complaints
    finally:
        inside.close()
    assert not complaints


@pytest.fixture(scope="module")
def address(galleries, encoder):
    with serving(galleries, encoder) as running, page_for(running.address) as page:
        yield page.address


def choose(tab, gallery):
    tab.select_option("#gallery", gallery)
    tab.wait_for_selector("#connection[data-way=on]")


def test_a_drawing_finds_its_face_and_is_edited_filtered_and_replayed(browser, address, episode, shots, tmp_path):
    with opened(browser, address) as (pad, _):
        tab = pad.tab
        choose(tab, "people")
        assert "A lead, not an identification." in tab.inner_text(".lead")
        strokes = episode.episode.strokes[:24]
        pad.draw(strokes[:1])
        pad.settled(1)
        first = pad.ranked()
        assert tab.get_attribute("#verdict", "data-verdict") == "early"
        pad.draw(strokes[1:])
        pad.settled(24)
        found = pad.ranked()
        assert episode.photo_id not in first[:5]
        assert episode.photo_id in found[:5]
        tab.screenshot(path=shots / "desktop.png")

        tab.keyboard.press("Control+z")
        pad.settled(23)
        tab.click("#redo")
        pad.settled(24)
        assert pad.ranked() == found
        erases_and_takes_it_back(pad, found)
        looks_at_a_candidate(pad, found[0], shots)
        filters(pad, found)
        saved = saves(pad, tmp_path)
        assert len(saved.strokes) == 24
        np.testing.assert_allclose(saved.strokes[0].points[0], strokes[0].points[0], atol=0.004)
        scrubs_a_replay(pad, episode.photo_id, shots, tmp_path)


def erases_and_takes_it_back(pad, found):
    tab = pad.tab
    box = tab.locator("#pad").bounding_box()
    tab.keyboard.press("e")
    for y in (0.2, 0.3, 0.4):
        tab.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + y * box["height"])
        tab.mouse.down()
        tab.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + y * box["height"], steps=4)
        tab.mouse.up()
    cut = pad.strokes()
    pad.settled(cut)
    assert cut != 24
    assert pad.ranked() != found
    for _ in range(3):
        tab.click("#undo")
    pad.settled(24)
    assert pad.ranked() == found
    tab.click("#pen")


def looks_at_a_candidate(pad, photo_id, shots):
    tab = pad.tab
    tab.click(f"#ranking li[data-id='{photo_id}'] button")
    tab.wait_for_selector("#candidate-facts dd")
    assert "photos/" in tab.inner_text("#candidate-facts")
    plain = tab.evaluate("document.querySelector('#side-photo').toDataURL()")
    tab.check("#heat")
    assert tab.evaluate("document.querySelector('#side-photo').toDataURL()") != plain
    tab.screenshot(path=shots / "candidate.png")
    assert pad.axe() == {}
    tab.click("#pin")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Escape")
    assert tab.locator("#pins li").count() == 1
    assert tab.locator(f"[aria-label^='Pinned: {photo_id}, rank 1']").count() == 1
    tab.click("#open-compare")
    tab.wait_for_selector(f"#compared figure:has-text('{photo_id} rank 1')")
    tab.screenshot(path=shots / "compare.png")
    assert pad.axe() == {}
    tab.keyboard.press("Escape")


def filters(pad, found):
    tab = pad.tab
    tab.click("summary:has-text('Filters')")
    tab.fill("[data-field=age][data-part=most]", "12")
    tab.wait_for_function("() => document.querySelector('#how').textContent.startsWith('12 photos')")
    assert set(pad.ranked()) == {f"person{n:04d}" for n in range(1, 13)}
    assert pad.axe() == {}
    tab.fill("[data-field=age][data-part=least]", "99")
    tab.wait_for_function("() => document.querySelector('#empty').textContent.includes('No photo passes')")
    tab.click("text=Reset all")
    tab.wait_for_function("() => document.querySelector('#how').textContent.startsWith('40 photos')")
    assert pad.ranked() == found
    tab.click("summary:has-text('Weights')")
    for name in ("alpha", "beta", "gamma"):
        tab.fill(f"#{name}", "0")
    tab.wait_for_selector("#toast[data-kind=error]:has-text('weight')")
    tab.click("summary:has-text('Weights')")
    tab.click("text=Reset all")
    tab.click("summary:has-text('Filters')")
    pad.settled(24)


def saves(pad, folder):
    with pad.tab.expect_download() as saved:
        pad.tab.keyboard.press("Control+s")
    saved.value.save_as(folder / "drawing.json")
    assert len(json.loads((folder / "drawing.json").read_text())["strokes"][0]["times_ms"]) > 1
    return Episode.load(folder / "drawing.json")


def scrubs_a_replay(pad, target, shots, folder):
    tab = pad.tab
    tab.keyboard.press("r")
    tab.wait_for_selector("#stage:enabled", timeout=30_000)
    tab.select_option("#target", target)
    assert "at the end" in tab.inner_text("#replay-note")
    assert "24 strokes" in tab.inner_text("#stage-label")
    tab.screenshot(path=shots / "replay.png")
    assert pad.axe() == {}
    last = tab.eval_on_selector_all("#replay-hits > li", "hits => hits.map((hit) => hit.dataset.id)")
    assert target in last
    tab.focus("#stage")
    tab.keyboard.press("Home")
    assert tab.inner_text("#stage-label").startswith("1 stroke ")
    assert tab.eval_on_selector_all("#replay-hits > li", "hits => hits.map((hit) => hit.dataset.id)") != last
    for button, kind in (("#png", "PNG"), ("#pdf", "%PDF")):
        with tab.expect_download() as record:
            tab.click(button)
        data = Path(record.value.path()).read_bytes()
        assert kind.encode() in data[:8]
    with tab.expect_download() as case:
        tab.click("#save-target")
    assert json.loads(Path(case.value.path()).read_text())["target"] == target
    tab.keyboard.press("Escape")


def test_a_lost_service_loses_no_drawing(browser, galleries, encoder, episode):
    with (
        serving(galleries, encoder) as running,
        page_for(running.address) as page,
        opened(browser, page.address) as (pad, complaints),
    ):
        choose(pad.tab, "people")
        pad.draw(episode.episode.strokes[:3])
        pad.settled(3)
        running.on_loop(running.server.stop(0.1))
        pad.tab.wait_for_selector("#trouble:has-text('Your drawing is kept')")
        pad.draw(episode.episode.strokes[3:5])
        assert pad.strokes() == 5
        with serving(galleries, encoder, address=running.address):
            pad.tab.wait_for_selector("#connection[data-way=on]", timeout=15_000)
            pad.settled(5)
            assert pad.tab.is_hidden("#trouble")
            assert len(pad.ranked()) == 12
            # A reload keeps it, too; another tab has its own.
            pad.tab.reload()
            pad.tab.wait_for_selector("#connection[data-way=on]")
            assert pad.strokes() == 5
            other = pad.tab.context.new_page()
            other.goto(page.address)
            assert other.inner_text("#stroke-count") == "0 strokes"
        # Thumbnails that were asked for while the service was away are no fault of the page.
        complaints[:] = [one for one in complaints if "503" not in one]


def test_the_page_waits_for_the_first_gallery(browser, encoder, tmp_path):
    config = Config(created=CreatedConfig(folder=tmp_path))
    with (
        serving([], encoder, access=config) as running,
        page_for(running.address) as page,
        browser.new_context() as context,
        Client(running.address) as client,
    ):
        tab = context.new_page()
        tab.goto(page.address)
        tab.wait_for_selector("#trouble:has-text('No gallery is served yet. Your drawing is kept')")
        client.create("staff")
        tab.wait_for_selector("#connection[data-way=on]", timeout=15_000)
        assert tab.inner_text("#gallery-name") == "staff"
        assert tab.inner_text("#photos") == "0 photos"


def test_a_stream_that_ended_because_nobody_drew_is_begun_again_by_who_draws(browser, galleries, encoder, episode):
    with (
        serving(galleries, encoder, idle_timeout_s=1.0) as running,
        page_for(running.address) as page,
        opened(browser, page.address) as (pad, _),
    ):
        choose(pad.tab, "people")
        pad.draw(episode.episode.strokes[:2])
        pad.tab.wait_for_selector("#connection:has-text('Resting')", timeout=15_000)
        assert pad.tab.is_hidden("#trouble")
        pad.draw(episode.episode.strokes[2:3])
        pad.settled(3)


def test_scans_are_cleaned_and_what_is_none_is_refused(browser, address, tmp_path):
    drawn = Image.fromarray(255 - rasterise(draw_strokes(person(SEED, 3), np.random.default_rng(3)), 500))
    sheet = Image.new("L", (900, 760), 200)
    sheet.paste(drawn.point(lambda value: value * 200 // 255), (200, 130))
    sheet.rotate(7, fillcolor=200).save(tmp_path / "scan.jpg")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "torn.json").write_text('{"strokes": [{"points": [[3, 4]]}]}')
    with (tmp_path / "huge.png").open("wb") as huge:
        huge.truncate(21 << 20)
    with opened(browser, address) as (pad, complaints):
        tab = pad.tab
        choose(tab, "people")
        for name, words in (
            ("text.png", "must be a whole JPEG, PNG or WebP file"),
            ("torn.json", "Stroke 0 of that file must be points from 0 to 1"),
            ("huge.png", "A file may have 20 MiB"),
        ):
            tab.set_input_files("#file", tmp_path / name)
            tab.wait_for_selector(f"#toast:has-text('{words}')")
        assert tab.is_disabled("#undo")
        tab.set_input_files("#file", tmp_path / "scan.jpg")
        tab.wait_for_selector("#toast:has-text('Scan cleaned')")
        tab.wait_for_selector("#ranking > li")
        assert "person0003" in pad.ranked()
        pad.draw(draw_strokes(person(SEED, 3), np.random.default_rng(4))[:1])
        pad.settled(1)
        for _ in range(2):
            tab.click("#undo")
        tab.wait_for_function("() => !document.querySelectorAll('#ranking > li').length")
        # The browser itself reports the answer 400.
        complaints[:] = [one for one in complaints if "400" not in one]


def test_hostile_names_are_text_and_broken_thumbnails_have_a_place(browser, address):
    with opened(browser, address) as (pad, complaints):
        tab = pad.tab
        choose(tab, "people")
        tab.click("summary:has-text('Filters')")
        tab.fill("[data-field=age][data-part=least]", "40")
        pad.draw([draw_strokes(person(SEED, 40), np.random.default_rng(1))[0]])
        tab.wait_for_function("() => document.querySelectorAll('#ranking > li').length === 1")
        assert pad.ranked() == [HOSTILE]
        assert tab.inner_text("#ranking .name") == HOSTILE
        tab.click("#ranking button")
        tab.wait_for_selector("#candidate-facts dd:has-text('<script>')")
        assert tab.title() == "mgrl sketchpad"
        tab.keyboard.press("Escape")
        tab.click("text=Reset all")
        choose(tab, "faceless")
        tab.wait_for_function("() => document.querySelectorAll('#ranking .no-picture').length === 5")
        assert complaints == []


def test_phone_dark_keyboard_and_a_thousand_strokes(browser, address, episode, shots):
    with opened(browser, address, viewport=PHONE, has_touch=True, color_scheme="dark") as (pad, _):
        tab = pad.tab
        choose(tab, "people")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert pad.axe() == {}
        tab.focus("#pad")
        for key in ("Enter", *["ArrowRight"] * 9, *["ArrowDown"] * 9, "Enter"):
            tab.keyboard.press(key)
        pad.settled(1)
        tab.click("#clear")
        drawing = {"strokes": [{"points": s.points.tolist(), "width": s.width} for s in episode.episode.strokes]}
        drawing["strokes"] = (drawing["strokes"] * 10)[:1000]
        tab.set_input_files(
            "#file", {"name": "drawing.json", "mimeType": "application/json", "buffer": json.dumps(drawing).encode()}
        )
        pad.settled(1000)
        assert episode.photo_id in pad.ranked()[:5]
        tab.screenshot(path=shots / "phone-dark.png", full_page=True)
        assert pad.axe() == {}
        tab.emulate_media(color_scheme="light")
        assert pad.axe() == {}
        tab.screenshot(path=shots / "phone.png")
        tab.click("#open-help")
        assert pad.axe() == {}
