"""What those who run a service ask of it, over the wire."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace

import grpc
import pytest

from indexer.errors import ConfigError, QueryError
from indexer.gallery import Gallery
from indexer.store import StoreWriter
from mgrl.v1 import admin_pb2, admin_pb2_grpc, gallery_pb2, gallery_pb2_grpc
from service import administration, cataloguing
from service.admin_client import AdminClient
from service.administration import AdminServicer
from service.async_client import AsyncClient
from service.calls import gallery_details
from service.client import Client
from service.errors import ServiceError, UnknownGalleryError
from service.galleries import Galleries
from tests.service.conftest import line, serving


@pytest.fixture
def admin(service):
    with AdminClient(service.address) as connected:
        yield connected


def test_models_say_which_galleries_they_made(admin, encoder):
    (model,) = admin.models()
    assert (model.model_hash, model.dim, model.size_px) == (encoder.model_hash, encoder.dim, encoder.size_px)
    assert list(model.galleries) == ["faces"]


def test_a_gallery_is_verified_while_it_is_served(admin, gallery):
    found = admin.verify("faces")
    assert (found.photos, found.segments, list(found.faults)) == (24, 1, [])
    (segment,) = (gallery.folder / "segments").iterdir()
    altered = bytearray(segment.read_bytes())
    altered[5] ^= 1
    segment.write_bytes(bytes(altered))
    (fault,) = admin.verify().faults
    assert "checksum" in fault.what
    assert str(gallery.folder) not in fault.what
    with pytest.raises(UnknownGalleryError):
        admin.verify("nobody")


def test_a_reading_whose_caller_has_gone_meets_no_other(service, monkeypatch):
    begun, go_on, verify = threading.Semaphore(0), threading.Event(), administration.verify

    def held(folder):
        begun.release()
        assert go_on.wait(5)
        return verify(folder)

    monkeypatch.setattr(administration, "verify", held)
    with grpc.insecure_channel(service.address) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        first = stub.VerifyGallery.future(admin_pb2.VerifyGalleryRequest())
        assert begun.acquire(timeout=5)
        first.cancel()
        second = stub.VerifyGallery.future(admin_pb2.VerifyGalleryRequest())
        assert not begun.acquire(timeout=0.3)
        go_on.set()
        assert second.result(5).photos == 24


def test_measuring_a_gallery_keeps_no_drawing_waiting(service, client, monkeypatch):
    begun, go_on, measure = threading.Event(), threading.Event(), cataloguing.usage

    def held(folder):
        begun.set()
        assert go_on.wait(5)
        return measure(folder)

    monkeypatch.setattr(cataloguing, "usage", held)
    with ThreadPoolExecutor(1) as beside:
        described = beside.submit(client.describe)
        assert begun.wait(5)
        with client.draw() as drawing:
            assert drawing.strokes([line()]).hits
            assert not described.done()
        go_on.set()
        assert described.result(5).info.photos == 24


def test_a_backup_is_a_gallery_with_the_same_photos(gallery, encoder, tmp_path):
    with serving([gallery], encoder, backups=tmp_path / "backups") as running, AdminClient(running.address) as admin:
        made = admin.backup()
        assert (made.photos, made.backup.startswith("faces-")) == (24, True)
        assert made.copied_bytes > 0
    copy = Gallery.open(tmp_path / "backups" / made.backup)
    assert copy.photo_ids == gallery.photo_ids
    copy.close()


def test_a_service_without_a_folder_of_backups_makes_none(admin):
    with pytest.raises(ConfigError, match="no folder of backups"):
        admin.backup()


def test_settings_are_read_again_all_or_none(gallery, encoder):
    outcomes = iter([True, False])

    async def reload():
        return next(outcomes)

    with serving([gallery], encoder, reload=reload) as running, AdminClient(running.address) as admin:
        admin.reload()
        with pytest.raises(ConfigError, match="stay as they were"):
            admin.reload()


def test_a_service_that_was_not_started_from_settings_has_none_to_read(admin):
    with pytest.raises(ConfigError, match="not started from settings"):
        admin.reload()


def test_draining_turns_calls_away_and_lets_drawings_finish(gallery, encoder):
    with serving([gallery], encoder, grace_s=5.0) as running, AdminClient(running.address) as admin:
        with Client(running.address) as client, client.draw() as drawing:
            drawing.stroke(line().points)
            admin.drain()
            with pytest.raises(ServiceError):
                admin.drain()
            assert drawing.stroke(line(y0=0.6, y1=0.6).points).strokes == 2
            drawing.finish()
        running.on_loop(running.server.stop(), 10)


def test_a_drain_begins_when_its_answer_has_left(gallery, encoder):
    stopped, left = [], []
    servicer = AdminServicer(
        Galleries([gallery], encoder), None, None, lambda: bool(stopped), lambda: stopped.append("stopped")
    )
    asyncio.run(servicer.Drain(admin_pb2.DrainRequest(), SimpleNamespace(add_done_callback=left.append)))
    assert not stopped
    left[0](None)
    assert stopped


def test_pages_list_every_photo_once_whatever_their_size(client, gallery):
    listed = list(client.photos(page_size=7))
    assert [photo.photo_id for photo in listed] == list(gallery.photo_ids)
    assert listed[0].source == "people/photo0000.jpg"
    assert [photo.photo_id for photo in client.photos(page_size=24)] == list(gallery.photo_ids)
    for size in (0, 1001, -1):
        with pytest.raises(QueryError, match="1 to 1000"):
            next(client.photos(page_size=size))


def test_photos_that_stay_are_listed_once_while_others_go(client, gallery):
    pages = client.photos(page_size=10)
    first = [next(pages).photo_id for _ in range(10)]
    with StoreWriter.open(gallery.folder) as writer:
        writer.delete([first[3], "photo0012"])
    rest = [photo.photo_id for photo in pages]
    assert first + rest == [name for name in gallery.photo_ids if name != "photo0012"]


@pytest.mark.parametrize(
    "token", ["x", "!!", "MTA6b3RoZXI=", "LTE6ZmFjZXM=", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OmZhY2Vz", "é"]
)
def test_tokens_of_others_are_refused(service, token):
    with grpc.insecure_channel(service.address) as channel:
        stub = gallery_pb2_grpc.GalleryServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ListPhotos(gallery_pb2.ListPhotosRequest(page_token=token), timeout=5)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_gallery_is_described(client, gallery):
    before = client.describe("faces")
    assert before.info.photos == 24
    assert before.usage["vectors"] == sum(path.stat().st_size for path in gallery.folder.glob("segments/*"))
    assert before.usage["vectors"] > 24 * 14 * gallery.dim * 4
    assert abs((datetime.fromisoformat(before.created) - datetime.now(UTC)).total_seconds()) < 600
    with StoreWriter.open(gallery.folder) as writer:
        writer.delete(["photo0003"])
    for _ in range(200):
        after = client.describe()
        if after.version > before.version:
            break
        time.sleep(0.05)
    assert (after.info.photos, after.deleted) == (23, 1)
    assert after.usage["reclaimable"] >= 14 * gallery.dim * 4


def test_a_way_to_crop_of_a_later_contract_is_described_as_unknown():
    response = gallery_pb2.DescribeGalleryResponse(version=7)
    response.MergeFromString(bytes([response.DESCRIPTOR.fields_by_name["crop"].number << 3, 77]))
    assert response.crop == 77
    details = gallery_details(response)
    assert (details.version, details.crop) == (7, "")


def test_the_asyncio_client_lists_and_describes(service, gallery):
    async def asked():
        async with AsyncClient(service.address) as client:
            return [photo.photo_id async for photo in client.photos(page_size=5)], await client.describe()

    listed, details = asyncio.run(asked())
    assert listed == list(gallery.photo_ids)
    assert details.info.photos == 24
