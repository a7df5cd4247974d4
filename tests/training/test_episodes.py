import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.episode import Episode
from indexer.errors import ConfigError, DataError
from indexer.sketch import Stroke
from service.cli import main
from training.data import Pair, find_pair, read_split
from training.episodes import ink_shares, list_frames, make_episodes, name_seed, read_frames


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


class Deadly(Pair):
    """A pair whose arrival kills the process that is to draw it."""

    def __reduce__(self) -> tuple[object, ...]:
        return signal.raise_signal, (signal.SIGKILL,)


def test_a_killed_worker_process_is_said(tiny_fs2k: Path, tmp_path: Path) -> None:
    pairs = [find_pair(tiny_fs2k, name) for name in read_split(tiny_fs2k / "fit.txt")]
    deadly = Deadly(pairs[0].name, pairs[0].photo, pairs[0].sketch)
    with pytest.raises(MemoryError, match="a process that drew was killed; run the same again"):
        make_episodes([deadly, *pairs[1:]], tmp_path, 8, workers=2)


def test_every_name_has_a_seed_of_its_own() -> None:
    assert len({name_seed(f"photo1/image{n:04d}", seed) for n in range(500) for seed in range(3)}) == 1500


def test_fs2k_sde_frames_are_sorted_by_number_in_either_polarity(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        frame = np.zeros((100, 100), np.uint8)
        frame[20:24, 10 : 10 + 8 * number] = 255
        Image.fromarray(frame if number != 2 else 255 - frame).save(tmp_path / f"sketch0007_{number}.png")
    assert list(list_frames(tmp_path)) == ["sketch0007"]
    frames = read_frames(list_frames(tmp_path)["sketch0007"], 48)
    ink = (frames > 0).sum(axis=(1, 2))
    assert frames.shape == (3, 48, 48)
    assert (np.diff(ink) > 0).all()
    assert not frames[:, 40:].any()


def test_folders_that_hold_no_drawings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        list_frames(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no frames named as FS2K-SDE's are"):
        list_frames(tmp_path)
    for name in ("sketch0001_1.png", "sketch0001_01.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"sketch0001_01\.jpg and sketch0001_1\.png in .* are the same stage"):
        list_frames(tmp_path)


def test_torn_and_foreign_drawings_are_made_again(tiny_fs2k: Path, tmp_path: Path) -> None:
    one, two = (find_pair(tiny_fs2k, name) for name in read_split(tiny_fs2k / "val.txt"))
    made = make_episodes([one], tmp_path, 8, workers=1)[one.name].canvases()
    (path,) = tmp_path.rglob("*.json")
    whole = path.read_bytes()
    other_stages = whole.replace(b'"stages":[', b'"stages":[1,')
    for damaged in (whole[:1000], b"", b"[]", b"\xff", other_stages):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(make_episodes([one], tmp_path, 8, workers=1)[one.name].canvases(), made)
        assert path.read_bytes() == whole
    other = make_episodes([Pair(one.name, one.photo, two.sketch)], tmp_path, 8, workers=1)[one.name].canvases()
    assert not np.array_equal(other, made)


def test_what_cannot_become_a_drawing_is_refused(tiny_fs2k: Path, tmp_path: Path) -> None:
    pair = find_pair(tiny_fs2k, "photo1/image0001")
    with pytest.raises(ConfigError, match="at least 1 stage, got 0"):
        make_episodes([pair], tmp_path, 0)
    with pytest.raises(DataError, match=r"sketch0001\.jpg: the sketch has ink for \d+ stages, 5000 were asked for"):
        make_episodes([pair], tmp_path, 5000, workers=1)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write the drawing .*file.*image0001\.json: "):
        make_episodes([pair], tmp_path / "file", 8, workers=1)


def test_sketches_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sketches = [str(tmp_path / folder / "anna.png") for folder in ("a", "b")]
    assert main(["episodes", "--sketch", *sketches, "--out", str(tmp_path)]) == 1
    assert "several sketches are named anna, so their drawings would be one file" in capsys.readouterr().err


def test_the_command_counts_the_ink_of_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        frame = np.zeros((90, 90), np.uint8)
        frame[40:44, : 40 * number] = 255
        Image.fromarray(frame).save(tmp_path / f"sketch0001_{number}.png")
    assert main(["episodes", "--frames", str(tmp_path)]) == 0
    assert "49.71" in capsys.readouterr().out  # of 192 px, 85 and 171 wide


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


def test_ink_shares_climb_to_the_whole() -> None:
    strokes = tuple(Stroke(np.float32([[0.1, y], [0.1 + length, y]]), 0.01) for y, length in ((0.2, 0.1), (0.4, 0.3)))
    long = Stroke(np.float32([[0.1, 0.6], [0.7, 0.6]]), 0.01)
    (shares,) = ink_shares([Episode((*strokes, long), (1, 2, 3))])
    # Length and cap of each: 0.11, 0.31 and 0.61.
    assert shares.tolist() == pytest.approx([0.11 / 1.03, 0.42 / 1.03, 1])
