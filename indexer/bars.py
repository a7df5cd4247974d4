"""Times as bars on a log axis, SVG text without a plotting library, and the page of a bench that shows them."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

import numpy as np

from indexer.page import page, write_page
from indexer.table import Table

_WIDTH: Final = 760
_LEFT: Final = 230
_ROW: Final = 26
_TOP: Final = 34


def bars(times: Mapping[str, Sequence[float]], unit: str = "ms") -> str:
    """One bar a row, in their order: the median, and from p10 to p90 as a line, which a row of a single time has not.

    Args:
        times: name -> times above 0, at least one each.
        unit: of the times.
    """
    low = math.floor(math.log10(min(min(values) for values in times.values())))
    high = max(low + 1, math.ceil(math.log10(max(max(values) for values in times.values()))))

    def x(value: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - 70) * (math.log10(value) - low) / (high - low), 1)

    bottom = _TOP + _ROW * len(times)
    parts = []
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<line x1="{at}" y1="{_TOP - 6}" x2="{at}" y2="{bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{at}" y="{_TOP - 12}" text-anchor="middle" fill="#666">{10.0**power:g} {unit}</text>')
    for number, (name, values) in enumerate(times.items()):
        middle = _TOP + _ROW * number + _ROW / 2
        p10, p50, p90 = (float(value) for value in np.percentile(np.asarray(values, float), (10, 50, 90)))
        end = x(p50)
        parts.append(f'<text x="{_LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="{_LEFT}" y="{middle - 8}" width="{round(end - _LEFT, 1)}" height="16" fill="#1f7a74"/>')
        if p90 > p10:
            parts.append(
                f'<line x1="{x(p10)}" y1="{middle}" x2="{x(p90)}" y2="{middle}" stroke="#23211e" stroke-width="2"/>'
            )
        parts.append(f'<text x="{max(end, x(p90)) + 6}" y="{middle + 4}">{p50:.3g}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 8}" font-family="sans-serif" '
        f'font-size="12">{"".join(parts)}</svg>'
    )


def write_times(
    path: Path | None, title: str, times: Mapping[str, Sequence[float]], ratios: Mapping[str, float]
) -> None:
    """Write a bench's page, percentiles and bars; none without a path.

    Args:
        path: of the page, or None.
        title: what was timed.
        times: name -> ms above 0, one a round.
        ratios: name -> ratio.

    Raises:
        DataError: it cannot be written.
    """
    if path is None:
        return
    shares = (50, 90, 99, 100)
    rows: list[list[object]] = [[name, *map(float, np.percentile(spent, shares))] for name, spent in times.items()]
    tables = [
        Table("times", "Milliseconds", ["row", "p50", "p90", "p99", "max"], rows, "Of the rounds that count."),
        Table("ratios", "Ratios", ["ratio", ""], [[name, ratio] for name, ratio in ratios.items()], "Of medians."),
    ]
    caption = "Median (bar) and from p10 to p90 (line), in ms on a log axis"
    pictures = [(caption, bars(times))] if times else []
    write_page(path, page(f"mgrl bench: {title}", "Everything in turn, in one run.", tables, pictures))
