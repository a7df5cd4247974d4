"""Two processes that train one model: the loss and the step are those of one process on the whole batch."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from indexer.errors import ConfigError

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")
import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as mp  # noqa: E402

from training.hardware import training_device  # noqa: E402
from training.losses import in_batch_softmax  # noqa: E402
from training.team import Team, joined  # noqa: E402

ROWS = 5
ALONE = Team(torch.device("cpu"))


def _network() -> "torch.nn.Module":
    torch.manual_seed(0)
    return torch.nn.Linear(6, 14 * 4)


def _batch() -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Photos, sketches, and ink of which some sketches have more regions than others."""
    generator = torch.Generator().manual_seed(1)
    photos, sketches = torch.randn(2, ROWS, 6, generator=generator)
    return photos, sketches, torch.rand(ROWS, 14, generator=generator) > 0.6


def _step(team: Team) -> tuple[float, "torch.Tensor"]:
    """Loss and weights after a step, on this process's part of the batch."""
    photos, sketches, ink = _batch()
    network, own = _network(), team.own(ROWS)
    wrapped = team.wrap(network)
    rows = wrapped(torch.cat([photos[own], sketches[own]])).view(2, -1, 14, 4)
    both = team.gather(torch.nn.functional.normalize(rows, dim=-1).transpose(0, 1), ROWS)
    loss = in_batch_softmax(both[:, 1], both[:, 0], team.gather(ink[own].float(), ROWS) > 0)
    (loss * team.size).backward()
    torch.optim.SGD(network.parameters(), lr=1.0).step()
    return loss.item(), torch.nn.utils.parameters_to_vector(network.parameters()).detach()


def _member(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    team = Team(torch.device("cpu"), rank, 2, rank)
    loss, weights = _step(team)
    found = {
        "loss": loss,
        "weights": weights,
        "shared": team.share(f"from {rank}"),
        "any": [team.any(rank == 1), team.any(False)],
    }
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
    # A group that a module was wrapped for lives on, and a thread of it that lets go of a tensor while Python ends
    # aborts the process (github.com/pytorch/pytorch/pull/179291).
    os._exit(0)


def test_two_processes_take_the_step_of_one(tmp_path: Path) -> None:
    loss, weights = _step(ALONE)
    mp.spawn(_member, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["loss"] == pytest.approx(loss, rel=1e-6)
        torch.testing.assert_close(found["weights"], weights, rtol=1e-5, atol=1e-6)
        assert (found["shared"], found["any"]) == ("from 0", [True, False])
    before = torch.nn.utils.parameters_to_vector(_network().parameters()).detach()
    assert (weights - before).norm() > 0.01


def test_shares_cover_a_batch_once() -> None:
    for size in (1, 2, 3):
        rows = [row for rank in range(size) for row in range(7)[Team(ALONE.device, rank, size).own(7)]]
        assert rows == list(range(7))
    with pytest.raises(ConfigError, match="a batch of 2 pairs is too small for 3 processes; start fewer"):
        Team(ALONE.device, 0, 3).require_rows([4, 2])


def test_a_team_that_cannot_meet_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="start them with torchrun, or unset RANK"), joined("cpu"):
        pass


def test_cuda_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match=r"finds no CUDA GPU on this machine; use --device cpu"):
        training_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert training_device("auto") == torch.device("cuda", 0)
    with pytest.raises(ConfigError, match="process 1 of this machine has no GPU of its own: there are 1"):
        training_device("auto", 1)


@pytest.fixture
def command(tiny_fs2k: Path, tmp_path: Path) -> list[str]:
    """`mgrl train` but for its program and --out: two steps an epoch, two epochs."""
    splits = ["--fit", str(tiny_fs2k / "fit.txt"), "--val", str(tiny_fs2k / "val.txt")]
    settings = ["--weights", "random", "--stages", "5", "--dim", "4", "--batch", "2", "--epochs", "2"]
    settings += ["--stem-epochs", "1", "--align-epochs", "0", "--device", "cpu", "--episodes", str(tmp_path / "drawn")]
    return ["train", "--data", str(tiny_fs2k), *splits, *settings]


def run(program: Sequence[str], arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def weights_of(folder: Path) -> "torch.Tensor":
    model = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
    return torch.cat([value.flatten() for name, value in model.items() if name.startswith(("trunk", "heads"))])


@pytest.mark.e2e
@pytest.mark.slow
def test_torchrun_trains_as_one_process_does(command: list[str], tmp_path: Path) -> None:
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "service.cli"]
    alone = run(["service.cli"], [*command, "--out", str(tmp_path / "alone")])
    assert alone.returncode == 0, alone.stderr
    together = run(torchrun, [*command, "--out", str(tmp_path / "together")])
    assert together.returncode == 0, together.stderr
    assert together.stdout.count("epoch 2") == 1
    assert "Warning" not in together.stderr
    one, two = weights_of(tmp_path / "alone"), weights_of(tmp_path / "together")
    # Adam divides by a gradient's size, so that rounding shows in weights with hardly any.
    assert float((one - two).norm() / one.norm()) < 1e-3
    again = run(torchrun, [*command, "--out", str(tmp_path / "together")])  # nothing left, and nothing trained again
    assert again.returncode == 0, again.stderr
    assert torch.equal(two, weights_of(tmp_path / "together"))


def steps_done(folder: Path) -> int:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return -1
    state = torch.load(path, weights_only=True)["state"]
    return 2 * int(state["epoch"]) + int(state["step"])


@pytest.mark.e2e
@pytest.mark.slow
def test_a_run_that_is_killed_or_stopped_reaches_the_weights_of_an_unbroken_one(
    command: list[str], tmp_path: Path
) -> None:
    command = [*command, "--epochs", "5", "--checkpoint-minutes", "0"]
    for number in (signal.SIGKILL, signal.SIGTERM):
        out = tmp_path / number.name
        arguments = [sys.executable, "-m", "service.cli", *command, "--out", str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(
            arguments, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            deadline = time.monotonic() + 600
            while steps_done(out) < 3:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            os.killpg(process.pid, number)  # all of them, as a terminal and torchrun do
            _, said = process.communicate(timeout=300)
        assert 3 <= steps_done(out) < 10
        if number == signal.SIGTERM:
            assert process.returncode == 130
            assert f"stopped and saved in {out / 'checkpoint.pt'}; the same command goes on from there" in said
    for folder in ("SIGKILL", "SIGTERM", "whole"):
        done = run(["service.cli"], [*command, "--out", str(tmp_path / folder)])
        assert done.returncode == 0, done.stderr
    for folder in ("SIGKILL", "SIGTERM"):
        assert torch.equal(weights_of(tmp_path / folder), weights_of(tmp_path / "whole"))
