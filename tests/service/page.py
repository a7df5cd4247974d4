"""The sketchpad's page, running for a test."""

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
