"""The model card: its figures are those of `mgrl evaluate`, its words those of its template."""

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")

from indexer.encoding import DEFAULT_MODEL  # noqa: E402
from indexer.errors import DataError  # noqa: E402
from service.cli import main  # noqa: E402
from training.report.card import GENERAL_TEMPLATE, fill, find_template, read_record  # noqa: E402

PLACES = ("name", "regions", "dim", "facts", "training", "accuracy", "robustness", "groups", "calibration")


@pytest.fixture
def data(tiny_fs2k: Path, tmp_path: Path) -> Path:
    """Six people with annotations and one data set of splits."""
    root = tmp_path / "data"
    shutil.copytree(tiny_fs2k, root)
    (root / "splits").mkdir(exist_ok=True)
    for part in ("fit", "val"):
        shutil.copy(root / f"{part}.txt", root / "splits" / f"tiny-{part}.txt")
    entries = [{"image_name": f"photo1/image{number:04d}", "gender": number % 2} for number in range(1, 7)]
    (root / "anno_train.json").write_text(json.dumps(entries))
    return root


def card(data: Path, out: Path, *more: str) -> int:
    command = [
        "card",
        "--data",
        str(data),
        "--data-sets",
        "tiny",
        "--out",
        str(out),
        "--cache",
        str(out.parent / "cache"),
    ]
    return main([*command, "--stages", "6", "--model-stages", "8", *more])


@pytest.mark.slow
def test_the_card_s_figures_are_those_of_evaluate(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validations = [{"epoch": epoch, "m_at_b": found, "m_at_a": {"tiny": 90}} for epoch, found in ((1, 61.234), (2, 60))]
    record = {"config": {"epochs": 3, "augmentation": {"moved_share": 0.5}}, "validations": validations}
    record["data"] = {"fit": [{"split": "tiny-fit", "pairs": 4, "sha256": "abc"}]}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert card(data, tmp_path / "card.md", "--run", str(tmp_path / "run.json")) == 0
    text = (tmp_path / "card.md").read_text()
    command = ["evaluate", "--data", str(data), "--split", str(data / "val.txt"), "--gallery", str(data / "fit.txt")]
    assert main([*command, "--stages", "6", "--set", "moved", "--json", str(tmp_path / "x.json")]) == 0
    found = json.loads((tmp_path / "x.json").read_text())
    assert f"| tiny | moved | 2 | 6 | 6 | {found['m_at_a']:.2f} | {found['m_at_b']:.2f} |" in text
    alone = found["split_alone"]
    assert f"| tiny | moved | 2 | 6 | 2 | {alone['m_at_a']:.2f} | {alone['m_at_b']:.2f} |" in text
    assert found["model"] in text
    for words in (
        "| tiny | male | 1 |",
        "too few to say anything",
        "epochs 3, moved_share 0.5",
        "2 validations, the best one: epoch 1, m_at_b 61.23.",
        "100 %",
    ):
        assert words in text
    assert "$" not in text
    capsys.readouterr()
    assert card(data, tmp_path / "again.md") == 0
    assert "aligned" not in capsys.readouterr().err  # nothing was embedded again
    assert "No record of its training" in (tmp_path / "again.md").read_text()


def test_a_model_s_own_template_comes_first(tmp_path: Path) -> None:
    assert find_template(tmp_path / "x.onnx") == GENERAL_TEMPLATE
    (tmp_path / "card.md").touch()
    assert find_template(tmp_path / "x.onnx") == tmp_path / "card.md"


@pytest.mark.parametrize("template", [GENERAL_TEMPLATE, find_template(DEFAULT_MODEL)])
def test_templates_have_a_place_for_every_figure(template: Path) -> None:
    text = fill(template, {place: f"<{place}>" for place in PLACES})
    for place in PLACES if template == GENERAL_TEMPLATE else PLACES[3:]:
        assert f"<{place}>" in text


@pytest.mark.parametrize("content", ["$nonsense", "a $ alone"])
def test_a_template_with_other_places_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "card.md").write_text(content)
    with pytest.raises(DataError, match=r"may hold \$name, and a dollar sign as \$\$"):
        fill(tmp_path / "card.md", {"name": "x"})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"config": 1, "validations": []}',
        '{"config": {}}',
        '{"config": {}, "validations": [1]}',
        '{"config": {}, "validations": {"m_at_b": 1}}',
        '{"config": {}, "validations": [], "data": []}',
        '{"config": {}, "validations": [], "data": {"fit": [{}]}}',
        "null",
    ],
)
def test_a_record_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(DataError, match=r"run\.json is not the run\.json of `mgrl train`"):
        read_record(tmp_path / "run.json")


def test_missing_annotations_are_told_before_any_work(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "anno_train.json").unlink()
    assert card(data, tmp_path / "card.md") == 1
    assert "groups need FS2K's annotations" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
