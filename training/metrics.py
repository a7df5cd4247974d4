"""Ranks to the paper's metrics. Arrays in, floats out; nothing here knows about files or models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.errors import ShapeError


def target_ranks(distances: npt.NDArray[np.float64], targets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """1-based rank of each probe's target; ties count against it.

    Args:
        distances: (probes, photos), smaller is closer. A row that holds NaN (no ink, a failed encoding) ranks last.
        targets: (probes,) column of each probe's own photo.

    Returns:
        (probes,) int64 in 1..photos.

    Raises:
        ShapeError: targets do not match distances.
    """
    if distances.ndim != 2 or targets.shape != distances.shape[:1]:
        raise ShapeError(
            f"distances must be (probes, photos) and targets (probes,), got {distances.shape} and {targets.shape}"
        )
    own = distances[np.arange(len(targets)), targets][:, None]
    ranks = (distances <= own).sum(axis=1)
    return np.asarray(np.where(np.isnan(distances).any(axis=1), distances.shape[1], ranks), dtype=np.int64)


def rank_percentile(ranks: npt.NDArray[np.int64], photos: int) -> npt.NDArray[np.float64]:
    """(N - rank) / (N - 1): 1.0 is best; a gallery of one photo gives 1.0."""
    if photos == 1:
        return np.ones(ranks.shape)
    return np.asarray((photos - ranks) / (photos - 1), dtype=np.float64)


@dataclass(frozen=True)
class Scores:
    """The paper's figures, all in percent.

    Args:
        m_at_a: mean over episodes and stages of the rank percentile.
        m_at_b: mean over episodes and stages of 1 / rank.
        w_m_at_a: `m_at_a` with stage t (1-based) weighted by exp(-t / T), summed and divided by T.
        w_m_at_b: the same of `m_at_b`.
        acc_at_1: share of episodes whose last stage has rank 1.
        acc_at_5: rank 5 or better.
        acc_at_10: rank 10 or better.
        ceiling: the largest `w_m_at_a` and `w_m_at_b` that this number of stages admits.
        m_at_a_per_stage: (stages,) mean rank percentile of each stage.
        m_at_b_per_stage: (stages,) mean 1 / rank of each stage.
    """

    m_at_a: float
    m_at_b: float
    w_m_at_a: float
    w_m_at_b: float
    acc_at_1: float
    acc_at_5: float
    acc_at_10: float
    ceiling: float
    m_at_a_per_stage: tuple[float, ...]
    m_at_b_per_stage: tuple[float, ...]


def score(ranks: npt.NDArray[np.int64], photos: int) -> Scores:
    """All metrics from the ranks of one evaluation.

    Args:
        ranks: (episodes, stages) 1-based ranks.
        photos: N, photos in the gallery.

    Raises:
        ShapeError: no episode, no stage, or a rank outside 1..N.

    Source: Bhunia et al., Sketch Less for More, 2020 (m@A, m@B); Dai et al., SLFIR, 2023 (w@mA, w@mB).
    """
    if ranks.ndim != 2 or 0 in ranks.shape or ranks.min() < 1 or ranks.max() > photos:
        raise ShapeError(f"ranks must be (episodes, stages) within 1..{photos}, got shape {ranks.shape}")
    percentile = 100 * rank_percentile(ranks, photos).mean(axis=0)
    inverse = 100 * (1 / ranks).mean(axis=0)
    weight = stage_weights(ranks.shape[1])
    last = ranks[:, -1]
    return Scores(
        m_at_a=float(percentile.mean()),
        m_at_b=float(inverse.mean()),
        w_m_at_a=float((weight * percentile).mean()),
        w_m_at_b=float((weight * inverse).mean()),
        acc_at_1=100 * float((last <= 1).mean()),
        acc_at_5=100 * float((last <= 5).mean()),
        acc_at_10=100 * float((last <= 10).mean()),
        ceiling=100 * float(weight.mean()),
        m_at_a_per_stage=tuple(percentile.tolist()),
        m_at_b_per_stage=tuple(inverse.tolist()),
    )


def stage_weights(stages: int) -> npt.NDArray[np.float64]:
    """(stages,) exp(-t / T) for t = 1..T: early stages count more."""
    return np.exp(-np.arange(1, stages + 1) / stages)


METRICS = ("m_at_a", "m_at_b", "w_m_at_a", "w_m_at_b", "acc_at_1", "acc_at_5", "acc_at_10")
"""The figures of `Scores` that are one number each, in the order of the tables."""


def bootstrap(
    ranks: npt.NDArray[np.int64], photos: int, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """What each metric could have been on other episodes of the same kind: percentile intervals.

    Args:
        ranks: (episodes, stages) 1-based ranks.
        photos: N.
        draws: resamplings of the episodes, with replacement.
        seed: of the resampling.
        level: share of the draws inside the interval.

    Returns:
        Metric -> (low, high), in percent.

    Source: Efron, 1979. Episodes are the unit: the stages of one drawing stand and fall together.
    """
    rng = np.random.default_rng(seed)
    weight = stage_weights(ranks.shape[1])
    percentile, inverse = 100 * rank_percentile(ranks, photos), 100 / ranks
    # One value an episode: a draw is then the mean of a sample of them.
    each = np.stack(
        [
            percentile.mean(axis=1),
            inverse.mean(axis=1),
            (weight * percentile).mean(axis=1),
            (weight * inverse).mean(axis=1),
            *(100.0 * (ranks[:, -1] <= k) for k in (1, 5, 10)),
        ]
    )
    drawn = np.stack([each[:, rng.integers(len(ranks), size=len(ranks))].mean(axis=1) for _ in range(draws)])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(METRICS, low, high, strict=True)}


def found_by_share(ranks: npt.NDArray[np.int64], tops: Sequence[int] = (1, 5, 10)) -> dict[str, list[float]]:
    """Calibration: how often, in percent, the target is in the top k once a tenth, two tenths, ... are drawn.

    Args:
        ranks: (episodes, stages) 1-based ranks.
        tops: the k.

    Returns:
        "share": the tenths in percent of the stages, and "top_k" for each k.
    """
    stages = ranks.shape[1]
    at = sorted({max(1, round(stages * tenth / 10)) for tenth in range(1, 11)})
    shares = {"share": [round(100 * stage / stages, 1) for stage in at]}
    return shares | {f"top_{k}": [100 * float((ranks[:, stage - 1] <= k).mean()) for stage in at] for k in tops}


def found_by_ink(
    ranks: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], tops: Sequence[int] = (1, 5, 10)
) -> dict[str, list[float]]:
    """Calibration: how often, in percent, the target is in the top k once 10 %, 20 %, ... of the ink are there.

    Args:
        ranks: (episodes, stages) 1-based ranks.
        shares: (episodes, stages) share of the finished drawing's ink at each stage, ascending, 1 at the end.
        tops: the k.

    Returns:
        "ink": the tenths in percent, and "top_k" for each k: at the first stage that has so much ink.
    """
    tenths = np.arange(1, 11) / 10
    # A share of 1 that was summed up may end a hair below 1.
    at = np.stack([(shares >= tenth - 1e-9).argmax(axis=1) for tenth in tenths], axis=1)  # (episodes, 10)
    reached = np.take_along_axis(ranks, at, axis=1)
    return {"ink": (100 * tenths).tolist()} | {f"top_{k}": (100 * (reached <= k).mean(axis=0)).tolist() for k in tops}
