"""Photos over gRPC: every promise of UpsertPhotos and DeletePhotos, asked of a real server."""

import asyncio
import itertools
import multiprocessing
import os
import queue
import re
import signal
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import grpc
import pytest

from indexer.errors import (
    ConfigError,
    DataError,
    GalleryError,
    ImageError,
    QueryError,
    UnknownPhotoError,
)
from indexer.metadata import Kind
from indexer.store import Store, StoreWriter
from indexer.upload import Upload
from indexer.upserting import Upserter
from mgrl.v1 import gallery_pb2, gallery_pb2_grpc
from service import upserting
from service.async_client import AsyncClient
from service.cataloguing import MAX_STREAMS
from service.client import Client
from service.convert_metadata import fields_to_wire
from service.errors import IdleError, OverloadedError, ServiceError, UnknownGalleryError, error_from_rpc
from service.upserting import WINDOW
from tests.indexer.test_upserting import jpeg
from tests.service.conftest import Serving, line, serving


@pytest.fixture
def writable(gallery, encoder) -> Iterator[Serving]:
    with serving([gallery], encoder, writable=True, refresh_s=0.05) as running:
        yield running


@pytest.fixture
def writer(writable):
    with Client(writable.address) as connected:
        yield connected


class Stream:
    """An UpsertPhotos stream, message by message."""

    def __init__(self, address, gallery="", fields=()):
        self._channel = grpc.insecure_channel(address)
        self._unsent: queue.SimpleQueue[gallery_pb2.UpsertPhotosRequest | None] = queue.SimpleQueue()
        self.call = gallery_pb2_grpc.GalleryServiceStub(self._channel).UpsertPhotos(iter(self._unsent.get, None))
        self.send(begin=gallery_pb2.UpsertBegin(gallery=gallery, fields=fields))

    def send(self, **message):
        self._unsent.put(gallery_pb2.UpsertPhotosRequest(**message))

    def photo(self, sequence, seed=0, **options):
        given = {"photo_id": f"new{sequence}", "image": jpeg(seed or sequence)} | options
        self.send(photo=gallery_pb2.UpsertPhoto(sequence=sequence, **given))

    def until(self, durable):
        while (response := next(self.call)).durable_through < durable:
            pass
        return response

    def error(self):
        with pytest.raises(grpc.RpcError) as ended:
            for _ in self.call:
                pass
        return error_from_rpc(ended.value, "there")

    def close(self):
        self._unsent.put(None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
        self.call.cancel()
        self._channel.close()


def wait_for(photos, client):
    """Wait until searches are over so many photos."""
    until = time.monotonic() + 10
    while client.galleries()[0].photos != photos:
        assert time.monotonic() < until, client.galleries()
        time.sleep(0.02)


def test_photos_are_stored_and_served(writer, gallery) -> None:
    told = []
    photos = [
        Upload("anna", jpeg(1), {"age": 31, "seen": date(2024, 2, 29), "marks": ("scar",)}, source="camera 3"),
        Upload("berta", jpeg(2)),
        Upload("anna", jpeg(1)),
    ]
    fields = {"age": Kind.NUMBER, "seen": Kind.DATE, "marks": Kind.TAGS}
    report = writer.upsert(photos, fields=fields, on_durable=told.append)
    assert (report.stored, report.unchanged, report.failed) == (2, 1, ())
    assert told[-1] == 3
    store = Store.open(gallery.folder)
    assert store.count() == 26
    store.close()
    wait_for(26, writer)
    photo = writer.photo("", "anna")
    assert photo.metadata == {"age": 31.0, "seen": date(2024, 2, 29), "marks": ("scar",)}
    assert photo.source == "camera 3"
    assert photo.thumbnail.startswith(b"\xff\xd8")


def test_far_more_photos_than_the_window_holds(writer, gallery) -> None:
    image, taken, told = jpeg(1, size=40), [], []

    def photos():
        for number in range(3 * WINDOW):
            taken.append(number)
            yield Upload(f"n{number}", image)

    def on_durable(durable):
        told.append(durable)
        # One more is asked for than may be sent; it waits in the client.
        assert len(taken) <= durable + WINDOW + 1

    assert writer.upsert(photos(), on_durable=on_durable).stored == 3 * WINDOW
    assert told == sorted(told)
    assert told[-1] == 3 * WINDOW


def test_the_async_client_does_the_same(writable) -> None:
    async def photos():
        for number in range(WINDOW + 5):
            yield Upload(f"n{number}", jpeg(number, size=40))

    async def main():
        async with AsyncClient(writable.address) as client:
            first = await client.upsert(photos())
            again = await client.upsert([Upload("n3", jpeg(3, size=40)), Upload("bad", b"")])
            return first, again, await client.delete(["n3", "n4"])

    first, again, deleted = asyncio.run(main())
    assert (first.stored, again.unchanged, deleted) == (WINDOW + 5, 1, 2)
    assert [photo_id for photo_id, _ in again.failed] == ["bad"]


def test_photos_that_do_not_hold_are_listed_and_the_others_stored(writer) -> None:
    photos = [
        Upload("a", jpeg(1)),
        Upload("b", b"no picture"),
        Upload("c", jpeg(2), {"age": "old"}),
        Upload("d", jpeg(3), {"name": "x"}),
        Upload("", jpeg(4)),
        Upload("e", jpeg(5)),
    ]
    report = writer.upsert(photos, fields={"age": Kind.NUMBER})
    assert report.stored == 2
    failed = dict(report.failed)
    assert list(failed) == ["b", "c", "d", ""]
    assert isinstance(failed["b"], ImageError)
    assert all(isinstance(failed[photo_id], QueryError) for photo_id in ("c", "d", ""))
    assert "field age: the value must be a number" in str(failed["c"])
    assert "no field 'name'" in str(failed["d"])


def test_a_value_without_content_fails_alone(writable) -> None:
    with Stream(writable.address, fields=fields_to_wire({"seen": Kind.DATE})) as stream:
        stream.photo(1, metadata={"seen": {"date": "yesterday"}})
        stream.photo(2)
        response = stream.until(2)
        assert response.stored == 1


def test_every_answer_says_how_far_the_client_may_send(writable) -> None:
    with Stream(writable.address) as stream:
        first = next(stream.call)
        assert (first.durable_through, first.may_send_through) == (0, WINDOW)
        stream.photo(1)
        second = stream.until(1)
        assert (second.durable_through, second.may_send_through, second.stored) == (1, WINDOW + 1, 1)


def test_what_was_acknowledged_is_durable_however_the_client_ends(writable, gallery) -> None:
    with Stream(writable.address) as stream:
        stream.photo(1)
        stream.until(1)
        store = Store.open(gallery.folder)
        assert store.photo("new1").source == "new1"
        store.close()


@pytest.mark.parametrize(
    ("send", "message"),
    [
        (lambda stream: stream.photo(2), "one by one, got 2 in place of 1"),
        (lambda stream: stream.photo(0), "one by one, got 0 in place of 1"),
        (lambda stream: stream.send(begin=gallery_pb2.UpsertBegin()), "every message but the first"),
        (lambda stream: stream.send(), "every message but the first"),
    ],
)
def test_a_message_out_of_turn_ends_the_stream(send, message, writable) -> None:
    with Stream(writable.address) as stream:
        send(stream)
        error = stream.error()
    assert isinstance(error, QueryError)
    assert message in str(error)


def test_a_stream_must_begin(writable) -> None:
    with grpc.insecure_channel(writable.address) as channel:
        stub = gallery_pb2_grpc.GalleryServiceStub(channel)
        for messages in ([], [gallery_pb2.UpsertPhotosRequest(photo=gallery_pb2.UpsertPhoto(sequence=1))]):
            with pytest.raises(grpc.RpcError) as ended:
                list(stub.UpsertPhotos(iter(messages)))
            assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_client_that_sends_further_than_it_may_is_cut_off(writable, monkeypatch) -> None:
    gate = threading.Event()
    store = upserting._store
    monkeypatch.setattr(upserting, "_store", lambda *args: gate.wait(5) and store(*args))
    with Stream(writable.address) as stream:
        for sequence in range(1, WINDOW + 2):
            stream.photo(sequence, seed=1)
        time.sleep(0.3)
        gate.set()
        error = stream.error()
    assert isinstance(error, QueryError)
    assert f"photo {WINDOW + 1} came before its time" in str(error)


def test_an_oversize_image_fails_alone(writable, writer) -> None:
    report = writer.upsert([Upload("a", bytes(5 << 20)), Upload("b", jpeg(1))])
    assert report.stored == 1
    ((photo_id, error),) = report.failed
    assert photo_id == "a"
    assert isinstance(error, ImageError)
    assert "5242880 bytes" in str(error)

    async def main():
        async with AsyncClient(writable.address) as client:
            return await client.upsert([Upload("a", bytes(5 << 20)), Upload("c", jpeg(2))])

    assert asyncio.run(main()).stored == 1


def test_a_message_above_the_limit_ends_the_stream(writable, gallery) -> None:
    with Stream(writable.address) as stream:
        stream.photo(1, image=bytes(5 << 20))
        assert "larger than max" in str(stream.error())
    StoreWriter.open(gallery.folder, wait_s=10).close()


def test_a_read_only_service_says_so(service, client) -> None:
    for call in (lambda: client.upsert([Upload("a", jpeg(1))]), lambda: client.delete(["photo0001"])):
        with pytest.raises(ConfigError, match="--writable"):
            call()


def test_an_async_upsert_that_fails_leaves_no_task(service) -> None:
    async def main():
        async with AsyncClient(service.address) as client:
            with pytest.raises(ConfigError, match="--writable"):
                await client.upsert([Upload("a", jpeg(1))])
            waiting = asyncio.all_tasks() - {asyncio.current_task()}
            return (await asyncio.wait(waiting, timeout=2))[1] if waiting else set()

    assert not asyncio.run(main())


def test_an_unknown_gallery_and_a_field_of_another_kind(writer) -> None:
    with pytest.raises(UnknownGalleryError):
        writer.upsert([], "nowhere")
    writer.upsert([], fields={"age": Kind.NUMBER})
    with pytest.raises(QueryError, match="is a number in this gallery"):
        writer.upsert([], fields={"age": Kind.STRING})


def test_a_held_lock_is_said_and_the_lock_is_given_back(writer, gallery, encoder) -> None:
    with (
        StoreWriter.open(gallery.folder),
        pytest.raises(GalleryError, match="being written"),
    ):
        writer.upsert([Upload("a", jpeg(1))])
    assert writer.upsert([Upload("a", jpeg(1))]).stored == 1
    StoreWriter.open(gallery.folder, wait_s=5).close()


def test_streams_share_a_gallery_and_others_wait(writable, gallery) -> None:
    with Stream(writable.address) as one, Stream(writable.address) as other:
        next(one.call)
        next(other.call)
        one.photo(1, photo_id="of one")
        one.until(1)
        other.photo(1, photo_id="of the other", seed=2)
        assert other.until(1).stored == 1
        with pytest.raises(GalleryError, match="being written"):
            StoreWriter.open(gallery.folder)
        one.close()
        list(one.call)
        other.photo(2)
        assert other.until(2).stored == 2


def test_more_streams_than_the_service_takes(writable) -> None:
    streams = [Stream(writable.address) for _ in range(MAX_STREAMS)]
    for stream in streams:
        next(stream.call)
    with Stream(writable.address) as one_more:
        assert isinstance(one_more.error(), OverloadedError)
    for stream in streams:
        stream.__exit__()


def test_an_idle_stream_lets_the_gallery_go(writable, gallery, monkeypatch) -> None:
    monkeypatch.setattr("service.cataloguing.IDLE_S", 0.2)
    with Stream(writable.address) as stream:
        assert "no photo came for 0.2 s" in str(stream.error())
    StoreWriter.open(gallery.folder, wait_s=5).close()


def test_a_stream_that_sends_nothing_ends(writable, monkeypatch) -> None:
    monkeypatch.setattr(upserting, "FIRST_MESSAGE_S", 0.2)
    silent = threading.Event()
    with grpc.insecure_channel(writable.address) as channel:
        call = gallery_pb2_grpc.GalleryServiceStub(channel).UpsertPhotos(iter(lambda: silent.wait(5) and None, None))
        with pytest.raises(grpc.RpcError) as ended:
            next(call)
        silent.set()
    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "the first message of a stream of photos must come within 0.2 s" in ended.value.details()


def test_a_client_that_waits_for_its_photos_to_be_stored_is_not_idle(writable, monkeypatch) -> None:
    monkeypatch.setattr("service.cataloguing.IDLE_S", 0.3)
    store = upserting._store

    def slow(*args):
        time.sleep(0.8)
        return store(*args)

    monkeypatch.setattr(upserting, "_store", slow)
    with Stream(writable.address) as stream:
        for sequence in range(1, WINDOW + 1):
            stream.photo(sequence, seed=1)
        assert stream.until(WINDOW).stored == WINDOW
        # Now it is the client that is waited for.
        assert isinstance(error := stream.error(), IdleError)
        assert "no photo came for 0.3 s" in str(error)


def test_a_client_that_waits_to_begin_is_not_idle(writable, monkeypatch) -> None:
    monkeypatch.setattr("service.cataloguing.IDLE_S", 1.0)
    declare = Upserter.declare

    def slow(*args):
        time.sleep(1.2)
        declare(*args)

    monkeypatch.setattr(Upserter, "declare", slow)
    with Stream(writable.address) as stream:
        next(stream.call)
        stream.photo(1)
        assert stream.until(1).stored == 1


def test_a_client_that_stops_reading_holds_the_gallery_for_a_while_only(writable, gallery, monkeypatch) -> None:
    monkeypatch.setattr("service.cataloguing.IDLE_S", 0.3)
    with Stream(writable.address) as stream:
        for sequence in range(1, 10):
            stream.photo(sequence)
        next(stream.call)
        StoreWriter.open(gallery.folder, wait_s=10).close()
    store = Store.open(gallery.folder)
    assert store.count() == 24 + 9
    store.close()


def _send_and_wait(address, sent):
    with Stream(address) as stream:
        stream.photo(1)
        stream.until(1)
        sent.set()
        time.sleep(60)


def test_a_killed_client_lets_the_gallery_go(writable, gallery) -> None:
    context = multiprocessing.get_context("spawn")
    sent = context.Event()
    child = context.Process(target=_send_and_wait, args=(writable.address, sent))
    child.start()
    assert sent.wait(60)
    with pytest.raises(GalleryError, match="being written"):
        StoreWriter.open(gallery.folder)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    StoreWriter.open(gallery.folder, wait_s=10).close()
    store = Store.open(gallery.folder)
    assert store.count() == 25
    store.close()


def test_what_the_callers_own_photos_raise_is_raised(writer, gallery) -> None:
    def photos():
        yield Upload("a", jpeg(1))
        raise DataError("the camera is gone")

    with pytest.raises(DataError, match="the camera is gone"):
        writer.upsert(photos())
    store = Store.open(gallery.folder)
    assert store.count() == 25
    store.close()


def test_a_service_that_stops_stores_what_it_has_and_says_so(gallery, encoder) -> None:
    with serving([gallery], encoder, writable=True) as running, Stream(running.address) as stream:
        stream.photo(1)
        stream.until(1)
        running.on_loop(running.server.stop(), timeout_s=10)
        assert "the service is stopping" in str(stream.error())
    StoreWriter.open(gallery.folder).close()


def test_deleted_photos_are_gone_from_the_very_next_answer(writer, gallery) -> None:
    ink_rows = gallery.photo_ids[:3]
    assert writer.delete([*ink_rows, ink_rows[0]]) == 3
    assert writer.galleries()[0].photos == 21
    with pytest.raises(UnknownPhotoError):
        writer.photo("", ink_rows[0])
    with pytest.raises(UnknownPhotoError, match="'photo9999'"):
        writer.delete(["photo0005", "photo9999"])
    assert writer.photo("", "photo0005").photo_id == "photo0005"
    for count in (0, 1001):
        with pytest.raises(QueryError, match="1 to 1000") as refused:
            writer.delete([f"n{number}" for number in range(count)])
        assert refused.value.field == "photo_ids"


def test_one_id_is_not_taken_for_its_letters(writer, gallery) -> None:
    """The text "12" iterates as "1" and "2" do, and both are photos."""
    assert writer.upsert([Upload("1", jpeg(1)), Upload("2", jpeg(2))]).stored == 2
    with pytest.raises(TypeError, match=r"delete takes several ids, such as \['12'\], got one text"):
        writer.delete("12")
    store = Store.open(gallery.folder)
    assert store.count() == 26
    store.close()


def test_the_example_of_the_page_runs(writable, gallery, tmp_path, monkeypatch, capsys) -> None:
    page = (Path(__file__).parents[2] / "docs" / "ingestion.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "photos").mkdir()
    for name in "ab":
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(jpeg(ord(name)))
    monkeypatch.chdir(tmp_path)
    exec(code.replace("127.0.0.1:50051", writable.address), {})
    assert "2 stored, 0 were there, {}" in capsys.readouterr().out
    store = Store.open(gallery.folder)
    assert store.count() == 25
    assert store.photo("b").metadata == {"seen": date(2024, 2, 29)}
    store.close()


def test_a_service_that_stops_ends_a_stream_that_always_has_more(gallery, encoder, monkeypatch) -> None:
    begun, store = threading.Event(), upserting._store

    def slow(*args):
        begun.set()
        time.sleep(0.1)
        return store(*args)

    def photos():
        for number in itertools.count():
            yield Upload(f"new{number}", picture)

    def send():
        with Client(running.address) as client, pytest.raises(ServiceError, match="the service is stopping"):
            client.upsert(photos())
        told.set()

    picture, told = jpeg(1), threading.Event()
    monkeypatch.setattr(upserting, "_store", slow)
    with serving([gallery], encoder, writable=True) as running:
        sending = threading.Thread(target=send)
        sending.start()
        assert begun.wait(10)
        running.on_loop(running.server.stop(), timeout_s=20)
        sending.join(20)
    assert told.is_set()


def test_drawings_hear_of_a_stop_also_while_a_photo_takes_long(gallery, encoder, monkeypatch) -> None:
    begun, go_on, store = threading.Event(), threading.Event(), upserting._store

    def held(*args):
        begun.set()
        assert go_on.wait(10)
        return store(*args)

    monkeypatch.setattr(upserting, "_store", held)
    with (
        serving([gallery], encoder, writable=True) as running,
        Stream(running.address) as stream,
        Client(running.address) as client,
        client.draw(resume_s=0.1) as drawing,
    ):
        assert drawing.strokes([line()]).hits
        stream.photo(1)
        assert begun.wait(5)
        stopping = running.start(running.server.stop(0.1))
        with pytest.raises(ServiceError, match="the service is stopping; send the drawing again to another one"):
            drawing.answer(99)
        go_on.set()
        stopping.result(20)
