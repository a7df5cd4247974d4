"""The sketchpad in a real browser, cut off from its service."""

import json
from contextlib import ExitStack, contextmanager

from indexer.gallery import Gallery
from indexer.ingest import ingest
from indexer.store import StoreWriter
from service.client import Client
from service.config import Config
from service.config_access import CreatedConfig, LimitsConfig
from service.demo.sample import make_sample
from service.demo.subject import invented_subject
from service.drawing import Drawing
from tests.service.conftest import serving
from tests.service.web.browser import choose, in_chromium, opened
from tests.service.web.page import Hands, page_for

pytestmark = in_chromium


def test_a_lost_service_loses_no_drawing(browser, galleries, model, episode):
    with (
        serving(galleries, model) as running,
        page_for(running.address) as page,
        # Thumbnails that are asked for while the service is away are no fault of the page.
        opened(browser, page.address, expected="503") as pad,
    ):
        choose(pad.tab, "people")
        pad.draw(episode.episode.strokes[:3])
        pad.settled(3)
        running.on_loop(running.server.stop(0.1))
        pad.tab.wait_for_selector("#trouble:has-text('Your drawing is kept')")
        with pad.tab.expect_download():
            pad.tab.click("#record-png")
        pad.draw(episode.episode.strokes[3:5])
        assert pad.strokes() == 5
        pad.tab.click("#record-png")  # of a ranking that is not that of the drawing there is none
        pad.tab.wait_for_selector("#toast:has-text('not ranked yet')")
        with serving(galleries, model, address=running.address):
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


def test_a_service_that_comes_back_without_the_gallery_is_no_end(browser, galleries, model, episode):
    with ExitStack() as first:
        running = first.enter_context(serving(galleries, model))
        with page_for(running.address) as page, opened(browser, page.address, expected="503") as pad:
            tab = pad.tab
            choose(tab, "people")
            pad.draw(episode.episode.strokes[:3])
            pad.settled(3)
            first.close()
            tab.wait_for_selector("#trouble:has-text('another one. Your drawing is kept; trying again.')")
            with serving(galleries[1:], model, address=running.address):
                gone = "#trouble:has-text('there are: faceless. Your drawing is kept. Choose otherwise')"
                tab.wait_for_selector(gone, timeout=15_000)
                choose(tab, "faceless")
                pad.settled(3)
                assert tab.is_hidden("#trouble")
                assert len(pad.ranked()) == 5
                tab.select_option("#gallery", "people")
                tab.wait_for_selector(gone)
                # Nothing of the other gallery's ranking is left, and nothing is said of a ranking that there is not.
                assert pad.ranked() == []
                assert (tab.inner_text("#verdict"), tab.inner_text("#empty")) == ("", "")
                assert tab.is_hidden(".timings")


def test_the_page_waits_for_the_first_gallery(browser, model, tmp_path):
    config = Config(created=CreatedConfig(folder=tmp_path))
    with (
        serving([], model, access=config) as running,
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
        assert "This gallery is empty" in tab.inner_text("#empty")


def test_a_stream_that_ended_because_nobody_drew_is_begun_again_by_who_draws(browser, galleries, model, episode):
    with (
        serving(galleries, model, idle_timeout_s=1.0) as running,
        page_for(running.address) as page,
        opened(browser, page.address) as pad,
    ):
        choose(pad.tab, "people")
        pad.draw(episode.episode.strokes[:2])
        pad.tab.wait_for_selector("#connection:has-text('Resting')", timeout=15_000)
        assert pad.tab.is_hidden("#trouble")
        pad.draw(episode.episode.strokes[2:3])
        pad.settled(3)


def sent_by(tab):
    """What the page sends from now on, message by message, whatever connection it takes."""
    messages = []
    tab.on("websocket", lambda socket: socket.on("framesent", lambda frame: messages.append(json.loads(frame))))
    return messages


def actions(messages):
    return [next(key for key in message if key != "sequence") for message in messages]


@contextmanager
def drawn_on_a_page_that_stops(browser, galleries, model, strokes):
    """A page with these strokes, how its command stops (the service keeps the drawing), and how it comes back."""
    with ExitStack() as stack, ExitStack() as first_page:
        running = stack.enter_context(serving(galleries, model))
        page = first_page.enter_context(page_for(running.address))
        pad = stack.enter_context(opened(browser, page.address, expected="ERR_CONNECTION_REFUSED"))
        choose(pad.tab, "people")
        pad.draw(strokes)
        pad.settled(len(strokes))

        def stop():
            first_page.close()
            pad.tab.wait_for_selector("#trouble:has-text('has stopped')")

        def come_back():
            stack.enter_context(page_for(running.address, int(page.host.rpartition(":")[2])))

        yield pad, stop, come_back


def test_a_broken_connection_is_resumed_and_only_what_is_new_is_sent(browser, galleries, model, episode):
    strokes = episode.episode.strokes
    with drawn_on_a_page_that_stops(browser, galleries, model, strokes[:3]) as (pad, stop, come_back):
        messages = sent_by(pad.tab)
        stop()
        pad.draw(strokes[3:4])
        pad.tab.click("#undo")
        pad.draw(strokes[4:6])
        come_back()
        pad.settled(5)
        assert actions(messages) == ["resume", "strokes"]
        assert len(messages[1]["strokes"]["strokes"]) == 2
        found = pad.ranked()
        pad.tab.reload()  # sends all of it
        pad.settled(5)
        assert actions(messages)[2] == "begin"
        assert pad.ranked() == found


def test_pictures_that_were_missed_when_the_service_was_gone_are_loaded(browser, galleries, model, episode):
    with ExitStack() as first:
        running = first.enter_context(serving(galleries, model))
        with page_for(running.address) as page, opened(browser, page.address, expected="503") as pad:
            tab, gone = pad.tab, "**/api/thumbnail?*"
            choose(tab, "people")
            tab.route(gone, lambda route: route.fulfill(status=503))
            pad.draw(episode.episode.strokes[:2])
            pad.settled(2)
            tab.wait_for_selector("#ranking .no-picture")
            tab.unroute(gone)
            first.close()
            tab.wait_for_selector("#trouble:has-text('trying again')")
            with serving(galleries, model, address=running.address):
                tab.wait_for_selector("#connection[data-way=on]", timeout=15_000)
                pad.settled(2)
                tab.wait_for_function("() => !document.querySelector('#ranking .no-picture')")
                tab.wait_for_function("() => document.querySelector('#ranking img').naturalWidth > 0")


def test_a_drawing_whose_first_ranking_fails_when_it_is_resumed_goes_on(
    browser, galleries, model, episode, monkeypatch
):
    rank, failed = Drawing.rank, []

    def fail_once(drawing, *arguments):
        if not failed:
            failed.append(drawing)
            raise RuntimeError("as if the disk had failed")
        return rank(drawing, *arguments)

    strokes = episode.episode.strokes
    with drawn_on_a_page_that_stops(browser, galleries, model, strokes[:3]) as (pad, stop, come_back):
        stop()
        monkeypatch.setattr(Drawing, "rank", fail_once)
        come_back()
        pad.tab.wait_for_selector("#connection[data-way=on]", timeout=15_000)
        assert failed
        assert pad.tab.is_hidden("#trouble")
        pad.draw(strokes[3:4])
        pad.settled(4)


def test_what_is_refused_for_now_is_sent_again_when_it_may_be(browser, galleries, model, address, episode):
    strokes = episode.episode.strokes[:5]
    config = Config(limits=LimitsConfig(strokes_per_s=1.0))  # two at once
    with (
        serving(galleries, model, access=config) as running,
        page_for(running.address) as page,
        opened(browser, page.address) as pad,
        opened(browser, address) as unlimited,
    ):
        for one in (pad, unlimited):
            choose(one.tab, "people")
        pad.draw(strokes, every=10)  # quicker than they are allowed
        pad.tab.wait_for_selector("#toast:has-text('Your drawing is kept, and sent then.')")
        unlimited.draw(strokes, every=10)
        for one in (pad, unlimited):
            one.settled(5)
        assert pad.ranked() == unlimited.ranked()
        replayed, hits = [], "cards => cards.map((card) => card.dataset.id)"
        for one in (pad, unlimited):
            one.tab.keyboard.press("r")
            one.tab.wait_for_selector("#stage:enabled", timeout=30_000)
            one.tab.wait_for_selector("#stage-label:has-text('5 strokes')")
            replayed.append(one.tab.eval_on_selector_all("#replay-hits > li", hits))
        assert replayed[0] == replayed[1]


def test_where_strokes_are_counted_a_line_is_sent_when_it_is_whole(browser, galleries, model, episode):
    config = Config(limits=LimitsConfig(strokes_per_s=1.0))  # two at once
    with (
        serving(galleries, model, access=config) as running,
        page_for(running.address) as page,
        opened(browser, page.address) as pad,
    ):
        messages = sent_by(pad.tab)
        pad.tab.reload()
        choose(pad.tab, "people")
        pad.draw(episode.episode.strokes[:4], every=10)  # quicker than they are allowed
        pad.tab.wait_for_selector("#toast:has-text('Your drawing is kept, and sent then.')")
        pad.settled(4)
        messages.clear()
        hands = Hands(pad)
        hands.pen("mousePressed", 0.3, 0.3, 0.5)
        for step in range(1, 4):
            hands.pen("mouseMoved", 0.3 + 0.1 * step, 0.3, 0.5)
            pad.tab.wait_for_timeout(200)  # rests: elsewhere it would be ranked
        assert messages == []
        hands.pen("mouseReleased", 0.6, 0.3, 0)
        pad.settled(5)


def test_among_a_thousand_strokes_an_edit_sends_what_it_changed(browser, address, episode):
    with opened(browser, address) as pad:
        tab = pad.tab
        messages = sent_by(tab)
        tab.reload()
        choose(tab, "people")
        strokes = [{"points": stroke.points.tolist()} for stroke in episode.episode.strokes]
        drawing = json.dumps({"strokes": (strokes * 10)[:999]}).encode()
        tab.set_input_files("#file", {"name": "drawing.json", "mimeType": "application/json", "buffer": drawing})
        pad.settled(999)
        before = pad.ranked()
        pad.draw(episode.episode.strokes[30:31])
        pad.settled(1000)
        messages.clear()
        tab.click("#undo")
        pad.settled(999)
        tab.click("#redo")
        pad.settled(1000)
        assert [*actions(messages)] == ["undo", "strokes"]
        messages.clear()
        box = tab.locator("#pad").bounding_box()
        tab.keyboard.press("e")
        tab.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
        tab.mouse.down()
        tab.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.3 * box["height"], steps=3)
        tab.mouse.up()
        tab.wait_for_selector("#ranking[aria-busy=false]", state="attached")
        assert actions(messages) == ["erase", "strokes"]
        numbers = messages[0]["erase"]["strokes"]["numbers"]
        assert 0 < len(numbers) < 500
        assert pad.strokes() == 1000 - len(numbers) + len(messages[1]["strokes"]["strokes"])
        # What the service has is what the page shows: all of it sent anew ranks the same.
        erased = pad.ranked()
        tab.reload()
        pad.settled(pad.strokes())
        assert pad.ranked() == erased
        assert before


def test_two_tabs_draw_at_once_and_each_sees_its_own(browser, address, episode):
    strokes = episode.episode.strokes
    with opened(browser, address) as one, opened(browser, address) as other:
        for pad in (one, other):
            choose(pad.tab, "people")
        for step in range(4):
            one.draw(strokes[step : step + 1])
            other.draw(strokes[20 + 2 * step : 22 + 2 * step])
        one.settled(4)
        other.settled(8)
        assert one.ranked() != other.ranked()
        one.tab.click("#clear")
        one.tab.wait_for_function("() => !document.querySelector('#ranking li')")
        assert len(other.ranked()) == 12


def test_a_gallery_that_is_emptied_while_it_is_served(browser, model, tmp_path):
    make_sample(tmp_path / "photos", 3, 5)
    ingest(tmp_path / "people", [tmp_path / "photos"], model)
    gallery = Gallery.open(tmp_path / "people")
    with (
        serving([gallery], model, refresh_s=0.02) as running,
        page_for(running.address) as page,
        opened(browser, page.address, expected="404") as pad,
    ):
        strokes = invented_subject(3, 5, 10).episode.strokes
        pad.draw(strokes[:2])
        pad.settled(2)
        assert len(pad.ranked()) == 3
        with StoreWriter.open(tmp_path / "people") as writer:
            writer.delete(["person0001", "person0002", "person0003"])
        # A drawing keeps the gallery that it began with, without the pictures; another one finds nothing.
        pad.draw(strokes[2:3])
        pad.settled(3)
        assert len(pad.ranked()) == 3
        pad.tab.wait_for_timeout(100)
        pad.tab.reload()
        pad.tab.wait_for_selector("#empty:has-text('gallery is empty')")
        assert pad.strokes() == 3
    gallery.close()
