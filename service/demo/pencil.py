"""The strokes that a person would draw for a portrait, in the order of a person who draws from large to small.

The pencil follows the very curves that the photo is painted from, with the unsteadiness of a hand; what hair or the
edge of the paper hides is not drawn.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from indexer.sketch import Stroke
from service.demo.anatomy import Anatomy, Eye, Points, anatomy, curve, place, shift
from service.demo.hairdressing import Hairdo, dress, strands
from service.demo.painting import beard_outlines
from service.demo.parts import Beard, Collar, HairStyle, Rgb
from service.demo.portraits import Portrait

_MASK_PX: Final = 256
_SPACING: Final = 0.012
"""Canvas units between the points of a stroke: a mouse's or a tablet's sampling."""

_HANDS_ERROR: Final = 0.0028
"""Canvas units that a line strays from the curve, standard deviation."""

_EYES_ERROR: Final = 0.008
"""Canvas units that a whole part (the mouth, an eye, the hair) is misplaced by, standard deviation."""


def draw_strokes(portrait: Portrait, rng: np.random.Generator) -> list[Stroke]:
    """One drawing of this portrait, first stroke to last: some 80 to 180 strokes within the canvas.

    Args:
        portrait: whom to draw.
        rng: the draughtsman; another one draws the same face with another wobble and other hatching.

    Returns:
        Strokes in the order hair outline, face contour, hair, mouth and beard, neck and shoulders, eyes, brows, nose,
        glasses, details.
    """
    body, hairdo = anatomy(portrait), dress(portrait)
    hidden = _under_hair(hairdo)
    pencil = _Pencil(rng)
    _hair_outline(pencil, hairdo, body)
    pencil.begin_part()
    pencil.draw(*_halves(body.jaw), hidden=hidden)
    pencil.draw(*body.ears, hidden=hidden)
    _hair_fill(pencil, portrait, hairdo)
    pencil.begin_part()
    _mouth(pencil, portrait, body)
    pencil.begin_part()
    _neck_and_shoulders(pencil, portrait, body, hidden)
    for eye in body.eyes:
        pencil.begin_part()
        _eye(pencil, portrait, eye)
    pencil.begin_part()
    _brows(pencil, portrait, body, hidden)
    pencil.begin_part()
    _nose(pencil, body)
    _details(pencil, portrait, body, hidden)
    return pencil.strokes


class _Pencil:
    """A hand that collects strokes."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.strokes: list[Stroke] = []
        self._misplaced = np.zeros(2)

    def begin_part(self) -> None:
        """Set out on a part of the face, a little off where it belongs."""
        self._misplaced = self.rng.normal(0, _EYES_ERROR, 2)

    def draw(self, *paths: Points, width: float | None = None, hidden: Image.Image | None = None) -> None:
        """Follow each path where it is on the paper and not under the white of `hidden`."""
        for path in paths:
            line = self._by_hand(path)
            inside = np.asarray(((line >= 0) & (line <= 1)).all(axis=1))
            if hidden is not None:
                cells = np.clip((line * _MASK_PX).astype(int), 0, _MASK_PX - 1)
                inside &= np.asarray(hidden)[cells[:, 1], cells[:, 0]] == 0
            for run in _runs(inside):
                if len(part := line[run]) > 1:
                    self.strokes.append(
                        Stroke(part.astype(np.float32), width or float(self.rng.uniform(0.0062, 0.0088)))
                    )

    def dot(self, at: Points, width: float) -> None:
        """Press the pencil down once."""
        self.strokes.append(Stroke(np.clip(at + self._misplaced, 0, 1)[None].astype(np.float32), width))

    def _by_hand(self, path: Points) -> Points:
        """The path at the pace of a hand, with a slow wander and a small tremor."""
        length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
        count = max(2, round(length[-1] / _SPACING) + 1)
        at = np.linspace(0, length[-1], count)
        line = np.stack([np.interp(at, length, path[:, axis]) for axis in (0, 1)], axis=1)
        # Two slow waves a stroke: the hand is off by a little for a while, never by noise from point to point.
        phase, pace = self.rng.uniform(0, 2 * np.pi, (2, 1, 2)), self.rng.uniform((4,), (14,), (2, 1, 2))
        wander = np.sin(phase + pace * at[:, None]).sum(axis=0) * _HANDS_ERROR * 0.8
        tremor = self.rng.normal(0, 0.0006, (count, 2))
        return np.asarray(line + self._misplaced + wander + self.rng.normal(0, 0.4 * _HANDS_ERROR, 2) + tremor)


def _runs(inside: npt.NDArray[np.bool_]) -> list[slice]:
    """Stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    return [slice(start, stop) for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)]


def _halves(path: Points) -> tuple[Points, Points]:
    middle = len(path) // 2
    return path[: middle + 1], path[middle:]


def _polygons(outlines: Iterable[Points]) -> Image.Image:
    """Grey mask, 255 inside the outlines."""
    mask = Image.new("L", (_MASK_PX, _MASK_PX))
    pen = ImageDraw.Draw(mask)
    for outline in outlines:
        pen.polygon((outline * _MASK_PX).ravel().tolist(), fill=255)
    return mask


def _under_hair(hairdo: Hairdo) -> Image.Image:
    outlines = [] if hairdo.is_bald else [hairdo.band]
    return _polygons(outlines + ([hairdo.tail] if len(hairdo.tail) else []))


def _darkness(rgb: Rgb) -> float:
    """0 white to 1 black."""
    return 1 - (0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]) / 255


def _hair_outline(pencil: _Pencil, hairdo: Hairdo, body: Anatomy) -> None:
    if hairdo.is_bald:
        # Ear to ear over the skull: the upper part of the face's outline.
        top = np.concatenate([body.face[-36:], body.face[:36]])
        pencil.draw(*_halves(top))
        return
    pencil.draw(*_halves(hairdo.outer), *_halves(hairdo.inner))
    for outline in (hairdo.knot, hairdo.tail):
        if len(outline):
            pencil.draw(np.concatenate([outline, outline[:2]]))


def _hair_fill(pencil: _Pencil, portrait: Portrait, hairdo: Hairdo) -> None:
    """Hatching along the strands: the darker the hair the denser, back and forth without lifting the pencil."""
    dark = _darkness(portrait.hair.rgb)
    area = 0.0 if hairdo.is_bald else float(np.linalg.norm(hairdo.outer - hairdo.inner, axis=1).mean())
    count = round((22 + 120 * dark**1.8) * min(1.6, 0.35 + 8 * area))
    if hairdo.style is HairStyle.BUZZ:
        count //= 2
    lines = strands(hairdo, pencil.rng, count)
    start = 0
    while start < len(lines):
        stop = start + 1 + int(pencil.rng.random() < 0.5)
        pencil.draw(*lines[start:stop], width=0.0052 + 0.0024 * dark)
        start = stop
    for outline in (hairdo.knot, hairdo.tail):
        if len(outline):
            pencil.draw(*_hatching(pencil.rng, [outline], round(6 + 16 * dark)))


def _hatching(rng: np.random.Generator, outlines: Sequence[Points], count: int, length: float = 0.05,
              slope: float = 0.25) -> list[Points]:  # fmt: skip
    """Short parallel lines, mostly upright, within closed outlines."""
    mask = np.asarray(_polygons(outlines))
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return []
    lines = []
    for at in rng.integers(0, len(rows), count):
        middle = np.array([columns[at], rows[at]]) / _MASK_PX
        reach = np.array([slope * rng.normal(), 1.0]) * length * rng.uniform(0.25, 0.5)
        line = middle + np.linspace(-1, 1, 7)[:, None] * reach
        cells = np.clip((line * _MASK_PX).astype(int), 0, _MASK_PX - 1)
        lines += [line[run] for run in _runs(mask[cells[:, 1], cells[:, 0]] > 0) if run.stop - run.start > 2]
    return lines


def _mouth(pencil: _Pencil, portrait: Portrait, body: Anatomy) -> None:
    upper, lower = body.lips
    n = len(upper) // 2
    pencil.draw(body.mouth, width=0.009)
    pencil.draw(upper[:n], lower[n:])
    if portrait.features.teeth:
        pencil.draw(body.mouth_below)
    dark = _darkness(portrait.features.lip_rgb)
    pencil.draw(*_hatching(pencil.rng, [upper], round(10 * dark), length=0.02))
    kind = portrait.extras.beard
    if kind is not Beard.NONE:
        share = 0.35 if kind is Beard.STUBBLE else 1.0
        area = 1.6 if kind in (Beard.FULL, Beard.STUBBLE) else 0.6
        count = round((20 + 60 * _darkness(portrait.hair.rgb)) * share * area)
        length = 0.018 if kind is Beard.STUBBLE else 0.05
        pencil.draw(*_hatching(pencil.rng, beard_outlines(portrait), count, length))


def _neck_and_shoulders(pencil: _Pencil, portrait: Portrait, body: Anatomy, hidden: Image.Image) -> None:
    # Hidden behind the jaw as well as behind the hair.
    behind = Image.fromarray(np.maximum(np.asarray(hidden), np.asarray(_polygons([body.face]))))
    pencil.draw(*body.neck, hidden=behind)
    top = body.shoulders[:-2]
    x, half, base = portrait.head.centre_x, body.neck[1][-1, 0] - portrait.head.centre_x, body.neck[1][-1, 1]
    pencil.draw(*_halves(top), hidden=behind)
    collar = portrait.scene.collar
    if collar in (Collar.V_NECK, Collar.SUIT, Collar.SHIRT):
        depth = 0.10 if collar is Collar.V_NECK else 0.14
        for side in (-1, 1):
            pencil.draw(np.array([(x + side * half, base - 0.01), (x, base + depth)]), hidden=behind)
    if collar in (Collar.SHIRT, Collar.SUIT):
        for side in (-1, 1):
            flap = np.array([(x + side * 1.02 * half, base - 0.035), (x + side * 0.10 * half, base + 0.075),
                             (x + side * 0.72 * half, base + 0.10), (x + side * 1.25 * half, base + 0.01)])  # fmt: skip
            pencil.draw(flap, hidden=behind)
    if collar is Collar.TURTLENECK:
        pencil.draw(
            curve([(x - 0.80 * half, base - 0.045), (x, base - 0.02), (x + 0.80 * half, base - 0.045)]), hidden=behind
        )
    if collar is Collar.CREW:
        pencil.draw(
            curve([(x - 0.98 * half, base - 0.004), (x, base + 0.038), (x + 0.98 * half, base - 0.004)]), hidden=behind
        )
    cloth = round(18 * _darkness(portrait.scene.cloth_rgb) ** 2)
    pencil.draw(*_hatching(pencil.rng, [np.clip(body.shoulders, 0, 1)], cloth, length=0.08, slope=0.8), hidden=behind)


def _eye(pencil: _Pencil, portrait: Portrait, eye: Eye) -> None:
    pencil.draw(eye.upper, width=0.0095)
    pencil.draw(eye.lower, eye.crease, width=0.0062)
    # The lids cut the iris: draw what shows between them.
    opening = _polygons([np.concatenate([eye.upper, eye.lower[::-1]])])
    closed = Image.fromarray(255 - np.asarray(opening))
    angle = np.linspace(0, 2 * np.pi, 24)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    pencil.draw(eye.iris + ring * eye.radius, width=0.007, hidden=closed)
    if _darkness(portrait.features.iris_rgb) > 0.6:
        pencil.draw(eye.iris + ring * 0.6 * eye.radius, width=0.009, hidden=closed)
    pencil.dot(eye.iris, 1.1 * eye.radius)


def _brows(pencil: _Pencil, portrait: Portrait, body: Anatomy, hidden: Image.Image) -> None:
    width = portrait.features.brow_weight * portrait.head.half_width
    for spine in body.brows:
        n = len(spine)
        taper = np.interp(np.arange(n) / (n - 1), [0, 0.25, 0.65, 1], [0.7, 1.0, 0.85, 0.15])[:, None]
        # Up and down along the brow in one go.
        zigzag = spine + taper * width * np.where(np.arange(n) % 2, -0.9, 0.55)[:, None] * (0, 1)
        pencil.draw(spine, width=0.009, hidden=hidden)
        pencil.draw(zigzag, width=0.0075, hidden=hidden)


def _nose(pencil: _Pencil, body: Anatomy) -> None:
    pencil.draw(body.nose_base, body.nose_side)
    for hole in body.nostrils:
        pencil.draw(hole, width=0.009)


def _details(pencil: _Pencil, portrait: Portrait, body: Anatomy, hidden: Image.Image) -> None:
    for lens in body.lenses:
        pencil.draw(np.concatenate([lens, lens[:3]]), width=0.009)
    pencil.draw(*body.frame, hidden=hidden)
    pencil.draw(*body.folds, width=0.0062, hidden=hidden)
    head, extras = portrait.head, portrait.extras
    if extras.mole:
        pencil.dot(place(head, np.array(extras.mole) * head.half_width), 0.012)
    if extras.earrings:
        for lobe in body.lobes:
            pencil.dot(lobe + shift(0, 0.010), 0.018)
    if extras.freckles:
        for x, y in pencil.rng.normal((0, 0.5), (0.42, 0.13), (14, 2)):
            pencil.dot(place(head, (x * head.half_width, y * 0.62 * head.chin_drop)), 0.006)
