from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.errors import DataError
from service.cli import main
from training.data import find_pair, read_split
from training.episodes import make_episodes, name_seed, read_frames, sketches_with_frames


def test_episodes_are_made_once_and_read_back(tiny_fs2k: Path, tmp_path: Path) -> None:
    pairs = [find_pair(tiny_fs2k, name) for name in read_split(tiny_fs2k / "val.txt")]
    seen: list[int] = []
    made = make_episodes(pairs, tmp_path, 8, seed=3, workers=1, on_progress=seen.append)
    assert seen == [0, 1, 2]
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    assert len(files) == 2
    again = make_episodes(pairs, tmp_path, 8, seed=3, workers=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} == files
    for name in made:
        np.testing.assert_array_equal(made[name].canvases(), again[name].canvases())


def test_worker_processes_make_the_same_drawings(tiny_fs2k: Path, tmp_path: Path) -> None:
    pairs = [find_pair(tiny_fs2k, name) for name in read_split(tiny_fs2k / "fit.txt")]
    make_episodes(pairs, tmp_path / "one", 8, workers=1)
    make_episodes(pairs, tmp_path / "two", 8, workers=2)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / folder).rglob("*.json")} for folder in ("one", "two")
    )
    assert one == two


def test_every_name_has_a_seed_of_its_own() -> None:
    assert len({name_seed(f"photo1/image{n:04d}", seed) for n in range(500) for seed in range(3)}) == 1500


def test_fs2k_sde_frames_are_sorted_by_number_in_either_polarity(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        frame = np.zeros((100, 100), np.uint8)
        frame[20:24, 10 : 10 + 8 * number] = 255
        Image.fromarray(frame if number != 2 else 255 - frame).save(tmp_path / f"sketch0007_{number}.png")
    assert sketches_with_frames(tmp_path) == ["sketch0007"]
    frames = read_frames(tmp_path, "sketch0007", 48)
    ink = (frames > 0).sum(axis=(1, 2))
    assert frames.shape == (3, 48, 48)
    assert (np.diff(ink) > 0).all()
    assert not frames[:, 40:].any()


def test_a_folder_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no frames"):
        sketches_with_frames(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no frames"):
        read_frames(tmp_path, "sketch0001")


def test_the_command_writes_drawings_and_says_how_ink_grows(
    tiny_fs2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "drawings"
    split = tiny_fs2k / "val.txt"
    assert main(["episodes", "--data", str(tiny_fs2k), "--split", str(split), "--out", str(out), "--stages", "8"]) == 0
    assert len(list(out.rglob("*.json"))) == 2
    assert "share of the final ink" in capsys.readouterr().out
    assert main(["episodes", "--split", str(split), "--out", str(out)]) == 1
    assert "--split needs --data" in capsys.readouterr().err
