import bz2
import gzip
import io
import json
import lzma
import os
import signal
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import ImageError
from indexer.ingest import ingest
from indexer.metadata import Kind
from indexer.placing import Duplicates, Fate, Outcome
from indexer.sources.failed import OutcomeFile, failed_row
from indexer.sources.item import Item
from indexer.sources.listed import Stream
from indexer.sources.spelled import open_source
from indexer.store import Store
from tests.conftest import PixelEncoder
from tests.indexer.test_ingest import JOB, contents, paint


def archive(members: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def read(path: Path, fields: dict[str, Kind] | None = None) -> list[Item]:
    return list(open_source(str(path)).items(fields or {}))


PLAIN = {f"./set/{'long' * 60}{n}.jpg": bytes([n]) * 600 for n in range(3)}


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.tar", bytes), ("a.tar.gz", gzip.compress), ("a.tgz", bz2.compress), ("a.tar.xz", lzma.compress)],
)
def test_archives_are_read_in_order_however_they_are_packed(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
) -> None:
    (tmp_path / name).write_bytes(pack(archive(PLAIN | {"notes.txt": b"x"})))
    items = read(tmp_path / name)
    assert [(item.photo_id, item.read(), item.has_own_id) for item in items] == [
        (place.removeprefix("./").removesuffix(".jpg"), data, False) for place, data in PLAIN.items()
    ]
    assert items[0].name == f"{name}/{next(iter(PLAIN)).removeprefix('./')}"


def test_json_beside_a_photo_is_its_metadata(tmp_path: Path) -> None:
    def beside(cells: object) -> bytes:
        return json.dumps(cells).encode()

    members = {
        "000.jpg": b"0",
        "000.json": beside({"age": 31, "seen:date": "2024-02-29", "marks": ["scar"], "note": "2024-01-01", "x": None}),
        "d/001.json": beside({"photo_id": "bob", "age": 40, "beard": True}),
        "d/001.jpg": b"1",
        "002.left.png": b"2",
        "002.right.png": b"3",
        "002.json": beside({"age": 7}),
        "002.cls": b"5",
        "003.jpg": b"4",
        "004.jpg": b"5",
        "004.json": beside({"age": "old"}),
        "005.jpg": b"6",
        "005.json": b"{",
        "006.jpg": b"7",
        "006.json": beside({"a field": 1}),
        "007.jpg": b"8",
        "007.json": beside({"box": {"left": 1}}),
        "008.json": beside({"age": 1}),
    }
    (tmp_path / "s.tar").write_bytes(archive(members))
    items = read(tmp_path / "s.tar", {"known": Kind.STRING})
    assert [item.photo_id for item in items] == [
        *("000", "bob", "002.left", "002.right", "003", "004", "005", "006", "007")
    ]
    assert items[0].metadata == {"age": 31.0, "seen": date(2024, 2, 29), "marks": ("scar",), "note": "2024-01-01"}
    assert items[0].kinds == {"age": Kind.NUMBER, "seen": Kind.DATE, "marks": Kind.TAGS, "note": Kind.STRING}
    assert (items[1].has_own_id, items[1].metadata, items[1].name) == (
        True,
        {"age": 40.0, "beard": True},
        "s.tar/d/001.jpg",
    )
    assert items[2].metadata == items[3].metadata == {"age": 7.0}
    assert (items[4].metadata, items[4].read()) == ({}, b"4")
    for item, message in zip(
        items[5:],
        (
            "its metadata in 004.json does not hold: field age: the value must be a number, got 'old'",
            "its metadata in 005.json does not hold: it is no JSON object",
            "a field's name must be 1 to 64 letters",
            "field box: the value must be a string, got",
        ),
        strict=True,
    ):
        with pytest.raises(ImageError) as refused:
            item.read()
        assert message in str(refused.value)
    chosen = list(open_source(str(tmp_path / "s.tar"), {"age"}).items({}))
    assert (chosen[0].metadata, chosen[7].read(), chosen[8].read()) == ({"age": 31.0}, b"7", b"8")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_an_archive_cut_anywhere_gives_what_is_before_and_is_listed(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    whole = archive({f"{n}.jpg": bytes([n]) * 700 for n in range(4)}, tarfile.USTAR_FORMAT)
    cuts = range(0, 4 * 1536 + 1, 256) if pack is bytes else (0, 5, 40, len(pack(whole)) * 3 // 4)
    for cut in cuts:
        (tmp_path / "a.tar").write_bytes(pack(whole)[:cut])
        items = read(tmp_path / "a.tar")
        if pack is bytes:  # a header takes 512 bytes, and a photo of 700 goes on in the next 1024
            assert len(items) == 1 + sum(cut >= 1536 * n + 512 + 700 for n in range(4))
        with pytest.raises(ImageError, match=r"the archive a.tar cannot be read beyond \d photos"):
            items[-1].read()
        assert items[-1].locator == {"#archive": str(tmp_path / "a.tar")}
        assert [item.read() for item in items[:-1]] == [bytes([n]) * 700 for n in range(len(items) - 1)]


def test_hostile_archives_do_no_harm(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, kind, target in (
            ("link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            ("hard.jpg", tarfile.LNKTYPE, "/etc/passwd"),
            ("device.jpg", tarfile.CHRTYPE, ""),
            ("folder.jpg", tarfile.DIRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
        info = tarfile.TarInfo("../../outside.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"out"))
    (tmp_path / "h.tar").write_bytes(file.getvalue())
    (item,) = read(tmp_path / "h.tar")
    assert item.read() == b"out"
    # A name of a gigabyte is not read, and a photo of ten is passed over without being kept.
    huge = tarfile.TarInfo("x")
    huge.type, huge.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    (tmp_path / "h.tar").write_bytes(huge.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(ImageError, match="a header of 1073741824 bytes"):
        read(tmp_path / "h.tar")[0].read()
    with (tmp_path / "h.tar").open("wb") as sparse:
        large = tarfile.TarInfo("large.jpg")
        large.size = (64 << 20) + 1
        sparse.write(large.tobuf(tarfile.GNU_FORMAT))
        sparse.seek(large.size + 511, io.SEEK_CUR)
        sparse.write(archive({"next.jpg": b"next"}))
    large_item, next_item = read(tmp_path / "h.tar")
    with pytest.raises(
        ImageError, match="the file has 67108865 bytes and a name of 9 characters, the limits are 67108864"
    ):
        large_item.read()
    assert next_item.read() == b"next"


def test_an_archive_of_many_photos_takes_no_more_memory_than_a_few(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "many.tar", "w") as tar:
        for n in range(3000):
            info = tarfile.TarInfo(f"one.{n}.jpg")  # all of one name up to the first dot
            info.size = 10_000
            tar.addfile(info, io.BytesIO(bytes(10_000)))
    tracemalloc.start()
    try:
        assert sum(1 for _ in open_source(str(tmp_path / "many.tar")).items({})) == 3000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8e6  # the archive has 30 MB; some is Python's table of file names


def test_shards_of_a_pattern_are_ingested_once_and_what_failed_can_be_tried_again(tmp_path: Path) -> None:
    photos = [paint(tmp_path / f"{n}.png", n).read_bytes() for n in range(7)]
    for shard in range(2):
        members = {f"{n:03}.png": photos[n] for n in range(3 * shard, 3 * shard + 3)}
        members |= {f"{n:03}.json": json.dumps({"age": n}).encode() for n in range(3 * shard, 3 * shard + 3)}
        (tmp_path / f"s-{shard:04}.tar").write_bytes(archive(dict(sorted(members.items())) | {f"9{shard}.png": b"bad"}))
    cut = (tmp_path / "s-0001.tar").read_bytes()
    (tmp_path / "s-0001.tar").write_bytes(cut[:1024])
    sources = [str(tmp_path / "s-{0000..0001}.tar")]
    with OutcomeFile(tmp_path / "failed.jsonl", failed_row) as failed:
        report = ingest(tmp_path / "g", sources, PixelEncoder(), batch=2, on_outcome=failed.note)
    assert (report.added, report.failed, report.described) == (3, 2, 3)
    assert Store.open(tmp_path / "g").photo("002").metadata == {"age": 2.0}
    rows = [json.loads(line) for line in (tmp_path / "failed.jsonl").read_text().splitlines()]
    assert rows[0]["url"] == f"tar://90.png::file://{tmp_path}/s-0000.tar"
    assert rows[1]["#archive"] == f"{tmp_path}/s-0001.tar"
    (tmp_path / "s-0001.tar").write_bytes(cut)
    for fates in ({Fate.ADDED: 3, Fate.SKIPPED: 2}, {Fate.ALREADY_THERE: 3, Fate.SKIPPED: 2}):
        found: list[Outcome] = []
        ingest(tmp_path / "g", [tmp_path / "failed.jsonl"], PixelEncoder(), on_outcome=found.append)
        assert {fate: sum(outcome.fate is fate for outcome in found) for fate in fates} == fates
    assert Store.open(tmp_path / "g").photo("005").metadata == {"age": 5.0}


def test_where_a_photo_that_failed_is_and_a_field_of_that_name_are_two_things(tmp_path: Path) -> None:
    photo = paint(tmp_path / "0.png", 0).read_bytes()
    sidecar = b'{"url": "https://example.org/0.png", "path": null, "age": 3}'
    (tmp_path / "s.tar").write_bytes(archive({"0.png": b"bad", "0.json": sidecar}))
    with OutcomeFile(tmp_path / "failed.jsonl", failed_row) as failed:
        ingest(tmp_path / "g", [tmp_path / "s.tar"], PixelEncoder(), on_outcome=failed.note)
    (row,) = map(json.loads, (tmp_path / "failed.jsonl").read_text().splitlines())
    assert row["url"] == f"tar://0.png::file://{tmp_path}/s.tar"
    (tmp_path / "s.tar").write_bytes(archive({"0.png": photo}))
    assert ingest(tmp_path / "g", [tmp_path / "failed.jsonl"], PixelEncoder()).added == 1
    assert Store.open(tmp_path / "g").photo("0").metadata == {"url": "https://example.org/0.png", "age": 3.0}


def test_a_field_has_the_kind_of_its_first_value_in_all_archives_of_a_job(tmp_path: Path) -> None:
    for shard, age in enumerate((b"31", b'"old"', b"32")):
        photo = paint(tmp_path / f"{shard}.png", shard).read_bytes()
        members = {f"{shard}.png": photo, f"{shard}.json": b'{"age": %b, "n%d": 1}' % (age, shard)}
        (tmp_path / f"s{shard}.tar").write_bytes(archive(members))
    report = ingest(tmp_path / "g", [str(tmp_path / "s{0..2}.tar")], PixelEncoder())
    assert (report.added, report.failed) == (2, 1)
    assert "field age: the value must be a number, got 'old'" in report.skipped[0][1]
    assert Store.open(tmp_path / "g").fields() == {"age": Kind.NUMBER, "n0": Kind.NUMBER, "n2": Kind.NUMBER}


def test_fields_of_metadata_that_is_refused_do_not_bind_other_photos(tmp_path: Path) -> None:
    beside = [{f"n{n}": n for n in range(65)}, {"age": "old", "a field": 1}, {"age": 31}]
    members: dict[str, bytes] = {}
    for n, cells in enumerate(beside):
        members |= {f"{n}.png": paint(tmp_path / f"{n}.png", n).read_bytes(), f"{n}.json": json.dumps(cells).encode()}
    (tmp_path / "s.tar").write_bytes(archive(members))
    report = ingest(tmp_path / "g", [tmp_path / "s.tar"], PixelEncoder())
    assert (report.added, [name for name, _ in report.skipped]) == (1, ["s.tar/0.png", "s.tar/1.png"])
    assert Store.open(tmp_path / "g").photo("2").metadata == {"age": 31.0}


def test_standard_input_is_an_archive_or_a_list(tmp_path: Path) -> None:
    data = archive({"a.jpg": b"a", "b.jpg": b"b"})
    for packed in (data, gzip.compress(data)):
        items = list(Stream(io.BytesIO(packed)).items({}))
        assert [(item.photo_id, item.name, item.read(), item.locator) for item in items] == [
            ("a", "standard input/a.jpg", b"a", {}),
            ("b", "standard input/b.jpg", b"b", {}),
        ]
    names = [b"faces/a.jpg", b"faces/caf\xe9.jpg", b"memory://x/c.jpg", b"faces/d e\n.jpg"]
    for entries, separator in ((names, b"\0"), (names[:3], b"\n")):
        items = list(Stream(io.BytesIO(separator.join(entries))).items({}))
        assert [item.photo_id for item in items] == ["faces/a", "faces/caf\ufffd", "c", "faces/d e\n"][: len(entries)]
    assert list(Stream(io.BytesIO(b"")).items({})) == []
    assert [item.photo_id for item in Stream(io.BytesIO(b"\n".join([b"a/%d.jpg" % n for n in range(9000)]))).items({})][
        -1
    ] == "a/8999"


def test_a_list_through_a_pipe_is_taken_as_it_comes(tmp_path: Path) -> None:
    for n in range(3):
        paint(tmp_path / "faces" / f"{n}.png", n)
    code = """
import sys
from pathlib import Path
from indexer.ingest import ingest
from tests.conftest import PixelEncoder
print(ingest(Path(sys.argv[1]), ["-"], PixelEncoder()).added)
"""
    listed = b"".join(f"faces/{n}.png\0".encode() for n in range(3)) + b"faces/gone.png\0"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, "g"], input=listed, capture_output=True, cwd=tmp_path, env=environment, check=False
    )
    assert (done.stdout, done.returncode) == (b"3\n", 0), done.stderr
    assert Store.open(tmp_path / "g").photo("faces/1").source == "faces/1.png"


def test_shards_and_manifests_are_taken_up_where_a_job_was_killed(tmp_path: Path) -> None:
    """A manifest with ids of its own, then a shard with copies of some of its photos; killed after two batches."""
    encoder = PixelEncoder()
    made = [paint(tmp_path / "made" / f"{n:02}.png", n).read_bytes() for n in range(24)]
    (tmp_path / "p.csv").write_text("path,photo_id,age\n" + "".join(f"made/{n:02}.png,id{n},{n}\n" for n in range(12)))
    members = {f"{n:02}.png": made[n] for n in range(9, 24)} | {f"{n:02}.json": b'{"age": 1}' for n in range(9, 24)}
    (tmp_path / "s.tar").write_bytes(archive(dict(sorted(members.items()))))
    sources = [str(tmp_path / "p.csv"), str(tmp_path / "s.tar")]
    code = JOB.replace("[Path(sys.argv[2])]", "sys.argv[2:]").replace("batch=3", "batch=3, duplicates='alias'")
    kills = 0
    for _ in range(3):
        command = [sys.executable, "-c", code, str(tmp_path / "g"), *sources]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if int(line.split()[0]) >= 6:
                    os.kill(child.pid, signal.SIGKILL)
                    break
        kills += child.returncode == -signal.SIGKILL
    assert kills == 3
    report = ingest(tmp_path / "g", sources, encoder, batch=3, duplicates=Duplicates.ALIAS)
    assert report.usable == 27
    again = ingest(tmp_path / "g", sources, encoder, batch=3, duplicates=Duplicates.ALIAS)
    assert (again.added, again.already_there, again.described) == (0, 27, 0)
    ingest(tmp_path / "whole", sources, encoder, batch=3, duplicates=Duplicates.ALIAS)
    killed, whole = Store.open(tmp_path / "g"), Store.open(tmp_path / "whole")
    assert dict(killed.names()) == dict(whole.names())
    for photo_id, _ in whole.names():
        assert killed.photo(photo_id).metadata == whole.photo(photo_id).metadata
    assert (killed.photo("id10").metadata, killed.photo("10").photo_id) == ({"age": 10.0}, "id10")
    np.testing.assert_array_equal(contents(tmp_path / "g")[1], contents(tmp_path / "whole")[1])
