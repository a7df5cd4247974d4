"""The report's pictures, as SVG text: they go into files and into the page alike. No faces."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure  # not pyplot: no global state, no display

from indexer.fusion import EQUAL_WEIGHTS
from training.metrics import found_by_share, score
from training.report.study import Result

_STEPS = tuple(round(step / 5, 1) for step in range(6))


def curves(results: Sequence[Result], data_set: str) -> str:
    """Figure 4: 1 / rank and rank percentile by share of the sketch, one line a system."""
    figure, (left, right) = _figure(2)
    for result in results:
        if result.data_set == data_set and result.probe_set == "aligned" and not result.seed:
            found = score(result.embedded.ranks(), len(result.embedded.gallery))
            share = 100 * np.arange(1, result.stages + 1) / result.stages
            style: dict[str, Any] = {"linewidth": 2.5} if result.system == "model" else {"linewidth": 1.2}
            label = _plain(result.title, f"T = {result.stages}")
            left.plot(share, found.m_at_b_per_stage, label=label, **style)
            right.plot(share, found.m_at_a_per_stage, label=label, **style)
    left.set(title=f"{_plain(data_set)}: mean 1 / rank (m@B)", xlabel="share of the sketch, %", ylabel="%")
    right.set(title=f"{_plain(data_set)}: mean rank percentile (m@A)", xlabel="share of the sketch, %", ylabel="%")
    right.legend(fontsize=7, loc="lower right")
    return _svg(figure)


def weight_sweep(result: Result) -> tuple[str, list[dict[str, float]]]:
    """Figure 5: m@B while one weight or two of Eq. (3) grow from 0 to 1 and the others stay 1."""
    figure, (axis,) = _figure(1)
    points = []
    for label, free in (("alpha", (1,)), ("beta", (2,)), ("gamma", (3,)), ("beta = gamma", (2, 3))):
        values = []
        for step in _STEPS:
            weights = {granularity: step if granularity in free else 1.0 for granularity in (1, 2, 3)}
            found = score(result.embedded.ranks(weights), len(result.embedded.gallery))
            values.append(found.m_at_b)
            points.append({"alpha": weights[1], "beta": weights[2], "gamma": weights[3], "m_at_b": found.m_at_b})
        axis.plot(_STEPS, values, marker="o", label=f"{label} grows")
    axis.set(title=_plain(result.title, result.data_set))
    axis.set(xlabel="the weight that grows; the others are 1", ylabel="m@B, %")
    axis.legend(fontsize=8)
    return _svg(figure), points


def stage_curves(results: Sequence[Result], weights: Mapping[int, float] = EQUAL_WEIGHTS) -> str:
    """1 / rank and rank percentile of the target by share of the drawing, one line a probe set."""
    figure, (left, right) = _figure(2)
    for result in results:
        found = score(result.embedded.ranks(weights), len(result.embedded.gallery))
        share = 100 * np.arange(1, result.stages + 1) / result.stages
        left.plot(share, found.m_at_b_per_stage, label=result.probe_set)
        right.plot(share, found.m_at_a_per_stage, label=result.probe_set)
    left.set(title="mean 1 / rank (m@B)", xlabel="share of the drawing, %", ylabel="%")
    right.set(title="mean rank percentile (m@A)", xlabel="share of the drawing, %", ylabel="%")
    right.legend(fontsize=8, loc="lower right")
    return _svg(figure)


def rank_distribution(result: Result, weights: Mapping[int, float] = EQUAL_WEIGHTS) -> str:
    """How many drawings have their target within each rank, at a quarter, half, three quarters and all of a drawing."""
    figure, (axis,) = _figure(1)
    ranks, drawings, photos = result.embedded.ranks(weights), len(result.embedded.probes), len(result.embedded.gallery)
    for quarter in (1, 2, 3, 4):
        at = np.sort(ranks[:, max(1, round(result.stages * quarter / 4)) - 1])
        share = 100 * np.arange(1, drawings + 1) / drawings
        # On to the last rank: where all targets are first there would be no line to see.
        axis.step([*at, max(photos, 2)], [*share, 100], where="post", label=f"{25 * quarter} %")
    axis.set(title=f"{_what(result)}: rank of the target", xscale="log")
    axis.set(xlabel="rank", ylabel="% of drawings within", xlim=(1, max(photos, 2)), ylim=(0, 102))
    axis.legend(fontsize=8, loc="lower right", title="of the drawing")
    return _svg(figure)


def worst_cases(result: Result, weights: Mapping[int, float] = EQUAL_WEIGHTS) -> str:
    """The strips of the drawings whose targets rank worst, each with its name."""
    chosen = worst_drawings(result, weights)
    figure, axis = _strips(result.embedded.ranks(weights)[chosen], result)
    axis.set_yticks(range(len(chosen)), [_plain(result.embedded.names[number]) for number in chosen], fontsize=7)
    axis.set_title(f"{_what(result)}: the worst drawings")
    return _svg(figure)


def worst_drawings(result: Result, weights: Mapping[int, float] = EQUAL_WEIGHTS, count: int = 12) -> list[int]:
    """Numbers of the drawings with the lowest mean of 1 / rank, lowest first."""
    order = np.argsort((1 / result.embedded.ranks(weights)).mean(axis=1), kind="stable")
    return [int(number) for number in order[:count]]


def rank_strips(result: Result, weights: Mapping[int, float] = EQUAL_WEIGHTS, strips: int = 24) -> str:
    """Like the paper's Figure 2, without faces: the target's rank along each of some drawings, as colour."""
    ranks = result.embedded.ranks(weights)
    order = np.argsort(-(1 / ranks).mean(axis=1))
    chosen = order[np.linspace(0, len(order) - 1, min(strips, len(order))).round().astype(int)]
    figure, axis = _strips(ranks[chosen], result)
    axis.set_title(f"{_what(result)}: rank of the target, best drawing to worst")
    return _svg(figure)


def _strips(ranks: npt.NDArray[np.int64], result: Result) -> "tuple[Figure, Any]":
    figure, (axis,) = _figure(1)
    place = (0.5, result.stages + 0.5, len(ranks) - 0.5, -0.5)  # stages count from 1, as in the tables
    picture = axis.imshow(np.log10(ranks), extent=place, aspect="auto", cmap="viridis_r", interpolation="nearest")
    axis.set(xlabel=f"stage of {result.stages}", yticks=[])
    axis.grid(False)
    bar = figure.colorbar(picture, ax=axis, ticks=[0, 1, 2, 3])
    bar.ax.set_yticklabels(["1", "10", "100", "1000"])
    return figure, axis


def calibration(result: Result, weights: Mapping[int, float] = EQUAL_WEIGHTS) -> str:
    """How often the target is in the top 1, 5, 10 at each share of the sketch."""
    figure, (axis,) = _figure(1)
    found = found_by_share(result.embedded.ranks(weights))
    for name in ("top_1", "top_5", "top_10"):
        axis.plot(found["share"], found[name], marker="o", label=name.replace("_", " "))
    photos = len(result.embedded.gallery)
    named = _plain(result.title, result.data_set)
    axis.set(title=f"{named}: target found among {photos} photos", ylabel="% of drawings")
    axis.set(xlabel="share of the sketch, %", ylim=(0, 102))
    axis.legend(fontsize=8, loc="lower right")
    return _svg(figure)


def _what(result: Result) -> str:
    return _plain(result.title, result.data_set, result.probe_set)


def _plain(*names: str) -> str:
    """Names of files and folders, in which a dollar sign begins no formula."""
    return ", ".join(names).replace("$", r"\$")


def _figure(panels: int) -> "tuple[Figure, tuple[Any, ...]]":
    figure = Figure(figsize=(5.6 * panels, 3.8), layout="constrained")
    axes = tuple(figure.add_subplot(1, panels, number + 1) for number in range(panels))
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure, axes


def _svg(figure: "Figure") -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "mgrl"}):  # the same figures give the same bytes
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
