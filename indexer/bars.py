"""Times as bars on a log axis, SVG text without a plotting library: a median, and from p10 to p90 as a line."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

import numpy as np

_WIDTH: Final = 760
_LEFT: Final = 230
_ROW: Final = 26
_TOP: Final = 34


def bars(times: Mapping[str, Sequence[float]], unit: str = "ms") -> str:
    """One bar a row, in their order; a row of a single time has no line.

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
