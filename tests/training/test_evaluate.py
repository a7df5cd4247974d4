import json
import math
from pathlib import Path

import numpy as np
import pytest

from indexer.encoding import OnnxEncoder, photo_pixels
from indexer.episode import Episode
from indexer.errors import ConfigError, DataError
from indexer.exact import exact_search
from indexer.regions import ink_mask
from indexer.sketch import Stroke
from service.cli import main
from tests.conftest import PixelEncoder
from training.data import find_pair, find_photo, open_image, read_split
from training.episodes import make_episodes
from training.evaluate import Protocol, encode_gallery, evaluate_ranks
from training.metrics import score


def test_ranks_are_those_of_the_service_s_search(tiny_fs2k: Path, tmp_path: Path, encoder: PixelEncoder) -> None:
    names = [*read_split(tiny_fs2k / "val.txt"), *read_split(tiny_fs2k / "fit.txt")]
    episodes = make_episodes([find_pair(tiny_fs2k, name) for name in names[:2]], tmp_path, 6, workers=1)
    gallery = encode_gallery(tiny_fs2k, names, encoder)
    found = evaluate_ranks(episodes, names, gallery, encoder, Protocol(stages=6))
    for number, name in enumerate(names[:2]):
        for stage, canvas in enumerate(episodes[name].canvases()):
            probe = encoder.encode_sketches(canvas[None])[0]
            order, _ = exact_search(gallery, probe, ink_mask(canvas), k=len(names))
            assert found[number, stage] == 1 + order.tolist().index(number)


def test_the_gallery_is_encoded_as_ingestion_does(tiny_fs2k: Path, encoder: PixelEncoder) -> None:
    name = "photo1/image0002"
    (row,) = encode_gallery(tiny_fs2k, [name], encoder)
    pixels = photo_pixels(open_image(find_photo(tiny_fs2k, name)), encoder.size_px)
    np.testing.assert_array_equal(row, encoder.encode_photos(pixels[None])[0])


@pytest.mark.slow
def test_the_command_writes_every_key(tiny_fs2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "result.json"
    command = ["evaluate", "--data", str(tiny_fs2k), "--split", str(tiny_fs2k / "val.txt"), "--stages", "8"]
    command += ["--gallery", str(tiny_fs2k / "fit.txt"), "--set", "moved", "--seed", "1", "--json", str(result)]
    assert main(command) == 0
    assert "2 drawings, 8 stages, moved, ranked among 6 photos" in capsys.readouterr().out
    found = json.loads(result.read_text())
    assert (found["stages"], found["probes"], found["gallery"], len(found["per_stage"])) == (8, 2, 6, 8)
    assert found["m_at_b"] == pytest.approx(np.mean([stage["m_at_b"] for stage in found["per_stage"]]))
    weighted = np.mean([math.exp(-stage["stage"] / 8) * stage["m_at_a"] for stage in found["per_stage"]])
    assert found["w_m_at_a"] == pytest.approx(weighted)
    assert {"acc_at_1", "acc_at_5", "acc_at_10", "w_m_at_b", "split_hash", "model"} <= found.keys()


def test_bad_data_is_refused_with_one_line(tiny_fs2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "--data", str(tiny_fs2k), "--split"]
    assert main([*command, str(tmp_path / "none.txt")]) == 1
    assert "no split file at" in capsys.readouterr().err
    (tmp_path / "split.txt").write_text("photo1/image9999\n")
    assert main([*command, str(tmp_path / "split.txt")]) == 1
    assert "has no photo1/image9999" in capsys.readouterr().err
    assert main([*command, str(tiny_fs2k / "val.txt"), "--model", str(tmp_path / "none.onnx")]) == 1
    assert "no model file named none.onnx" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages", "0"], "a drawing must have at least 1 stage, got 0"),
        (["--weights", "1", "-1", "1"], "the weight of granularity 2 must be finite and >= 0, got -1.0"),
        (["--weights", "nan", "1", "1"], "the weight of granularity 1 must be finite and >= 0, got nan"),
        (["--gallery", "none.txt"], "no split file at none.txt (No such file or directory)"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(
    tiny_fs2k: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    command = ["evaluate", "--data", str(tiny_fs2k), "--split", str(tiny_fs2k / "val.txt")]
    assert main([*command, *arguments]) == 1
    found = capsys.readouterr().err
    assert found.startswith(f"mgrl evaluate: {message}")
    assert found.count("\n") == 1


def test_an_unknown_probe_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="no probe set 'blurred'; choose one of aligned"):
        Protocol(stages=8, probe_set="blurred")


def test_one_stage_and_a_gallery_of_one(tiny_fs2k: Path, tmp_path: Path, encoder: PixelEncoder) -> None:
    name = "photo1/image0001"
    episodes = make_episodes([find_pair(tiny_fs2k, name)], tmp_path, 1, workers=1)
    ranks = evaluate_ranks(episodes, [name], encode_gallery(tiny_fs2k, [name], encoder), encoder, Protocol(stages=1))
    assert ranks.tolist() == [[1]]


def test_a_drawing_with_too_little_left_is_named(tiny_fs2k: Path, tmp_path: Path, encoder: PixelEncoder) -> None:
    name = "photo1/image0001"
    strokes = tuple(Stroke(np.float32([[0.1, y], [0.9, y]])) for y in np.linspace(0.1, 0.9, 6))
    episodes = {name: Episode(strokes, (1, 2, 3, 4, 5, 6))}
    gallery = encode_gallery(tiny_fs2k, [name], encoder)
    with pytest.raises(DataError, match="photo1/image0001, dropped: the sketch has ink for 4 stages, 6 were asked"):
        evaluate_ranks(episodes, [name], gallery, encoder, Protocol(stages=6, probe_set="dropped"))


@pytest.mark.slow
def test_the_shipped_model_finds_real_people(shared: Path, tmp_path: Path) -> None:
    """Validation drawings of Dataset 2 among all 334 photos; ten stages keep it under half a minute."""
    data = shared / "fs2k"
    val, fit = (read_split(data / "splits" / f"dataset2-{split}.txt") for split in ("val", "fit"))
    encoder = OnnxEncoder.open()
    episodes = make_episodes([find_pair(data, name) for name in val], tmp_path, 10)
    ranks = evaluate_ranks(
        episodes, [*val, *fit], encode_gallery(data, [*val, *fit], encoder), encoder, Protocol(stages=10)
    )
    scores = score(ranks, len(val) + len(fit))
    assert scores.m_at_b > 80
    assert scores.m_at_a > 98.5
