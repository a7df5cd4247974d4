"""The sketchpad in a real browser: drawn on by pointer events, and looked at."""

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from indexer.episode import Episode
from service.cli import main
from service.demo.pencil import draw_strokes
from service.demo.sample import person
from tests.service.conftest import png
from tests.service.web.browser import HOSTILE, SEED, choose, in_chromium, opened, scan

pytestmark = in_chromium

PHONE = {"width": 390, "height": 844}


def test_a_drawing_finds_its_face_and_is_edited_filtered_and_replayed(
    browser, address, galleries, episode, shots, tmp_path
):
    with opened(browser, address) as pad:
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
    rank = [photo_id for photo_id in found if photo_id != HOSTILE].index(episode.photo_id) + 1
    evaluates(tmp_path / "case.json", galleries[0].folder.parent / "photos", rank, tmp_path)


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


def test_a_gallery_is_not_asked_for_the_photos_of_another(browser, address, episode):
    with opened(browser, address) as pad:
        choose(pad.tab, "people")
        pad.draw(episode.episode.strokes[:2])
        pad.settled(2)
        choose(pad.tab, "faceless")  # before the photos that may come next were fetched
        pad.tab.wait_for_timeout(600)  # what is not found the browser complains of


def test_why_compares_a_photo_with_those_shown(browser, address, episode):
    with opened(browser, address) as pad:
        tab, answers = pad.tab, []
        tab.on("websocket", lambda socket: socket.on("framereceived", lambda frame: answers.append(json.loads(frame))))
        tab.reload()
        choose(tab, "people")
        pad.draw(episode.episode.strokes[:24])
        pad.settled(24)
        ranking = answers[-1]["result"]["ranking"]
        assert len(ranking["hits"]) == 24
        distances = np.array([hit["region_distances"] for hit in ranking["hits"]])[:, ranking["inked_regions"]]
        tab.click("#ranking li[data-rank='1'] button")
        found = []
        for _ in pad.ranked():
            found.append(tab.eval_on_selector_all("#regions td:last-child", "cells => cells.map((c) => c.textContent)"))
            tab.keyboard.press("ArrowRight")
        assert found == beside(distances[:12])
        assert found != beside(distances)[:12]


def beside(distances):
    """Where each photo is closer or farther than the others, by region: beyond 15 % of half their spread."""
    middle = np.sort(distances, axis=0)[len(distances) // 2]
    values = 2 * (distances - middle) / (distances.max(axis=0) - distances.min(axis=0))
    return [["closer" if v < -0.15 else "farther" if v > 0.15 else "as the others" for v in row] for row in values]


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
    for kind in ("png", "pdf"):
        with tab.expect_download() as record:
            tab.click(f"#{kind}")
        record.value.save_as(folder / f"record.{kind}")
    with Image.open(folder / "record.png") as picture:
        assert picture.size == (1240, 1754)
    pdf = (folder / "record.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-1.4")
    table = int(re.search(rb"startxref\n(\d+)", pdf)[1])
    assert pdf[table:].startswith(b"xref\n0 6\n")
    for number, start in enumerate(re.findall(rb"(\d{10}) 00000 n", pdf[table:]), 1):
        assert pdf[int(start) :].startswith(f"{number} 0 obj".encode())
    with Image.open(io.BytesIO(pdf[pdf.index(b"\xff\xd8") :])) as page:
        page.load()
        assert page.size == (1240, 1754)
    with tab.expect_download() as case:
        tab.click("#save-target")
    case.value.save_as(folder / "case.json")
    assert json.loads((folder / "case.json").read_text())["target"] == target
    tab.keyboard.press("Escape")


def evaluates(case, people, rank, folder):
    """`mgrl evaluate` takes the drawing that the page saved, and ranks it at its end as the page did."""
    data, found = folder / "pairs", folder / "found.json"
    for name in ("photos", "sketches"):
        (data / name).mkdir(parents=True)
    photos = sorted(people.glob("person*.jpg"))
    for photo in photos:
        shutil.copy(photo, data / "photos")
        Image.new("L", (64, 64), 255).save(data / "sketches" / f"{photo.stem}.png")
    (folder / "split.txt").write_text("\n".join(f"photos/{photo.stem}" for photo in photos))
    command = ["evaluate", "--data", str(data), "--split", str(folder / "split.txt"), "--stages", "10"]
    assert main([*command, "--drawings", str(case), "--json", str(found)]) == 0
    evaluated = json.loads(found.read_text())
    assert (evaluated["probes"], evaluated["gallery"]) == (1, len(photos))
    assert evaluated["per_stage"][-1]["m_at_b"] == pytest.approx(100 / rank)


def test_scans_are_cleaned_and_what_is_none_is_refused(browser, address, tmp_path):
    scan(tmp_path / "scan.jpg")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "torn.json").write_text('{"strokes": [{"points": [[3, 4]]}]}')
    (tmp_path / "fat.json").write_text(json.dumps({"strokes": [], "picture": "A" * (5 << 20)}))
    blank = base64.b64encode(png(lambda _: None)).decode()
    (tmp_path / "blank.json").write_text(json.dumps({"strokes": [], "picture": blank}))
    (tmp_path / "odd.json").write_text(json.dumps({"strokes": [], "picture": "no base64!"}))
    with (tmp_path / "huge.png").open("wb") as huge:
        huge.truncate(21 << 20)
    with opened(browser, address, expected="400") as pad:
        tab = pad.tab
        choose(tab, "people")
        for name, words in (
            ("text.png", "must be a whole JPEG, PNG or WebP file"),
            ("torn.json", "Stroke 0 of that file must be points from 0 to 1"),
            ("fat.json", "The picture in that file is above 3 MiB"),
            ("odd.json", "The picture in that file cannot be read"),
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
        tab.set_input_files("#file", tmp_path / "blank.json")
        tab.wait_for_selector("#empty:has-text('No ink yet that counts')")
        assert pad.ranked() == []
        tab.click("#undo")
        pad.settled(1)
        assert "person0003" in pad.ranked()
        for _ in range(2):
            tab.click("#undo")
        tab.wait_for_function("() => !document.querySelectorAll('#ranking > li').length")


def test_a_filter_is_counted_in_its_own_gallery(browser, address):
    with opened(browser, address) as pad:
        tab = pad.tab
        choose(tab, "people")
        tab.click("summary:has-text('Filters')")
        tab.fill("[data-field=age][data-part=most]", "12")
        tab.wait_for_selector("#filter-count:has-text('(1 on)')")
        choose(tab, "faceless")
        assert tab.inner_text("#filter-count") == ""


def test_a_range_may_end_at_zero(browser, address, episode):
    with opened(browser, address) as pad:
        tab = pad.tab
        choose(tab, "people")
        pad.draw(episode.episode.strokes[:1])
        pad.settled(1)
        tab.click("summary:has-text('Filters')")
        for end, words in (("least", "40 photos"), ("most", "0 photos")):
            tab.fill(f"[data-field=age][data-part={end}]", "0")
            tab.wait_for_function("words => document.querySelector('#how').textContent.startsWith(words)", arg=words)
            assert tab.inner_text("#filter-count") == " (1 on)"


def test_hostile_names_are_text_and_broken_thumbnails_have_a_place(browser, address):
    with opened(browser, address) as pad:
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


def test_phone_dark_keyboard_and_a_thousand_strokes(browser, address, episode, shots):
    with opened(browser, address, viewport=PHONE, has_touch=True, color_scheme="dark") as pad:
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
