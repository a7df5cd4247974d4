import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.embeddings_file import EmbeddingsFile
from indexer.errors import DataError
from indexer.metadata import Kind
from tests.conftest import unit_rows

ROWS = unit_rows(np.random.default_rng(0), 5, 4)
IDS = ["a/1", "a/2", "b", "Zoë", "e"]


def columns() -> dict[str, Any]:
    """Without metadata that only one of the formats can say."""
    return {
        "photo_id": IDS,
        "embeddings": ROWS,
        "age": [31.0, np.nan, 5.0, 60.5, 1.0],
        "sex": ["female", "", "male", "male", "female"],
        "seen:date": ["2024-02-29", "1999-12-31", "", "2020-01-01", "2020-01-02"],
        "beard": [True, False, True, False, True],
        "marks:tags": ["scar|mole", "", "mole", "", ""],
    }


def npz(folder: Path, columns: dict[str, Any]) -> Path:
    np.savez(folder / "faces.npz", **{name: np.asarray(values) for name, values in columns.items()})
    return folder / "faces.npz"


def npy(folder: Path, columns: dict[str, Any]) -> Path:
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    kinds = [(name, array.dtype, array.shape[1:]) for name, array in arrays.items()]
    records = np.empty(len(next(iter(arrays.values()))), kinds)
    for name, array in arrays.items():
        records[name] = array
    np.save(folder / "faces.npy", records)
    return folder / "faces.npy"


def parquet(folder: Path, columns: dict[str, Any]) -> Path:
    plain = {name: values.tolist() if isinstance(values, np.ndarray) else values for name, values in columns.items()}
    pq.write_table(pa.table(plain), folder / "faces.parquet")
    return folder / "faces.parquet"


def read(path: Path, rows: int = 2) -> tuple[list[str], npt.NDArray[np.float32], list[Any]]:
    parts = list(EmbeddingsFile.open(path, {}).parts(rows))
    assert not any(part.refused for part in parts)
    assert [len(part.photo_ids) for part in parts[:-1]] == [rows] * (len(parts) - 1)
    ids = [photo_id for part in parts for photo_id in part.photo_ids]
    return ids, np.concatenate([part.embeddings for part in parts]), [one for part in parts for one in part.metadata]


@pytest.mark.parametrize("write", [npz, npy, parquet])
@pytest.mark.parametrize("rows", [1, 2, 5, 100])
def test_every_format_says_the_same(write: Any, rows: int, tmp_path: Path) -> None:
    path = write(tmp_path, columns())
    file = EmbeddingsFile.open(path, {})
    assert (len(file), file.dim) == (5, 4)
    assert file.kinds == {
        "age": Kind.NUMBER,
        "sex": Kind.STRING,
        "seen": Kind.DATE,
        "beard": Kind.BOOL,
        "marks": Kind.TAGS,
    }
    ids, embeddings, metadata = read(path, rows)
    assert ids == IDS
    np.testing.assert_array_equal(embeddings, ROWS)
    assert metadata[0] == {"age": 31.0, "sex": "female", "seen": date(2024, 2, 29), "beard": True} | {
        "marks": ("mole", "scar")
    }
    assert metadata[1] == {"age": None, "sex": None, "seen": date(1999, 12, 31), "beard": False, "marks": None}


def test_types_of_a_format_are_taken_as_they_are(tmp_path: Path) -> None:
    days = pa.array([date(2024, 2, 29), None], pa.date32())
    tags = pa.array([["b", "a"], None], pa.list_(pa.string()))
    flat = pa.FixedSizeListArray.from_arrays(pa.array(ROWS[:2].reshape(-1)), 14 * 4)
    path = tmp_path / "faces.parquet"
    pq.write_table(pa.table({"photo_id": ["x", "y"], "embeddings": flat, "seen": days, "marks": tags}), path)
    # Nothing says how many of the 56 numbers are a region's but that there are fourteen regions.
    ids, embeddings, metadata = read(path)
    np.testing.assert_array_equal(embeddings, ROWS[:2])
    assert metadata == [{"seen": date(2024, 2, 29), "marks": ("a", "b")}, {"seen": None, "marks": None}]
    moments = pa.array([1_709_200_800_000_000_001, None], pa.timestamp("ns"))
    pq.write_table(pa.table({"photo_id": ["x", "y"], "embeddings": flat, "seen": moments}), path)
    assert read(path)[2] == [{"seen": date(2024, 2, 29)}, {"seen": None}]
    nanoseconds = np.array(["2024-02-29T10:00", "NaT"], "M8[ns]")
    half = ROWS[:2].astype(np.float16)
    _, embeddings, metadata = read(npz(tmp_path, {"photo_id": ids, "embeddings": half, "seen": nanoseconds}))
    assert metadata == [{"seen": date(2024, 2, 29)}, {"seen": None}]
    assert embeddings.dtype == np.float32


def test_compressed_archives_are_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "c.npz", photo_id=np.array(IDS), embeddings=ROWS)
    np.testing.assert_array_equal(read(tmp_path / "c.npz")[1], ROWS)


def test_the_gallerys_kind_holds_where_the_file_states_none(tmp_path: Path) -> None:
    path = npz(tmp_path, {"photo_id": IDS, "embeddings": ROWS, "badge": ["2024-01-01"] * 5})
    assert EmbeddingsFile.open(path, {"badge": Kind.DATE}).kinds == {"badge": Kind.DATE}


def test_rows_that_do_not_hold_are_given_back_with_the_reason(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[0, 3] *= 0.5
    rows[1, 0, 0] = np.nan
    ids = ["a", "b", "c", "", "x" * 1001]
    path = npz(tmp_path, {"photo_id": ids, "embeddings": rows, "name": ["", "", "tab\there", "", ""]})
    (part,) = EmbeddingsFile.open(path, {}).parts(10)
    assert part.photo_ids == []
    assert part.embeddings.shape == (0, 14, 4)
    reasons = dict(part.refused)
    assert "region 3 is 0.5 long" in reasons["a"]
    assert "region 0 is nan long" in reasons["b"]
    assert "field name" in reasons["c"]
    assert "1 to 1000 characters" in reasons[""]
    assert len(part.refused) == 5


@pytest.mark.parametrize("write", [npz, npy, parquet])
@pytest.mark.parametrize("ids", [[["a", "b"]] * 5, [7] * 5, [[1, 2]] * 5])
def test_ids_that_are_no_texts_are_given_back_row_by_row(write: Any, ids: list[Any], tmp_path: Path) -> None:
    (part,) = EmbeddingsFile.open(write(tmp_path, {"photo_id": ids, "embeddings": ROWS}), {}).parts(10)
    assert part.photo_ids == []
    assert len(part.refused) == 5
    assert all("a photo id must be a text of 1 to 1000 characters" in reason for _, reason in part.refused)


def test_numbers_beyond_float32_are_too_long_and_no_warning(tmp_path: Path) -> None:
    rows = ROWS.astype(np.float64)
    rows[1, 2] *= 1e300
    (part,) = EmbeddingsFile.open(npz(tmp_path, {"photo_id": IDS, "embeddings": rows}), {}).parts(10)
    assert part.refused == [(IDS[1], "embeddings must be rows of length 1, that of region 2 is inf long")]


@pytest.mark.parametrize("write", [npz, npy, parquet])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": ROWS[:, :13]}, r"embeddings must be \(n, 14, dim\) numbers, found \(n, 13, 4\)"),
        ({"photo_id": ["a", "b", "c", "d", "b"]}, "names the photo 'b' a second time"),
        ({"age:years": [1] * 5}, "the kind must be one of"),
        ({"1st": [1] * 5}, "no digit first"),
        ({"seen": [1] * 5, "seen:date": ["2020-01-01"] * 5}, "each once"),
    ],
)
def test_a_file_that_does_not_hold_is_refused(write: Any, change: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"photo_id": IDS, "embeddings": ROWS} | change)
    with pytest.raises(DataError, match=message) as refused:
        EmbeddingsFile.open(path, {})
    assert path.name in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("write", [npz, npy, parquet])
@pytest.mark.parametrize("missing", ["photo_id", "embeddings"])
def test_a_missing_column_is_named(write: Any, missing: str, tmp_path: Path) -> None:
    given = {"photo_id": IDS, "embeddings": ROWS, "age": [1] * 5}
    del given[missing]
    with pytest.raises(DataError, match=f"lacks {missing}; it has .*'age'"):
        EmbeddingsFile.open(write(tmp_path, given), {})


def test_arrays_of_different_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="of one length"):
        EmbeddingsFile.open(npz(tmp_path, {"photo_id": IDS[:4], "embeddings": ROWS}), {})


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = npz(tmp_path, {"photo_id": np.array(IDS, object), "embeddings": ROWS})
    with pytest.raises(DataError, match="Python objects"):
        EmbeddingsFile.open(path, {})


@pytest.mark.parametrize("write", [npz, npy, parquet])
def test_a_file_cut_short_or_altered_is_an_error_and_no_crash(write: Any, tmp_path: Path) -> None:
    path = write(tmp_path, columns())
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    failures = 0
    for number in range(60):
        damaged = bytearray(whole)
        if number % 2:
            del damaged[int(rng.integers(len(whole))) :]
        else:
            damaged[int(rng.integers(len(whole)))] ^= 0xFF
        path.write_bytes(damaged)
        try:
            for _ in EmbeddingsFile.open(path, {}).parts(2):
                pass
        except DataError:
            failures += 1
    assert failures >= 30  # all that were cut


@pytest.mark.parametrize("order", "<>")
def test_what_is_no_character_is_no_text(order: str, tmp_path: Path) -> None:
    texts = np.array(["anna", "ben"], f"{order}U4")
    texts.view(f"{order}u4")[0] = 0xFF0061
    path = npz(tmp_path, {"photo_id": texts, "embeddings": ROWS[:2]})
    with pytest.raises(DataError, match="what is no character"):
        list(EmbeddingsFile.open(path, {}).parts(2))


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "faces.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, kind, shape in (("photo_id", "<U3", (10**12,)), ("embeddings", "<f4", (10**12, 14, 4))):
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    with pytest.raises(DataError, match="cut short"):
        EmbeddingsFile.open(path, {})


@pytest.mark.parametrize(
    ("name", "content"), [("x.npz", b""), ("x.npy", b"\x93NUMPY"), ("x.parquet", b"PAR1"), ("x.npz", b"PK\x03\x04")]
)
def test_what_is_no_such_file(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        EmbeddingsFile.open(tmp_path / name, {})


def test_other_suffixes_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.npz, \.npy or \.parquet"):
        EmbeddingsFile.open(tmp_path / "faces.csv", {})
    for name in ("faces.npz", "faces.npy", "faces.parquet"):
        with pytest.raises(DataError, match="cannot read"):
            EmbeddingsFile.open(tmp_path / name, {})


def test_lists_of_different_lengths_are_refused(tmp_path: Path) -> None:
    lists = [row.reshape(-1).tolist() for row in ROWS]
    lists[3] = lists[3][:-1]
    path = parquet(tmp_path, {"photo_id": IDS, "embeddings": lists})
    with pytest.raises(DataError, match="of one length"):
        list(EmbeddingsFile.open(path, {}).parts(5))
