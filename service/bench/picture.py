"""Percentiles over load, as SVG: three lines on a log axis, and the target."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from indexer.errors import DataError

_WIDTH, _HEIGHT = 720, 420
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 50, 620, 360
_LINES: Final = (("p50", "#169654"), ("p90", "#3a6ea5"), ("p99", "#b0413e"))


def write_picture(path: Path, rows: Sequence[Mapping[str, float]], target_p99_ms: float, title: str) -> None:
    """Draw rows of `measure.step`.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        path.write_text(picture(rows, target_p99_ms, title), encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error


def picture(rows: Sequence[Mapping[str, float]], target_p99_ms: float, title: str) -> str:
    """The SVG document."""
    rows = sorted(rows, key=lambda row: row["strokes_per_s"])
    most = max(row["strokes_per_s"] for row in rows) * 1.05 or 1.0
    values = [row[name] for row in rows for name, _ in _LINES] + [target_p99_ms]
    low, high = math.floor(math.log10(max(min(values), 0.1))), math.ceil(math.log10(max(*values, 1.0)))

    def x(strokes_per_s: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * strokes_per_s / most, 1)

    def y(ms: float) -> float:
        share = (math.log10(max(ms, 10.0**low)) - low) / max(high - low, 1)
        return round(_BOTTOM - (_BOTTOM - _TOP) * share, 1)

    parts = [_text(_LEFT, 28, title, size=15), _text(_LEFT - 46, _TOP - 10, "ms to the ranking (log scale)")]
    for power in range(low, high + 1):
        parts.append(_line(_LEFT, y(10.0**power), _RIGHT, y(10.0**power), "#e2e4e6"))
        parts.append(_text(_LEFT - 8, y(10.0**power) + 4, f"{10.0**power:g}", anchor="end"))
    for tick in _ticks(most):
        parts.append(_text(x(tick), _BOTTOM + 18, f"{tick:g}", anchor="middle"))
    parts.append(_text((_LEFT + _RIGHT) / 2, _BOTTOM + 42, "strokes answered a second", anchor="middle"))
    parts.append(_line(_LEFT, y(target_p99_ms), _RIGHT, y(target_p99_ms), "#76797c", dashed=True))
    parts.append(_text(_RIGHT + 6, y(target_p99_ms) + 4, f"target {target_p99_ms:g} ms"))
    for name, colour in _LINES:
        places = [(x(row["strokes_per_s"]), y(row[name])) for row in rows]
        path = " ".join(f"{across},{down}" for across, down in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{across}" cy="{down}" r="3.5" fill="{colour}"/>' for across, down in places]
        parts.append(_text(places[-1][0] + 8, places[-1][1] - 6, name, colour=colour))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _ticks(most: float) -> list[float]:
    """Some six round numbers, 0 included."""
    step = 10 ** math.floor(math.log10(most))
    step = next(step * part for part in (0.1, 0.2, 0.5, 1, 2, 5) if most / (step * part) <= 7)
    return [number * step for number in range(int(most / step) + 1)]


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", colour: str = "#212529") -> str:
    safe = text.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{safe}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}"{dash}/>'
