"""Who is in a made-up photo: every number that a synthetic portrait is drawn from, and how they vary.

The gallery of `mgrl demo` must hold hundreds of tellable-apart people without anybody's face in the repository, so
the people are invented here. `anatomy` turns a portrait into curves, `painting` into a photo, `pencil` into strokes.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from service.demo.parts import Beard, Collar, Extras, Features, Glasses, Hair, HairStyle, Head, Rgb, Scene


@dataclass(frozen=True)
class Portrait:
    """One invented person, photographed once.

    Args:
        seed: names the person and fixes the grain of hair, skin and film.
    """

    seed: int
    head: Head
    hair: Hair
    features: Features
    extras: Extras
    scene: Scene

    @classmethod
    def random(cls, seed: int) -> Self:
        """The person that this seed stands for; the same on every machine."""
        rng = np.random.default_rng([seed, 0x6D67726C])
        masculine = bool(rng.random() < 0.55)
        age = float(rng.beta(1.2, 1.8))
        tone = float(rng.random())
        head = _random_head(rng, masculine)
        hair = _random_hair(rng, masculine, age, tone)
        features = _random_features(rng, masculine, tone)
        extras = _random_extras(rng, masculine, age, tone)
        return cls(seed, head, hair, features, extras, _random_scene(rng, tone))


_SKINS: Final = ((246, 214, 190), (232, 188, 156), (208, 156, 120), (172, 118, 84), (124, 80, 56), (88, 58, 44))
_DARK_HAIR: Final = ((22, 18, 18), (34, 25, 21), (46, 32, 24), (60, 42, 30))
_LIGHT_HAIR: Final = ((96, 64, 40), (132, 92, 56), (176, 134, 82), (214, 182, 124), (150, 70, 34), (118, 48, 26))
_GREYS: Final = ((120, 118, 116), (168, 166, 162), (208, 206, 202))
_IRISES: Final = ((64, 40, 24), (84, 54, 30), (104, 84, 48), (88, 112, 84), (92, 128, 158), (112, 124, 132))
_CLOTHES: Final = (
    (38, 42, 52), (84, 32, 38), (34, 62, 94), (196, 192, 184), (52, 78, 62), (120, 104, 84), (148, 156, 170),
    (24, 24, 26), (170, 110, 60), (104, 76, 120), (226, 224, 220), (60, 96, 110),
)  # fmt: skip
_BACKGROUNDS: Final = (
    (198, 204, 208),
    (150, 166, 176),
    (118, 128, 132),
    (214, 206, 192),
    (92, 106, 122),
    (176, 158, 142),
)

_MEN: Final = {
    HairStyle.BALD: 10, HairStyle.RECEDING: 9, HairStyle.BUZZ: 10, HairStyle.SHORT: 20, HairStyle.QUIFF: 13,
    HairStyle.SIDE_PART: 15, HairStyle.FRINGE: 8, HairStyle.CURLY: 7, HairStyle.AFRO: 4, HairStyle.LONG: 3,
    HairStyle.BUN: 1,
}  # fmt: skip
_WOMEN: Final = {
    HairStyle.LONG: 17, HairStyle.LONG_FRINGE: 11, HairStyle.WAVY: 16, HairStyle.BOB: 13, HairStyle.BOB_FRINGE: 9,
    HairStyle.CURLY: 8, HairStyle.AFRO: 4, HairStyle.BUN: 8, HairStyle.PONYTAIL: 8, HairStyle.SIDE_PART: 4,
    HairStyle.SHORT: 2,
}  # fmt: skip


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _mix(low: Rgb, high: Rgb, share: float) -> Rgb:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(low, high, strict=True))
    return red, green, blue


def _jitter(rng: np.random.Generator, rgb: Rgb, spread: float) -> Rgb:
    red, green, blue = (int(np.clip(round(c + d), 0, 255)) for c, d in zip(rgb, rng.normal(0, spread, 3), strict=True))
    return red, green, blue


def _pick(rng: np.random.Generator, palette: tuple[Rgb, ...]) -> Rgb:
    return palette[int(rng.integers(len(palette)))]


def _random_head(rng: np.random.Generator, masculine: bool) -> Head:
    half_width = _between(rng, 0.218, 0.272)
    return Head(
        centre_x=_between(rng, 0.485, 0.515),
        eye_y=_between(rng, 0.425, 0.455),
        half_width=half_width,
        chin_drop=_between(rng, 0.345, 0.415),
        crown_rise=_between(rng, 0.28, 0.325),
        temple_ratio=_between(rng, 0.86, 0.98),
        jaw_ratio=_between(rng, 0.76, 0.93) if masculine else _between(rng, 0.68, 0.86),
        jaw_height=_between(rng, 0.60, 0.74),
        chin_ratio=_between(rng, 0.28, 0.48) if masculine else _between(rng, 0.20, 0.38),
        ear_ratio=_between(rng, 0.09, 0.20),
        neck_ratio=_between(rng, 0.66, 0.86) if masculine else _between(rng, 0.52, 0.66),
        shoulder_y=_between(rng, 0.90, 0.96),
        roll_deg=float(np.clip(rng.normal(0, 1.8), -4, 4)),
        turn=float(np.clip(rng.normal(0, 0.28), -0.7, 0.7)),
    )


def _random_hair(rng: np.random.Generator, masculine: bool, age: float, tone: float) -> Hair:
    odds = dict(_MEN if masculine else _WOMEN)
    if age > 0.55:
        odds = {style: n * (3 if style in (HairStyle.BALD, HairStyle.RECEDING) else 1) for style, n in odds.items()}
    styles, weights = list(odds), np.array(list(odds.values()), float)
    style = styles[int(rng.choice(len(styles), p=weights / weights.sum()))]
    # Fair hair goes with fair skin more often than not; grey comes with age.
    palette = _DARK_HAIR if rng.random() < 0.35 + 0.6 * tone else _LIGHT_HAIR
    rgb = _jitter(rng, _pick(rng, palette), 5)
    if rng.random() < 1.6 * (age - 0.45):
        rgb = _mix(rgb, _pick(rng, _GREYS), _between(rng, 0.5, 1.0))
    return Hair(
        style=style,
        rgb=rgb,
        volume=_between(rng, 0.5, 1.5),
        side=_between(rng, 0.3, 1.3),
        length=_between(rng, 0.0, 1.0),
        hairline=_between(rng, 0.50, 0.66) + 0.06 * age * masculine,
        part=_between(rng, -0.75, 0.75),
        wave=_between(rng, 0.3, 1.0),
    )


def _random_features(rng: np.random.Generator, masculine: bool, tone: float) -> Features:
    nose_drop = _between(rng, 0.42, 0.53)
    lips = _mix((196, 108, 104), (112, 56, 54), tone)
    if not masculine and rng.random() < 0.5:
        lips = _mix(lips, _pick(rng, ((178, 40, 52), (140, 36, 58), (200, 84, 96))), 0.65)
    return Features(
        eye_gap=_between(rng, 0.42, 0.50),
        eye_width=_between(rng, 0.165, 0.215),
        eye_open=_between(rng, 0.055, 0.105),
        eye_tilt=_between(rng, -0.10, 0.16),
        eye_hood=_between(rng, 0.1, 0.7),
        iris_rgb=_jitter(rng, _IRISES[0 if tone > 0.55 else int(rng.integers(len(_IRISES)))], 6),
        brow_rise=_between(rng, 0.22, 0.31) if masculine else _between(rng, 0.26, 0.37),
        brow_weight=_between(rng, 0.045, 0.095) if masculine else _between(rng, 0.025, 0.06),
        brow_arch=_between(rng, 0.0, 0.11),
        brow_tilt=_between(rng, -0.16, 0.12),
        nose_drop=nose_drop,
        nose_width=_between(rng, 0.17, 0.25) + 0.06 * tone,
        nose_bridge=_between(rng, 0.2, 1.0),
        mouth_drop=_between(rng, nose_drop + 0.165, nose_drop + 0.235),
        mouth_width=_between(rng, 0.31, 0.46),
        upper_lip=_between(rng, 0.045, 0.09) * (0.85 if masculine else 1.15),
        lower_lip=_between(rng, 0.06, 0.12) * (0.85 if masculine else 1.1),
        smile=float(np.clip(rng.normal(0.35, 0.45), -0.7, 1.0)),
        teeth=_between(rng, 0.04, 0.09) if rng.random() < 0.25 else 0.0,
        lip_rgb=lips,
    )


def _random_extras(rng: np.random.Generator, masculine: bool, age: float, tone: float) -> Extras:
    beards = [Beard.NONE, Beard.STUBBLE, Beard.MOUSTACHE, Beard.GOATEE, Beard.FULL]
    beard = beards[int(rng.choice(5, p=[0.42, 0.16, 0.12, 0.12, 0.18]))] if masculine else Beard.NONE
    glasses = [Glasses.NONE, Glasses.ROUND, Glasses.SQUARE][int(rng.choice(3, p=[0.72, 0.12, 0.16]))]
    mole = (_between(rng, -0.6, 0.6), _between(rng, 0.45, 1.2)) if rng.random() < 0.15 else None
    return Extras(
        beard=beard,
        glasses=glasses,
        glasses_size=_between(rng, 0.30, 0.40),
        earrings=bool(rng.random() < (0.05 if masculine else 0.45)),
        age=age,
        freckles=bool(tone < 0.35 and rng.random() < 0.2),
        mole=mole,
    )


def _random_scene(rng: np.random.Generator, tone: float) -> Scene:
    place = tone * (len(_SKINS) - 1)
    low = min(int(place), len(_SKINS) - 2)
    collars = list(Collar)
    return Scene(
        skin_rgb=_jitter(rng, _mix(_SKINS[low], _SKINS[low + 1], place - low), 4),
        cloth_rgb=_jitter(rng, _CLOTHES[int(rng.integers(len(_CLOTHES)))], 8),
        collar=collars[int(rng.integers(len(collars)))],
        background_rgb=_jitter(rng, _pick(rng, _BACKGROUNDS), 10),
        light_x=_between(rng, -0.75, 0.75),
        light_y=_between(rng, -0.65, -0.25),
        contrast=_between(rng, 0.75, 1.15),
    )
