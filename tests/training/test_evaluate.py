import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
from training.evaluate import Embedded, Protocol, embed_drawings, encode_gallery
from training.metrics import score


def test_ranks_are_those_of_the_service_s_search(tiny_fs2k: Path, tmp_path: Path, encoder: PixelEncoder) -> None:
    names = [*read_split(tiny_fs2k / "val.txt"), *read_split(tiny_fs2k / "fit.txt")]
    episodes = make_episodes([find_pair(tiny_fs2k, name) for name in names[:2]], tmp_path, 6, workers=1)
    gallery = encode_gallery(tiny_fs2k, names, encoder)
    found = Embedded(*embed_drawings(episodes, encoder, Protocol(stages=6)), gallery, tuple(names)).ranks()
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
    shown = capsys.readouterr().out
    assert "2 drawings, 8 stages, moved" in shown
    assert "among 2" in shown
    assert "among 6" in shown
    found = json.loads(result.read_text())
    assert (found["stages"], found["probes"], found["gallery"], len(found["per_stage"])) == (8, 2, 6, 8)
    assert found["m_at_b"] == pytest.approx(np.mean([stage["m_at_b"] for stage in found["per_stage"]]))
    weighted = np.mean([math.exp(-stage["stage"] / 8) * stage["m_at_a"] for stage in found["per_stage"]])
    assert found["w_m_at_a"] == pytest.approx(weighted)
    low, high = found["intervals"]["m_at_b"]
    assert low <= found["m_at_b"] <= high
    assert found["split_alone"]["m_at_b"] >= max(50, found["m_at_b"])  # of two photos the target is first or second
    assert found["found_by_share"]["share"][-1] == 100
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


def test_what_is_missing_is_told_before_the_drawings_are_made(
    tiny_fs2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: object, **more: object) -> None:
        raise AssertionError("work began")

    def not_installed() -> None:
        raise ConfigError("cropping to faces needs the extra")

    monkeypatch.setattr("training.episodes.make_episodes", never)
    monkeypatch.setattr("indexer.faces.FaceDetector.open", not_installed)
    monkeypatch.setitem(sys.modules, "training.report.figures", None)
    (tmp_path / "gallery.txt").write_text("photo1/image9999\n")
    command = ["evaluate", "--data", str(tiny_fs2k), "--split", str(tiny_fs2k / "val.txt")]
    assert main([*command, "--gallery", str(tmp_path / "gallery.txt")]) == 1
    assert "has no photo1/image9999" in capsys.readouterr().err
    torn = find_photo(tiny_fs2k, read_split(tiny_fs2k / "fit.txt")[0])
    whole = torn.read_bytes()
    torn.write_bytes(whole[:300])
    assert main([*command, "--gallery", str(tiny_fs2k / "fit.txt")]) == 1
    assert f"{torn} is not a readable image" in capsys.readouterr().err
    torn.write_bytes(whole)
    for option in (["--crop", "face"], ["--centred"]):
        assert main([*command, *option]) == 1
        assert "cropping to faces needs the extra" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError, match=r"training\.report\.figures"):
        main([*command, "--html", str(tmp_path / "page.html")])


def test_an_unknown_probe_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="no probe set 'blurred'; choose one of aligned"):
        Protocol(stages=8, probe_set="blurred")


def test_one_stage_and_a_gallery_of_one(tiny_fs2k: Path, tmp_path: Path, encoder: PixelEncoder) -> None:
    name = "photo1/image0001"
    episodes = make_episodes([find_pair(tiny_fs2k, name)], tmp_path, 1, workers=1)
    gallery = encode_gallery(tiny_fs2k, [name], encoder)
    found = Embedded(*embed_drawings(episodes, encoder, Protocol(stages=1)), gallery, (name,))
    assert found.ranks().tolist() == [[1]]


def test_a_page_of_one_photo_whose_name_looks_like_a_formula(tiny_fs2k: Path, tmp_path: Path) -> None:
    name = "$x^{$"
    (split := tmp_path / f"{name}.txt").write_text(f"photos/{name}\n")
    for folder, taken in (("photos", "photo/photo1/image0001"), ("sketches", "sketch/sketch1/sketch0001")):
        (tmp_path / folder).mkdir()
        shutil.copy(tiny_fs2k / f"{taken}.jpg", tmp_path / folder / f"{name}.jpg")
    page = tmp_path / "page.html"
    command = ["evaluate", "--data", str(tmp_path), "--split", str(split), "--stages", "2", "--html", str(page)]
    assert main(command) == 0
    assert page.read_text().count(f"model, {name}, aligned") == 3


def test_a_drawing_with_too_little_left_is_named(tiny_fs2k: Path, tmp_path: Path, encoder: PixelEncoder) -> None:
    name = "photo1/image0001"
    strokes = tuple(Stroke(np.float32([[0.1, y], [0.9, y]])) for y in np.linspace(0.1, 0.9, 6))
    episodes = {name: Episode(strokes, (1, 2, 3, 4, 5, 6))}
    with pytest.raises(DataError, match="photo1/image0001, dropped: the sketch has ink for 4 stages, 6 were asked"):
        embed_drawings(episodes, encoder, Protocol(stages=6, probe_set="dropped"))


@pytest.mark.slow
def test_the_shipped_model_finds_real_people(shared: Path, tmp_path: Path) -> None:
    """Validation drawings of Dataset 2 among all 334 photos; ten stages keep it under half a minute."""
    data = shared / "fs2k"
    val, fit = (read_split(data / "splits" / f"dataset2-{split}.txt") for split in ("val", "fit"))
    encoder = OnnxEncoder.open()
    episodes = make_episodes([find_pair(data, name) for name in val], tmp_path, 10)
    gallery = encode_gallery(data, [*val, *fit], encoder)
    ranks = Embedded(*embed_drawings(episodes, encoder, Protocol(stages=10)), gallery, (*val, *fit)).ranks()
    scores = score(ranks, len(val) + len(fit))
    assert scores.m_at_b > 80
    assert scores.m_at_a > 98.5


def test_several_sets_in_one_run(tiny_fs2k: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = ["evaluate", "--data", str(tiny_fs2k), "--split", str(tiny_fs2k / "val.txt"), "--stages", "6"]
    assert main([*command, "--set", "aligned", "shuffled", "--json", str(result)]) == 0
    found = json.loads(result.read_text())
    assert list(found["sets"]) == ["aligned", "shuffled"]
    assert found["sets"]["aligned"]["m_at_b"] == found["m_at_b"]


def test_frames_are_ranked_as_they_are(tiny_fs2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """FS2K-SDE's own frames: the drawings of the split rendered into files rank as the drawings do."""
    names = read_split(tiny_fs2k / "val.txt")
    frames = tmp_path / "frames"
    frames.mkdir()
    episodes = make_episodes([find_pair(tiny_fs2k, name) for name in names], tmp_path / "kept", 6, workers=1)
    for name, episode in episodes.items():
        for number, canvas in enumerate(episode.canvases(192)):
            Image.fromarray(canvas).save(frames / f"{find_pair(tiny_fs2k, name).sketch.stem}_{number + 1}.png")
    command = ["evaluate", "--data", str(tiny_fs2k), "--split", str(tiny_fs2k / "val.txt")]
    drawn, framed = tmp_path / "drawn.json", tmp_path / "framed.json"
    assert main([*command, "--stages", "6", "--episodes", str(tmp_path / "kept"), "--json", str(drawn)]) == 0
    assert main([*command, "--frames", str(frames), "--json", str(framed)]) == 0
    a, b = (json.loads(path.read_text()) for path in (drawn, framed))
    assert b["stages"] == 6
    assert b["m_at_b"] == pytest.approx(a["m_at_b"], abs=10)
    (frames / f"{find_pair(tiny_fs2k, names[0]).sketch.stem}_6.png").unlink()
    assert main([*command, "--frames", str(frames)]) == 1
    assert "must have equally many frames" in capsys.readouterr().err
    assert main([*command, "--frames", str(frames), "--set", "moved"]) == 1
    assert "frames are pictures" in capsys.readouterr().err
    twice = shutil.copytree(tiny_fs2k, tmp_path / "twice")
    for kind in ("photo", "sketch"):
        shutil.copytree(twice / kind / f"{kind}1", twice / kind / f"{kind}3")
    (twice / "both.txt").write_text(f"{names[0]}\n{names[0].replace('photo1', 'photo3')}\n")
    both = ["evaluate", "--data", str(twice), "--split", str(twice / "both.txt")]
    assert main([*both, "--frames", str(frames)]) == 1
    assert "several sketches of the split are named sketch0005" in capsys.readouterr().err
