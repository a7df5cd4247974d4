"""The parts that a portrait is made of: cuts and shapes by name, and the numbers that go with them."""

from dataclasses import dataclass
from enum import StrEnum

Rgb = tuple[int, int, int]


class HairStyle(StrEnum):
    """How the hair is cut."""

    BALD = "bald"
    RECEDING = "receding"
    BUZZ = "buzz"
    SHORT = "short"
    QUIFF = "quiff"
    SIDE_PART = "side part"
    FRINGE = "fringe"
    BOB = "bob"
    BOB_FRINGE = "bob with fringe"
    LONG = "long"
    LONG_FRINGE = "long with fringe"
    WAVY = "wavy"
    CURLY = "curly"
    AFRO = "afro"
    BUN = "bun"
    PONYTAIL = "ponytail"


class Beard(StrEnum):
    """Hair below the nose."""

    NONE = "none"
    STUBBLE = "stubble"
    MOUSTACHE = "moustache"
    GOATEE = "goatee"
    FULL = "full"


class Glasses(StrEnum):
    """The shape of the lenses."""

    NONE = "none"
    ROUND = "round"
    SQUARE = "square"


class Collar(StrEnum):
    """What ends at the neck."""

    CREW = "crew"
    V_NECK = "v-neck"
    SHIRT = "shirt"
    SUIT = "suit"
    TURTLENECK = "turtleneck"


@dataclass(frozen=True)
class Head:
    """The head in the frame. Lengths in canvas units (share of the picture's side), `*_ratio` in half face widths."""

    centre_x: float
    eye_y: float
    half_width: float
    chin_drop: float
    """From the eye line down to the chin."""
    crown_rise: float
    """From the eye line up to the top of the skull."""
    temple_ratio: float
    jaw_ratio: float
    jaw_height: float
    """Where the jaw turns, as a share of chin_drop."""
    chin_ratio: float
    ear_ratio: float
    neck_ratio: float
    shoulder_y: float
    roll_deg: float
    turn: float
    """Head turn, -1 (far to the left of the picture) to 1."""


@dataclass(frozen=True)
class Hair:
    """The hair; volume in canvas units, length as a share of chin_drop below the eyes."""

    style: HairStyle
    rgb: Rgb
    volume: float
    side: float
    length: float
    hairline: float
    """Where the forehead ends, as a share of crown_rise."""
    part: float
    """Where the hair parts, -1 (left) to 1."""
    wave: float


@dataclass(frozen=True)
class Features:
    """Eyes, brows, nose and mouth; lengths in half face widths unless they say otherwise."""

    eye_gap: float
    eye_width: float
    eye_open: float
    eye_tilt: float
    eye_hood: float
    """How far the iris hides under the upper lid, 0..1."""
    iris_rgb: Rgb
    brow_rise: float
    brow_weight: float
    brow_arch: float
    brow_tilt: float
    nose_drop: float
    """Eye line to the base of the nose, as a share of chin_drop."""
    nose_width: float
    nose_bridge: float
    mouth_drop: float
    """Eye line to the parting of the lips, as a share of chin_drop."""
    mouth_width: float
    upper_lip: float
    lower_lip: float
    smile: float
    """Corners of the mouth: -1 down to 1 up."""
    teeth: float
    """How far the lips part, in half face widths; 0 is a closed mouth."""
    lip_rgb: Rgb


@dataclass(frozen=True)
class Extras:
    """What comes and goes on a face."""

    beard: Beard
    glasses: Glasses
    glasses_size: float
    earrings: bool
    age: float
    """0 smooth to 1 deeply lined."""
    freckles: bool
    mole: tuple[float, float] | None
    """(x, y) in half face widths from between the eyes, or None."""


@dataclass(frozen=True)
class Scene:
    """Skin, clothes, light and background."""

    skin_rgb: Rgb
    cloth_rgb: Rgb
    collar: Collar
    background_rgb: Rgb
    light_x: float
    """-1 lit from the left to 1 lit from the right."""
    light_y: float
    contrast: float
