import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.errors import DataError
from indexer.metadata import Kind
from indexer.metadata_file import read_metadata


def write(folder: Path, name: str, *lines: object) -> Path:
    path = folder / name
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


EXPECTED_KINDS = {
    "sex": Kind.STRING,
    "age": Kind.NUMBER,
    "beard": Kind.BOOL,
    "seen": Kind.DATE,
    "marks": Kind.TAGS,
    "badge": Kind.STRING,
}
EXPECTED = {
    "a/1": {"sex": "female", "age": 31.0, "beard": False, "seen": date(2024, 2, 29), "marks": ("mole", "scar")}
    | {"badge": "007"},
    "a/2": {"sex": "male", "age": -2.5, "beard": None, "seen": date(1999, 12, 31), "marks": None, "badge": None},
}


def test_both_formats_say_the_same(tmp_path: Path) -> None:
    lines = write(
        tmp_path,
        "people.jsonl",
        {"photo_id": "a/1", "sex": "female", "age": 31, "beard": False, "seen": "2024-02-29"}
        | {"marks": ["scar", "mole", "scar"], "badge": "007"},
        "",
        {"photo_id": "a/2", "sex": "male", "age": -2.5, "beard": None, "seen": "1999-12-31"}
        | {"marks": None, "badge": None},
    )
    table = write(
        tmp_path,
        "people.csv",
        "\ufeffphoto_id,sex,age,beard,seen,marks:tags,badge:string",
        "a/1,female,31,false,2024-02-29,scar|mole|scar,007",
        "",
        'a/2,male,"-2.5",,1999-12-31,,',
    )
    for path in (lines, table):
        read = read_metadata(path, {})
        assert read.kinds == EXPECTED_KINDS
        assert read.photos == EXPECTED


def test_the_gallery_knows_the_kind_before_a_guess(tmp_path: Path) -> None:
    path = write(tmp_path, "people.csv", "photo_id,badge,age", "a,007,30")
    assert read_metadata(path, {"badge": Kind.STRING}).photos["a"] == {"badge": "007", "age": 30.0}
    with pytest.raises(DataError, match=r"people\.csv: line 2, field badge: the value must be a date such as 2024-02"):
        read_metadata(path, {"badge": Kind.DATE})


def test_texts_of_all_scripts_are_kept_and_what_turns_a_line_around_is_refused(tmp_path: Path) -> None:
    for text in (
        "\u5c71\u7530\u3000\u592a\u90ce",
        "Anna\u00a0B",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u0915\u094d\u200d\u0937",
    ):
        path = write(tmp_path, "people.jsonl", {"photo_id": "a", "name": text})
        assert read_metadata(path, {}).photos["a"] == {"name": text}
    for text in ("a\u202eb", "a\u2028b", "a\x85b", "\ud800"):
        path = write(tmp_path, "people.jsonl", {"photo_id": "a", "name": text})
        with pytest.raises(DataError, match="field name: a text must be printable"):
            read_metadata(path, {})


def test_codes_are_no_numbers_unless_the_file_says_so(tmp_path: Path) -> None:
    lines = ("photo_id,badge,case,area:number,share,card", "a,7,12_34,04103,0.5,110101199003074517", "b,007,5,4,0,1")
    read = read_metadata(write(tmp_path, "people.csv", *lines), {})
    card = "110101199003074517"  # the nearest number ends in 4512
    assert read.photos["a"] == {"badge": "7", "case": "12_34", "area": 4103.0, "share": 0.5, "card": card}
    assert read.photos["b"] == {"badge": "007", "case": "5", "area": 4.0, "share": 0.0, "card": "1"}


@pytest.mark.parametrize("name", ["people.csv", "people.jsonl"])
def test_a_column_of_empty_cells_is_no_field(tmp_path: Path, name: str) -> None:
    lines = ["photo_id,age,size", "a,,2"] if name.endswith("csv") else [{"photo_id": "a", "age": None, "size": 2}]
    path = write(tmp_path, name, *lines)
    assert read_metadata(path, {}).kinds == {"size": Kind.NUMBER}
    assert read_metadata(path, {}).photos == {"a": {"size": 2.0}}
    assert read_metadata(path, {"age": Kind.NUMBER}).photos == {"a": {"age": None, "size": 2.0}}


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("p.csv", ["id,age", "a,1"], "p.csv: the first line must name the columns, photo_id among them, got"),
        ("p.csv", [""], "p.csv: the first line must name the columns"),
        ("p.csv", ["photo_id,age", "a,1", "b"], "p.csv: line 3 has 1 cells, the header has 2"),
        ("p.csv", ["photo_id,age", "a,1", "a,2"], "p.csv: line 3 names the photo 'a' a second time"),
        ("p.csv", ["photo_id,age", ",1"], "p.csv: line 2 must name its photo in photo_id, got 'None'"),
        ("p.csv", ["photo_id,age:number", "a,old"], "line 2, field age: the value must be a number, got 'old'"),
        ("p.csv", ["photo_id,age:number", "a,nan"], "line 2, field age: a number must be finite, got nan"),
        ("p.csv", ["photo_id,b:bool", "a,yes"], "line 2, field b: the value must be a bool, got 'yes'"),
        ("p.csv", ["photo_id,age:years", "a,1"], "column 'age:years': the kind must be one of string, number, bool"),
        ("p.csv", ["photo_id,age,age", "a,1,2"], "a column appears twice in the header"),
        ("p.csv", ["photo_id,age,age:number", "a,1,2"], "a file may name 64 fields, each once, got 2 columns"),
        ("p.csv", ["photo_id," + ",".join(f"f{n}" for n in range(65)), "a" + ",1" * 65], "got 65 columns"),
        ("p.csv", ["photo_id,hair colour", "a,1"], "a field's name must be 1 to 64 letters, digits and underscores"),
        ("p.csv", ["photo_id,note", 'a,"x\ny"'], "line 3, field note: a text must be printable, without line breaks"),
        ("p.csv", ["photo_id,note", 'a,"x'], "p.csv: line 2 is no CSV (unexpected end of data)"),
        ("p.csv", ["photo_id,note", "a," + "x" * 200_000], "is no CSV (field larger than field limit"),
        ("p.jsonl", ['{"photo_id": "a"', ""], "p.jsonl: line 1 is no JSON object"),
        ("p.jsonl", ["[" * 100_000], "p.jsonl: line 1 is no JSON object"),
        ("p.jsonl", ["[1]"], "p.jsonl: line 1 must be a JSON object, got '[1]'"),
        ("p.jsonl", [{"photo_id": 7}], "line 1 must name its photo in photo_id, got '7'"),
        ("p.jsonl", [{"age": 7}], "line 1 must name its photo in photo_id, got 'None'"),
        ("p.jsonl", [{"photo_id": "a", "age": 1}, {"photo_id": "b", "age": "2"}], "line 2, field age: the value must"),
        ("p.jsonl", [{"photo_id": "a", "age": True}, {"photo_id": "b", "age": 2}], "line 2, field age: the value must"),
        ("p.jsonl", [{"photo_id": "a", "age": 10**400}], "line 1, field age: a number must be finite, got inf"),
        ("p.jsonl", [{"photo_id": "a", "x": {"y": 1}}], "line 1, field x: the value must be a string, got"),
        ("p.jsonl", [{"photo_id": "a", "x": [1]}], "line 1, field x: the value must be a list of strings, got '[1]'"),
        ("p.jsonl", [{"photo_id": "a", "x": ["\x1b[2J"]}], "line 1, field x: a text must be printable"),
        ("p.jsonl", [{"photo_id": "a", "x": "y" * 1001}], "line 1, field x: a text may have 1000 characters, got 1001"),
        ("p.jsonl", [{"photo_id": "a", "x": [str(n) for n in range(101)]}], "a photo may have 100 tags in a field"),
        ("p.jsonl", [{"photo_id": "a", "\x1b": 1}], r"no digit first, and not photo_id; got '\x1b'"),
        ("p.xlsx", [""], "a metadata file must be .jsonl, .csv or .parquet, got 'p.xlsx'"),
    ],
)
def test_what_does_not_hold_is_named(tmp_path: Path, name: str, lines: list[object], message: str) -> None:
    with pytest.raises(DataError) as refused:
        read_metadata(write(tmp_path, name, *lines), {})
    assert message in str(refused.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the metadata file gone\.csv: No such file"):
        read_metadata(tmp_path / "gone.csv", {})
    (tmp_path / "latin.csv").write_bytes(b"photo_id,name\na,\xe9")
    with pytest.raises(DataError, match=r"latin\.csv must be UTF-8 \(unexpected end of data\)"):
        read_metadata(tmp_path / "latin.csv", {})


@pytest.mark.parametrize(("zone", "days"), [(None, [29, None, 28]), ("America/New_York", [28, None, 27])])
def test_moments_in_parquet_are_days_where_they_were(tmp_path: Path, zone: str | None, days: list[int | None]) -> None:
    moments = [1_709_172_000_000_000_001, None, 1_709_085_600_000_000_000]  # at two in the morning in Greenwich
    column = pa.array(moments, pa.timestamp("ns", zone))
    pq.write_table(pa.table({"photo_id": ["a", "b", "c"], "seen": column}), tmp_path / "p.parquet")
    table = read_metadata(tmp_path / "p.parquet", {})
    assert table.kinds == {"seen": Kind.DATE}
    assert [of["seen"] for of in table.photos.values()] == [day and date(2024, 2, day) for day in days]


def test_a_day_that_no_calendar_has_is_an_error_of_the_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"photo_id": ["a"], "seen": pa.array([2**30], pa.date32())}), tmp_path / "p.parquet")
    with pytest.raises(DataError, match=r"p\.parquet: it is no Parquet file, or damaged"):
        read_metadata(tmp_path / "p.parquet", {})


def test_unknown_photos_are_named(tmp_path: Path) -> None:
    table = read_metadata(write(tmp_path, "p.csv", "photo_id,age", "a,1", "b,2", "c,3"), {})
    table.check_ids(["c", "b", "a", "d"])
    with pytest.raises(DataError, match=r"p\.csv: no photo has the id 'b' and 1 more; an id is the path inside"):
        table.check_ids(["a", "d"])
