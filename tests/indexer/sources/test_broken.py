"""Archives and manifests with bytes changed, lost and put in: each gives photos, or says what is wrong with it."""

import gzip
import io
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.errors import DataError, ImageError
from indexer.metadata import Kind
from indexer.sources.spelled import open_source
from tests.indexer.sources.test_shard import archive

ROWS = b"""path,photo_id,age,seen:date
a.jpg,k,3,2024-01-01
b.jpg,l,,
"""
LINES = b"""{"path": "a.jpg", "photo_id": "k", "age": 3, "marks": ["x"]}
{"url": "memory://nothing/x.jpg", "photo_id": "l", "#name": "n"}
{"#archive": "gone.tar"}
"""


def whole() -> dict[str, bytes]:
    plain = archive({"a/0.jpg": bytes(700), "a/0.json": b'{"age": 3, "photo_id": "k"}', f"b/{'l' * 200}.png": b"y"})
    table = io.BytesIO()
    pq.write_table(pa.table({"path": ["a.jpg", "b.jpg"], "photo_id": ["k", "l"], "age": [1, 2]}), table)
    packed = gzip.compress(plain, mtime=0)
    return {"t.tar": plain, "t.tar.gz": packed, "m.csv": ROWS, "m.jsonl": LINES, "m.parquet": table.getvalue()}


def broken(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 2, 5, 30])):
        place = rng.randrange(len(changed) + 1)
        match rng.randrange(3):
            case 0:
                changed[place : place + 1] = rng.randbytes(1)
            case 1:
                del changed[place : place + rng.randrange(1, 600)]
            case _:
                changed[place:place] = rng.choice([rng.randbytes(20), b"\0", b"\n", b'"', b",", b"{", b"\\ud800"])
    return bytes(changed)


@pytest.mark.parametrize("name", whole())
def test_what_is_broken_is_said_and_nothing_else_happens(tmp_path: Path, name: str) -> None:
    rng, ends = random.Random(name), {"read": 0, "refused": 0, "unreadable": 0}
    for _ in range(120):
        (tmp_path / name).write_bytes(broken(whole()[name], rng))
        source = open_source(str(tmp_path / name))
        try:
            source.survey({"age": Kind.NUMBER})
            items = list(source.items({"age": Kind.NUMBER}))
        except DataError:
            ends["refused"] += 1
            continue
        for item in items:
            try:
                if "url" not in item.locator or item.held_bytes:
                    item.read()
                ends["read"] += 1
            except ImageError:
                ends["unreadable"] += 1
    assert ends["refused"] + ends["unreadable"] > 30
    assert ends["refused"] + ends["read"] > 10


def test_places_without_a_name_are_listed_as_unreadable(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(
        '{"url": "http://"}\n{"path": "."}\n{"path": ".."}\n{"path": "/"}\n{"url": "x://["}\n'
    )
    source = open_source(str(tmp_path / "m.jsonl"))
    assert source.survey({}).total == 5
    for item in source.items({}):
        with pytest.raises(ImageError, match=r"not a regular file|cannot be read|no source is called|is not there"):
            item.read()
