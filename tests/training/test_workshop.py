"""What a workshop trains it keeps, and what it keeps it reads again; torn files and full disks lose nothing else."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")

from indexer.errors import DataError  # noqa: E402
from training.data import read_split  # noqa: E402
from training.frozen import People  # noqa: E402
from training.workshop import Workshop  # noqa: E402


@pytest.fixture(scope="module")
def people(tiny_fs2k: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[People, People]:
    """Those to train on and those whose drawings are probes, six stages each."""
    episodes = tmp_path_factory.mktemp("episodes")
    fit, val = (tuple(read_split(tiny_fs2k / f"{part}.txt")) for part in ("fit", "val"))
    return People(tiny_fs2k, fit, episodes, 6), People(tiny_fs2k, val, episodes, 6)


def test_a_torn_trained_file_is_trained_again(tmp_path: Path, people: tuple[People, People]) -> None:
    fit, val = people
    first = Workshop(tmp_path, None, 3).embed("single-pass", fit, val, fit, 0)
    (path,) = (tmp_path / "trained").glob("single-pass-*.pt")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    again = Workshop(tmp_path, None, 3).embed("single-pass", fit, val, fit, 0)
    assert again.seconds > 0
    np.testing.assert_array_equal(first.probes, again.probes)
    kept = Workshop(tmp_path, None, 3).embed("single-pass", fit, val, fit, 0)
    assert kept.seconds == 0
    np.testing.assert_array_equal(first.gallery, kept.gallery)


def test_a_full_disk_is_said_in_one_line(
    tmp_path: Path, people: tuple[People, People], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file: file write failed")

    monkeypatch.setattr("torch.save", full)
    fit, val = people
    with pytest.raises(DataError, match=r"what was trained cannot be kept in .*; free some space there"):
        Workshop(tmp_path, None, 3).embed("single-pass", fit, val, fit, 0)
    assert not list((tmp_path / "trained").glob("*.pt"))


def test_disturbed_drawings_are_other_probes_of_the_same_system(tmp_path: Path, people: tuple[People, People]) -> None:
    fit, val = people
    workshop = Workshop(tmp_path, None, 3)
    aligned = workshop.embed("single-pass", fit, val, fit, 0)
    moved = workshop.embed("single-pass", fit, val, fit, 0, probe_set="moved")
    np.testing.assert_array_equal(aligned.gallery, moved.gallery)
    assert np.abs(aligned.probes - moved.probes).max() > 0.01


def test_a_random_trunk_is_called_so(tmp_path: Path) -> None:
    assert Workshop(tmp_path, None).trunk == "random"
    assert Workshop(tmp_path, tmp_path / "inception_v3.safetensors").trunk == "frozen"
