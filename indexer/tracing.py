"""From a finished sketch on paper to pen strokes: clean, thin, split at junctions, join what runs straight on.

Numpy and Pillow only: the demo traces a scan on a base install. The order in which a person would have drawn the
strokes is `drawing_order.py`'s.
"""

from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from indexer.errors import SketchError
from indexer.sketch import MAX_WIDTH, Stroke, square

Bitmap = npt.NDArray[np.bool_]
Path = list[tuple[int, int]]

_TRACE_PX: Final = 340
"""Larger scans are scaled down to this side: FS2K's finer half, and a tenth of a millimetre of a portrait on A4."""

_MIN_BLOB_PX: Final = 6
_MIN_PATH_PX: Final = 3
_MAX_BEND: Final = np.deg2rad(50)

_RING: Final = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""The eight neighbours as (row, column) steps, clockwise from above."""


def trace(image: Image.Image) -> list[Stroke]:
    """The strokes of a finished sketch, in no particular order.

    Args:
        image: a sketch in any mode, dark on light or light on dark; its centred square becomes the canvas.

    Returns:
        Strokes whose union, rasterised, is the cleaned sketch.

    Raises:
        SketchError: nothing in the picture looks like a pencil line.

    Example:
        >>> from PIL import ImageDraw
        >>> paper = Image.new("L", (120, 120), 255)
        >>> ImageDraw.Draw(paper).line((20, 60, 100, 60), fill=0, width=3)
        >>> len(trace(paper))
        1
    """
    ink = clean(image)
    side = len(ink)
    thickness = _thickness(ink)
    strokes = []
    for path in _join(_split(_thin(ink))):
        rows, columns = np.array(path).T
        width = float(np.median(thickness[rows, columns])) / side
        points = _simplify(np.stack([columns, rows], axis=1).astype(np.float32), tolerance=0.4)
        strokes.append(Stroke(((points + 0.5) / side).astype(np.float32), min(max(width, 1.2 / side), MAX_WIDTH)))
    if not strokes:
        raise SketchError("no pencil line found: the picture must show a sketch, dark on light or light on dark")
    return strokes


def clean(image: Image.Image) -> Bitmap:
    """(side, side) bool, True where there is ink: paper tint divided out, Sauvola's local threshold, no specks.

    Source: J. Sauvola, M. Pietikainen, Adaptive document image binarization, Pattern Recognition 33, 2000.
    """
    grey = square(image.convert("L"))
    if grey.width > _TRACE_PX:
        grey = grey.resize((_TRACE_PX, _TRACE_PX), Image.Resampling.LANCZOS)
    if np.median(np.asarray(grey)) < 128:
        grey = Image.eval(grey, lambda value: 255 - value)
    # The paper is what most of a neighbourhood shows; the upper quartile holds in dense hair, too.
    small = grey.reduce(4).filter(ImageFilter.RankFilter(15, 15 * 15 * 3 // 4))
    paper = np.asarray(small.resize(grey.size, Image.Resampling.BILINEAR), dtype=np.float32)
    ratio = np.minimum(np.asarray(grey, dtype=np.float32) / np.maximum(paper, 1), 1)
    mean, square_mean = _box_mean(ratio, 9), _box_mean(np.square(ratio), 9)
    deviation = np.sqrt(np.maximum(square_mean - mean * mean, 0))
    ink = (ratio < mean * (1 + 0.15 * (deviation / 0.5 - 1))) & (ratio < 0.86)
    return _without_specks(ink, _MIN_BLOB_PX)


def _box_mean(values: npt.NDArray[np.float32], radius: int) -> npt.NDArray[np.float32]:
    picture = Image.fromarray(values.astype(np.float32))
    padded = np.pad(np.asarray(picture), radius, mode="reflect")
    total = np.pad(padded.cumsum(0, dtype=np.float64).cumsum(1), ((1, 0), (1, 0)))
    size = 2 * radius + 1
    window = total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
    return np.asarray(window / size**2, dtype=np.float32)


def _neighbours(bitmap: Bitmap) -> npt.NDArray[np.uint8]:
    """(8, side, side) uint8, the ring around every pixel in `_RING` order; 0 beyond the edge."""
    padded = np.pad(bitmap.astype(np.uint8), 1)
    height, width = bitmap.shape
    return np.stack([padded[1 + r : 1 + r + height, 1 + c : 1 + c + width] for r, c in _RING])


def _thin(ink: Bitmap) -> Bitmap:
    """Skeleton of one pixel width.

    Source: T. Zhang, C. Suen, A fast parallel algorithm for thinning digital patterns, CACM 27, 1984; then corners
    of staircases go, so that only true junctions have three neighbours.
    """
    skeleton = ink.copy()
    changed = True
    while changed:
        changed = False
        for first, second in (((0, 2, 4), (2, 4, 6)), ((0, 2, 6), (0, 4, 6))):
            ring = _neighbours(skeleton)
            count = ring.sum(axis=0)
            rises = ((ring == 0) & (np.roll(ring, -1, axis=0) == 1)).sum(axis=0)
            open_side = (ring[list(first)].prod(axis=0) == 0) & (ring[list(second)].prod(axis=0) == 0)
            gone = skeleton & (count >= 2) & (count <= 6) & (rises == 1) & open_side
            changed |= bool(gone.any())
            skeleton &= ~gone
    for corner in range(0, 8, 2):
        ring = _neighbours(skeleton)
        a, b = ring[corner], ring[(corner + 2) % 8]
        opposite = ring[[(corner + 4) % 8, (corner + 5) % 8, (corner + 6) % 8]].sum(axis=0)
        skeleton &= ~((a == 1) & (b == 1) & (opposite == 0))
    return skeleton


def _thickness(ink: Bitmap) -> npt.NDArray[np.float32]:
    """(side, side) line thickness in pixels around every ink pixel, by counting erosions (a cross, then a square)."""
    depth = np.zeros(ink.shape, np.float32)
    left = ink
    step = 0
    while left.any() and step < 12:
        depth += left
        ring = _neighbours(left)
        left = left & (ring[::2] if step % 2 == 0 else ring).all(axis=0)
        step += 1
    # The skeleton of a line w pixels thick lies ceil(w / 2) deep; neighbours smooth out the half pixel.
    mean_depth = _box_mean(depth, 1) / np.maximum(_box_mean(ink.astype(np.float32), 1), 1e-6)
    return np.asarray(2 * mean_depth - 0.3, dtype=np.float32)


def _split(skeleton: Bitmap) -> list[Path]:
    """Cut the skeleton at its junctions into simple paths; both ends reach into the junction they left."""
    pixels = {(row, column) for row, column in np.argwhere(skeleton).tolist()}
    around = {p: [q for r, c in _RING if (q := (p[0] + r, p[1] + c)) in pixels] for p in pixels}
    junctions = {p for p, near in around.items() if len(near) > 2}
    paths: list[Path] = []
    free = pixels - junctions
    ends = [p for p in sorted(free) if sum(q in free for q in around[p]) < 2]
    for start in [*ends, *sorted(free)]:  # rings without an end come last
        if start not in free:
            continue
        path = [start]
        free.discard(start)
        while onward := [q for q in around[path[-1]] if q in free]:
            path.append(onward[0])
            free.discard(onward[0])
        head = [q for q in around[path[0]] if q in junctions]
        tail = [q for q in around[path[-1]] if q in junctions and q not in head[:1]]
        paths.append([*head[:1], *path, *tail[:1]])
        if len(path) > 2 and path[0] in around[path[-1]]:
            paths[-1].append(path[0])
    return paths


def _join(paths: list[Path]) -> list[Path]:
    """Join path ends that meet at a junction and run straight on, straightest first; drop what is too short."""
    ends: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for number, path in enumerate(paths):
        for end in (0, -1):
            ends.setdefault(_cell(path[end]), []).append((number, end))
    pairs = []
    for meeting in ends.values():
        for (a, a_end), (b, b_end) in combinations(meeting, 2):
            if a != b and (bend := _bend(paths[a], a_end, paths[b], b_end)) < _MAX_BEND:
                pairs.append((bend, (a, a_end), (b, b_end)))
    partner: dict[tuple[int, int], tuple[int, int]] = {}
    for _, one, other in sorted(pairs):
        if one not in partner and other not in partner:
            partner[one], partner[other] = other, one
    return [path for path in _chains(paths, partner) if len(path) >= _MIN_PATH_PX]


def _cell(pixel: tuple[int, int]) -> tuple[int, int]:
    """Ends within the same 3x3 block meet."""
    return pixel[0] // 3, pixel[1] // 3


def _bend(a: Path, a_end: int, b: Path, b_end: int) -> float:
    """Angle in radians between leaving along a's end and going on along b; 0 is straight on."""
    outward, inward = _heading(a, a_end), -_heading(b, b_end)
    cosine = float(outward @ inward) / max(float(np.linalg.norm(outward) * np.linalg.norm(inward)), 1e-9)
    return float(np.arccos(np.clip(cosine, -1, 1)))


def _heading(path: Path, end: int) -> npt.NDArray[np.float64]:
    inner = path[min(6, len(path) - 1)] if end == 0 else path[-1 - min(6, len(path) - 1)]
    return np.subtract(path[end], inner).astype(np.float64)


def _chains(paths: list[Path], partner: dict[tuple[int, int], tuple[int, int]]) -> list[Path]:
    chains: list[Path] = []
    used: set[int] = set()
    starts = [(n, end) for n in range(len(paths)) for end in (0, -1) if (n, end) not in partner]
    for number, end in [*starts, *((n, 0) for n in range(len(paths)))]:  # closed chains have no start
        chain: Path = []
        here: tuple[int, int] | None = (number, end)
        while here is not None and here[0] not in used:
            used.add(here[0])
            path = paths[here[0]]
            chain += path if here[1] == 0 else path[::-1]
            here = partner.get((here[0], -1 if here[1] == 0 else 0))
        if chain:
            chains.append(chain)
    return chains


def _simplify(points: npt.NDArray[np.float32], tolerance: float) -> npt.NDArray[np.float32]:
    """Douglas-Peucker: the fewest points that stay within `tolerance` of the path."""
    keep = np.zeros(len(points), bool)
    keep[[0, -1]] = True
    spans = [(0, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        chord, offsets = points[last] - points[first], points[first + 1 : last] - points[first]
        length = float(np.hypot(*chord))
        away = np.abs(chord[0] * offsets[:, 1] - chord[1] * offsets[:, 0]) / length if length else np.hypot(*offsets.T)
        far = int(np.argmax(away))
        if away[far] > tolerance:
            keep[first + 1 + far] = True
            spans += [(first, first + 1 + far), (first + 1 + far, last)]
    return points[keep]


def _without_specks(ink: Bitmap, least_px: int) -> Bitmap:
    """Drop 8-connected blobs of fewer than `least_px` pixels, by flooding each blob once."""
    kept = ink.copy()
    pixels = {(row, column) for row, column in np.argwhere(ink).tolist()}
    while pixels:
        blob = [pixels.pop()]
        for row, column in blob:  # grows while it is walked
            for r, c in _RING:
                if (near := (row + r, column + c)) in pixels:
                    pixels.discard(near)
                    blob.append(near)
        if len(blob) < least_px:
            kept[tuple(np.array(blob).T)] = False
    return kept
