"""The sketchpad before a gallery that wants to know what a search is for, in a real browser."""

from service.config import Config
from service.config_access import GalleryConfig
from tests.service.conftest import serving
from tests.service.web.browser import in_chromium, opened
from tests.service.web.page import page_for
from tests.service.web.test_connection import sent_by

pytestmark = in_chromium


def test_a_gallery_that_requires_a_purpose_is_drawn_for_with_one(browser, galleries, model, episode, shots):
    config = Config(galleries={"people": GalleryConfig(purpose_required=True)})
    with (
        serving(galleries, model, access=config) as running,
        page_for(running.address) as page,
        opened(browser, page.address) as pad,
    ):
        tab = pad.tab
        assert tab.is_hidden("#purpose-form")
        messages = sent_by(tab)
        tab.select_option("#gallery", "people")
        tab.wait_for_selector("#trouble:has-text('gallery people wants to know what a search is for')")
        pad.draw(episode.episode.strokes[:2])
        tab.screenshot(path=shots / "purpose.png")
        assert pad.axe() == {}
        tab.fill("#purpose", "case 12")
        tab.keyboard.press("Enter")
        pad.settled(2)
        assert tab.is_hidden("#trouble")
        assert len(pad.ranked()) == 12
        assert "purpose: case 12" in written_by(tab, "#record-png")
        tab.click("#open-replay")
        tab.wait_for_selector("#stage:enabled", timeout=30_000)
        tab.reload()
        pad.settled(2)
        assert tab.input_value("#purpose") == "case 12"
        assert tab.is_visible("#purpose")  # what is sent stays in sight
        # Refused, drawn, replayed, drawn after the reload.
        assert [sent["begin"]["purpose"] for sent in messages if "begin" in sent] == ["", *["case 12"] * 3]


def written_by(tab, button):
    """The texts of a record that is downloaded."""
    tab.evaluate(
        """() => {
            window.written = [];
            const write = CanvasRenderingContext2D.prototype.fillText;
            CanvasRenderingContext2D.prototype.fillText = function (text, ...more) {
                window.written.push(text);
                write.call(this, text, ...more);
            };
        }"""
    )
    with tab.expect_download():
        tab.click(button)
    return tab.evaluate("window.written")
