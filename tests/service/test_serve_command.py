"""`mgrl serve` in a process of its own, and `mgrl query` against it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from indexer.encoding import OnnxEncoder
from indexer.episode import Episode
from indexer.errors import ConfigError
from service import cli
from service.admin_client import AdminClient
from service.client import Client
from service.errors import ServiceError
from tests.conftest import PixelEncoder
from tests.service.conftest import line, make_gallery, png, serving

# The default model is replaced by one that needs no training; everything else is what a user runs.
SERVE = """
import sys
from tests.conftest import PixelEncoder
from service import cli
from indexer.encoding import OnnxEncoder
OnnxEncoder.open = lambda *_, **__: PixelEncoder()
sys.exit(cli.main(["serve", *sys.argv[1:]]))
"""


@pytest.fixture
def pixel_model(monkeypatch):
    monkeypatch.setattr(OnnxEncoder, "open", lambda *_, **__: PixelEncoder())


@pytest.fixture
def mgrl(capsys, pixel_model):
    """Run a command in this process; its exit status, output and errors."""

    def run(*arguments):
        status = cli.main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


@pytest.fixture
def folder(tmp_path):
    make_gallery(tmp_path / "stored" / "faces", PixelEncoder()).close()
    return tmp_path / "stored" / "faces"


@pytest.fixture
def drawing(tmp_path):
    Episode((line(), line(0.5, 0.1, 0.5, 0.9), line(0.1, 0.8, 0.9, 0.8)), (1, 2, 3)).save(tmp_path / "drawing.json")
    return tmp_path / "drawing.json"


@pytest.fixture
def picture(tmp_path):
    (tmp_path / "sketch.png").write_bytes(png())
    return tmp_path / "sketch.png"


@pytest.mark.e2e
def test_an_admin_has_the_settings_read_again_and_the_service_stopped(folder, tmp_path):
    settings = tmp_path / "mgrl.toml"
    settings.write_text(f'[galleries.faces]\npath = "{folder}"\n')
    command = [sys.executable, "-c", SERVE, "--config", str(settings), "--address", "127.0.0.1:0", "--grace", "5"]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root)
    try:
        address = process.stdout.readline().strip().rpartition(" ")[2]
        with AdminClient(address) as admin:
            admin.reload()
            settings.write_text("nonsense")
            with pytest.raises(ConfigError, match="stay as they were"):
                admin.reload()
            admin.drain()
        assert process.wait(30) == 0
        assert "the settings as they were stay in force" in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.e2e
def test_serve_says_when_it_is_ready_and_stops_on_sigterm(folder):
    command = [sys.executable, "-c", SERVE, str(folder), "--address", "127.0.0.1:0", "--grace", "0.1"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        ready = process.stdout.readline().strip()
        assert ready.startswith("serving 1 gallery, 24 photos, on 127.0.0.1:"), process.stderr.read()
        address = ready.rpartition(" ")[2]
        assert not address.endswith(":0")
        with Client(address) as client, client.draw("faces", resume_s=0) as drawing:
            assert drawing.strokes([line()]).hits
            os.kill(process.pid, signal.SIGTERM)
            with pytest.raises(ServiceError, match="the service is stopping"):
                drawing.answer(99)
        output, errors = process.communicate(timeout=10)
        assert (process.returncode, output) == (0, "")
        (call,) = errors.splitlines()
        assert "method=Draw code=UNAVAILABLE" in call
    finally:
        process.kill()
        process.communicate()


def test_a_port_in_use_ends_the_command(mgrl, folder, service):
    status, _, errors = mgrl("serve", folder, "--address", service.address)
    assert status == 1
    assert errors.startswith(f"mgrl serve: cannot listen on {service.address}: the port is in use")


def test_serving_beyond_this_machine_is_refused_unless_said(mgrl, folder, service):
    port = service.address.rpartition(":")[2]
    status, _, errors = mgrl("serve", folder, "--address", f"0.0.0.0:{port}")
    assert (status, errors) == (
        1,
        f"mgrl serve: whoever reaches 0.0.0.0:{port} could search these galleries without a key; make one (mgrl keys "
        "add) and name its file, listen on 127.0.0.1, or say --insecure\n",
    )
    # Said explicitly it goes on, to the port that is in use.
    _, _, errors = mgrl("serve", folder, "--address", f"0.0.0.0:{port}", "--insecure")
    assert errors.startswith(f"mgrl serve: cannot listen on 0.0.0.0:{port}")


def test_galleries_that_cannot_be_served_are_refused(mgrl, tmp_path, folder):
    make_gallery(tmp_path / "foreign", PixelEncoder(seed=5)).close()
    make_gallery(tmp_path / "second" / "faces", PixelEncoder()).close()
    refused = {
        (): "a service needs at least one gallery, got none; name one, or",
        (tmp_path / "foreign",): "gallery foreign was made by model",
        (folder, tmp_path / "second" / "faces"): "galleries must have different names, two are named faces",
        (tmp_path / "second",): "second is no gallery",
    }
    for folders, message in refused.items():
        status, output, errors = mgrl("serve", *folders, "--address", "127.0.0.1:0")
        assert (status, output) == (1, "")
        assert errors.startswith(f"mgrl serve: {message}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address", "here"], "an address must be HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051, got 'here'"),
        (["--threads", "0"], "threads must be at least 1, got 0"),
        (["--grace", "-1"], "grace_s must be at least 0, got -1.0"),
    ],
)
def test_bad_settings_are_refused(mgrl, folder, options, message):
    assert mgrl("serve", folder, *options) == (1, "", f"mgrl serve: {message}\n")


def test_query_with_a_picture_prints_a_table(mgrl, service, picture, client):
    status, output, errors = mgrl("query", picture, "--address", service.address, "-k", 3)
    hits = client.search(raster=picture.read_bytes(), k=3).hits
    rows = output.splitlines()
    assert (status, errors) == (0, "")
    assert rows[0].split() == ["rank", "photo", "distance", "1x1", "2x2", "3x3"]
    assert [row.split()[:3] for row in rows[1:4]] == [[str(h.rank), h.photo_id, f"{h.distance:.4f}"] for h in hits]
    assert rows[4].startswith("24 photos ranked exactly: raster ")
    assert rows[5] == "a lead, not an identification"


def test_query_live_prints_after_every_stroke(mgrl, service, drawing, tmp_path, client):
    found = tmp_path / "found.json"
    status, output, _ = mgrl("query", drawing, "--live", "--address", service.address, "-k", 4, "--json", found)
    assert status == 0
    assert [row.split("  ")[0] for row in output.splitlines()[:4]] == ["stroke 1/3", "stroke 2/3", "stroke 3/3", "rank"]
    answers = json.loads(found.read_text())["answers"]
    assert [answer["strokes"] for answer in answers] == [1, 2, 3]
    expected = client.search(strokes=Episode.load(drawing).strokes, k=4)
    assert [hit["photo_id"] for hit in answers[-1]["hits"]] == [hit.photo_id for hit in expected.hits]
    assert len(answers[-1]["hits"][0]["region_distances"]) == 14
    for hit in answers[-1]["hits"]:
        moved = " (new)" if hit["is_new"] else f" ({hit['rank_change']:+d})" if hit["rank_change"] else "  "
        assert hit["photo_id"] + moved in output.splitlines()[2] + "  "


def test_query_counts_the_strokes_of_a_drawing_that_is_sent_at_once(mgrl, service, drawing, picture, tmp_path):
    found = tmp_path / "found.json"
    for sketch, strokes in ((drawing, 3), (picture, 0)):
        assert mgrl("query", sketch, "--address", service.address, "--json", found)[0] == 0
        assert [answer["strokes"] for answer in json.loads(found.read_text())["answers"]] == [strokes]


def test_query_takes_weights_and_saves_thumbnails(mgrl, service, drawing, tmp_path, client, gallery):
    options = ["--weights", 0, 0, 1, "--save-thumbnails", tmp_path / "found", "-k", 2]
    status, _, _ = mgrl("query", drawing, "--address", service.address, *options)
    hits = client.search(strokes=Episode.load(drawing).strokes, k=2, weights={1: 0, 2: 0, 3: 1}).hits
    saved = {path.name: path.read_bytes() for path in (tmp_path / "found").iterdir()}
    assert status == 0
    assert saved == {f"{h.rank:03d}-{h.photo_id}.jpg": gallery.photo(h.photo_id).thumbnail for h in hits}


def test_query_with_a_blank_picture_says_no_ink_yet(mgrl, service, tmp_path):
    (tmp_path / "blank.png").write_bytes(png(lambda _: None))
    status, output, _ = mgrl("query", tmp_path / "blank.png", "--address", service.address)
    assert (status, len(output.splitlines())) == (0, 1)
    assert output.startswith("no ink yet")


def test_queries_that_cannot_be_answered_say_why(mgrl, service, picture, drawing, tmp_path):
    (tmp_path / "torn.json").write_text('{"strokes": [')
    (tmp_path / "text.png").write_text("no picture")
    at = ["--address", service.address]
    refused = {
        (tmp_path / "gone.png", *at): "cannot read the sketch",
        (tmp_path / "torn.json", *at): "torn.json must be a JSON file with a drawing: Expecting value",
        (tmp_path / "text.png", *at): "a raster sketch must be a whole PNG, JPEG or WebP file",
        (picture, "--live", *at): "--live needs a drawing with strokes (.json)",
        (picture, "--gallery", "places", *at): "no gallery is named 'places'; there are: faces",
        (picture, "-k", "0", *at): "k must be from 1 to 1000, got 0",
        (drawing, "--weights", "1", "-1", "1", *at): "the weight of granularity 2 must be finite and >= 0, got -1.0",
        (picture, "--address", "127.0.0.1:1"): "no service answers at 127.0.0.1:1; start one with: mgrl serve GALLERY",
        (picture, "--json", picture / "found.json", *at): "cannot write",
    }
    for arguments, message in refused.items():
        status, _, errors = mgrl("query", *arguments)
        assert status == 1
        assert errors.startswith(f"mgrl query: {message}")


def test_query_lists_the_galleries_when_none_is_named(mgrl, tmp_path, picture, encoder):
    galleries = [make_gallery(tmp_path / name, encoder, seed=seed) for seed, name in enumerate(("staff", "guests"))]
    with serving(galleries, encoder) as running:
        status, _, errors = mgrl("query", picture, "--address", running.address)
        assert (status, errors) == (1, "mgrl query: several galleries are served, name one of: guests, staff\n")
        assert mgrl("query", picture, "--address", running.address, "--gallery", "staff")[0] == 0


def test_what_a_terminal_obeys_is_not_printed(mgrl, tmp_path, picture, encoder):
    gallery = make_gallery(tmp_path / "faces", encoder, photos=1)
    gallery._contents.photo_ids[0] = "anna\x1b[2J"
    with serving([gallery], encoder) as running:
        _, output, _ = mgrl("query", picture, "--address", running.address)
    assert r"anna\x1b[2J" in output
    assert "\x1b" not in output
