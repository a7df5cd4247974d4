"""Several processes on one port, watched over by one that starts anew what dies."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from indexer.errors import ConfigError
from service.admin_client import AdminClient
from service.audit_chain import read_records, verify
from service.bench.target import make_galleries
from service.cli import main
from service.client import Client
from service.config import ServerConfig
from service.processes import Supervisor, _reserved
from tests.service.conftest import line
from tests.service.test_operation import get, value

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_galleries(tmp_path_factory.mktemp("several"), 1, 200)[0]


@contextmanager
def several(folder, *options, processes=2):
    command = [sys.executable, "-m", "service.cli", "serve", str(folder), "--address", "127.0.0.1:0", *options]
    more = ["--processes", str(processes), "--metrics-address", "127.0.0.1:0", "--grace", "5"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, *more], cwd=ROOT, text=True, start_new_session=True, **pipes) as process:
        try:
            said = process.stdout.readline()
            assert said.startswith(f"serving 200 photos in {processes} processes on 127.0.0.1:"), process.stderr.read()
            metrics = process.stdout.readline().strip().removeprefix("metrics on http://").removesuffix("/metrics")
            yield process, said.split()[-1], metrics
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def children(pid):
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    # multiprocessing's resource tracker is a child as well.
    return [int(child) for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def until(condition, timeout_s=30):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.e2e
@pytest.mark.slow
def test_several_processes_answer_count_and_survive_the_death_of_one(folder):
    with several(folder) as (process, address, metrics):
        assert len(children(process.pid)) == 2
        assert get(metrics, "/readyz") == (200, "ready\n")
        for _ in range(12):
            with Client(address) as client:
                assert len(client.search(strokes=[line()]).hits) == 10
        _, page = get(metrics, "/metrics")
        assert value(page, "mgrl_calls_total", method="Search", code="OK") == 12
        assert value(page, "mgrl_gallery_photos", gallery="faces0") == 200
        assert value(page, "process_resident_memory_bytes") > 50e6
        killed = children(process.pid)[0]
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(children(process.pid)) == 2 and killed not in children(process.pid))
        until(lambda: get(metrics, "/readyz")[0] == 200)
        with Client(address) as client, client.draw() as drawing:
            assert drawing.strokes([line()]).hits
            process.send_signal(signal.SIGTERM)
            until(lambda: get(metrics, "/readyz")[0] == 503)
            assert drawing.strokes([line(y0=0.6)]).hits, "what is open may finish"
        process.communicate(timeout=20)
        assert process.returncode == 0
        assert not Path(f"/proc/{killed}").exists()


@pytest.mark.e2e
@pytest.mark.slow
def test_they_end_when_the_one_that_watches_is_killed(folder):
    with several(folder) as (process, _, _):
        orphans = children(process.pid)
        process.kill()
        process.wait()
        until(lambda: not any(Path(f"/proc/{orphan}/cmdline").exists() for orphan in orphans))


def test_a_port_is_kept_for_those_that_share_it_and_for_nobody_else():
    with _reserved("127.0.0.1:0") as address:
        port = int(address.rpartition(":")[2])
        with socket.socket() as one_of_ours:
            one_of_ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one_of_ours.bind(("127.0.0.1", port))
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with pytest.raises(ConfigError, match="cannot listen on "), _reserved(address):
            pass


def of_many_connections(address, ask):
    """What as many connections hear that they are sure to have met both processes: (1 / 2) ** 19 say they have not."""
    heard = []
    for _ in range(20):
        with Client(address) as client:
            heard.append(ask(client))
    return heard


@pytest.mark.e2e
@pytest.mark.slow
def test_changed_settings_reach_all_whoever_hears_of_them(folder, tmp_path):
    other, settings = make_galleries(tmp_path, 2, 50)[1], tmp_path / "mgrl.toml"
    settings.write_text("")

    def served(client):
        return [gallery.name for gallery in client.galleries()]

    with several(folder, "--config", str(settings)) as (process, address, _):
        assert of_many_connections(address, served) == [["faces0"]] * 20
        settings.write_text(f'[galleries.faces1]\npath = "{other}"\n')
        with AdminClient(address) as admin:
            admin.reload()
        until(lambda: of_many_connections(address, served) == [["faces0", "faces1"]] * 20)
        settings.write_text("")
        process.send_signal(signal.SIGHUP)
        until(lambda: of_many_connections(address, served) == [["faces0"]] * 20)
        settings.write_text("[server]\nno_such = 1\n")
        with AdminClient(address) as admin, pytest.raises(ConfigError, match="stay as they were"):
            admin.reload()
        assert of_many_connections(address, served) == [["faces0"]] * 20


@pytest.mark.e2e
@pytest.mark.slow
def test_draining_one_drains_all(folder):
    with several(folder) as (process, address, metrics):
        with Client(address) as client, client.draw() as drawing, AdminClient(address) as admin:
            assert drawing.strokes([line()]).hits
            admin.drain()
            until(lambda: get(metrics, "/readyz")[0] == 503)
            assert drawing.strokes([line(y0=0.6)]).hits, "what is open may finish"
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "started anew" not in said


@pytest.mark.e2e
@pytest.mark.slow
def test_they_write_one_audit_log(folder, tmp_path):
    log = tmp_path / "audit.jsonl"
    with several(folder, "--set", f"audit.file={log}") as (process, address, _):
        of_many_connections(address, lambda client: client.search(strokes=[line()], purpose="a test"))
        ours = children(process.pid)
        process.terminate()
        process.communicate(timeout=20)
    found = list(read_records(log))
    assert verify(log).problems == ()
    assert [record["purpose"] for record in found if record["event"] == "Search"] == ["a test"] * 20
    for event in ("opened", "closed"):
        assert sorted(record["process"] for record in found if record["event"] == event) == sorted(ours)


@pytest.fixture
def handlers():
    """Of signals, as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def begins_slowly(address, overseer):
    overseer.signal_all(signal.SIGHUP)
    time.sleep(0.6)  # it would be killed
    heard = []
    signal.signal(signal.SIGHUP, lambda *_: heard.append(True))
    overseer.is_ready(1)
    until(lambda: heard)
    overseer.signal_all(signal.SIGTERM)
    time.sleep(20)


@pytest.mark.usefixtures("handlers")
def test_one_that_begins_is_told_of_changed_settings_when_it_is_ready():
    assert Supervisor(begins_slowly, ServerConfig("127.0.0.1:0", processes=1)).run() == 0


def dies(address, overseer):
    sys.exit(3)


@pytest.mark.usefixtures("handlers")
def test_what_dies_again_and_again_before_it_is_ready_ends_the_service(capfd):
    assert Supervisor(dies, ServerConfig("127.0.0.1:0", processes=2)).run() == 1
    assert "a process ended 3 times before it was ready" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes", "0"], "processes must be at least 1, got 0"),
        (["--processes", "2", "--writable"], "a gallery has one writer: writable needs processes = 1"),
    ],
)
def test_bad_settings_are_refused(folder, options, message, capsys):
    assert main(["serve", str(folder), *options]) == 1
    assert message in capsys.readouterr().err
