"""The sketchpad's page, running for a test, and a browser's tab on it."""

import asyncio
import math
import threading
from contextlib import contextmanager

import httpx
import numpy as np
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


FRAME_S = 1 / 60
"""The tab's: Playwright's mouse moves once in each."""


def by_hand(points, speed=1.0, least_s=0.12):
    """(n, 2) the points of a line where a hand that draws it is in each frame: slow, fast, slow (minimum jerk).

    Flash and Hogan, "The coordination of arm movements", J. Neuroscience 5 (1985), Eq. (3): a hand that begins and
    ends at rest has gone 10 t^3 - 15 t^4 + 6 t^5 of its way after a share t of its time.

    Args:
        points: (m, 2) of the line, in canvas units.
        speed: canvas widths a second, on average.
        least_s: seconds that the shortest line takes.
    """
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    frames = math.ceil(max(least_s, along[-1] / speed) / FRAME_S)
    t = np.linspace(0, 1, frames + 1)
    gone = along[-1] * (10 * t**3 - 15 * t**4 + 6 * t**5)
    return np.stack([np.interp(gone, along, values) for values in points.T], axis=1).tolist()


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

    def draw(self, strokes, every=3, rest_ms=0, points_of=None):
        """Draw strokes: each third point of them, or what `points_of` makes of a stroke."""
        box = self.tab.locator("#pad").bounding_box()
        for stroke in strokes:
            points = stroke.points.tolist()
            points = points_of(stroke.points) if points_of else (*points[:-1:every], points[-1])
            spots = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
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


class Hands:
    """Pens and fingers on the sheet; places are in its own units."""

    def __init__(self, pad):
        self._devtools = pad.tab.context.new_cdp_session(pad.tab)
        self._box = pad.tab.locator("#pad").bounding_box()

    def at(self, x, y):
        return {"x": self._box["x"] + x * self._box["width"], "y": self._box["y"] + y * self._box["height"]}

    def pen(self, kind, x, y, force, buttons=1, at=None):
        button = {1: "left", 2: "right"}[buttons]
        self._devtools.send(
            "Input.dispatchMouseEvent",
            {"type": kind, **self.at(x, y), "button": button, "buttons": buttons, "force": force, "clickCount": 1}
            | {"pointerType": "pen"}
            | ({} if at is None else {"timestamp": at}),
        )

    def fingers(self, kind, *places):
        points = [self.at(x, y) | {"id": number} for number, (x, y) in enumerate(places)]
        self._devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def drop(self, path):
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self._devtools.send("Input.dispatchDragEvent", {"type": kind, **self.at(0.5, 0.5), "data": data})
