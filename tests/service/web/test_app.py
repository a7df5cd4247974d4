"""The sketchpad's bridge, asked as a browser asks and as one must not."""

import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from indexer.errors import ConfigError, QueryError
from indexer.regions import REGIONS
from service import cli
from service.web.app import PAGE
from service.web.bridge import request_from_json
from tests.service.conftest import ids, line, make_gallery, png, serving
from tests.service.web.page import Page, page_for

ROOT = Path(__file__).parents[3]
DOCUMENTED = re.search(r"```sh\n(.*?)```", (ROOT / "docs" / "sketchpad.md").read_text(), re.DOTALL)[1].splitlines()


@pytest.fixture
def page(service):
    with page_for(service.address) as running:
        yield running


def say(socket, sequence, **action):
    socket.send(json.dumps({"sequence": sequence, **action}))
    return json.loads(socket.recv(5))


def message(stroke):
    x, y = stroke.points.T.tolist()
    return {"strokes": {"strokes": [{"x": x, "y": y, "width": stroke.width}]}}


def test_the_page_gets_the_answers_that_any_client_gets(page, client, gallery):
    with page.draw() as drawing:
        begun = say(drawing, 1, begin={"options": {"k": 4}})
        answered = say(drawing, 2, **message(line()))
        undone = say(drawing, 3, undo={"count": 1})
    assert (begun["result"]["no_ink"], begun["sequence"]) == (True, 1)
    expected = client.search(strokes=[line()], k=4)
    hits = answered["result"]["ranking"]["hits"]
    assert [hit["photo_id"] for hit in hits] == ids(expected)
    np.testing.assert_allclose([hit["distance"] for hit in hits], [hit.distance for hit in expected.hits], atol=1e-6)
    assert all(len(hit["region_distances"]) == REGIONS for hit in hits)
    assert answered["result"]["ranking"]["exact"] is True
    assert undone["result"]["no_ink"] is True
    assert "strokes" not in undone["result"]


def test_a_refused_stroke_is_answered_and_the_drawing_goes_on(page):
    with page.draw() as drawing:
        say(drawing, 1, begin={})
        outside = say(drawing, 2, strokes={"strokes": [{"x": [2.0], "y": [0.5]}]})
        assert "canvas units run from 0 to 1" in outside["error"]["message"]
        assert outside["error"]["details"][0]["reason"] == "SKETCH_ERROR"
        assert say(drawing, 3, **message(line()))["result"]["strokes"] == 1


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[]", "7", '{"sequence": "x"}', '{"colour": 1}', "[" * 100_000, '{"undo": 3}'],
)
def test_what_is_no_message_is_refused(text):
    with pytest.raises(QueryError, match="must be the JSON form of a DrawRequest"):
        request_from_json(text)


def test_what_is_no_message_ends_the_drawing_for_good(page):
    with page.draw() as drawing:
        drawing.send('{"begin": {"options": {"k": "many"}}}')
        ended = json.loads(drawing.recv(5))["ended"]
    assert ended["then"] == "stop"
    assert "JSON form of a DrawRequest" in ended["message"]


def test_bytes_end_the_drawing_for_good(page, caplog):
    with page.draw() as drawing:
        drawing.send(b'{"begin": {}}')
        assert json.loads(drawing.recv(5))["ended"] == {"message": "a message must be text, got bytes", "then": "stop"}
    assert caplog.records == []


def test_a_drawing_that_is_unknown_is_to_be_sent_anew(page):
    with page.draw() as drawing:
        ended = say(drawing, 0, resume={"token": "x" * 32})["ended"]
    assert ended["then"] == "anew"


def test_a_message_above_the_services_limit_ends_the_drawing_for_good(page):
    with page.draw() as drawing:
        ended = say(drawing, 1, begin={"gallery": "x" * (5 << 20)})["ended"]
    assert ended["then"] == "stop"
    assert "above the service's limit" in ended["message"]


def test_a_message_above_the_bridges_limit_closes_its_connection_and_no_other(page, caplog):
    with page.draw() as other, page.draw() as drawing:
        say(other, 1, begin={})
        with pytest.raises(ConnectionClosed):
            say(drawing, 1, begin={"gallery": "x" * (7 << 20)})
        assert say(other, 2, **message(line()))["result"]["strokes"] == 1
    assert [record for record in caplog.records if record.name != "websockets.client"] == []


def test_options_that_the_service_refuses_end_the_drawing_for_good(page):
    with page.draw() as drawing:
        ended = say(drawing, 1, begin={"options": {"k": 0}})["ended"]
    assert ended["then"] == "stop"
    assert ended["message"] == "k must be from 1 to 1000, got 0"


def test_two_tabs_have_two_drawings(page):
    with page.draw() as one, page.draw() as other:
        for drawing in (one, other):
            say(drawing, 1, begin={})
        say(one, 2, **message(line()))
        assert say(one, 3, **message(line(y0=0.6, y1=0.6)))["result"]["strokes"] == 2
        assert say(other, 2, **message(line()))["result"]["strokes"] == 1


def test_a_thousand_strokes_are_one_message(page):
    strokes = [message(line(y0=n / 1000, y1=1 - n / 1000))["strokes"]["strokes"][0] for n in range(1000)]
    with page.draw() as drawing:
        say(drawing, 1, begin={})
        assert say(drawing, 2, strokes={"strokes": strokes})["result"]["strokes"] == 1000


def test_without_the_service_the_page_is_there_and_says_so(encoder, gallery):
    with serving([gallery], encoder) as running:
        address = running.address
    with page_for(address) as page:
        with page.draw() as drawing:
            ended = json.loads(drawing.recv(5))["ended"]
        assert ended["then"] == "again"
        assert "no service answers" in ended["message"]
        assert page.get("/").status_code == 200
        assert page.get("/api/galleries").status_code == 503


def test_a_service_that_stops_ends_the_drawing_which_may_come_back(page, service):
    with page.draw() as drawing:
        say(drawing, 1, begin={})
        service.on_loop(service.server.stop(0.1))
        ended = json.loads(drawing.recv(5))["ended"]
    assert ended["then"] == "again"


def test_the_page_loads_nothing_from_elsewhere_and_says_so_to_the_browser(page):
    served = page.get("/")
    assert "default-src 'none'; script-src 'self'" in served.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in served.headers["content-security-policy"]
    assert served.headers["x-content-type-options"] == "nosniff"
    assert "a lead, not an identification" in served.text.lower()
    for path in PAGE.iterdir():
        found = page.get(f"/{path.name}")
        assert (found.status_code, found.content) == (200, path.read_bytes())
        outside = set(re.findall(r"https?://[\w./]+|url\(|@import|\bstyle=|\bon[a-z]+=\"", path.read_text()))
        assert outside <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "{}@evil.example", "{}.evil.example", "{}/"])
def test_another_page_cannot_draw(page, origin):
    with pytest.raises(InvalidStatus, match="403"), page.draw(origin.format(page.origin)):
        pass


def test_two_origins_are_none(page):
    with pytest.raises(InvalidStatus, match="400"):
        connect(f"ws://{page.host}/api/draw", origin=page.origin, additional_headers={"Origin": "http://evil.example"})


@pytest.mark.parametrize(
    "path",
    ["/%00", "/..%2fapp.py", "/%2e%2e/app.py", "//evil.example/", "/api/thumbnail?id=%00", "/api/photo?gallery=%ff"],
)
def test_odd_paths_lead_nowhere(page, path):
    with socket.create_connection(page.host.split(":")) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {page.host}\r\nConnection: close\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 404")


def test_another_page_cannot_send_a_scan_nor_embed_a_photo(page, gallery):
    photo = f"/api/thumbnail?id={gallery.photo_ids[0]}"
    assert httpx.post(page.origin + "/api/scan", content=png()).status_code == 403
    evil = {"Origin": "http://evil.example"}
    assert httpx.post(page.origin + "/api/scan", content=png(), headers=evil).status_code == 403
    assert page.get(photo, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert page.get(photo).headers["cross-origin-resource-policy"] == "same-origin"
    # A name of somebody else's that was made to mean 127.0.0.1.
    assert page.get("/", Host=f"evil.example:{page.host.rpartition(':')[2]}").status_code == 403


def test_galleries_and_photos_are_told_as_the_service_tells_them(page, gallery):
    assert page.get("/api/galleries").json() == [{"name": "faces", "photos": 24, "fields": {}}]
    photo_id = gallery.photo_ids[3]
    known = page.get(f"/api/photo?gallery=faces&id={photo_id}").json()
    assert known == {"photo_id": photo_id, "source": f"people/{photo_id}.jpg", "metadata": {}}
    thumbnail = page.get(f"/api/thumbnail?gallery=faces&id={photo_id}")
    assert (thumbnail.content, thumbnail.headers["content-type"]) == (gallery.photo(photo_id).thumbnail, "image/jpeg")
    for missing in ("/api/photo?id=nobody", "/api/thumbnail?id=nobody", "/api/photo?gallery=none&id=x"):
        assert page.get(missing).status_code == 404
    assert page.get("/../app.py").status_code == 404


def test_a_scan_comes_back_clean(page):
    cleaned = httpx.post(page.origin + "/api/scan", content=png(), headers={"Origin": page.origin})
    assert cleaned.status_code == 200
    with Image.open(io.BytesIO(cleaned.content)) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (768, 768)
    assert np.median(pixels) == 255


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"GIF89a no picture", "must be a whole JPEG, PNG or WebP file"),
        (png()[:300], "cut short or damaged"),
        (b"\0" * (21 << 20), "a scan may have 20 MiB"),
        (png(lambda _: None), "shows no ink"),
    ],
)
def test_what_is_no_scan_is_refused(page, data, words):
    refused = httpx.post(page.origin + "/api/scan", content=data, headers={"Origin": page.origin})
    assert refused.status_code == 400
    assert words in refused.json()["message"]


def test_a_port_in_use_is_refused(service):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"the page cannot have port {port}"), page_for(service.address, port):
            pass


@pytest.mark.parametrize("command", [["sketchpad", "./gallery"], ["serve", "./gallery", "--web"]])
def test_without_the_extra_the_command_says_what_to_install(command, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.split(".")[0] == "starlette" or name.startswith("service.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert cli.main(command) == 1
    assert "install it with: pip install 'mgrl[web]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--service", "search.example:50051", "--key-file", "KEY"], "the key would travel to search.example:50051"),
        (["--service", "127.0.0.1:1", "--ca", "roots.pem"], "roots.pem cannot be read"),
    ],
)
def test_credentials_that_cannot_be_used_are_told_before_a_page_is_served(options, message, tmp_path, capsys):
    (tmp_path / "desk.key").write_text("a key")
    named = [str(tmp_path / "desk.key") if option == "KEY" else option for option in options]
    assert cli.main(["sketchpad", *named, "--port", "0"]) == 1
    told = capsys.readouterr()
    assert message in told.err
    assert told.out == ""


def test_an_upload_that_is_given_up_is_no_fault(page, caplog):
    host, _, port = page.host.rpartition(":")
    with socket.create_connection((host, int(port))) as half:
        head = f"POST /api/scan HTTP/1.1\r\nHost: {page.host}\r\nOrigin: {page.origin}\r\nContent-Length: 999\r\n\r\n"
        half.sendall(head.encode() + b"the beginning")
    assert httpx.post(page.origin + "/api/scan", content=png(), headers={"Origin": page.origin}).status_code == 200
    assert caplog.records == []


def test_the_command_wants_galleries_or_a_service(capsys):
    assert cli.main(["sketchpad"]) == 1
    assert "name galleries, or a running service with --service" in capsys.readouterr().err


def test_serve_stops_where_its_page_cannot_be_had(tmp_path, encoder):
    make_gallery(tmp_path / "faces", encoder).close()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = ["serve", str(tmp_path / "faces"), "--web", str(port), "--address", "127.0.0.1:0"]
        command = [sys.executable, "-c", COMMAND, *options]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(rf"mgrl serve: the page cannot have port {port}: .*; choose another one, or 0.*\n", done.stderr)


def test_serve_gives_no_page_to_who_has_no_key(tmp_path, encoder, capsys):
    make_gallery(tmp_path / "faces", encoder).close()
    keyed = ["--set", f"auth.keys={tmp_path / 'keys'}", "--address", "127.0.0.1:0"]
    assert cli.main(["serve", str(tmp_path / "faces"), "--web", "0", *keyed]) == 1
    assert "--web would let whoever sits at this machine search without a key" in capsys.readouterr().err


COMMAND = """
import sys
from tests.conftest import PixelEncoder
from service import cli
from indexer.encoding import OnnxEncoder
OnnxEncoder.open = lambda *_, **__: PixelEncoder()
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.e2e
@pytest.mark.parametrize(
    "options",
    [
        [*shlex.split(DOCUMENTED[1])[1:], "--port", "0"],
        ["serve", "faces", "--web", "0", "--address", "127.0.0.1:0"],
        ["demo", "--count", "4", "--stages", "2", "--folder", "demo", "--web", "0"],
    ],
)
def test_the_commands_serve_the_page_until_a_signal(tmp_path, encoder, options):
    make_gallery(tmp_path / "faces", encoder).close()
    places = {"faces": tmp_path / "faces", "./gallery": tmp_path / "faces", "demo": tmp_path / "demo"}
    options = [options[0], *(str(places.get(option, option)) for option in options[1:])]
    command = [sys.executable, "-c", COMMAND, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        ready = next(line for line in process.stdout if line.startswith("sketchpad on "))
        page = Page(ready.split()[2])
        with page.draw() as drawing:
            say(drawing, 1, begin={"options": {"k": 3}})
            assert len(say(drawing, 2, **message(line()))["result"]["ranking"]["hits"]) == 3
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(15) == 0
        assert "photo0" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
