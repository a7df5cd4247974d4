"""Changes to a gallery's folder show up in a running service."""

import asyncio
import hashlib
import logging
import threading
import time

import numpy as np
import pytest

from indexer import deleting, versions
from indexer.backup import copy_gallery
from indexer.compaction import compact, forget
from indexer.errors import GalleryError, UnknownPhotoError
from indexer.filters import Equals
from indexer.gallery import Gallery
from indexer.ledger import replace_file
from indexer.metadata import Kind
from indexer.store import NewPhoto, StoreWriter
from service.client import Client
from service.encoders import Encoders
from service.galleries import Galleries
from service.watch import GalleryWatch
from tests.conftest import PixelEncoder, unit_rows
from tests.service.conftest import ids, line, make_gallery, serving

STROKES = [line(), line(0.5, 0.1, 0.5, 0.9)]


@pytest.fixture
def folder(tmp_path, encoder):
    make_gallery(tmp_path / "faces", encoder).close()
    return tmp_path / "faces"


@pytest.fixture
def service(folder, encoder):
    gallery = Gallery.open(folder)
    with serving([gallery], encoder, refresh_s=0.02) as running:
        yield running
    gallery.close()


def delete(folder, *photo_ids):
    with StoreWriter.open(folder) as writer:
        writer.delete(photo_ids)


def append(folder, name, dim=16):
    row = unit_rows(np.random.default_rng(len(name)), 1, dim)
    with StoreWriter.open(folder) as writer:
        photo = NewPhoto(name, f"{name}.jpg", b"jpeg", hashlib.sha256(name.encode()).digest())
        writer.append([photo], row)


def eventually(condition, timeout_s=10.0):
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def found(client, **options):
    return ids(client.search(strokes=STROKES, k=100, **options))


def test_a_deleted_photo_is_ranked_no_more(client, folder):
    before = found(client)
    delete(folder, before[0], before[3])
    eventually(lambda: client.galleries()[0].photos == 22)
    assert found(client) == [photo_id for photo_id in before if photo_id not in (before[0], before[3])]
    with pytest.raises(UnknownPhotoError):
        client.photo("faces", before[0])


def test_new_photos_and_what_is_known_about_them_show_up(client, folder):
    append(folder, "newcomer")
    eventually(lambda: client.galleries()[0].photos == 25)
    assert "newcomer" in found(client)
    with StoreWriter.open(folder) as writer:
        writer.declare_fields({"sex": Kind.STRING})
        writer.describe({"newcomer": {"sex": "female"}})
    eventually(lambda: client.galleries()[0].fields == {"sex": Kind.STRING})
    # The fields are declared in a commit of their own, before the values.
    eventually(lambda: found(client, filter=Equals("sex", "female")) == ["newcomer"])


def test_a_drawing_keeps_the_gallery_it_began_with(client, folder):
    with client.draw(k=20, include_thumbnails=True) as drawing:
        before = drawing.strokes(STROKES)
        delete(folder, before.hits[0].photo_id)
        append(folder, "newcomer")
        eventually(lambda: "newcomer" in found(client))
        after = drawing.strokes([STROKES[0]])
        assert ids(after) == ids(before)
        thumbnails = [hit.thumbnail for hit in after.hits]
        assert thumbnails == [b"", *(hit.thumbnail for hit in before.hits[1:])]
    with client.draw(k=100) as drawing:
        assert before.hits[0].photo_id not in ids(drawing.strokes(STROKES))


def test_compaction_and_erasure_show_up_and_change_no_answer(client, folder):
    before = found(client)
    with client.draw(k=100) as drawing:
        assert ids(drawing.strokes(STROKES)) == before
        delete(folder, before[1])
        append(folder, "newcomer")
        eventually(lambda: "newcomer" in found(client))
        left = found(client)
        with StoreWriter.open(folder) as writer:
            compact(writer)
            version = writer.version()
        # The service has taken up the compacted gallery when it answers with a photo that came later.
        for name in ("second", "third"):
            append(folder, name)
        eventually(lambda: {"second", "third"} < set(found(client)))
        assert [photo_id for photo_id in found(client) if photo_id not in ("second", "third")] == left
        with StoreWriter.open(folder) as writer:
            forget(writer, [left[0]])
            assert writer.version() > version
        eventually(lambda: left[0] not in found(client))
        assert ids(drawing.strokes([STROKES[0]])) == before, "a drawing keeps the gallery it began with"


def test_every_answer_while_files_are_replaced_is_right(client, folder):
    """Compactions follow each other without a pause; whatever is answered is of one moment of the gallery."""
    everyone = found(client)
    stop = threading.Event()

    def change():
        for number in range(12):
            delete(folder, f"photo{number:04d}")
            with StoreWriter.open(folder) as writer:
                compact(writer)
        stop.set()

    changing = threading.Thread(target=change)
    changing.start()
    answers = []
    while not stop.is_set():
        answers.append(found(client))
    changing.join()
    eventually(lambda: len(found(client)) == 12)
    for answer in answers:
        gone = {photo_id for photo_id in everyone if photo_id not in answer}
        assert gone == {f"photo{number:04d}" for number in range(len(gone))}
        assert answer == [photo_id for photo_id in everyone if photo_id not in gone]


def test_a_change_of_model_is_served_by_who_has_the_model(folder, encoder, tmp_path, caplog):
    """One service has both models and goes over; the other says why not, and goes on with the version it has."""
    new = PixelEncoder(dim=8, seed=1)
    home = versions.version_folder(folder, new.model_hash)
    make_gallery(home, new, photos=24).close()
    with (
        serving([Gallery.open(folder)], Encoders(encoder, new), refresh_s=0.02) as both,
        serving([Gallery.open(folder)], encoder, refresh_s=0.02) as one,
        Client(both.address) as with_both,
        Client(one.address) as with_one,
        with_both.draw(k=24) as drawing,
    ):
        began = ids(drawing.strokes(STROKES))
        assert began == found(with_both) == found(with_one)
        with caplog.at_level(logging.INFO):
            versions.switch(folder, home)
            eventually(lambda: with_both.galleries()[0].model_hash == new.model_hash)
            eventually(lambda: "a change to gallery faces cannot be served yet: gallery faces was made" in caplog.text)
        assert found(with_one) == began
        assert with_one.photo("faces", began[0]).thumbnail
        assert found(with_both) != began
        assert ids(drawing.strokes([STROKES[0]])) == began, "a drawing keeps the version it began with"
        append(home, "newcomer", dim=8)
        eventually(lambda: "newcomer" in found(with_both))
        assert caplog.text.count("cannot be served yet") == 1
        with StoreWriter.open(folder) as writer:
            deleting.delete(writer, [began[0]])
        eventually(lambda: began[0] not in found(with_one))
        eventually(lambda: began[0] not in found(with_both))
        assert found(with_one) == began[1:], "and else the version of its own model"


def test_a_gallery_that_was_restored_in_place_of_the_one_before_is_served(client, folder, tmp_path):
    copy_gallery(folder, tmp_path / "backup")
    append(folder, "newcomer")
    eventually(lambda: "newcomer" in found(client))
    folder.rename(tmp_path / "damaged")
    copy_gallery(tmp_path / "backup", folder)
    eventually(lambda: client.galleries()[0].photos == 24)
    first = found(client)[0]
    delete(folder, first)
    eventually(lambda: first not in found(client))


def test_when_all_photos_are_deleted_searches_say_so(client, folder):
    delete(folder, *(f"photo{n:04d}" for n in range(24)))
    eventually(lambda: client.galleries()[0].photos == 0)
    with pytest.raises(GalleryError, match="gallery faces has no photos; add some with `mgrl ingest`"):
        found(client)
    append(folder, "first")
    eventually(lambda: client.galleries()[0].photos == 1)
    assert found(client) == ["first"]


def test_a_change_that_cannot_be_read_is_logged_once_and_the_older_gallery_serves(client, folder, caplog):
    before = found(client)
    append(folder, "newcomer")
    with caplog.at_level(logging.INFO):
        segment = folder / "segments" / "000002.vec"
        whole = segment.read_bytes()
        # The first look may have come before the damage, none may come in the middle of it.
        replace_file(segment, whole[:-1])
        append(folder, "another")
        eventually(lambda: "cannot be served yet" in caplog.text)
        time.sleep(0.2)
        assert (
            caplog.text.count("a change to gallery faces cannot be served yet: gallery faces: segment 000002.vec") == 1
        )
        assert "Traceback" not in caplog.text
        assert set(before) <= set(found(client))
        replace_file(segment, whole)
        eventually(lambda: client.galleries()[0].photos == 26)
        eventually(lambda: "gallery faces now has 26 photos" in caplog.text)  # said once it is served


def test_a_fault_of_ours_does_not_end_the_watch(client, folder, caplog, monkeypatch):
    monkeypatch.setattr(Gallery, "reopened", lambda _: 1 / 0)
    delete(folder, "photo0000")
    eventually(lambda: "ZeroDivisionError" in caplog.text)
    monkeypatch.undo()
    eventually(lambda: client.galleries()[0].photos == 23)


def test_opening_again_and_again_leaves_most_of_the_time_to_searches(folder, encoder, monkeypatch):
    opened = []
    reopened = Gallery.reopened

    def slow(gallery):
        opened.append(time.monotonic())
        time.sleep(0.1)
        append(folder, f"photo{len(opened)}.{time.monotonic()}")
        return reopened(gallery)

    monkeypatch.setattr(Gallery, "reopened", slow)
    monkeypatch.setattr(Gallery, "is_stale", lambda _: True)
    with serving([Gallery.open(folder)], encoder, refresh_s=0.01):
        eventually(lambda: len(opened) >= 2, timeout_s=20)
    assert opened[1] - opened[0] > 0.39


def test_a_folder_that_settings_put_in_place_stays(tmp_path, encoder, monkeypatch):
    older, other = (make_gallery(tmp_path / where / "faces", encoder) for where in ("old", "new"))
    served = Galleries([older], encoder)

    def reopened():
        served.change([other], [], {})
        return Gallery.reopened(older)

    monkeypatch.setattr(older, "reopened", reopened)
    append(older.folder, "anna")
    asyncio.run(GalleryWatch(served, 60).look())
    assert served.find("faces") is other
    older.close()
    other.close()


def test_what_is_removed_at_the_same_moment_does_not_come_back(tmp_path, encoder):
    older, newer = (make_gallery(tmp_path / where / "faces", encoder) for where in ("old", "new"))
    served = Galleries([older], encoder)
    removing = threading.Thread(target=served.remove, args=["faces"])

    class Interrupted(dict):
        def get(self, name):
            found = super().get(name)
            removing.start()
            removing.join(0.2)  # as far as it comes
            return found

    served._by_name = Interrupted(served._by_name)
    assert served.replace(older, newer)
    removing.join()
    assert list(served) == []
    older.close()
    newer.close()
