"""What a service puts on record, on the wire."""

import base64
import errno
import json
import os
import threading
import time
from dataclasses import replace

import grpc
import pytest

from indexer.errors import ConfigError
from indexer.upload import Upload
from indexer.upserting import Upserter
from mgrl.v1 import gallery_pb2, gallery_pb2_grpc, search_pb2, search_pb2_grpc
from service import auditor
from service.audit_chain import read_records, verify
from service.auth.keys import add_key, changing_keys
from service.client import Client
from service.config import Config
from service.config_access import AuditConfig, AuthConfig, GalleryConfig, Secret
from service.convert import stroke_to_wire
from service.credentials import Credentials
from service.errors import AuditError, ForbiddenError, UnknownGalleryError
from tests.indexer.test_upserting import jpeg
from tests.service.conftest import ids, line, make_gallery, serving

NAMES = ("staff", "guests")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def serve(tmp_path, encoder, path):
    """Starts a service whose `staff` must be audited, with a key for `desk`; a client of it."""
    galleries = [make_gallery(tmp_path / name, encoder, seed=seed) for seed, name in enumerate(NAMES)]
    key_file, opened = tmp_path / "keys.json", []
    with changing_keys(key_file) as keys:
        token = add_key(keys, "desk", ("search",), ("staff", "guests"), None, {})

    def start(**audit):
        config = Config(
            auth=AuthConfig(key_file),
            audit=AuditConfig(path, **audit),
            galleries={"staff": GalleryConfig(audit_required=True)},
        )
        service = serving(galleries, encoder, access=config)
        opened.append(service)
        client = Client(service.__enter__().address, credentials=Credentials(token=Secret(token)))
        opened.append(client)
        return client

    yield start
    for each in reversed(opened):
        each.__exit__(None, None, None)
    for gallery in galleries:
        gallery.close()


def recorded(path, *events):
    return [record for record in read_records(path) if not events or record["event"] in events]


def wait_for(path, count, *events):
    """The end of a stream is recorded after its client has gone."""
    until = time.monotonic() + 5
    while len(found := recorded(path, *events)) < count and time.monotonic() < until:
        time.sleep(0.02)
    return found


def test_a_search_is_on_record_when_its_answer_is_there(serve, path):
    client = serve()
    client.search("staff", strokes=[line()], k=7, purpose="case 12")
    (record,) = recorded(path, "Search")
    expected = {"caller": "desk", "kind": "key", "gallery": "staff", "purpose": "case 12", "results": 7, "photos": 7}
    assert {name: record[name] for name in expected} == expected
    assert record["at"].endswith("Z")
    client.search("guests", strokes=[line()])
    assert [record["gallery"] for record in recorded(path, "Search")] == ["staff", "guests"]
    assert verify(path).problems == ()


def test_neither_sketch_nor_photos_are_on_record_unless_switched_on(serve, path):
    client = serve()
    client.search("staff", strokes=[line()])
    client.photo("staff", "photo0003")
    with client.draw("staff") as drawing:
        drawing.strokes([line()])
    wait_for(path, 2, "Draw")
    assert "photo0" not in path.read_text()
    names = set().union(*(record.keys() for record in recorded(path)))
    assert not names & {"messages", "photo_ids"}


def test_both_are_on_record_when_switched_on(serve, path):
    client = serve(sketches=True, photos=True)
    answer = client.search("staff", strokes=[line()], k=3)
    (record,) = recorded(path, "Search")
    assert record["photo_ids"] == ids(answer)
    (message,) = record["messages"]
    request = search_pb2.SearchRequest.FromString(base64.b64decode(message))
    assert len(request.strokes.strokes) == 1
    with client.draw("staff", k=3) as drawing:
        shown = set(ids(drawing.strokes([line()]))) | set(ids(drawing.strokes([line(0.1, 0.8, 0.9, 0.8)])))
    records = wait_for(path, 2, "Draw")
    assert set().union(*(record["photo_ids"] for record in records)) == shown
    # begin, two strokes, finish
    assert sum(len(record["messages"]) for record in records) == 4
    client.photo("staff", "photo0003")
    assert recorded(path, "GetPhoto")[0]["photo_ids"] == ["photo0003"]


def test_the_token_that_opens_a_drawing_is_not_on_record(tmp_path, encoder, path):
    gallery = make_gallery(tmp_path / "faces", encoder)
    config = Config(audit=AuditConfig(path, sketches=True))
    with serving([gallery], encoder, access=config) as service, grpc.insecure_channel(service.address) as channel:
        stub = search_pb2_grpc.SketchSearchServiceStub(channel)
        first = stub.Draw(iter([search_pb2.DrawRequest(sequence=1, begin=search_pb2.DrawBegin())]))
        (answer,) = first  # not finished: it can be resumed
        token = answer.result.session.resume_token
        resume = search_pb2.DrawRequest(resume=search_pb2.DrawResume(token=token))
        assert [again.sequence for again in stub.Draw(iter([resume]))] == [1]
        records = wait_for(path, 4, "Draw")
    messages = [base64.b64decode(message) for record in records for message in record["messages"]]
    assert [search_pb2.DrawRequest.FromString(message).WhichOneof("action") for message in messages] == ["begin"]


def test_a_drawing_is_on_record_at_its_beginning_and_its_end(serve, path):
    client = serve()
    with client.draw("staff", k=5, purpose="case 12") as drawing:
        (begun,) = recorded(path, "Draw")
        assert (begun["state"], begun["gallery"], begun["purpose"], begun["results"]) == (
            "begun",
            "staff",
            "case 12",
            0,
        )
        shown = [set(ids(drawing.strokes([line(y0=y, y1=y)]))) for y in (0.2, 0.5, 0.8)]
    _, ended = wait_for(path, 2, "Draw")
    assert (ended["state"], ended["caller"], ended["purpose"]) == ("ended", "desk", "case 12")
    # The first answer has no results, the last one those of the one before again.
    assert (ended["answers"], ended["results"], ended["photos"]) == (5, 20, len(set().union(*shown)))


def test_a_long_drawing_is_on_record_in_between(serve, path, monkeypatch):
    client = serve()
    monkeypatch.setattr(auditor, "_EVERY_S", 0.0)
    with client.draw("staff", k=5) as drawing:
        drawing.strokes([line()])
        assert [record["state"] for record in recorded(path, "Draw")] == ["begun", "shown"]
        assert recorded(path, "Draw")[-1]["results"] == 5


def test_a_drawing_whose_client_is_gone_is_on_record_too(serve, path):
    client = serve()
    drawing = client.draw("staff")
    drawing.__enter__()
    drawing.strokes([line()])
    drawing._call.cancel()
    assert [record["state"] for record in wait_for(path, 2, "Draw")] == ["begun", "ended"]


def test_what_is_refused_is_on_record_for_those_who_are_known(serve, path):
    client = serve()
    for refused in (
        lambda: client.search("vault", strokes=[line()]),
        client.draw("vault").__enter__,
        lambda: client.photo("vault", "photo0001"),
        lambda: client.describe("vault"),
    ):
        with pytest.raises(ForbiddenError):
            refused()
    records = wait_for(path, 4, "refused")
    assert [(record["caller"], record["reason"]) for record in records] == [
        ("desk", "key desk may not use gallery 'vault'")
    ] * 4
    methods = [record["method"].rpartition("/")[2] for record in records]
    assert methods == ["Search", "Draw", "GetPhoto", "DescribeGallery"]


def test_what_is_refused_where_no_gallery_is_named_is_on_record_too(tmp_path, encoder, path):
    gallery = make_gallery(tmp_path / "staff", encoder)
    config = Config(audit=AuditConfig(path), galleries={"staff": GalleryConfig(roles=("ingest",))})
    with serving([gallery], encoder, access=config) as service, Client(service.address) as client:
        for refused in (lambda: client.search(strokes=[line()]), lambda: client.photo("", "photo0001")):
            with pytest.raises(ForbiddenError):
                refused()
        records = wait_for(path, 2, "refused")
    said = "gallery staff is not open to the role search in this service"
    assert [record["reason"] for record in records] == [said, said]


def test_a_drawing_that_is_refused_in_mid_stroke_is_on_record(serve, path, tmp_path):
    client = serve()
    with client.draw("guests") as drawing:
        assert drawing.strokes([line()]).hits
        with changing_keys(tmp_path / "keys.json") as keys:
            keys[0] = replace(keys[0], galleries=("staff",))
        time.sleep(1.1)  # the key file is looked at once a second
        with pytest.raises(ForbiddenError):
            drawing.strokes([line()])
    (record,) = wait_for(path, 1, "refused")
    assert (record["caller"], record["reason"]) == ("desk", "key desk may not use gallery 'guests'")


@pytest.fixture
def disk(monkeypatch, path):
    write, state = os.write, {"is_full": False}

    def limited(handle, data):
        if state["is_full"] and os.readlink(f"/proc/self/fd/{handle}") == str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data)

    monkeypatch.setattr(os, "write", limited)
    return state


def test_without_a_record_nothing_is_shown_where_one_is_required(serve, path, disk):
    client = serve()
    with client.draw("staff") as drawing:
        assert drawing.strokes([line()]).hits
        disk["is_full"] = True
        for refused in (
            lambda: client.search("staff", strokes=[line()]),
            lambda: client.photo("staff", "photo0001"),
            client.draw("staff").__enter__,
            # A drawing that has begun hears of it with its next answer.
            lambda: drawing.strokes([line(0.1, 0.8, 0.9, 0.8)]),
        ):
            with pytest.raises(AuditError, match="the audit log cannot be written, so nothing is shown"):
                refused()
        # Not required here: the answer leaves, and the service's own log says what is missing.
        assert client.search("guests", strokes=[line()]).hits
        disk["is_full"] = False
        assert client.search("staff", strokes=[line()]).hits
    assert verify(path).problems == ()


def test_photos_whose_record_failed_are_in_the_next_one(serve, path, disk, monkeypatch):
    client = serve(photos=True)
    monkeypatch.setattr(auditor, "_EVERY_S", 0.0)
    with client.draw("guests", k=3) as drawing:
        disk["is_full"] = True
        shown = set(ids(drawing.strokes([line()])))
        disk["is_full"] = False
        shown |= set(ids(drawing.strokes([line(0.1, 0.8, 0.9, 0.8)])))
        records = recorded(path, "Draw")
    assert set().union(*(record["photo_ids"] for record in records)) == shown


def test_an_unknown_gallery_is_still_unknown(tmp_path, encoder, path):
    gallery = make_gallery(tmp_path / "faces", encoder)
    with (
        serving([gallery], encoder, access=Config(audit=AuditConfig(path))) as service,
        Client(service.address) as client,
    ):
        for call in (
            lambda: client.photo("nowhere", "photo0001"),
            lambda: client.search("nowhere", strokes=[line()]),
            client.draw("nowhere").__enter__,
        ):
            with pytest.raises(UnknownGalleryError):
                call()
        # Nobody is asked who calls.
        client.search(strokes=[line()])
    (record,) = recorded(path, "Search")
    assert (record["caller"], record["kind"], record["gallery"]) == ("", "anyone", "faces")
    assert [record["event"] for record in recorded(path)] == ["opened", "Search", "closed"]
    assert json.loads(path.read_text().splitlines()[0])["process"] == os.getpid()
    gallery.close()


def test_photos_that_come_and_go_are_on_record(tmp_path, encoder, path):
    galleries = [make_gallery(tmp_path / name, encoder, seed=seed) for seed, name in enumerate(NAMES)]
    config = Config(audit=AuditConfig(path), galleries={"staff": GalleryConfig(writable=True)})
    with serving(galleries, encoder, access=config) as service, Client(service.address) as client:
        client.upsert([Upload("anna", jpeg(1))], "staff")
        client.delete(["anna"], "staff")
        with pytest.raises(ConfigError, match="this service takes no photos for gallery guests"):
            client.delete(["photo0001"], "guests")
    changes = [(record["event"], record["state"], record["gallery"]) for record in recorded(path)[1:-1]]
    assert changes == [
        ("UpsertPhotos", "begun", "staff"),
        ("UpsertPhotos", "ended", "staff"),
        ("DeletePhotos", "shown", "staff"),
        ("DeletePhotos", "failed", "guests"),
    ]
    for gallery in galleries:
        gallery.close()


def test_a_change_whose_caller_goes_away_is_on_record(tmp_path, encoder, path, monkeypatch):
    gallery, asked, may_go_on = make_gallery(tmp_path / "staff", encoder), threading.Event(), threading.Event()

    def waiting(upserter, photo_ids):
        asked.set()
        assert may_go_on.wait(10)
        upserter._store.delete(photo_ids)

    monkeypatch.setattr(Upserter, "delete", waiting)
    config = Config(audit=AuditConfig(path), galleries={"staff": GalleryConfig(writable=True)})
    with serving([gallery], encoder, access=config) as service, grpc.insecure_channel(service.address) as channel:
        stub = gallery_pb2_grpc.GalleryServiceStub(channel)
        going = stub.DeletePhotos.future(gallery_pb2.DeletePhotosRequest(photo_ids=["photo0001"]))
        assert asked.wait(10)
        going.cancel()
        time.sleep(0.2)  # until the service has heard of it
        may_go_on.set()
        (record,) = wait_for(path, 1, "DeletePhotos")
    assert (record["state"], record["gallery"]) == ("cancelled", "staff")
    gallery.close()


def test_a_drawing_that_is_resumed_keeps_its_purpose(serve, path):
    client = serve()
    stub, metadata = client._sketches, client._metadata

    def held(request):
        yield request
        gone.wait(5)

    gone = threading.Event()
    begin = search_pb2.DrawRequest(sequence=1, begin=search_pb2.DrawBegin(gallery="staff", purpose="case 12"))
    call = stub.Draw(held(begin), metadata=metadata, timeout=5)
    token = next(call).result.session.resume_token
    call.cancel()
    gone.set()
    wait_for(path, 2, "Draw")
    resume = search_pb2.DrawRequest(sequence=2, resume=search_pb2.DrawResume(token=token))
    strokes = search_pb2.DrawRequest(sequence=3, strokes=search_pb2.DrawStrokes(strokes=[stroke_to_wire(line())]))
    finish = search_pb2.DrawRequest(sequence=4, finish=search_pb2.DrawFinish())
    assert list(stub.Draw(iter([resume, strokes, finish]), metadata=metadata, timeout=5))
    records = wait_for(path, 4, "Draw")
    assert [(record["state"], record["gallery"], record["purpose"]) for record in records] == [
        (state, "staff", "case 12") for state in ("begun", "ended", "begun", "ended")
    ]
    assert records[-1]["results"] > 0
