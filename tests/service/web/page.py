"""The sketchpad's page, running for a test, and a browser's tab on it."""

import asyncio
import threading
from contextlib import contextmanager

import httpx
from websockets.sync.client import connect

from service.web.run import serving_page


class Page:
    """The running page: its address, and a loop to stop it on."""

    def __init__(self, address: str):
        self.address = address
        self.origin = address.rstrip("/")
        self.host = self.origin.removeprefix("http://")

    def get(self, path, **headers):
        return httpx.get(self.origin + path, headers=headers)

    def draw(self, origin=None):
        return connect(f"ws://{self.host}/api/draw", origin=self.origin if origin is None else origin)


@contextmanager
def page_for(service: str, port: int = 0):
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        context = serving_page(service, port)
        address = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(10)
        try:
            yield Page(address)
        finally:
            asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Sketchpad:
    """The page, as a person uses it."""

    def __init__(self, tab):
        self.tab = tab

    def draw(self, strokes, every=3, rest_ms=0):
        box = self.tab.locator("#pad").bounding_box()
        for stroke in strokes:
            points = stroke.points.tolist()
            spots = [
                (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (*points[:-1:every], points[-1])
            ]
            self.tab.mouse.move(*spots[0])
            self.tab.mouse.down()
            for spot in spots[1:]:
                self.tab.mouse.move(*spot)
            if rest_ms:
                self.tab.wait_for_timeout(rest_ms)
            self.tab.mouse.up()

    def strokes(self):
        return int(self.tab.inner_text("#stroke-count").split()[0])

    def settled(self, strokes):
        """Wait until so many strokes are on the sheet and ranked; not asked in every frame, which would be one more."""
        script = """n => parseInt(document.querySelector('#stroke-count').textContent) === n
            && document.querySelector('#ranking').getAttribute('aria-busy') === 'false'"""
        self.tab.wait_for_function(script, arg=strokes, timeout=15_000, polling=50)

    def ranked(self):
        return self.tab.eval_on_selector_all("#ranking > li", "cards => cards.map((card) => card.dataset.id)")

    def axe(self):
        """Serious and critical violations, by rule."""
        from axe_playwright_python.sync_playwright import Axe

        found = [one for one in Axe().run(self.tab).response["violations"] if one["impact"] in ("serious", "critical")]
        return {one["id"]: [node["target"] for node in one["nodes"]] for one in found}
