"""`mgrl report` on a handful of drawn people, and what its tables and pictures are made of."""

import csv
import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")

from indexer.errors import DataError  # noqa: E402
from indexer.page import page  # noqa: E402
from indexer.table import Table  # noqa: E402
from service.cli import main  # noqa: E402
from tests.conftest import PixelEncoder  # noqa: E402
from training.data import read_split, split_hash  # noqa: E402
from training.evaluate import Embedded  # noqa: E402
from training.report.figures import curves, rank_strips  # noqa: E402
from training.report.jobs import dim_jobs, main_jobs  # noqa: E402
from training.report.study import Result, _keep, _read, find_data_sets, run_model  # noqa: E402
from training.report.tables import PAPER_TABLE_1, PAPER_TABLE_2, robustness, table_1, table_2  # noqa: E402


def splits(root: Path) -> Path:
    folder = root / "splits"
    folder.mkdir(exist_ok=True)
    for part in ("fit", "val"):
        (folder / f"tiny-{part}.txt").write_text((root / f"{part}.txt").read_text())
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def stopped(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_report_is_written_and_goes_on_where_it_was(
    tiny_fs2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    splits(tiny_fs2k)
    out = tmp_path / "report"
    command = ["report", "--data", str(tiny_fs2k), "--out", str(out), "--data-sets", "tiny", "tiny"]
    command += ["--systems", "single-pass", "single-pass"]  # whoever names one twice gets it once
    command += ["--seeds", "2", "--stages", "6", "--model-stages", "8", "--fit-stages", "3"]
    out.mkdir()
    (out / "table2.csv").write_text("of an earlier report with other seeds")
    with monkeypatch.context() as patched:
        patched.setattr("training.report.jobs.dim_jobs", stopped)
        assert main(command) == 130
    assert len(table(out / "table1.csv")) == 4
    assert not (out / "table2.csv").exists()
    assert main([*command, "--json", str(tmp_path / "copy.json")]) == 0
    result = json.loads((out / "result.json").read_text())
    assert json.loads((tmp_path / "copy.json").read_text()) == result
    rows = table(out / "table1.csv")
    assert [(row["system"], row["trunk"], row["T"], row["seeds"]) for row in rows] == [
        ("default model", "fine-tuned", "8", "1"),
        ("default model", "fine-tuned", "6", "1"),
        ("single pass, heads only", "random", "8", "2"),
        ("single pass, heads only", "random", "6", "2"),
    ]
    disturbed = table(out / "robustness.csv")
    assert [row["drawings"] for row in disturbed] == ["shuffled", "moved", "dropped", "wobbly"] * 2
    assert {row["dim"] for row in table(out / "table2.csv")} == {"8", "16", "32", "64"}
    html = (out / "index.html").read_text()
    assert html.count("<svg") == 6
    assert "http" not in html.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")
    for name in (
        "figure4-tiny.svg",
        "figure5-tiny.svg",
        "strips-tiny.svg",
        "calibration-tiny.svg",
        "ranks-tiny.svg",
        "worst-tiny.svg",
        "table1.md",
    ):
        assert (out / name).stat().st_size
    manifest = json.loads((out / "manifest.json").read_text())
    fit = manifest["data"]["tiny"]["fit"]
    assert fit["people"] == 4
    assert fit["split_sha256"] == split_hash(read_split(tiny_fs2k / "fit.txt"))
    assert fit["sha256"] != fit["split_sha256"]
    assert manifest["weights"] == "random"
    capsys.readouterr()
    assert main(command) == 0
    again = json.loads((out / "result.json").read_text())
    for one, two in zip(result["results"], again["results"], strict=True):
        assert one["m_at_b"] == two["m_at_b"]
        assert two["seconds"] == 0  # nothing was trained or encoded again


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no splits", "no split file at"),
        ("missing image", "has no photo1/image9999"),
        ("both", "people of tiny are trained and tested on, such as photo1/"),
        ("one person", "training needs at least 2 people, photo1/image0001 is alone in tiny-fit.txt"),
    ],
)
def test_bad_data_is_named_before_any_work(
    tiny_fs2k: Path, tmp_path: Path, damage: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "splits"
    folder.mkdir()
    fit = (tiny_fs2k / "fit.txt").read_text()
    if damage != "no splits":
        (folder / "tiny-fit.txt").write_text("photo1/image0001\n" if damage == "one person" else fit)
        (folder / "tiny-val.txt").write_text("photo1/image9999\n" if damage == "missing image" else fit)
    command = ["report", "--data", str(tiny_fs2k), "--splits", str(folder), "--data-sets", "tiny"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["photo", "sketch"])
def test_a_photo_or_a_sketch_alone_is_named(
    tiny_fs2k: Path, tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_fs2k, data)
    splits(data)
    (data / part / f"{part}1" / f"{'image' if part == 'photo' else 'sketch'}0002.jpg").unlink()
    command = ["report", "--data", str(data), "--data-sets", "tiny", "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert re.search(rf"data/{part} has no {part}1/\w+0002 .*; complete the folder", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_white_sketches_are_named_before_any_feature(
    tiny_fs2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr("training.report.study.encode_gallery", never)
    data = tmp_path / "data"
    shutil.copytree(tiny_fs2k, data)
    splits(data)
    for path in (data / "sketch" / "sketch1").glob("*.jpg"):
        Image.new("L", (250, 250), 255).save(path)
    command = ["report", "--data", str(data), "--data-sets", "tiny", "--out", str(tmp_path / "out")]
    assert main([*command, "--stages", "6"]) == 1
    assert re.search(r"sketch1/sketch000\d\.jpg: no pencil line found", capsys.readouterr().err)


def test_torn_embeddings_are_made_again_and_a_full_disk_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = result("aligned", 1).embedded
    path = tmp_path / "embedded" / "x.npz"
    _keep(path, kept)
    found = _read(path, kept.names)
    assert found is not None
    np.testing.assert_array_equal(found.probes, kept.probes)
    whole = path.read_bytes()
    for torn in (whole[:40], whole[:-30], b"", b"PK" + whole[2:200]):
        path.write_bytes(torn)
        assert _read(path, kept.names) is None

    def full(*arguments: object, **arrays: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.report.study.np.savez", full)
    with pytest.raises(DataError, match="No space left on device; free some space there or name another folder"):
        _keep(path, kept)


def test_what_is_planned(tiny_fs2k: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        for part in ("fit", "val"):
            (tmp_path / f"{name}-{part}.txt").write_text((tiny_fs2k / f"{part}.txt").read_text())
    sets = find_data_sets(tiny_fs2k, tmp_path, ["one", "two"], tmp_path, 20)
    jobs = list(main_jobs(sets, ["b1", "single-pass"], 2, 70))
    of_one = [job for job in jobs if job.data_set.name == "one"]
    assert [(j.system, j.stages, j.seed) for j in of_one if j.probe_set == "aligned" and j.fit_on == j.data_set] == [
        *(("b1", 20, seed) for seed in (0, 1)),
        *(("single-pass", stages, seed) for stages in (70, 20) for seed in (0, 1)),
    ]
    assert [j.probe_set for j in of_one if j.probe_set != "aligned"] == ["shuffled", "moved", "dropped", "wobbly"]
    assert [(j.system, j.fit_on.name) for j in of_one if j.fit_on != j.data_set] == [("single-pass", "two")]
    assert [(j.system, j.dim, j.seed) for j in dim_jobs(sets[:1], ["b1", "mgrl-corrected"], 2)] == [
        ("mgrl-corrected", dim, seed) for dim in (8, 16, 32, 64) for seed in (0, 1)
    ]
    # The other way round: those who are ranked in one are trained on in the other.
    (tmp_path / "turned-fit.txt").write_text((tiny_fs2k / "val.txt").read_text())
    (tmp_path / "turned-val.txt").write_text((tiny_fs2k / "fit.txt").read_text())
    sets = find_data_sets(tiny_fs2k, tmp_path, ["one", "turned"], tmp_path, 20)
    assert all(job.fit_on == job.data_set for job in main_jobs(sets, ["single-pass"], 1, 70))


def test_a_path_is_no_name_of_a_data_set(tiny_fs2k: Path, tmp_path: Path) -> None:
    named = str(splits(tiny_fs2k) / "tiny")
    with pytest.raises(DataError, match=r"must be a name such as dataset1, got .*/tiny; name its folder with --splits"):
        find_data_sets(tiny_fs2k, tmp_path, [named], tmp_path, 6)


def test_embeddings_are_read_again_unless_other_code_made_them(
    tiny_fs2k: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = find_data_sets(tiny_fs2k, splits(tiny_fs2k), ["tiny"], tmp_path, 6)
    said: list[str] = []
    embed = partial(run_model, PixelEncoder(), "model", sets, [("aligned", 6)], tmp_path, said.append)
    first, again = next(embed()), next(embed())
    assert len(said) == 1
    assert np.array_equal(first.embedded.probes, again.embedded.probes)
    monkeypatch.setattr("training.report.study._CODE", 2)
    next(embed())
    assert len(said) == 2


def test_every_missing_image_is_counted(tiny_fs2k: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny-fit.txt").write_text("photo1/image9998\nphoto1/image9997\n")
    (tmp_path / "tiny-val.txt").write_text((tiny_fs2k / "val.txt").read_text())
    with pytest.raises(DataError, match=r"has no photo1/image9998 .*\(and 1 more\); complete the folder"):
        find_data_sets(tiny_fs2k, tmp_path, ["tiny"], tmp_path, 6)


def test_what_no_report_can_be_made_with_is_refused_first(
    tiny_fs2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").touch()
    command = ["report", "--data", str(tiny_fs2k), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "--out must be a folder" in capsys.readouterr().err
    assert main([*command, "--weights", "gone.safetensors"]) == 1
    assert "there is no file gone.safetensors" in capsys.readouterr().err
    assert main([*command, "--model-stages", "0"]) == 1
    assert "--seeds and --model-stages must be at least 1" in capsys.readouterr().err


def test_a_model_of_another_dimension_has_its_row_and_curve() -> None:
    wide = [replace(result("aligned", 1), dim=64)]
    assert [row[1] for row in table_1(wide, alone=False).rows] == ["ours"]
    assert "<!-- ours, T = 1 -->" in curves(wide, "tiny")


def result(probe_set: str, rank: int, seed: int = 0) -> Result:
    """A system whose every target has the given rank among three photos."""
    rows = np.zeros((3, 14, 2), np.float32)
    rows[:, :, 0] = 1
    turned = rows.copy()
    turned[1:] = (0, 1)
    probe = rows[:1] if rank == 1 else turned[1:2]
    embedded = Embedded(probe[None], np.ones((1, 1, 14), bool), turned, ("a", "b", "c"))
    return Result("model", "ours", "fine-tuned", 16, "tiny", seed, probe_set, embedded)


def test_the_strips_count_stages_from_one_as_the_tables_do() -> None:
    shown = re.findall(r"<!-- ([\d.]+) -->", rank_strips(result("aligned", 1)))
    assert "1.0" in shown
    assert "0.0" not in shown


def test_table_one_has_mean_and_deviation_over_seeds() -> None:
    table = table_1([result("aligned", 1, 0), result("aligned", 3, 1)], alone=False)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["m@B"] == "66.67 (47.14)"  # 100 and 33.33
    assert row["seeds"] == 2


def test_table_two_has_mean_and_deviation_over_seeds() -> None:
    wide = [replace(result("aligned", 1, seed), dim=32) for seed in (0, 1)]
    table = table_2([*wide, result("aligned", 1, 0), result("aligned", 3, 1)])
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(row["dim"], row["seeds"], row["m@B"]) for row in rows] == [
        (16, 2, "66.67 (47.14)"),
        (32, 2, "100.00 (0.00)"),
    ]


def test_table_one_names_the_paper_once_a_data_set() -> None:
    ours = [
        replace(result("aligned", 1), data_set=name, system=s)
        for s in ("model", "b1")
        for name in ("dataset1", "dataset2")
    ]
    rows = [(row[0], row[1]) for row in table_1(ours, alone=False).rows]
    assert rows.count(("dataset1", "paper: MGRL")) == 1
    assert [row[0] for row in rows] == ["dataset1"] * 7 + ["dataset2"] * 7


def test_the_paper_s_two_tables_agree_where_they_overlap() -> None:
    for (data_set, system), by_dim in PAPER_TABLE_2.items():
        assert by_dim[16] == PAPER_TABLE_1[data_set, system][2:4]


def test_robustness_is_what_was_lost() -> None:
    table = robustness([result("aligned", 1), result("moved", 3)])
    (row,) = (dict(zip(table.columns, cells, strict=True)) for cells in table.rows)
    assert row["lost"] == pytest.approx(66.667, abs=0.01)
    assert row["may lose"] == 8.0


def test_a_page_escapes_what_it_shows() -> None:
    html = page("<b>", "&", [Table("t", "<i>", ["<u>"], [["<s>"]], "<q>")], [("<em>", "<svg/>")])
    for hostile in ("<b>", "<i>", "<u>", "<s>", "<q>", "<em>"):
        assert hostile not in html
    assert "<svg/>" in html
