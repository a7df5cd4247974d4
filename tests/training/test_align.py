"""The aligner: a move is undone exactly, an untrained one moves nothing, a trained one finds a move back."""

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.episode import Episode
from indexer.sketch import Stroke, rasterise
from service.cli import main
from training.align import MovedLooks, fit_aligner
from training.batches import Move
from training.encoder.aligner import Aligner, look, undo_move
from training.settings import Augmentation
from training.stopping import StopSignals

CROSS = [
    Stroke(np.float32([[0.3, 0.4], [0.7, 0.4]]), 0.03),
    Stroke(np.float32([[0.5, 0.2], [0.5, 0.75]]), 0.03),
    Stroke(np.float32([[0.35, 0.6], [0.4, 0.7], [0.6, 0.7]]), 0.03),
]


def _as_tensor(moved: Move) -> torch.Tensor:
    return torch.tensor([[*moved.shift, np.deg2rad(moved.turn_degrees), np.log(moved.scale)]], dtype=torch.float32)


@pytest.mark.parametrize(
    "moved",
    [
        Move((0.06, -0.03), 0.0, 1.0),
        Move((0.0, 0.0), 5.0, 1.0),
        Move((0.0, 0.0), 0.0, 0.92),
        Move((0.04, 0.05), -4, 1.07),
    ],
)
def test_a_known_move_is_undone(moved: Move) -> None:
    still = rasterise(CROSS, 192).astype(np.float32) / 255
    drawn = torch.from_numpy(rasterise(moved.of(CROSS, flip=False), 192)[None]).float() / 255
    before = np.abs(drawn[0].numpy() - still).sum() / still.sum()
    after = np.abs(undo_move(drawn, _as_tensor(moved))[0].numpy() - still).sum() / still.sum()
    assert before > 0.4
    assert after < 0.2


def test_an_untrained_aligner_leaves_the_canvas_where_it_is() -> None:
    canvas = torch.from_numpy(rasterise(CROSS, 192)[None])
    with torch.no_grad():
        aligned = Aligner().eval().align(canvas)
    torch.testing.assert_close(aligned, canvas.float() / 255, atol=2e-3, rtol=0)


@pytest.mark.parametrize("side", [192, 96])
def test_the_aligner_looks_at_the_whole_canvas(side: int) -> None:
    ink = torch.zeros(1, side, side)
    ink[:, side // 2 :] = 1
    seen = look(ink)
    assert seen.shape == (1, 64, 64)
    assert seen[0, :31].max() == 0
    assert seen[0, 33:].min() == 1


class OnePerson:
    """A data set of one drawing."""

    size_px = 192
    episodes = (Episode(tuple(CROSS), (1, 2, 3)),)

    def __len__(self) -> int:
        return 1


STILL = Augmentation(0, 0, 0, 0, 0)


def test_looks_are_the_same_for_the_same_seed_and_know_their_move() -> None:
    first, again, other = (list(MovedLooks([OnePerson()], 6, STILL, seed)) for seed in (1, 1, 2))
    for (looks, moves), (same_looks, same_moves) in zip(first, again, strict=True):
        np.testing.assert_array_equal(looks, same_looks)
        np.testing.assert_array_equal(moves, same_moves)
    assert any(not np.array_equal(a[1], b[1]) for a, b in zip(first, other, strict=True))
    looks, moves = max(first, key=lambda item: abs(item[1][0, 0]))
    # The vertical line of the cross, drawn last but one, is where its shift took it.
    columns = looks[-1].astype(float).sum(axis=0)
    assert abs((columns * np.arange(64)).sum() / columns.sum() / 64 - 0.5 - moves[0, 0]) < 0.03


def test_signals_to_the_whole_group_leave_the_drawing_of_looks_to_the_run() -> None:
    told, steps = [], []

    def terminate_workers(done: int, total: int) -> None:
        told.append((done, total))
        if done == 4:  # each of them has begun
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGTERM)

    fit_aligner(
        Aligner(width=8),
        [OnePerson()],
        STILL,
        rounds=60,
        epochs=1,
        seed=0,
        on_drawn=terminate_workers,
        on_progress=lambda step, of, loss: steps.append(step),
    )
    assert told == [(done, 60) for done in range(1, 61)]
    assert steps == [1]


def test_a_stop_is_heeded_before_the_first_step(
    tiny_fs2k: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked_at_once(signals: StopSignals) -> StopSignals:
        signals.asked = True
        return signals

    def never(*given: object) -> None:
        raise AssertionError("all drawings of the aligner were made first")

    monkeypatch.setattr(StopSignals, "__enter__", asked_at_once)
    monkeypatch.setattr("training.align.torch.cat", never)
    splits = ["--fit", str(tiny_fs2k / "fit.txt"), "--val", str(tiny_fs2k / "val.txt"), "--stages", "8"]
    assert main(["train", "--data", str(tiny_fs2k), *splits, "--out", str(tmp_path / "run")]) == 130


def test_a_trained_aligner_finds_most_of_a_move() -> None:
    torch.manual_seed(0)
    aligner = Aligner(width=8)
    fit_aligner(aligner, [OnePerson()], STILL, rounds=150, epochs=12, seed=0, batch=32)
    assert not aligner.training
    rng = np.random.default_rng(9)
    moves = [Move.random(rng, 1.0) for _ in range(20)]
    canvases = torch.from_numpy(np.stack([rasterise(moved.of(CROSS, flip=False), 192) for moved in moves]))
    with torch.no_grad():
        found = aligner(look(canvases.float() / 255))
    expected = torch.cat([_as_tensor(moved) for moved in moves])
    left = (found - expected).square().mean(0) / expected.square().mean(0)
    assert left[:2].max() < 0.25, "of the shift"
    assert left[2] < 0.5, "of the turn"
