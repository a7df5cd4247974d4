"""The report's pictures, as SVG text: they go into files and into the page alike. No faces."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from training.metrics import found_by_share, score
from training.report.study import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STEPS = tuple(round(step / 5, 1) for step in range(6))


def curves(results: Sequence[Result], data_set: str) -> str:
    """Figure 4: 1 / rank and rank percentile by share of the sketch, one line a system."""
    figure, (left, right) = _figure(2)
    for result in results:
        if result.data_set == data_set and result.probe_set == "aligned" and not result.seed and result.dim == 16:
            found = score(result.embedded.ranks(), len(result.embedded.gallery))
            share = 100 * np.arange(1, result.stages + 1) / result.stages
            style: dict[str, Any] = {"linewidth": 2.5} if result.system == "model" else {"linewidth": 1.2}
            label = f"{result.title}, T = {result.stages}"
            left.plot(share, found.m_at_b_per_stage, label=label, **style)
            right.plot(share, found.m_at_a_per_stage, label=label, **style)
    left.set(title=f"{data_set}: mean 1 / rank (m@B)", xlabel="share of the sketch, %", ylabel="%")
    right.set(title=f"{data_set}: mean rank percentile (m@A)", xlabel="share of the sketch, %", ylabel="%")
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
    axis.set(
        title=f"{result.title}, {result.data_set}", xlabel="the weight that grows; the others are 1", ylabel="m@B, %"
    )
    axis.legend(fontsize=8)
    return _svg(figure), points


def rank_strips(result: Result, strips: int = 24) -> str:
    """Like the paper's Figure 2, without faces: the target's rank along each of some drawings, as colour."""
    ranks = result.embedded.ranks()
    order = np.argsort(-(1 / ranks).mean(axis=1))
    chosen = order[np.linspace(0, len(order) - 1, min(strips, len(order))).round().astype(int)]
    figure, (axis,) = _figure(1)
    picture = axis.imshow(np.log10(ranks[chosen]), aspect="auto", cmap="viridis_r", interpolation="nearest")
    axis.set(
        title=f"{result.title}, {result.data_set}, {result.probe_set}: rank of the target, best drawing to worst",
        xlabel=f"stage of {result.stages}",
        yticks=[],
    )
    bar = figure.colorbar(picture, ax=axis, ticks=[0, 1, 2, 3])
    bar.ax.set_yticklabels(["1", "10", "100", "1000"])
    return _svg(figure)


def calibration(result: Result) -> str:
    """How often the target is in the top 1, 5, 10 at each share of the sketch."""
    figure, (axis,) = _figure(1)
    found = found_by_share(result.embedded.ranks())
    for name in ("top_1", "top_5", "top_10"):
        axis.plot(found["share"], found[name], marker="o", label=name.replace("_", " "))
    photos = len(result.embedded.gallery)
    axis.set(title=f"{result.title}, {result.data_set}: target found among {photos} photos", ylabel="% of drawings")
    axis.set(xlabel="share of the sketch, %", ylim=(0, 102))
    axis.legend(fontsize=8, loc="lower right")
    return _svg(figure)


def _figure(panels: int) -> "tuple[Figure, tuple[Any, ...]]":
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(5.6 * panels, 3.8), layout="constrained")
    axes = tuple(figure.add_subplot(1, panels, number + 1) for number in range(panels))
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure, axes


def _svg(figure: "Figure") -> str:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "mgrl"}):  # the same figures give the same bytes
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
