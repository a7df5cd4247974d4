import json
from pathlib import Path

import numpy as np
import pytest

from indexer.episode import Episode, stage_ends, visible_stage_ends
from indexer.errors import SketchError
from indexer.sketch import MAX_WIDTH, Stroke


def stroke(y: float, width: float = 0.01) -> Stroke:
    return Stroke(np.float32([[0.1, y], [0.9, y]]), width)


def test_saved_and_loaded_is_the_same_drawing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    strokes = tuple(
        Stroke(rng.random((5, 2)).astype(np.float32), float(rng.uniform(0.005, 0.02)), rng.random(5).astype(np.float32))
        for _ in range(6)
    )
    episode = Episode(strokes, (2, 3, 6))
    episode.save(tmp_path / "drawing.json")
    loaded = Episode.load(tmp_path / "drawing.json")
    assert loaded.stage_ends == (2, 3, 6)
    difference = loaded.canvases().astype(int) - episode.canvases().astype(int)
    assert np.abs(difference).mean() < 0.5


@pytest.mark.parametrize("width", [1e-9, 0.004, MAX_WIDTH])
def test_a_width_that_a_stroke_may_have_is_read_back(tmp_path: Path, width: float) -> None:
    Episode((stroke(0.5, width),), (1,)).save(tmp_path / "drawing.json")
    assert Episode.load(tmp_path / "drawing.json").strokes[0].width == pytest.approx(width)


def test_a_drawing_without_stages_has_a_stage_a_stroke() -> None:
    raw = {"strokes": [{"points": [[0.1, 0.1], [0.2, 0.2]]}, {"points": [[0.5, 0.5]], "width": 0.02}]}
    assert Episode.from_json(raw).stage_ends == (1, 2)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "JSON object"),
        ({"strokes": []}, "a drawing must have at least one stroke, got none"),
        ({"strokes": [{"points": [[2, 2]]}]}, "stroke 0: point 0 is at"),
        ({"strokes": [{"points": [["a", "b"]]}]}, "stroke 0: points must be .*, numbers only"),
        ({"strokes": [{"points": [[10**400, 0]]}]}, "stroke 0: points must be .*, numbers only"),
        ({"strokes": [{"points": [[1e300, 0]]}]}, "stroke 0: point 0 is not a finite number"),
        ({"strokes": [{"points": [[0.5, 0.5]], "pressure": [1e300]}]}, "stroke 0: pressure must lie between 0 and 1"),
        ({"strokes": [{"points": [[0.5, 0.5]], "width": 10**400}]}, 'stroke 0: "width" must be a number'),
        ({"strokes": [{"points": [[0.5, 0.5]]}] * 20_001}, "may have 20000 strokes, got 20001"),
        ({"strokes": [{}]}, 'stroke 0 must be an object with "points"'),
        ({"strokes": [{"points": [[0.5, 0.5]]}], "stages": [1, 1]}, "stage ends must climb"),
        ({"strokes": [{"points": [[0.5, 0.5]]}], "stages": [2]}, r"the 1 strokes of the drawing, got \[2\] with 2 as"),
        ({"strokes": [{"points": [[0.5, 0.5]]}], "stages": "all"}, "list of whole numbers"),
        ({"format": "other/9", "strokes": []}, "mgrl-drawing/1"),
    ],
)
def test_what_is_no_drawing_is_refused(raw: object, message: str) -> None:
    with pytest.raises(SketchError, match=message):
        Episode.from_json(raw)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"^x\.json must be a JSON file with a drawing: "),
        (b"\xff\xd8\xff", r"^x\.json must be a JSON file with a drawing: "),
        (b"[" * 100_000, r"^x\.json must be a JSON file with a drawing: "),
        (None, r"^the drawing x\.json cannot be read: No such file"),
    ],
)
def test_an_unreadable_file_is_refused_by_name_without_its_folder(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(SketchError, match=message) as caught:
        Episode.load(tmp_path / "x.json")
    assert str(tmp_path) not in str(caught.value)


def test_stage_ends_follow_the_published_growth_of_ink() -> None:
    ends = stage_ends([1.0] * 1000, 70)
    assert len(ends) == 70
    assert [ends[stage - 1] for stage in (10, 20, 30, 40, 50, 60, 70)] == [280, 490, 700, 840, 920, 990, 1000]


@pytest.mark.parametrize("strokes", [7, 8, 20])
def test_every_stage_gets_a_stroke(strokes: int) -> None:
    ends = stage_ends(np.random.default_rng(strokes).random(strokes).tolist(), 7)
    assert np.diff([0, *ends]).min() >= 1
    assert ends[-1] == strokes


def test_a_stroke_under_ink_never_ends_a_stage() -> None:
    strokes = [stroke(0.2, 0.05), stroke(0.2, 0.01), stroke(0.5), stroke(0.5), stroke(0.8)]
    ends = visible_stage_ends(strokes, [1.0] * 5, 3)
    assert ends == (1, 3, 5)
    with pytest.raises(SketchError, match="ink for 3 stages, 4 were asked for"):
        visible_stage_ends(strokes, [1.0] * 5, 4)


def test_a_trailing_hidden_stroke_belongs_to_the_last_stage() -> None:
    strokes = [stroke(0.2), stroke(0.8, 0.05), stroke(0.8, 0.01)]
    assert visible_stage_ends(strokes, [1.0] * 3, 2) == (1, 3)


def test_json_is_plain(tmp_path: Path) -> None:
    Episode((stroke(0.5),), (1,)).save(tmp_path / "one.json")
    raw = json.loads((tmp_path / "one.json").read_text())
    assert raw == {
        "format": "mgrl-drawing/1",
        "strokes": [{"points": [[0.1, 0.5], [0.9, 0.5]], "width": 0.01}],
        "stages": [1],
    }
