"""Photos that are too old are forgotten by the service itself, unless its clock is not to be trusted."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from indexer import versions
from indexer.gallery import Gallery
from indexer.store import StoreWriter
from service.client import Client
from service.config import Config
from service.config_access import GalleryConfig
from service.galleries import Galleries
from service.keeping import Keeper
from service.writing import GalleryWriters
from tests.conftest import PixelEncoder, unit_rows
from tests.folder_bytes import folder_bytes
from tests.indexer.test_store import new_photos
from tests.service.conftest import ids, line, make_gallery, serving
from tests.service.test_upsert import Stream

DAY = 86_400
KEPT = {"faces": GalleryConfig(writable=True, retention_days=30)}


@pytest.fixture
def clock(monkeypatch):
    """Moves both clocks, or the wall clock alone."""
    state, real, steady = {"wall": 0.0, "steady": 0.0}, time.time, time.monotonic
    monkeypatch.setattr(time, "time", lambda: real() + state["wall"])
    monkeypatch.setattr(time, "monotonic", lambda: steady() + state["steady"])

    def move(days, jump_days=0.0):
        state["steady"] += days * DAY
        state["wall"] += (days + jump_days) * DAY

    return move


@pytest.fixture
def folder(tmp_path, clock):
    """A gallery with photos of today, and of 20 days later, which is now."""
    make_gallery(tmp_path / "faces", PixelEncoder(), photos=4).close()
    clock(20)
    with StoreWriter.open(tmp_path / "faces") as writer:
        writer.append(new_photos(0, 2), unit_rows(np.random.default_rng(3), 2))
    return tmp_path / "faces"


def photos(folder):
    gallery = Gallery.open(folder)
    gallery.close()
    return gallery.photos


def keeper(folder, settings=KEPT):
    return keeper_of(Galleries([Gallery.open(folder)], PixelEncoder(), settings))


def keeper_of(galleries):
    return Keeper(galleries, GalleryWriters(galleries.encoders, lambda _: True))


def test_what_is_too_old_goes(folder, clock, caplog):
    caplog.set_level("INFO")
    kept = keeper(folder)
    asyncio.run(kept.look())
    assert photos(folder) == 6
    clock(11)
    asyncio.run(kept.look())
    assert photos(folder) == 2
    assert "gallery faces: 4 photos were older than its period" in caplog.text


def test_without_a_period_everything_stays(folder, clock):
    kept = keeper(folder, {})
    clock(1000)
    asyncio.run(kept.look())
    assert photos(folder) == 6


def test_a_clock_that_jumps_ahead_deletes_nothing_for_a_day(folder, clock, caplog):
    kept = keeper(folder)
    clock(0.1, jump_days=400)
    asyncio.run(kept.look())
    assert photos(folder) == 6
    assert "the clock jumped 34560000 s ahead; no photo is forgotten for a day" in caplog.text
    clock(0.5)
    asyncio.run(kept.look())
    assert photos(folder) == 6
    clock(0, jump_days=-400)  # somebody has put it right
    clock(1)
    asyncio.run(kept.look())
    assert photos(folder) == 6
    clock(10)
    asyncio.run(kept.look())
    assert photos(folder) == 2


def test_a_gallery_that_another_process_writes_waits(folder, clock, caplog):
    kept = keeper(folder)
    clock(11)
    with StoreWriter.open(folder):
        asyncio.run(kept.look())
    assert "photos of gallery faces that are too old stay for now" in caplog.text
    assert photos(folder) == 6
    asyncio.run(kept.look())
    assert photos(folder) == 2


def test_a_stream_of_photos_that_never_ends_keeps_no_old_ones(folder):
    gallery = Gallery.open(folder)
    settings = {"faces": GalleryConfig(writable=True, retention_days=10)}
    with (
        serving([gallery], PixelEncoder(), access=Config(galleries=settings)) as service,
        Stream(service.address) as stream,
    ):
        stream.photo(1)
        stream.until(1)
        service.on_loop(Keeper(service.access.galleries, service.server.writers).look())
        assert photos(folder) == 3
        stream.photo(2)
        stream.until(2)
        assert photos(folder) == 4
    gallery.close()


def test_searches_go_on_while_photos_are_forgotten(folder, clock):
    gallery = Gallery.open(folder)
    clock(11)
    with (
        serving([gallery], PixelEncoder(), refresh_s=0.02, access=Config(galleries=KEPT)) as service,
        Client(service.address) as client,
    ):
        assert len(ids(client.search(strokes=[line()]))) == 6

        async def start():
            kept = Keeper(service.access.galleries, service.server.writers, every_s=0.05)
            kept.start()
            return kept

        kept = service.on_loop(start())
        for _ in range(200):
            if len(ids(client.search(strokes=[line()]))) == 2:
                break
            time.sleep(0.02)
        assert len(ids(client.search(strokes=[line()]))) == 2
        service.on_loop(kept.stop())
    gallery.close()


def test_what_is_too_old_goes_from_every_version(folder, clock):
    newer = PixelEncoder(dim=8, seed=1)
    home = versions.version_folder(folder, newer.model_hash)
    make_gallery(home, newer, photos=6).close()
    versions.switch(folder, home)
    assert b"photo0001" in folder_bytes(folder)
    clock(31)
    asyncio.run(keeper_of(Galleries([Gallery.open(folder)], newer, KEPT)).look())
    assert b"photo0001" not in folder_bytes(folder)


def test_a_look_that_fails_is_not_the_last_one(folder, clock, caplog, monkeypatch):
    kept = keeper(folder)
    clock(11)
    with monkeypatch.context() as broken:
        broken.setattr("service.writing.retain", lambda *_: Path("/none").read_bytes())
        asyncio.run(kept.look())
    assert "photos of gallery faces that are too old stay for now" in caplog.text
    asyncio.run(kept.look())
    assert photos(folder) == 2
