"""Settings that change while a service runs: on its loop, and by SIGHUP in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from indexer.encoding import OnnxEncoder
from indexer.errors import ConfigError
from indexer.gallery import Gallery
from service.auth.keys import add_key, changing_keys
from service.client import Client
from service.config import Config, ServerConfig
from service.config_access import AuditConfig, AuthConfig, GalleryConfig, LimitsConfig, Secret, TlsConfig
from service.credentials import Credentials
from service.errors import AuthenticationError, ForbiddenError, LimitError, UnknownGalleryError
from service.opening import Opener
from service.reloading import Reloader, settled
from tests.conftest import PixelEncoder
from tests.service.conftest import line, make_gallery, serving
from tests.service.test_serve_command import SERVE

OTHER = PixelEncoder(seed=9)


@pytest.fixture
def folder(tmp_path):
    """Galleries staff and guests of one model, and vault of another; a key."""
    for seed, name in enumerate(("staff", "guests")):
        make_gallery(tmp_path / name, PixelEncoder(), seed=seed).close()
    make_gallery(tmp_path / "vault", OTHER).close()
    return tmp_path


@pytest.fixture
def running(folder, monkeypatch):
    """A service of the gallery staff, and what reloads it with other settings."""
    models = {"other.onnx": OTHER}
    monkeypatch.setattr(OnnxEncoder, "open", lambda path, **_: models.get(path.name, PixelEncoder()))
    before = Config(galleries={"staff": GalleryConfig(folder / "staff")})
    opener = Opener(before)
    galleries = opener.open_all(before)

    class Running:
        def client(self, token=None):
            return Client(service.address, credentials=Credentials(token=Secret(token) if token else None))

        def reload(self, config):
            state["config"] = config
            return service.on_loop(reloader.reload())

    state = {"config": before}

    def read():
        if isinstance(state["config"], Exception):
            raise state["config"]
        return state["config"]

    with serving(list(galleries), galleries.encoders, access=before) as service:
        reloader = Reloader(read, opener, before, service.access.galleries, service.access)
        running = Running()
        running.before, running.reloader = before, reloader
        yield running


def names(client):
    return [gallery.name for gallery in client.galleries()]


def test_galleries_come_and_go_without_a_restart(running, folder, caplog):
    caplog.set_level("INFO")
    guests = GalleryConfig(folder / "guests")
    both = replace(running.before, galleries={**running.before.galleries, "guests": guests})
    with running.client() as client:
        assert names(client) == ["staff"]
        with client.draw("staff") as drawing:
            assert drawing.strokes([line()]).hits
            assert running.reload(both)
            assert names(client) == ["guests", "staff"]
            assert client.search("guests", strokes=[line()]).hits
            assert drawing.strokes([line(0.1, 0.8, 0.9, 0.8)]).hits
            assert running.reload(replace(running.before, galleries={"guests": guests}))
            assert names(client) == ["guests"]
            with pytest.raises(UnknownGalleryError, match="no gallery is named 'staff'; there are: guests"):
                drawing.strokes([line()])
        with pytest.raises(UnknownGalleryError):
            client.search("staff", strokes=[line()])
    assert "settings: gallery guests is served, 24 photos" in caplog.text
    assert "settings: gallery staff is served no longer" in caplog.text


def test_what_was_opened_for_settings_that_fail_is_closed(running, folder, monkeypatch):
    def full(gallery):
        raise MemoryError(gallery.name)

    closed = []
    monkeypatch.setattr(Gallery, "build_approximate", full)
    monkeypatch.setattr(Gallery, "close", lambda gallery: closed.append(gallery.name))
    more = {**running.before.galleries, "guests": GalleryConfig(folder / "guests")}
    newer = replace(running.before, galleries=more, server=replace(running.before.server, approximate=True))
    with pytest.raises(MemoryError, match="guests"):
        running.reloader._prepare(newer)
    assert closed == ["guests"]
    monkeypatch.undo()


def test_a_gallery_of_another_model_brings_its_model(running, folder):
    vault = GalleryConfig(folder / "vault", model=folder / "other.onnx")
    assert running.reload(replace(running.before, galleries={**running.before.galleries, "vault": vault}))
    with running.client() as client:
        hashes = {gallery.name: gallery.model_hash for gallery in client.galleries()}
        assert hashes["vault"] == OTHER.model_hash != hashes["staff"]
        assert client.search("vault", strokes=[line()]).hits


def test_settings_of_a_gallery_hold_at_once(running, folder):
    closed = {"staff": GalleryConfig(folder / "staff", roles=("ingest",))}
    with running.client() as client:
        assert client.search(strokes=[line()]).hits
        with client.draw("staff") as drawing:
            assert running.reload(replace(running.before, galleries=closed))
            with pytest.raises(ForbiddenError, match="gallery staff is not open to the role search"):
                drawing.strokes([line()])
        with pytest.raises(ForbiddenError):
            client.search(strokes=[line()])


def test_keys_and_limits_hold_at_once(running, folder):
    with changing_keys(folder / "keys.json") as keys:
        token = add_key(keys, "desk", ("search",), None, None, {})
    asked = replace(running.before, auth=AuthConfig(folder / "keys.json"), limits=LimitsConfig(calls_per_s=0.5))
    with running.client() as client:
        assert client.galleries()
        assert running.reload(asked)
        with pytest.raises(AuthenticationError):
            client.galleries()
    with running.client(token) as client:
        assert client.galleries()
        with pytest.raises(LimitError):
            client.galleries()
    assert running.reload(running.before)
    with running.client() as client:
        assert client.galleries()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"galleries": {}}, "a service needs at least one gallery, there would be none"),
        ({"galleries": {"none": GalleryConfig(Path("none"))}}, "none is no gallery"),
        ({"galleries": {"vault": GalleryConfig(Path("vault"))}}, "gallery vault was made by model"),
        ({"galleries": {"other": GalleryConfig(Path("guests"))}}, "[galleries.other] path: the folder is named guests"),
        ({"auth": AuthConfig(Path("none.json"))}, "the key file none.json cannot be read"),
        (ConfigError("mgrl.toml: there is no setting server.adress"), "mgrl.toml: there is no setting server.adress"),
    ],
)
def test_what_cannot_be_used_changes_nothing(running, folder, change, message, caplog, monkeypatch):
    monkeypatch.chdir(folder)
    changed = change if isinstance(change, Exception) else replace(running.before, **change)
    assert not running.reload(changed)
    assert f"the settings as they were stay in force: {message}" in caplog.text
    assert running.reloader.config == running.before
    with running.client() as client:
        assert names(client) == ["staff"]
        assert client.search(strokes=[line()]).hits


def test_what_takes_a_restart_is_named_and_stays():
    pair = {"certificate": Path("a"), "key": Path("b")}
    before = Config(ServerConfig(threads=2), audit=AuditConfig(Path("a")))
    newer = Config(
        ServerConfig(threads=3, grace_s=1.0), TlsConfig(**pair), audit=AuditConfig(Path("b")), limits=LimitsConfig(1.0)
    )
    config, waiting = settled(before, newer)
    assert waiting == ["server.threads", "server.grace_s", "tls.certificate", "tls.key", "audit.file"]
    assert config == replace(before, limits=LimitsConfig(1.0))
    assert settled(before, before) == (before, [])


def test_what_waits_for_a_restart_keeps_nothing_else_waiting():
    pair = {"key": Path("b"), "client_ca": Path("c")}
    before = Config(tls=TlsConfig(Path("a"), **pair), audit=AuditConfig(Path("a")))
    newer = Config(
        tls=TlsConfig(Path("renewed"), **pair, client_roles=()),
        audit=AuditConfig(Path("b"), sync_s=1.0, rotate_bytes=5000, sketches=True),
    )
    config, waiting = settled(before, newer)
    assert waiting == ["tls.certificate", "audit.file", "audit.rotate_bytes"]
    assert config.tls == TlsConfig(Path("a"), **pair, client_roles=())
    assert config.audit == AuditConfig(Path("a"), sync_s=1.0, sketches=True)


def test_what_cannot_do_without_a_restart_says_so():
    newer = Config(audit=AuditConfig(Path("a")), galleries={"staff": GalleryConfig(audit_required=True)})
    with pytest.raises(ConfigError, match=r"\[audit\] file is not set: changes to audit\.file take a restart"):
        settled(Config(), newer)


def test_open_drawings_are_asked_by_the_new_settings(running, folder):
    with changing_keys(folder / "keys.json") as keys:
        add_key(keys, "desk", ("search",), None, None, {})
    with running.client() as client, client.draw() as drawing:
        assert drawing.strokes([line()]).hits
        assert running.reload(replace(running.before, limits=LimitsConfig(strokes_per_s=0.1)))
        assert drawing.strokes([line()]).hits
        with pytest.raises(LimitError, match=r"anyone may ask for 0\.1 strokes a second"):
            drawing.strokes([line()])
        assert running.reload(replace(running.before, auth=AuthConfig(folder / "keys.json")))
        with pytest.raises(AuthenticationError, match="no key was sent"):
            drawing.strokes([line()])


@pytest.mark.e2e
def test_sighup_reads_the_file_again(folder):
    file = folder / "mgrl.toml"
    file.write_text("[server]\naddress = '127.0.0.1:0'\ngrace_s = 0.1\n[galleries.staff]\n")
    command = [sys.executable, "-c", SERVE, "--config", str(file)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        try:
            ready = process.stdout.readline().strip()
            assert ready.startswith("serving 1 gallery, 24 photos, on 127.0.0.1:"), process.stderr.read()
            with Client(ready.rpartition(" ")[2]) as client:
                file.write_text(file.read_text() + "[galleries.guests]\n")
                os.kill(process.pid, signal.SIGHUP)
                until = time.monotonic() + 10
                while names(client) != ["guests", "staff"] and time.monotonic() < until:
                    time.sleep(0.05)
                assert names(client) == ["guests", "staff"]
                file.write_text("[server]\nthreds = 2\n")
                os.kill(process.pid, signal.SIGHUP)
                errors = ""
                while "stay in force" not in errors:
                    errors = process.stderr.readline()
                assert "there is no setting server.threds; did you mean server.threads?" in errors
                assert names(client) == ["guests", "staff"]
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=10)
            assert process.returncode == 0
        finally:
            process.kill()
