import math

import numpy as np
import pytest

from indexer.errors import ShapeError
from training.metrics import bootstrap, found_by_ink, found_by_share, score, stage_weights, target_ranks


def slow_rank(row: list[float], target: int) -> int:
    if any(math.isnan(value) for value in row):
        return len(row)
    rank = 0
    for value in row:
        if value <= row[target]:
            rank += 1
    return rank


def slow_scores(ranks: list[list[int]], photos: int) -> dict[str, float]:
    episodes, stages = len(ranks), len(ranks[0])
    a = b = wa = wb = 0.0
    for row in ranks:
        for number, rank in enumerate(row):
            weight = math.exp(-(number + 1) / stages)
            percentile = (photos - rank) / (photos - 1)
            a += percentile
            b += 1 / rank
            wa += weight * percentile
            wb += weight / rank
    count = episodes * stages / 100
    return {"m_at_a": a / count, "m_at_b": b / count, "w_m_at_a": wa / count, "w_m_at_b": wb / count}


def test_ranks_equal_a_slow_loop_with_ties_and_nan() -> None:
    rng = np.random.default_rng(0)
    distances = rng.integers(0, 5, (200, 9)).astype(float)
    distances[::17, 3] = np.nan
    targets = rng.integers(0, 9, 200)
    expected = [slow_rank(row, target) for row, target in zip(distances.tolist(), targets.tolist(), strict=True)]
    assert target_ranks(distances, targets).tolist() == expected


def test_three_photos_by_hand() -> None:
    distances = np.array([[0.1, 0.2, 0.3], [0.2, 0.2, 0.3], [0.5, 0.5, 0.5], [np.nan] * 3])
    assert target_ranks(distances, np.array([0, 0, 2, 1])).tolist() == [1, 2, 3, 3]


@pytest.mark.parametrize("stages", [1, 8, 70])
def test_scores_equal_a_slow_loop(stages: int) -> None:
    ranks = np.random.default_rng(stages).integers(1, 101, (30, stages))
    found = score(ranks, 100)
    for name, value in slow_scores(ranks.tolist(), 100).items():
        assert getattr(found, name) == pytest.approx(value)
    for k in (1, 5, 10):
        expected = 100 * sum(row[-1] <= k for row in ranks.tolist()) / 30
        assert getattr(found, f"acc_at_{k}") == pytest.approx(expected)


def test_perfect_ranks_reach_the_published_ceiling() -> None:
    found = score(np.ones((5, 70), int), 450)
    assert found.m_at_a == found.m_at_b == 100
    assert found.w_m_at_a == pytest.approx(found.ceiling)
    assert found.ceiling == pytest.approx(62.76, abs=0.005)


def test_a_gallery_of_one_photo_is_always_right() -> None:
    found = score(np.ones((2, 3), int), 1)
    assert found.m_at_a == found.m_at_b == found.acc_at_1 == 100


def test_chance_is_what_the_reference_says() -> None:
    ranks = np.random.default_rng(0).integers(1, 451, (2000, 70))
    found = score(ranks, 450)
    assert found.m_at_a == pytest.approx(50, abs=0.5)
    assert found.m_at_b == pytest.approx(1.49, abs=0.1)


def test_stage_weights_fall() -> None:
    assert stage_weights(2).tolist() == pytest.approx([math.exp(-0.5), math.exp(-1)])


@pytest.mark.parametrize("ranks", [np.zeros((2, 3), int), np.full((2, 3), 11), np.ones(3, int), np.ones((0, 3), int)])
def test_impossible_ranks_are_refused(ranks: np.ndarray) -> None:
    with pytest.raises(ShapeError, match=r"ranks must be \(episodes, stages\) within 1\.\.10"):
        score(ranks, 10)


def test_targets_must_match() -> None:
    with pytest.raises(ShapeError, match="targets"):
        target_ranks(np.zeros((2, 3)), np.array([0]))


def test_the_bootstrap_interval_holds_the_value_and_narrows() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.integers(1, 11, (10, 4)), rng.integers(1, 11, (1000, 4))
    for ranks in (few, many):
        low, high = bootstrap(ranks, 10)["m_at_b"]
        assert low < score(ranks, 10).m_at_b < high
    widths = [np.diff(bootstrap(ranks, 10)["m_at_b"])[0] for ranks in (few, many)]
    assert widths[1] < widths[0] / 4  # a hundredfold number of episodes narrows it about tenfold
    # Against the normal approximation: 1.96 standard errors to each side.
    each = 100 * (1 / many).mean(axis=1)
    assert widths[1] == pytest.approx(2 * 1.96 * each.std() / np.sqrt(1000), rel=0.1)


def test_bootstrap_and_score_agree_on_every_metric() -> None:
    ranks = np.tile([[1, 3, 2]], (5, 1))
    found = bootstrap(ranks, 7)
    for name, (low, high) in found.items():
        assert low == pytest.approx(high)
        assert low == pytest.approx(getattr(score(ranks, 7), name))


def test_found_by_share_counts_at_each_tenth() -> None:
    ranks = np.array([[9, 6, 5, 1], [9, 9, 2, 2]])
    found = found_by_share(ranks)
    assert found["share"] == [25.0, 50.0, 75.0, 100.0]
    assert found["top_5"] == [0.0, 0.0, 100.0, 100.0]
    assert found["top_1"] == [0.0, 0.0, 0.0, 50.0]


def test_found_by_ink_equals_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 20, (7, 9))
    shares = np.cumsum(rng.random((7, 9)) ** 3, axis=1)
    shares /= shares[:, -1:]
    found = found_by_ink(ranks, shares)
    for number, percent in enumerate(found["ink"]):
        for k in (1, 5, 10):
            hits = 0
            for row in range(7):
                stage = next(stage for stage in range(9) if shares[row, stage] >= percent / 100 - 1e-9)
                hits += int(ranks[row, stage] <= k)
            assert found[f"top_{k}"][number] == pytest.approx(100 * hits / 7)
    assert found["top_5"][-1] == pytest.approx(100 * (ranks[:, -1] <= 5).mean())
