"""The same strokes over gRPC and in this process, in turn: what the service adds to the work itself."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexer.encoding import OnnxEncoder, default_threads
from indexer.fusion import EQUAL_WEIGHTS
from indexer.gallery import Gallery
from indexer.regions import ink_mask
from indexer.sketch import Canvas, Stroke
from service.bench.people import Drawings
from service.client import Client

_WARM_UP: Final = 10
"""Strokes before the first that counts."""

_PAUSE_S: Final = 0.15
"""Between the two: worker threads spin for a while after their last product and would take the other's cores."""


def over_in_process(address: str, folder: Path, drawings: Drawings, rounds: int) -> dict[str, Any]:
    """Milliseconds of a stroke over gRPC, one session and nothing else, and in this process.

    Args:
        address: of a service that serves the folder.
        folder: of the gallery.
        drawings: each is drawn both ways in every round, at full speed.
        rounds: at least 1; the first strokes of all do not count.

    Returns:
        "rows": "grpc" and "in_process", each p50 and p99 in ms; "ratios": "p50_over_in_process" and
        "p99_over_in_process"; "strokes": how many of each.
    """
    gallery, encoder = Gallery.open(folder), OnnxEncoder.open(threads=default_threads(), spins=False)
    spent: dict[str, list[float]] = {"grpc": [], "in_process": []}
    try:
        with Client(address) as client:
            for number in range(rounds + 1):
                strokes = drawings.strokes[number % len(drawings.strokes)][: None if number else _WARM_UP]
                times = {
                    "grpc": _over_grpc(client, gallery.name, strokes),
                    "in_process": _in_process(gallery, encoder, strokes),
                }
                for name, each in times.items():
                    spent[name] += each if number else []
    finally:
        gallery.close()
    rows = {
        name: {f"p{share}": 1e3 * float(np.percentile(times, share)) for share in (50, 99)}
        for name, times in spent.items()
    }
    ratios = {f"{p}_over_in_process": rows["grpc"][p] / rows["in_process"][p] for p in ("p50", "p99")}
    return {"rows": rows, "ratios": ratios, "strokes": len(spent["grpc"])}


def _over_grpc(client: Client, gallery: str, strokes: Sequence[Stroke]) -> list[float]:
    time.sleep(_PAUSE_S)
    times = []
    with client.draw(gallery) as drawing:
        for stroke in strokes:
            began = time.perf_counter()
            drawing.strokes([stroke])
            times.append(time.perf_counter() - began)
    return times


def _in_process(gallery: Gallery, encoder: OnnxEncoder, strokes: Sequence[Stroke]) -> list[float]:
    """Raster, encode, search; nothing is kept between strokes but the canvas."""
    time.sleep(_PAUSE_S)
    times, canvas = [], Canvas(encoder.size_px)
    for stroke in strokes:
        began = time.perf_counter()
        canvas.draw([stroke])
        pixels = canvas.pixels()
        ink = ink_mask(pixels)
        probe = encoder.encode_sketches(pixels[None])[0]
        gallery.search(probe, ink, 10, EQUAL_WEIGHTS)
        times.append(time.perf_counter() - began)
    return times
