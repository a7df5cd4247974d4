"""Who may write a served gallery, and that its lock is let go of whatever becomes of the call."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from indexer import versions
from indexer.errors import ModelMismatchError
from indexer.gallery import Gallery
from indexer.upload import Upload
from indexer.upserting import Upserter
from service.cataloguing import MAX_STREAMS
from service.client import Client
from tests.conftest import PixelEncoder
from tests.indexer.test_upserting import jpeg
from tests.service.conftest import Serving, make_gallery, serving
from tests.service.test_upsert import Stream


@pytest.fixture
def writable(gallery, encoder) -> Iterator[Serving]:
    with serving([gallery], encoder, writable=True) as running:
        yield running


def test_photos_for_a_gallery_whose_model_has_changed_are_refused(tmp_path, encoder) -> None:
    folder = tmp_path / "faces"
    make_gallery(folder, PixelEncoder(dim=8, seed=1)).close()
    served, after = (versions.version_folder(folder, name * 16) for name in "ab")
    make_gallery(served, encoder).close()
    versions.switch(folder, served)
    gallery = Gallery.open(folder)
    with serving([gallery], encoder, writable=True, refresh_s=60) as service, Client(service.address) as client:
        make_gallery(after, PixelEncoder(dim=8, seed=2)).close()
        versions.switch(folder, after)
        for change in (lambda: client.upsert([Upload("anna", jpeg(1))]), lambda: client.delete(["photo0001"])):
            with pytest.raises(ModelMismatchError, match="gallery faces was made by model"):
                change()
    # Its files are to be removed: what it took in would be lost.
    assert Gallery.open(served).photos == 24
    gallery.close()


def test_streams_that_begin_together_are_no_more_than_the_service_takes(writable, monkeypatch) -> None:
    refused, opened = threading.Event(), Upserter.open

    def held(*arguments):
        refused.wait(3)
        return opened(*arguments)

    monkeypatch.setattr(Upserter, "open", held)
    streams = [Stream(writable.address) for _ in range(MAX_STREAMS + 1)]
    for stream in streams:
        stream.call.add_callback(refused.set)
    assert refused.wait(2)
    for stream in streams:
        stream.__exit__()


def test_a_call_that_is_cancelled_while_its_gallery_is_opened_lets_it_go(writable, monkeypatch) -> None:
    entered, gone, closed = threading.Event(), threading.Event(), threading.Event()
    opened, close = Upserter.open, Upserter.close

    def held(*arguments):
        entered.set()
        gone.wait(5)
        return opened(*arguments)

    def noted(upserter):
        close(upserter)
        closed.set()

    monkeypatch.setattr(Upserter, "open", held)
    monkeypatch.setattr(Upserter, "close", noted)
    with Stream(writable.address):
        assert entered.wait(5)
    time.sleep(0.2)  # the service hears of it
    gone.set()
    assert closed.wait(5)


def test_old_photos_are_forgotten_also_when_their_gallery_is_just_being_opened(writable, gallery, monkeypatch) -> None:
    entered, go_on, opened = threading.Event(), threading.Event(), Upserter.open

    def held(*arguments):
        entered.set()
        go_on.wait(5)
        return opened(*arguments)

    monkeypatch.setattr(Upserter, "open", held)
    with Stream(writable.address):
        assert entered.wait(5)
        forgotten = writable.start(writable.server.writers.retain(gallery, 1e-9))
        writable.on_loop(asyncio.sleep(0))  # it has begun
        go_on.set()
        assert forgotten.result(10) == 24


def test_a_gallery_that_changed_settings_put_under_the_name_of_another_gets_its_own_photos(tmp_path, encoder) -> None:
    older, newer = (make_gallery(tmp_path / place / "faces", encoder) for place in ("older", "newer"))
    with (
        serving([older], encoder, writable=True, refresh_s=60) as service,
        Client(service.address) as client,
        Stream(service.address) as stream,
    ):
        stream.photo(1)
        stream.until(1)  # the older one is open
        service.server._catalogue._galleries.change([newer], [], {})
        assert client.upsert([Upload("anna", jpeg(3))]).stored == 1
    assert (Gallery.open(older.folder).photos, Gallery.open(newer.folder).photos) == (25, 25)
    assert "anna" in Gallery.open(newer.folder).photo_ids
    for gallery in (older, newer):
        gallery.close()
