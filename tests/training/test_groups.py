"""Accuracy by group: the counts, the intervals, and the words where there is too little to say."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import DataError
from service.cli import main
from training.report.groups import group_table, mean_interval, read_attributes, wilson_interval


def rows(male: list[int], female: list[int]) -> dict[str, dict[str, object]]:
    """The groups of people whose targets had these ranks, by label."""
    names = [f"photo1/image{number:04d}" for number in range(len(male) + len(female))]
    attributes = {name: {"gender": int(number >= len(male))} for number, name in enumerate(names)}
    table = group_table({"tiny": (np.array([[rank] for rank in male + female]), names)}, attributes)
    found = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return {str(row["group"]): row for row in found}


def test_groups_are_counted_and_compared() -> None:
    found = rows([1] * 30, [1, 10] * 15)
    assert (found["male"]["drawings"], found["female"]["drawings"]) == (30, 30)
    assert found["female"]["m@B"] == pytest.approx(55)
    assert found["female"]["A@5"] == 50
    assert found["female"]["remark"] == "lower than the others"
    assert str(found["female"]["m@B against all others"]).startswith("-45.0 (-")
    assert found["male"]["remark"] == "higher than the others"
    assert rows([1, 2] * 20, [2, 1] * 20)["male"]["remark"] == "no difference seen"


@pytest.mark.parametrize("few", [(19, 30), (30, 19)])
def test_few_drawings_say_nothing_whatever_they_show(few: tuple[int, int]) -> None:
    for row in (rows([1] * few[0], [50] * few[1])[label] for label in ("male", "female")):
        assert row["remark"] == "too few to say anything"
        assert row["m@B against all others"] == ""


def test_who_is_not_annotated_is_counted_as_such() -> None:
    found = rows([1] * 3, [1] * 3)
    assert found["hair not annotated"]["drawings"] == 6
    assert found["hair not annotated"]["remark"] == "there are no others"


def test_wilson_s_interval_is_wilson_s() -> None:
    # Newcombe, 1998, table I, method 3: 81 of 263 and 0 of 20.
    assert wilson_interval(81, 263) == pytest.approx((25.53, 36.62), abs=0.01)
    assert wilson_interval(0, 20) == pytest.approx((0, 16.11), abs=0.01)


def test_the_bootstrap_covers_what_the_normal_interval_covers() -> None:
    values = np.random.default_rng(0).normal(50, 10, 400)
    half = 1.96 * values.std() / 20
    assert mean_interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15)


def test_evaluate_prints_groups(tiny_fs2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_fs2k, data)
    entries = [{"image_name": f"photo1/image{n:04d}", "gender": n % 2, "hair": 0} for n in range(1, 7)]
    (data / "anno_train.json").write_text(json.dumps(entries))
    command = ["evaluate", "--data", str(data), "--split", str(data / "val.txt"), "--stages", "6", "--groups"]
    assert main([*command, "--json", str(tmp_path / "x.json")]) == 0
    shown = capsys.readouterr().out
    assert "with hair" in shown
    assert "too few to say anything" in shown
    groups = json.loads((tmp_path / "x.json").read_text())["groups"]
    assert {row["group"]: row["drawings"] for row in groups if row["group"] in ("male", "female")} == {
        "male": 1,
        "female": 1,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "groups need FS2K's annotations, .* cannot be read"), ("{", "must be a list"), ("[1]", "must be a list")],
)
def test_bad_annotations_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "anno_train.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_attributes(tmp_path)
