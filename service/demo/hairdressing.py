"""The hair of a portrait: two rims, the hair between them, and how it runs.

Every cut is a band between an inner rim (the hairline and what frames the face) and an outer rim (the silhouette).
A place in it has two coordinates: `t` along the rims, 0 at the left end, 0.5 above the forehead, 1 at the right end;
and `s` across, 0 on the inner rim, 1 on the outer. A strand is a line in these coordinates.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from service.demo.anatomy import Points, curve, mirrored, place
from service.demo.parts import HairStyle
from service.demo.portraits import Portrait

_HANGING: Final = frozenset({
    HairStyle.BOB, HairStyle.BOB_FRINGE, HairStyle.LONG, HairStyle.LONG_FRINGE, HairStyle.WAVY,
})  # fmt: skip
_FRINGED: Final = frozenset({HairStyle.FRINGE, HairStyle.BOB_FRINGE, HairStyle.LONG_FRINGE})
_CURLED: Final = frozenset({HairStyle.CURLY, HairStyle.AFRO})
_BRUSHED_BACK: Final = frozenset({HairStyle.BUN, HairStyle.PONYTAIL, HairStyle.QUIFF})

# Canvas units that a cut stands off the skull at a volume of 1: on top, at the sides.
_STAND_OFF: Final = {
    HairStyle.RECEDING: (0.006, 0.010), HairStyle.BUZZ: (0.006, 0.004), HairStyle.SHORT: (0.022, 0.012),
    HairStyle.QUIFF: (0.050, 0.008), HairStyle.SIDE_PART: (0.032, 0.014), HairStyle.FRINGE: (0.026, 0.018),
    HairStyle.BOB: (0.030, 0.034), HairStyle.BOB_FRINGE: (0.030, 0.034), HairStyle.LONG: (0.026, 0.026),
    HairStyle.LONG_FRINGE: (0.028, 0.028), HairStyle.WAVY: (0.036, 0.044), HairStyle.CURLY: (0.045, 0.040),
    HairStyle.AFRO: (0.085, 0.095), HairStyle.BUN: (0.010, 0.006), HairStyle.PONYTAIL: (0.012, 0.008),
}  # fmt: skip


_ALONG: Final = np.linspace(0, 1, 8)


@dataclass(frozen=True)
class Hairdo:
    """The curves of one head of hair, canvas units.

    Args:
        style: the cut.
        outer: (n, 2) silhouette, left end to right end; empty on a bald head, as is inner.
        inner: (n, 2) hairline, point by point opposite to outer.
        knot: closed outline of a bun, or empty.
        tail: closed outline of a ponytail over a shoulder, or empty.
        part: where the hair parts, in t.
    """

    style: HairStyle
    outer: Points
    inner: Points
    knot: Points
    tail: Points
    part: float

    @property
    def is_bald(self) -> bool:
        """No hair at all."""
        return len(self.outer) == 0

    @property
    def band(self) -> Points:
        """Closed outline of the hair in front of the head."""
        return np.concatenate([self.outer, self.inner[::-1]])

    @property
    def hangs(self) -> bool:
        """Long enough to be seen behind the neck."""
        return self.style in _HANGING

    def at(self, t: Points, s: Points) -> Points:
        """(k, 2) canvas places of (k,) t and s."""
        place = np.clip(t, 0, 1) * (len(self.outer) - 1)
        before = np.minimum(place.astype(int), len(self.outer) - 2)
        share = (place - before)[:, None]
        inner = self.inner[before] * (1 - share) + self.inner[before + 1] * share
        outer = self.outer[before] * (1 - share) + self.outer[before + 1] * share
        return np.asarray(inner + (outer - inner) * s[:, None])


def dress(portrait: Portrait) -> Hairdo:
    """This portrait's hair."""
    hair, none = portrait.hair, np.empty((0, 2))
    if hair.style is HairStyle.BALD:
        return Hairdo(hair.style, none, none, none, none, 0.5)
    outer_half, inner_half = _hanging(portrait) if hair.style in _HANGING else _cropped(portrait)
    outer, inner = curve(mirrored(outer_half), steps=14), curve(mirrored(inner_half), steps=14)
    outer, inner = _style(portrait, outer, inner)
    knot, tail = _gathered(portrait)
    head = portrait.head
    return Hairdo(hair.style, place(head, outer, relief=0), place(head, inner, relief=0.6), knot, tail,
                  part=0.5 + 0.12 * hair.part)  # fmt: skip


def strands(hairdo: Hairdo, rng: np.random.Generator, count: int) -> list[Points]:
    """`count` hairs, each (8, 2), root to tip, in canvas units."""
    if hairdo.is_bald:
        return []
    runs = [_run(hairdo, rng) for _ in range(count)]
    places = hairdo.at(np.concatenate([t for t, _ in runs]), np.concatenate([s for _, s in runs]))
    return list(places.reshape(count, -1, 2))


def _run(hairdo: Hairdo, rng: np.random.Generator) -> tuple[Points, Points]:
    """One strand in (t, s), eight points each."""
    along = _ALONG
    if hairdo.style in _CURLED:
        at, level = rng.uniform(0.01, 0.99), rng.uniform(0.0, 1.0)
        turn = along * rng.uniform(2.5, 5.5) + rng.uniform(0, 6.3)
        size = rng.uniform(0.006, 0.016)
        return at + size * np.cos(turn), (level + 9 * size * np.sin(turn)).clip(0, 1)
    if hairdo.style in _FRINGED and rng.random() < 0.45:
        root = rng.uniform(0.30, 0.70)
        return root + rng.normal(0, 0.012) * along, rng.uniform(0.6, 1.0) * (1 - along)
    if hairdo.style in _BRUSHED_BACK:
        root = rng.uniform(0.02, 0.98)
        return root + (0.5 - root) * 0.16 * along, along * rng.uniform(0.7, 1.0)
    if hairdo.hangs or hairdo.style is HairStyle.SIDE_PART:
        end = 0.0 if rng.random() < hairdo.part else 1.0
        # Below a fringe, what falls to the sides starts beside it.
        start, length = rng.uniform(0.42 if hairdo.style in _FRINGED else 0.0, 0.7), rng.uniform(0.3, 0.9)
        reach = np.minimum(start + length * along, 1)
        s = (rng.uniform(0, 1) + rng.normal(0, 0.10) * along).clip(0, 1)
        return hairdo.part + (end - hairdo.part) * reach, np.full(8, s)
    root, level = rng.uniform(0.0, 1.0), rng.uniform(0.3, 1.0)
    lean = 0.05 * (1 if root > hairdo.part else -1)
    return root + lean * along, (level - rng.uniform(0.3, 0.7) * along).clip(0, 1)


def _stand_off(portrait: Portrait) -> tuple[float, float]:
    top, side = _STAND_OFF[portrait.hair.style]
    # Room above: the frame ends at 0, and no cut may leave it.
    room = portrait.head.eye_y - portrait.head.crown_rise - 0.025
    return min(top * portrait.hair.volume, room), side * (0.6 + 0.6 * portrait.hair.side)


def _cropped(portrait: Portrait) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    head, hair = portrait.head, portrait.hair
    w, crown, drop = head.half_width, head.crown_rise, head.chin_drop
    top, side = _stand_off(portrait)
    temple, end = head.temple_ratio * w, (0.02 + 0.14 * hair.length) * drop
    if hair.style in _CURLED:
        end = (0.15 + 0.35 * hair.length) * drop
    line = hair.hairline * crown
    if hair.style is HairStyle.RECEDING:
        line = (0.86 + 0.1 * hair.length) * crown
    if hair.style is HairStyle.FRINGE:
        line = min(line, (portrait.features.brow_rise + 0.08 + 0.2 * hair.length) * w)
    outer = [(0.0, -crown - top), (0.68 * w + 0.6 * side, -0.87 * crown - 0.75 * top),
             (temple + side, -0.44 * crown - 0.1 * top), (1.0 * w + 0.9 * side, -0.02 * drop),
             (0.995 * w + 0.2 * side, end)]  # fmt: skip
    inner = [(0.0, -line), (0.52 * w, -0.96 * line), (0.80 * temple, -0.62 * line), (0.93 * w, -0.08 * drop),
             (0.955 * w, end)]  # fmt: skip
    if hair.style is HairStyle.RECEDING:
        inner[1] = (0.62 * w, -0.72 * crown)
        inner[2] = (0.86 * temple, -0.50 * crown)
    return outer, inner


def _hanging(portrait: Portrait) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    head, hair = portrait.head, portrait.hair
    w, crown, drop = head.half_width, head.crown_rise, head.chin_drop
    top, side = _stand_off(portrait)
    is_bob = hair.style in (HairStyle.BOB, HairStyle.BOB_FRINGE)
    end = (0.62 + 0.42 * hair.length if is_bob else 1.25 + 0.5 * hair.length) * drop
    line = hair.hairline * crown
    outer = [(0.0, -crown - top), (0.74 * w + 0.6 * side, -0.85 * crown - 0.7 * top),
             (1.06 * w + side, -0.2 * crown), (1.06 * w + 1.5 * side, 0.55 * end),
             ((0.98 if is_bob else 1.10) * w + 1.7 * side, end)]  # fmt: skip
    hug = 0.80 + 0.16 * hair.side
    inner = [(0.0, -0.92 * crown), (0.55 * w, -0.80 * line), (0.90 * w, -0.16 * crown),
             (min(0.97, hug + 0.02) * w, 0.5 * end), (hug * w * (1.0 if is_bob else 0.9), end)]  # fmt: skip
    if hair.style in _FRINGED:
        fringe = min(line, (portrait.features.brow_rise + 0.06 + 0.12 * hair.length) * w)
        inner[:2] = [(0.0, -fringe), (0.58 * w, -0.95 * fringe)]
    return outer, inner


def _style(portrait: Portrait, outer: Points, inner: Points) -> tuple[Points, Points]:
    """Part, sweep, wave and curl the rims."""
    head, hair = portrait.head, portrait.hair
    w, rng = head.half_width, np.random.default_rng([portrait.seed, 1])
    t = np.linspace(0, 1, len(outer))
    hump = np.exp(-(((t - 0.5) / 0.16) ** 2))
    if hair.style not in _FRINGED | _CURLED and hair.style is not HairStyle.BUZZ:
        inner[:, 0] += 0.5 * hair.part * w * hump
        outer[:, 0] += 0.10 * hair.part * w * hump
    if hair.style is HairStyle.SIDE_PART:
        # Swept from the part across the forehead: lower on the far side, higher at the part.
        sweep = np.sign(hair.part) * np.sin(2 * np.pi * np.clip((t - 0.2) / 0.6, 0, 1))
        inner[:, 1] += 0.05 * (0.6 + abs(hair.part)) * sweep
        outer[:, 1] += 0.012 * sweep
    if hair.style is HairStyle.WAVY:
        hang = np.clip(np.abs(t - 0.5) * 2 - 0.35, 0, 1)
        swing = np.sin(np.abs(t - 0.5) * (38 + 26 * hair.wave) + 6 * hair.part) * hang
        outer[:, 0] += 0.048 * swing * np.sign(t - 0.5)
        inner[:, 0] += 0.030 * swing * np.sign(t - 0.5)
    if hair.style in _CURLED:
        centre = np.array([0.0, -0.3 * head.crown_rise])
        bumps = np.abs(np.sin(t * np.pi * (9 + round(6 * hair.wave)) + rng.uniform(0, 3))) - 0.5
        bumps = bumps * 0.9 + rng.normal(0, 0.12, len(t))
        reach = outer - centre
        outer += reach / np.linalg.norm(reach, axis=1, keepdims=True) * bumps[:, None] * 0.022
        inner[:, 1] += 0.008 * np.sin(t * 70) * (np.abs(t - 0.5) < 0.32)
        outer[:, 1] = np.maximum(outer[:, 1], 0.012 - head.eye_y)
    if hair.style in (HairStyle.SHORT, HairStyle.QUIFF, HairStyle.FRINGE):
        tufts = rng.normal(0, 0.006, len(t)) * hair.wave * (np.abs(t - 0.5) < 0.36)
        outer[:, 1] += tufts
        inner[:, 1] += np.roll(tufts, 5) * (1.6 if hair.style is HairStyle.FRINGE else 0.5)
    return outer, inner


def _gathered(portrait: Portrait) -> tuple[Points, Points]:
    """Bun and ponytail, or empty."""
    head, hair, none = portrait.head, portrait.hair, np.empty((0, 2))
    if hair.style is HairStyle.BUN:
        radius = 0.05 + 0.035 * hair.side
        y = max(-head.crown_rise - 0.55 * radius, 0.01 + radius - head.eye_y)
        angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
        ring = np.stack([np.cos(angle) * radius * 1.15 + 0.08 * hair.part, np.sin(angle) * radius + y], axis=1)
        return place(head, ring, relief=0), none
    if hair.style is HairStyle.PONYTAIL:
        side, w, drop = 1 if hair.part > 0 else -1, head.half_width, head.chin_drop
        width = (0.05 + 0.03 * hair.side) / w
        outline = [(0.80, 0.45), (0.98 + width, 0.75), (1.0 + 1.6 * width, 1.2), (0.80 + width, 1.75),
                   (0.62, 1.75), (0.68, 1.25), (0.70, 0.8)]  # fmt: skip
        return none, place(head, curve([(side * x * w, y * drop) for x, y in outline], closed=True), relief=0)
    return none, none
