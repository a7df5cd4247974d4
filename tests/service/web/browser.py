"""Debian's chromium on the sketchpad, which fails a test for anything that the browser complains about."""

import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from indexer.sketch import rasterise
from service.demo.pencil import draw_strokes
from service.demo.sample import person
from tests.service.web.page import Sketchpad

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
in_chromium = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
]

PEOPLE, SEED = 40, 2
HOSTILE = "<img src=x onerror=document.title='broken'>"
DESKTOP = {"width": 1360, "height": 900}


@contextmanager
def opened(browser, address, *, expected="", script="", **context):
    """The page in a tab of its own.

    Args:
        browser: Playwright's.
        address: of the page.
        expected: what the browser itself may complain of, such as a status.
        script: run before the page's own.
        context: as Playwright's new_context takes it.
    """
    complaints = []
    inside = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **context})
    inside.add_init_script(script)
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
        yield Sketchpad(tab)
    finally:
        inside.close()
    left = [one for one in complaints if not (expected and expected in one)]
    assert not left, left


def choose(tab, gallery):
    tab.select_option("#gallery", gallery)
    tab.wait_for_selector("#connection[data-way=on]")


def scan(path):
    """A photographed sketch of a painted person, turned by 7 degrees, on grey paper."""
    drawn = Image.fromarray(255 - rasterise(draw_strokes(person(SEED, 3), np.random.default_rng(3)), 500))
    sheet = Image.new("L", (900, 760), 200)
    sheet.paste(drawn.point(lambda value: value * 200 // 255), (200, 130))
    sheet.rotate(7, fillcolor=200).save(path)
    return path
