import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer import metadata_cells, table_file
from indexer.errors import DataError, ImageError
from indexer.ingest import ingest
from indexer.metadata import Kind
from indexer.photos import read_bytes
from indexer.placing import Fate, Outcome
from indexer.sources.failed import OutcomeFile, failed_row
from indexer.sources.item import Item, Source, Survey
from indexer.sources.spelled import open_source
from indexer.store import Store
from tests.conftest import PixelEncoder
from tests.indexer.sources.test_shard import archive
from tests.indexer.test_ingest import paint

ROWS: list[dict[str, Any]] = [
    {"path": "faces/a.png", "photo_id": "ann", "age": 31, "seen": "2024-02-29", "beard": False, "marks": ["mole"]},
    {"path": "faces/b.png", "photo_id": "bob", "age": 2.5, "seen": "1999-12-31", "beard": True, "marks": None},
    {"path": "faces/c.png", "photo_id": "0031", "age": None, "seen": None, "beard": None, "marks": ["scar", "ring"]},
]


def surveyed(place: object, chosen: set[str] | None = None) -> tuple[Survey, list[Item]]:
    source: Source = open_source(str(place), chosen)
    survey = source.survey({})
    return survey, list(source.items({}))


def write_all(folder: Path) -> list[Path]:
    (folder / "faces.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    lines = ["photo_id,path,age,seen,beard,marks:tags"]
    for row in ROWS:
        cells = [row[column] for column in ("photo_id", "path", "age", "seen", "beard")] + [
            "|".join(row["marks"] or [])
        ]  # type: ignore[arg-type]
        lines.append(",".join("" if cell is None else str(cell).lower() for cell in cells))
    (folder / "faces.csv").write_text("\n".join(lines))
    columns = {column: [row[column] for row in ROWS] for column in ROWS[0]}
    columns["seen"] = [cell and date.fromisoformat(str(cell)) for cell in columns["seen"]]
    pq.write_table(pa.table(columns), folder / "faces.parquet")
    return [folder / f"faces.{suffix}" for suffix in ("csv", "jsonl", "parquet")]


def test_the_three_formats_say_the_same(tmp_path: Path) -> None:
    for name in "abc":
        paint(tmp_path / "faces" / f"{name}.png", ord(name))
    for path in write_all(tmp_path):
        survey, items = surveyed(path)
        assert survey.total == 3
        assert survey.kinds == {
            "age": Kind.NUMBER,
            "seen": Kind.DATE,
            "beard": Kind.BOOL,
            "marks": Kind.TAGS,
        }
        assert [(item.photo_id, item.name, item.has_own_id) for item in items] == [
            ("ann", "faces/a.png", True),
            ("bob", "faces/b.png", True),
            ("0031", "faces/c.png", True),
        ]
        assert items[0].metadata == {"age": 31.0, "seen": date(2024, 2, 29), "beard": False, "marks": ("mole",)}
        assert items[2].metadata == {"age": None, "seen": None, "beard": None, "marks": ("ring", "scar")}
        assert [item.read() for item in items] == [(tmp_path / "faces" / f"{name}.png").read_bytes() for name in "abc"]
        assert surveyed(path, {"age"})[1][0].metadata == {"age": 31.0}


def test_without_ids_they_are_made_from_the_paths(tmp_path: Path) -> None:
    place = tmp_path / "people.csv"
    place.write_text(f"path\nfaces/anna.v2.png\n./faces/b.png\n../c.png\n{tmp_path}/d.png\n")
    _, items = surveyed(place)
    assert [(item.photo_id, item.name, item.has_own_id) for item in items] == [
        ("faces/anna.v2", "faces/anna.v2.png", False),
        ("faces/b", "faces/b.png", False),
        ("c", "c.png", False),
        ("d", "d.png", False),
    ]


def test_names_that_are_no_utf_8_can_be_listed(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(raw)).write_bytes(b"photo")
    (tmp_path / "p.csv").write_bytes(b"path,sex\ncaf\xe9.jpg,male\n")
    (tmp_path / "p.jsonl").write_text(json.dumps({"path": "caf\udce9.jpg", "sex": "male"}))
    for name in ("p.csv", "p.jsonl"):
        (item,) = surveyed(tmp_path / name)[1]
        assert (item.read(), item.photo_id, item.metadata) == (b"photo", "caf\ufffd", {"sex": "male"})


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("p.csv", ["photo_id,age", "a,1"], "p.csv: the first line must name the columns, path or url or #name or"),
        ("p.csv", ["path,photo_id", "a.png,a", "b.png,"], "p.csv: line 3: a photo id must be a text of 1 to 1000 ch"),
        ("p.csv", ["path,photo_id", "a.png,a", "b.png,b", "c.png,a"], "line 4 gives the id 'a' that line 2 gives; an"),
        ("p.csv", ["path,age:number", "a.png,old"], "p.csv: line 2, field age: the value must be a number, got 'old'"),
        ("p.csv", ["path,hair colour", "a.png,x"], "p.csv: line 2: a field's name must be 1 to 64 letters"),
        (
            "p.csv",
            ["path,url", "a.png,http://x/a.png"],
            "p.csv: line 2: must name its photo in path or in url, got ['a",
        ),
        ("p.csv", ["path,age", ",3"], "p.csv: line 2: must name its photo in path or in url, got []"),
        ("p.csv", ["path,age", "a.png"], "p.csv: line 2 has 1 cells, the header has 2"),
        ("p.csv", ["path," + ",".join(f"f{n}" for n in range(65)), "a" + ",1" * 65], "got 65 columns"),
        ("p.jsonl", ['{"path": "a.png"}', "{"], "p.jsonl: line 2 is no JSON object"),
        ("p.jsonl", ['{"path": ["a.png"]}'], "p.jsonl: line 1: path must be a text that can name a file, got"),
        ("p.jsonl", ['{"path": "a\\u0000b"}'], "line 1: path must be a text that can name a file, got 'a"),
        ("p.jsonl", ['{"path": "\\ud800"}'], "line 1: path must be a text that can name a file"),
        ("p.jsonl", ['{"path": "a", "#photo_id": 7}'], "line 1: #photo_id must be a text that can name"),
        ("p.jsonl", ['{"url": "s3://x", "#archive": "y.tar"}'], "line 1: must name its photo in path or in url, got ["),
        ("p.jsonl", ['{"path": "a", "photo_id": "\\udcff"}'], "line 1: a photo id must be Unicode text"),
        ("p.parquet", ["no parquet"], "p.parquet: it is no Parquet file, or damaged"),
    ],
)
def test_what_does_not_hold_is_named_before_a_photo_is_read(
    tmp_path: Path, name: str, lines: list[str], message: str
) -> None:
    (tmp_path / name).write_text("\n".join(lines))
    with pytest.raises(DataError) as refused:
        ingest(tmp_path / "g", [tmp_path / name], PixelEncoder())
    assert message in str(refused.value)
    assert not (tmp_path / "g").exists()


def test_a_parquet_file_without_a_place_or_cut_short_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"photo_id": ["a"]}), tmp_path / "p.parquet")
    with pytest.raises(DataError, match=r"p.parquet: it must have columns, path or url or"):
        surveyed(tmp_path / "p.parquet")
    whole = (tmp_path / "p.parquet").read_bytes()
    (tmp_path / "p.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"p.parquet: it is no Parquet file, or damaged"):
        surveyed(tmp_path / "p.parquet")


def test_a_manifest_of_many_rows_is_read_without_keeping_them(tmp_path: Path) -> None:
    import tracemalloc

    with (tmp_path / "many.csv").open("w") as file:
        file.write("path,photo_id,a,b,c,d\n")
        for n in range(8000):
            file.write(f"faces/{n}.png,id{n}," + ",".join(4 * ["x" * 900]) + "\n")
    source = open_source(str(tmp_path / "many.csv"))
    tracemalloc.start()
    try:
        assert source.survey({}).total == 8000
        assert sum(1 for _ in source.items({})) == 8000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10e6  # the file has 29 MB; Python's table of names, which paths go into, may just grow by some


def test_what_failed_is_a_manifest_that_does_the_rest(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    for n in range(4):
        paint(faces / f"{n}.png", n)
    whole = (faces / "1.png").read_bytes()
    (faces / "1.png").write_bytes(whole[:100])
    (tmp_path / "p.csv").write_text(
        "path,photo_id,badge:string\nfaces/0.png,ann,01\nfaces/1.png,bob,02\nfaces/gone.png,cid,03\n"
    )
    with OutcomeFile(tmp_path / "failed.jsonl", failed_row) as failed:
        report = ingest(tmp_path / "g", [tmp_path / "p.csv", faces], PixelEncoder(), on_outcome=failed.note)
    assert (report.added, report.failed) == (3, 3)
    rows = [json.loads(line) for line in (tmp_path / "failed.jsonl").read_text().splitlines()]
    assert [(row.get("photo_id"), row.get("#photo_id"), row["#name"], row.get("badge:string")) for row in rows] == [
        ("bob", None, "faces/1.png", "02"),
        ("cid", None, "faces/gone.png", "03"),
        (None, "1", "faces/1.png", None),
    ]
    assert "cut short or damaged" in rows[0]["#reason"]
    # Repaired, the list does what is left, under the ids that were tried; what fails still is listed anew.
    (faces / "1.png").write_bytes(whole)
    with OutcomeFile(tmp_path / "still.jsonl", failed_row) as failed:
        report = ingest(tmp_path / "g", [tmp_path / "failed.jsonl"], PixelEncoder(), on_outcome=failed.note)
    assert (report.added, report.already_there, report.failed) == (1, 1, 1)
    assert [json.loads(line)["photo_id"] for line in (tmp_path / "still.jsonl").read_text().splitlines()] == ["cid"]
    store = Store.open(tmp_path / "g")
    assert (store.photo("bob").source, store.photo("bob").metadata) == ("faces/1.png", {"badge": "02"})


def test_metadata_of_what_failed_comes_back_with_its_kinds(tmp_path: Path) -> None:
    """Where no photo was stored that told the gallery."""
    photo = paint(tmp_path / "0.png", 0).read_bytes()
    beside = b'{"note": "2024-02-29", "age:number": null, "seen:date": "2024-02-29", "marks": []}'
    (tmp_path / "s.tar").write_bytes(archive({"0.png": b"bad", "0.json": beside}))
    with OutcomeFile(tmp_path / "failed.jsonl", failed_row) as failed:
        ingest(tmp_path / "g", [tmp_path / "s.tar"], PixelEncoder(), on_outcome=failed.note)
    (tmp_path / "s.tar").write_bytes(archive({"0.png": photo}))
    assert ingest(tmp_path / "g", [tmp_path / "failed.jsonl"], PixelEncoder()).added == 1
    kinds = {"note": Kind.STRING, "age": Kind.NUMBER, "seen": Kind.DATE, "marks": Kind.TAGS}
    assert Store.open(tmp_path / "g").fields() == kinds


def test_a_photo_of_a_stream_that_failed_says_that_it_is_gone(tmp_path: Path) -> None:
    item = Item("standard input/a.png", "a", bytes)
    with OutcomeFile(tmp_path / "failed.jsonl", failed_row) as failed:
        failed.note(Outcome(item, Fate.SKIPPED, reason="cut short"))
        failed.note(Outcome(item, Fate.ADDED, photo_id="a"))
    (again,) = surveyed(tmp_path / "failed.jsonl")[1]
    assert (again.photo_id, again.name) == ("a", "standard input/a.png")
    with pytest.raises(ImageError, match=r"it came from a stream and cannot be read again; then: cut short"):
        again.read()


def test_an_empty_list_of_failures_is_nothing_to_do(tmp_path: Path) -> None:
    with OutcomeFile(tmp_path / "failed.jsonl", failed_row):
        pass
    assert ingest(tmp_path / "g", [tmp_path / "failed.jsonl"], PixelEncoder()).usable == 0


def test_kinds_are_guessed_row_by_row_as_from_all_rows() -> None:
    columns = metadata_cells.Columns({"known": Kind.STRING}, has_types=False)
    for texts in (("1", "true", "1"), ("2.5", "false", "x"), (None, None, None)):
        columns.see(dict(zip(("number", "truth", "known"), texts, strict=True)))
    columns.see({"empty": None})
    assert columns.kinds == {"number": Kind.NUMBER, "truth": Kind.BOOL, "known": Kind.STRING}
    assert columns.values({"number": "3", "empty": None}) == {"number": 3.0}
    with pytest.raises(DataError, match="column 'empty' was not there when the file was checked"):
        columns.values({"empty": "1"})
    with pytest.raises(DataError, match="column 'late' was not there when the file was checked"):
        columns.values({"late": "1"})
    assert table_file.format_of("PEOPLE.CSV") is table_file.FORMATS[".csv"]
    assert read_bytes(Path(__file__))
