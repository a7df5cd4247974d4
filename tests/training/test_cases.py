import json
import re
from pathlib import Path

import pytest

from indexer.errors import DataError
from service.cli import main
from training.cases import read_cases
from training.data import find_pair, read_split
from training.episodes import make_episodes


@pytest.fixture
def saved(tiny_fs2k: Path, tmp_path: Path) -> list[Path]:
    """The split's own drawings, as the sketchpad saves them."""
    names = read_split(tiny_fs2k / "val.txt")
    episodes = make_episodes([find_pair(tiny_fs2k, name) for name in names], tmp_path / "kept", 6, workers=1)
    files = []
    for number, (name, episode) in enumerate(episodes.items()):
        raw = episode.to_json()
        for stroke in raw["strokes"]:
            stroke["times_ms"] = list(range(len(stroke["points"])))
        del raw["stages"]
        files.append(tmp_path / f"drawing{number}.json")
        files[-1].write_text(json.dumps({**raw, "target": name, "gallery": "faces"}))
    return files


def test_saved_drawings_rank_as_the_same_drawings_do(tiny_fs2k: Path, tmp_path: Path, saved: list[Path]) -> None:
    command = ["evaluate", "--data", str(tiny_fs2k), "--split", str(tiny_fs2k / "val.txt"), "--stages", "6"]
    made, cased = tmp_path / "made.json", tmp_path / "cased.json"
    assert main([*command, "--episodes", str(tmp_path / "kept"), "--json", str(made)]) == 0
    assert main([*command, "--drawings", *map(str, saved), "--json", str(cased)]) == 0
    a, b = (json.loads(path.read_text()) for path in (made, cased))
    assert b["per_stage"] == a["per_stage"]
    assert main([*command, "--drawings", str(saved[1]), "--json", str(cased)]) == 0
    found = json.loads(cased.read_text())
    assert (found["probes"], found["gallery"]) == (1, len(saved))


def test_one_drawing_is_ranked_among_all_photos_of_the_split(
    tiny_fs2k: Path, tmp_path: Path, saved: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    everybody = tmp_path / "all.txt"
    everybody.write_text((tiny_fs2k / "val.txt").read_text() + (tiny_fs2k / "fit.txt").read_text())
    command = ["evaluate", "--data", str(tiny_fs2k), "--split", str(everybody), "--stages", "6"]
    assert main([*command, "--drawings", str(saved[0]), "--json", str(tmp_path / "x.json")]) == 0
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["split_alone"]["m_at_b"] == found["m_at_b"] < 100
    assert "among 1 " not in capsys.readouterr().out


def test_the_page_of_an_evaluation_is_whole_and_names_the_worst(
    tiny_fs2k: Path, tmp_path: Path, saved: list[Path]
) -> None:
    command = ["evaluate", "--data", str(tiny_fs2k), "--split", str(tiny_fs2k / "val.txt"), "--stages", "6"]
    page = tmp_path / "pages" / "case.html"
    assert main([*command, "--drawings", *map(str, saved), "--html", str(page), "--set", "aligned", "moved"]) == 0
    html = page.read_text()
    # What loads anything: no address, and no reference but to what is in the page.
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"|url\((?!#)|@import', html)
    assert html.count("<figure>") == 1 + 2 * 4
    assert "The worst drawings, moved" in html
    for name in read_split(tiny_fs2k / "val.txt"):
        assert name in html
    assert main([*command, "--drawings", str(saved[0]), "--html", str(saved[0] / "page.html")]) == 1


def test_what_is_no_case_says_why(tiny_fs2k: Path, tmp_path: Path, saved: list[Path]) -> None:
    names = read_split(tiny_fs2k / "val.txt")
    whole = json.loads(saved[0].read_text())
    refused = {
        'names no "target"': {**whole, "target": None},
        "which is not in the split": {**whole, "target": "photo9/image9999"},
        "lies on a picture": {**whole, "picture": "iVBORw0KGgo="},
        "were asked for; ask for fewer": {**whole, "strokes": whole["strokes"][:2]},
        '^bad.json: a drawing must be a JSON object with a list "strokes"$': ["no drawing"],
    }
    for words, raw in refused.items():
        (tmp_path / "bad.json").write_text(json.dumps(raw))
        with pytest.raises(DataError, match=words):
            read_cases([tmp_path / "bad.json"], names, 6)
    with pytest.raises(DataError, match="several drawings are of"):
        read_cases([saved[0], saved[0]], names, 6)
    with pytest.raises(DataError, match=r"^the drawing gone\.json cannot be read: No such file or directory$"):
        read_cases([tmp_path / "gone.json"], names, 6)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match=r"^bad\.json must be a JSON file with a drawing: "):
        read_cases([tmp_path / "bad.json"], names, 6)


def test_frames_and_drawings_exclude_each_other(
    tiny_fs2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--data", str(tiny_fs2k), "--split", str(tiny_fs2k / "val.txt")]
    assert main([*command, "--frames", str(tmp_path), "--drawings", "a.json"]) == 1
    assert "name one of them" in capsys.readouterr().err
