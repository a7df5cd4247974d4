"""The curves of one face, in canvas units: what the photo is painted from and the pencil follows.

Curves are laid out upright around the point between the eyes (the head frame: x to the right, y down, 0 on the eye
line) and then placed: turned, tilted and moved to where the portrait looks into the camera from.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from service.demo.parts import Glasses, Head
from service.demo.portraits import Portrait

Points = npt.NDArray[np.float64]
"""(n, 2) x and y, canvas units once placed; may leave 0..1 where the picture cuts a body off."""

_TURN_DEPTH: Final = 0.24
"""How far the middle of the face moves at a full turn, in half face widths."""


@dataclass(frozen=True)
class Eye:
    """One eye; lids run from left to right."""

    upper: Points
    lower: Points
    crease: Points
    iris: Points
    """(2,) its centre."""
    radius: float


@dataclass(frozen=True)
class Anatomy:
    """Everything of a face but its hair (`hairdressing`)."""

    face: Points
    """Closed outline, chin to skull."""
    jaw: Points
    """The open part that one draws: from ear to ear through the chin."""
    ears: tuple[Points, Points]
    lobes: tuple[Points, Points]
    """(2,) each: where an earring hangs."""
    eyes: tuple[Eye, Eye]
    brows: tuple[Points, Points]
    """The spines, from the inner end to the outer."""
    nose_side: Points
    nose_base: Points
    nostrils: tuple[Points, Points]
    lips: tuple[Points, Points]
    """Closed outlines of the upper and the lower lip."""
    mouth: Points
    """Where the lips meet, left to right; the lower edge of the upper lip when they part."""
    mouth_below: Points
    folds: tuple[Points, ...]
    """Lines that age and a smile draw."""
    neck: tuple[Points, Points]
    shoulders: Points
    """Closed outline, below the picture's edge."""
    lenses: tuple[Points, ...]
    frame: tuple[Points, ...]
    """Bridge and arms of the glasses."""


def curve(control: npt.ArrayLike, steps: int = 12, closed: bool = False) -> Points:
    """A smooth (Catmull-Rom) curve through the control points, `steps` points to a span.

    Example:
        >>> curve([[0, 0], [1, 0], [2, 0]], steps=2).tolist()
        [[0.0, 0.0], [0.5, 0.0], [1.0, 0.0], [1.5, 0.0], [2.0, 0.0]]
    """
    knots = np.asarray(control, dtype=np.float64)
    if closed:
        padded = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    before, start, end, after = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    t = np.arange(steps)[None, :, None] / steps
    spans = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
    points = spans.reshape(-1, 2)
    return points if closed else np.concatenate([points, knots[-1:]])


def mirrored(right: npt.ArrayLike) -> Points:
    """Control points of a symmetric curve, left to right, from its right half; the first point lies on the axis."""
    half = np.asarray(right, dtype=np.float64)
    return np.concatenate([half[::-1] * (-1, 1), half[1:]])


def shift(x: float, y: float) -> Points:
    """(2,) step to add to points."""
    return np.array([x, y], dtype=np.float64)


def place(head: Head, points: npt.ArrayLike, relief: float = 1.0) -> Points:
    """From the head frame to the canvas.

    Args:
        head: where the head is, how it is turned and tilted.
        points: (n, 2) or (2,), head frame, canvas units.
        relief: 1 on the surface of the face, more for what stands out (the tip of the nose), 0 for the silhouette.
    """
    upright = np.array(points, dtype=np.float64)
    x = upright[..., 0]
    bulge = np.clip(1 - (x / (1.02 * head.half_width)) ** 2, 0, 1)
    upright[..., 0] = x + head.turn * _TURN_DEPTH * head.half_width * relief * bulge
    angle = np.deg2rad(head.roll_deg)
    cos, sin = np.cos(angle), np.sin(angle)
    turned = upright @ np.array([[cos, sin], [-sin, cos]])
    return np.asarray(turned + shift(head.centre_x, head.eye_y))


def anatomy(portrait: Portrait) -> Anatomy:
    """All curves of this portrait's face, neck and shoulders."""
    head = portrait.head
    face, jaw = _outline(head)
    ears, lobes = _ears(head)
    nose_side, nose_base, nostrils = _nose(portrait)
    lips, mouth, mouth_below = _mouth(portrait)
    lenses, frame = _glasses(portrait)
    neck, shoulders = _body(head)
    return Anatomy(
        face=face,
        jaw=jaw,
        ears=ears,
        lobes=lobes,
        eyes=(_eye(portrait, -1), _eye(portrait, 1)),
        brows=(_brow(portrait, -1), _brow(portrait, 1)),
        nose_side=nose_side,
        nose_base=nose_base,
        nostrils=nostrils,
        lips=lips,
        mouth=mouth,
        mouth_below=mouth_below,
        folds=_folds(portrait),
        neck=neck,
        shoulders=shoulders,
        lenses=lenses,
        frame=frame,
    )


def _outline(head: Head) -> tuple[Points, Points]:
    w, chin, crown = head.half_width, head.chin_drop, head.crown_rise
    skull = [(0, -crown), (0.62 * w, -0.83 * crown), (head.temple_ratio * w, -0.40 * crown)]
    cheek = [(1.0 * w, 0.06 * chin), ((0.60 + 0.40 * head.jaw_ratio) * w, 0.38 * chin)]
    jaw = [(head.jaw_ratio * w, head.jaw_height * chin), (head.chin_ratio * w, 0.955 * chin), (0, chin)]
    right = np.array(skull + cheek + jaw)
    left = right[1:-1][::-1] * (-1, 1)
    face = curve(np.concatenate([right, left]), closed=True)
    line = curve(np.concatenate([right[3:], left[:4]]))
    return place(head, face, relief=0), place(head, line, relief=0)


def _ears(head: Head) -> tuple[tuple[Points, Points], tuple[Points, Points]]:
    w, drop, out = head.half_width, head.chin_drop, head.ear_ratio * head.half_width
    # The ear that the head turns away from the camera hides behind the cheek.
    shapes, lobes = [], []
    for side in (-1, 1):
        shown = out * (1 - 0.75 * max(0.0, side * head.turn))
        ear = [(0.95, 0, 0.34), (0.99, 0.35, 0.36), (1.0, 0.72, 0.22), (1.0, 1.0, 0.02), (0.99, 0.85, -0.10),
               (0.96, 0.3, -0.10), (0.93, 0, 0.0)]  # fmt: skip
        outline = curve([(side * (at * w + reach * shown), y * drop) for at, reach, y in ear])
        shapes.append(place(head, outline, relief=0))
        lobes.append(place(head, (side * (0.99 * w + 0.3 * shown), 0.37 * drop), relief=0))
    return (shapes[0], shapes[1]), (lobes[0], lobes[1])


def _eye(portrait: Portrait, side: int) -> Eye:
    head, f = portrait.head, portrait.features
    w = head.half_width
    centre = np.array([side * f.eye_gap * w, 0.0])
    half, opened = f.eye_width * w, f.eye_open * w * (1 - 0.2 * max(0.0, f.smile))
    slant = -f.eye_tilt * half

    def lid(heights: list[float]) -> Points:
        # Inner to outer end; the outer end goes up with the tilt.
        along = np.array([-1.0, -0.5, 0.1, 0.6, 1.0])
        x = centre[0] + side * along * half
        y = slant * along + np.array(heights) * opened
        points = curve(np.stack([x, y], axis=1), steps=6)
        return place(head, points if side > 0 else points[::-1])

    return Eye(
        upper=lid([0.25, -0.75, -1.0, -0.72, 0.0]),
        lower=lid([0.25, 0.72, 0.85, 0.62, 0.0]),
        crease=lid([-0.75, -1.75, -2.05, -1.7, -0.75]),
        iris=place(head, centre + shift(0, -0.2 * f.eye_hood * opened), relief=1.05),
        radius=max(0.068 * w, 0.92 * opened),
    )


def _brow(portrait: Portrait, side: int) -> Points:
    head, f = portrait.head, portrait.features
    w = head.half_width
    along = np.array([-1.15, -0.4, 0.45, 1.4])
    x = f.eye_gap * w + along * f.eye_width * w
    arch = np.array([0.0, 0.65, 1.0, -0.1]) * f.brow_arch
    y = -(f.brow_rise + arch + f.brow_tilt * 0.5 * along * f.eye_width / 0.2) * w
    return place(head, curve(np.stack([side * x, y], axis=1), steps=6))


def _nose(portrait: Portrait) -> tuple[Points, Points, tuple[Points, Points]]:
    head, f = portrait.head, portrait.features
    w, base, wing = head.half_width, f.nose_drop * head.chin_drop, f.nose_width * head.half_width
    # One draws the bridge on the side away from the light, or the far side of a turned head.
    side = 1 if head.turn - 0.4 * portrait.scene.light_x > 0 else -1
    bridge = [(side * 0.19 * w, -0.16 * w), (side * 0.11 * w, 0.02 * w), (side * 0.12 * w, 0.55 * base),
              (side * 0.14 * w, 0.80 * base)]  # fmt: skip
    tip = base + 0.015 * w
    right = [(1.0, -0.24), (1.06, -0.10), (0.86, 0.00), (0.55, -0.035), (0.28, 0.035), (0, 0.06)]
    base_line = mirrored(np.array([(x * wing, tip + y * w) for x, y in right[::-1]]))
    holes = []
    for hand in (-1, 1):
        hole = [(0.30, -0.005), (0.46, -0.045), (0.66, -0.03), (0.62, 0.0), (0.46, 0.005)]
        points = curve([(hand * x * wing, tip + y * w) for x, y in hole], steps=4, closed=True)
        holes.append(place(head, points, relief=1.35))
    return (
        place(head, curve(bridge), relief=1.3),
        place(head, curve(base_line, steps=5), relief=1.35),
        (holes[0], holes[1]),
    )


def _mouth(portrait: Portrait) -> tuple[tuple[Points, Points], Points, Points]:
    head, f = portrait.head, portrait.features
    w, y = head.half_width, f.mouth_drop * head.chin_drop
    half = f.mouth_width * w * (1 + 0.10 * max(0.0, f.smile) + 0.06 * (f.teeth > 0))
    corner = -f.smile * 0.05 * w
    gap = f.teeth * w
    upper, lower = f.upper_lip * w, f.lower_lip * w
    along = np.array([-1.0, -0.62, -0.22, 0.0, 0.22, 0.62, 1.0])
    sag = corner * np.abs(along) ** 1.7

    def at(heights: list[float], base: float = 0.0) -> Points:
        return np.stack([along * half, y + base + sag + np.array(heights)], axis=1)

    top = at([0, -0.55 * upper, -upper, -0.80 * upper, -upper, -0.55 * upper, 0])
    seam = at([0, 0.01 * w, -0.012 * w, 0.012 * w, -0.012 * w, 0.01 * w, 0])
    seam_below = at([0, 0.7 * gap + 0.01 * w, gap, gap + 0.012 * w, gap, 0.7 * gap + 0.01 * w, 0])
    bottom = at([0, 0.62 * lower + 0.7 * gap, lower + gap, 1.04 * lower + gap, lower + gap,
                 0.62 * lower + 0.7 * gap, 0])  # fmt: skip

    def placed(control: Points) -> Points:
        return place(head, curve(control, steps=5), relief=1.08)

    upper_lip = np.concatenate([placed(top), placed(seam)[::-1]])
    lower_lip = np.concatenate([placed(seam_below), placed(bottom)[::-1]])
    return (upper_lip, lower_lip), placed(seam), placed(seam_below)


def _folds(portrait: Portrait) -> tuple[Points, ...]:
    head, f, age = portrait.head, portrait.features, portrait.extras.age
    w, c = head.half_width, head.chin_drop
    lines: list[Points] = []
    if age > 0.3 or f.smile > 0.45:
        for side in (-1, 1):
            wing, corner = f.nose_width + 0.05, f.mouth_width + 0.09
            fold = [(side * wing * w, (f.nose_drop - 0.05) * c), (side * (corner - 0.03) * w, (f.nose_drop + 0.07) * c),
                    (side * corner * w, (f.mouth_drop - 0.01) * c)]  # fmt: skip
            lines.append(curve(fold))
    if age > 0.45:
        for side in (-1, 1):
            x = f.eye_gap * w
            lines.append(
                curve([(side * (x - 0.14 * w), 0.13 * w), (side * x, 0.2 * w), (side * (x + 0.15 * w), 0.16 * w)])
            )
    if age > 0.55:
        for k in range(2):
            y = -(f.brow_rise + 0.17 + 0.11 * k) * w
            lines.append(
                curve([(-0.42 * w, y + 0.03 * w), (-0.15 * w, y), (0.18 * w, y + 0.01 * w), (0.42 * w, y + 0.035 * w)])
            )
    if age > 0.7:
        for side in (-1, 1):
            x = (f.eye_gap + f.eye_width + 0.05) * w
            for dy in (-0.03, 0.03):
                lines.append(curve([(side * x, dy * w), (side * (x + 0.12 * w), 2.2 * dy * w)]))
    return tuple(place(head, line) for line in lines)


def _body(head: Head) -> tuple[tuple[Points, Points], Points]:
    neck = head.neck_ratio * head.half_width
    chin_y = head.eye_y + head.chin_drop
    top, base = head.eye_y + 0.55 * head.chin_drop, max(head.shoulder_y, chin_y + 0.07)
    sides = []
    for side in (-1, 1):
        # The neck stays put when the head tilts and turns.
        line = [(side * neck, top), (side * 0.97 * neck, 0.5 * (top + base)), (side * 1.06 * neck, base),
                (side * 1.35 * neck, base + 0.03)]  # fmt: skip
        sides.append(curve(line) + shift(head.centre_x, 0))
    right = [(0, base + 0.035), (0.9 * neck, base + 0.012), (1.3 * neck, base + 0.005), (0.36, base + 0.055),
             (0.50, base + 0.13)]  # fmt: skip
    upper = curve(mirrored(right)) + shift(head.centre_x, 0)
    shoulders = np.concatenate([upper, [(1.1, 1.2), (-0.1, 1.2)]])
    return (sides[0], sides[1]), shoulders


def _glasses(portrait: Portrait) -> tuple[tuple[Points, ...], tuple[Points, ...]]:
    head, f, extras = portrait.head, portrait.features, portrait.extras
    if extras.glasses is Glasses.NONE:
        return (), ()
    w, y = head.half_width, 0.05 * head.half_width
    rx = min(extras.glasses_size, f.eye_gap - 0.08) * w
    ry, power = (rx, 1.0) if extras.glasses is Glasses.ROUND else (0.72 * rx, 0.5)
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    # A superellipse: power 1 is round, less is boxy.
    ring = np.stack([np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power * rx,
                     np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power * ry], axis=1)  # fmt: skip
    lenses = tuple(place(head, ring + shift(side * f.eye_gap * w, y), relief=1.15) for side in (-1, 1))
    inner, outer = f.eye_gap * w - rx, f.eye_gap * w + rx
    bridge = place(head, curve([(-inner, y - 0.1 * ry), (0, y - 0.35 * ry), (inner, y - 0.1 * ry)]), relief=1.2)
    arms = [place(head, curve([(side * outer, y - 0.4 * ry), (side * 1.0 * w, y - 0.5 * ry)]), relief=0.6)
            for side in (-1, 1)]  # fmt: skip
    return lenses, (bridge, *arms)
