"""Photos behind URLs: in this process's memory, on a local S3 server, and on a local web server."""

import io
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.errors import ConfigError, DataError, ImageError
from indexer.ingest import ingest
from indexer.placing import Duplicates
from indexer.sources import remote
from indexer.sources.failed import OutcomeFile, failed_row
from indexer.sources.item import Item
from indexer.sources.remote import fetched, read_url
from indexer.sources.spelled import open_source
from indexer.store import Store
from tests.conftest import PixelEncoder
from tests.indexer.sources.test_shard import archive
from tests.indexer.test_ingest import paint


@pytest.fixture
def faces(tmp_path: Path) -> list[bytes]:
    return [paint(tmp_path / "made" / f"{n}.png", n).read_bytes() for n in range(6)]


@pytest.fixture
def memory() -> Iterator[str]:
    """A folder in this process's memory."""
    system = fsspec.filesystem("memory")
    yield "memory://pictures"
    system.rm("/pictures", recursive=True)


def fill(url: str, faces: list[bytes]) -> None:
    """A bucket with photos in folders, a shard, manifests of both kinds, and what is no photo."""
    system, root = fsspec.core.url_to_fs(url)
    system.pipe(f"{root}/faces/b/1.png", faces[1])
    system.pipe(f"{root}/faces/a.png", faces[0])
    system.pipe(f"{root}/faces/c.txt", b"no photo")
    system.pipe(f"{root}/shards/0.tar", archive({"2.png": faces[2], "2.json": b'{"age": 2}'}))
    system.pipe(f"{root}/shards/1.tar", archive({"3.png": faces[3]}))
    system.pipe(f"{root}/people.jsonl", json.dumps({"path": "faces/a.png", "photo_id": "ann", "age": 30}).encode())
    table = io.BytesIO()
    rows = {"url": [f"{url}/faces/a.png", f"{url}/faces/gone.png"], "photo_id": ["ann", "bob"]}
    pq.write_table(pa.table(rows), table)
    system.pipe(f"{root}/people.parquet", table.getvalue())


def everything(folder: Path, url: str) -> None:
    """All kinds of sources in one place, one after the other."""
    encoder = PixelEncoder()
    report = ingest(folder / "g", [f"{url}/faces", f"{url}/shards/*.tar"], encoder, batch=2)
    assert (report.added, report.described) == (4, 1)
    store = Store.open(folder / "g")
    assert store.snapshot().contents.photo_ids == ["a", "b/1", "2", "3"]
    assert (store.photo("b/1").source, store.photo("2").source) == ("faces/b/1.png", "0.tar/2.png")
    assert store.photo("2").metadata == {"age": 2.0}
    again = ingest(folder / "g", [f"{url}/faces", f"{url}/shards/{{0..1}}.tar"], encoder)
    assert (again.added, again.already_there) == (0, 4)
    # A manifest's own id for a photo that is there under the id of its place: another name.
    report = ingest(folder / "g", [f"{url}/people.jsonl"], encoder, duplicates=Duplicates.ALIAS)
    assert (report.added, report.duplicates, store.photo("ann").source) == (0, 1, "faces/a.png")
    with OutcomeFile(folder / "failed.jsonl", failed_row) as failed:
        report = ingest(folder / "g", [f"{url}/people.parquet"], encoder, on_outcome=failed.note)
    assert (report.already_there, report.failed) == (1, 1)
    (row,) = map(json.loads, (folder / "failed.jsonl").read_text().splitlines())
    assert (row["url"], row["photo_id"]) == (f"{url}/faces/gone.png", "bob")
    assert row["#reason"].endswith("faces/gone.png is not there")


def test_every_kind_of_source_behind_a_url(tmp_path: Path, faces: list[bytes], memory: str) -> None:
    fill(memory, faces)
    everything(tmp_path, memory)


def test_a_file_url_tells_nobody_where_the_file_lies(tmp_path: Path, faces: list[bytes]) -> None:
    for name, data in zip(("a.png", "b.png", "c.png"), faces, strict=False):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "p.jsonl").write_text(json.dumps({"url": f"file://{tmp_path}/a.png"}))
    for source in (tmp_path / "p.jsonl", f"file://{tmp_path}/b.png", f"file://{tmp_path}/*.png"):
        ingest(tmp_path / "g", [source], PixelEncoder())
    store = Store.open(tmp_path / "g")
    assert [store.photo(name).source for name in ("a", "b", "c")] == ["a.png", "b.png", "c.png"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_kind_of_source_in_a_bucket(tmp_path: Path, faces: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    moto = pytest.importorskip("moto.server", reason="needs moto: pip install 'mgrl[dev]'")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mgrl")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mgrl")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").mkdir("mgrl-pictures")
        fill("s3://mgrl-pictures", faces)
        fsspec.filesystem("s3").invalidate_cache()
        everything(tmp_path, "s3://mgrl-pictures")
    finally:
        server.stop()


class Web(ThreadingHTTPServer):
    """A web server that fails as often as it is told."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.failures: dict[str, int] = {}
        self.asked: list[str] = []
        self.released = threading.Event()
        super().__init__(("127.0.0.1", 0), Answer)

    def handle_error(self, request: object, client_address: object) -> None:
        """Of clients that have gone nothing is said."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        if path == "/silent.png":
            self.server.released.wait(20)
        if self.server.failures.get(path, 0):
            self.server.failures[path] -= 1
            self.send_error(503)
        elif path not in self.server.files:
            self.send_error(404)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.server.files[path])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(faces: list[bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(remote, "_PAUSES_S", (0.01, 0.02))
    server = Web({f"/{n}.png": data for n, data in enumerate(faces)})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_what_cannot_be_reached_is_tried_again_and_then_listed(tmp_path: Path, web: Web) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = free.getsockname()[1]
    wanted = [
        ("ok", f"{web.url}/0.png?signature=secret"),
        ("twice", f"{web.url}/1.png"),
        ("thrice", f"{web.url}/2.png"),
        ("gone", f"{web.url}/gone.png"),
        ("nobody", f"http://127.0.0.1:{nobody}/3.png"),
        ("no-scheme", "nowhere://3.png"),
    ]
    (tmp_path / "p.csv").write_text("url,photo_id\n" + "\n".join(f"{url},{photo_id}" for photo_id, url in wanted))
    web.failures = {"/1.png": 2, "/2.png": 3}
    with OutcomeFile(tmp_path / "failed.jsonl", failed_row) as failed:
        report = ingest(tmp_path / "g", [tmp_path / "p.csv"], PixelEncoder(), on_outcome=failed.note)
    assert (report.added, report.failed) == (2, 4)
    assert {path: web.asked.count(path) for path in web.asked} == {
        "/0.png": 1,
        "/1.png": 3,
        "/2.png": 3,
        "/gone.png": 1,
    }
    reasons = {
        row["photo_id"]: row["#reason"] for row in map(json.loads, (tmp_path / "failed.jsonl").read_text().splitlines())
    }
    assert "503" in reasons["thrice"]
    assert reasons["gone"] == "gone.png is not there"
    assert "3.png cannot be read (" in reasons["nobody"]
    assert "no source is called '3.png'" in reasons["no-scheme"]
    # Nothing of a URL but its path is kept: what comes before and after may be secret.
    assert Store.open(tmp_path / "g").photo("ok").source == "0.png"
    # Fed back, the list does what can be reached now.
    report = ingest(tmp_path / "g", [tmp_path / "failed.jsonl"], PixelEncoder())
    assert (report.added, report.failed) == (1, 3)


def test_a_source_that_cannot_be_reached_is_an_error_before_anything_is_made(tmp_path: Path, web: Web) -> None:
    for spelled, message in (
        (f"{web.url}/people.csv", r"people.csv is not there"),
        ("memory://nothing/here.png/*.jpg", "nothing matches 'here.png/\\*.jpg'"),
        ("memory://no-such-folder", "no-such-folder is not there"),
    ):
        with pytest.raises(DataError, match=message):
            ingest(tmp_path / "g", [spelled], PixelEncoder())
    web.files["/people.csv"] = b"url\n%b/0.png" % web.url.encode()
    web.failures["/people.csv"] = 1
    assert ingest(tmp_path / "g", [f"{web.url}/people.csv"], PixelEncoder()).added == 1


def test_a_photo_that_never_ends_is_given_up(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_FILE_BYTES", 1000)
    web.files["/long.png"] = bytes(10**6)
    with pytest.raises(ImageError, match="the file has more than the 1000 bytes of the limit"):
        read_url(f"{web.url}/long.png")


def test_a_server_that_says_nothing_is_given_up(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_SILENT_S", 0.2)
    try:
        with pytest.raises(ImageError, match=r"silent.png cannot be read \(.*[Tt]imeout"):
            read_url(f"{web.url}/silent.png")
    finally:
        web.released.set()
    assert web.asked.count("/silent.png") == 3


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ConfigError, match=r"gs:// URLs need another package: .*gcsfs"):
        open_source("gs://bucket/faces")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ConfigError, match=r"URLs need fsspec; install it with: pip install 'mgrl\[sources\]'"):
        open_source("memory://faces")


def test_several_photos_are_on_their_way_at_once_and_come_in_order() -> None:
    together = threading.Barrier(4, timeout=20)

    def item(n: int) -> Item:
        def read() -> bytes:
            together.wait()
            return bytes([n])

        return Item(str(n), str(n), read, locator={"url": f"far://{n}"})

    local = Item("here", "here", lambda: b"here", locator={"path": "here"})
    items = list(fetched(iter([item(0), item(1), local, item(2), item(3)])))
    assert [(item.read(), item.held_bytes) for item in items] == [
        *((b"\0", 1), (b"\1", 1), (b"here", 0), (b"\2", 1), (b"\3", 1))
    ]
