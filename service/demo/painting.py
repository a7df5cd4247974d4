"""A photo of a portrait: skin lit by one lamp, features, hair, clothes, and the grain of a camera.

The layers go on back to front, as with an airbrush. `shading` lights the skin and the hair, `easel` has the brushes.
"""

from typing import Final

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from service.demo import shading
from service.demo.anatomy import Anatomy, Eye, Points, anatomy, curve, place, shift
from service.demo.easel import Easel, faded
from service.demo.hairdressing import Hairdo, dress, strands
from service.demo.parts import Beard, Collar, HairStyle, Rgb
from service.demo.portraits import Portrait

_INK: Final = (28, 20, 18)
_STRANDS: Final = 190


def render_photo(portrait: Portrait, size_px: int = 256) -> Image.Image:
    """(size_px, size_px) RGB photo, framed as for a passport; the same pixels for the same portrait.

    Example:
        >>> render_photo(Portrait.random(7), size_px=96).size
        (96, 96)
    """
    body, hairdo = anatomy(portrait), dress(portrait)
    rng = np.random.default_rng([portrait.seed, 2])
    easel = Easel(shading.backdrop(portrait, size_px))
    fur = shading.hair(portrait, strands(hairdo, rng, _STRANDS), size_px, rng)
    _behind(easel, portrait, hairdo)
    _neck_and_clothes(easel, portrait, body)
    _head(easel, portrait, body)
    face = easel.mask(body.face)
    _blush(easel, portrait, face)
    _nose(easel, portrait, body, face)
    _mouth(easel, portrait, body)
    for eye in body.eyes:
        _eye(easel, portrait, eye)
    _lines(easel, portrait, body, face)
    _beard(easel, portrait, body, face, fur)
    _brows(easel, portrait, body, rng)
    _hair(easel, hairdo, fur, face)
    _worn(easel, portrait, body)
    return shading.develop(easel.image, rng)


def shade(rgb: Rgb, factor: float) -> Rgb:
    """A colour darker (below 1) or lighter (above 1), a little redder in the dark as skin is."""
    red, green, blue = (int(np.clip(c * factor**power, 0, 255)) for c, power in zip(rgb, (0.85, 1, 1.1), strict=True))
    return red, green, blue


def _behind(easel: Easel, portrait: Portrait, hairdo: Hairdo) -> None:
    dark = shade(portrait.hair.rgb, 0.55)
    if hairdo.hangs or portrait.hair.style in (HairStyle.AFRO, HairStyle.CURLY):
        easel.fill(hairdo.outer, dark, blur=0.003)
    if len(hairdo.knot):
        easel.fill(hairdo.knot, shade(portrait.hair.rgb, 0.8), blur=0.002)
        easel.blob(hairdo.knot.mean(axis=0) + shift(0.015 * portrait.scene.light_x, -0.02), (0.03, 0.018),
                   shade(portrait.hair.rgb, 1.7), 0.5, blur=0.012)  # fmt: skip


def _neck_and_clothes(easel: Easel, portrait: Portrait, body: Anatomy) -> None:
    scene, head = portrait.scene, portrait.head
    left, right = body.neck
    neck = np.concatenate([left, right[::-1]])
    easel.fill(neck, shade(scene.skin_rgb, 0.80))
    inside = easel.mask(neck)
    # Rounded: the sides fall into shadow, the one away from the lamp more.
    for line, away in ((left, scene.light_x), (right, -scene.light_x)):
        easel.line(
            line, width=0.05, rgb=shade(scene.skin_rgb, 0.40), opacity=0.45 + 0.25 * away, blur=0.02, clip=inside
        )
    chin = place(
        head, [(-0.5 * head.half_width, 0.86 * head.chin_drop), (0.5 * head.half_width, 1.06 * head.chin_drop)], 0
    )
    easel.blob(chin.mean(axis=0) + shift(-0.02 * scene.light_x, 0.025), (0.8 * head.half_width, 0.05),
               shade(scene.skin_rgb, 0.30), 0.65, blur=0.02, clip=inside)  # fmt: skip
    _clothes(easel, portrait, body)


def _clothes(easel: Easel, portrait: Portrait, body: Anatomy) -> None:
    scene, head = portrait.scene, portrait.head
    cloth, x = scene.cloth_rgb, head.centre_x
    half = float(body.neck[1][-1, 0] - x)
    base = float(body.neck[1][-1, 1])
    easel.fill(body.shoulders, cloth)
    inside = easel.mask(body.shoulders)
    for side in (-1, 1):
        light = 1.25 if side * scene.light_x > 0 else 0.6
        easel.blob(np.array([x + side * 0.36, 1.02]), (0.16, 0.05), shade(cloth, light), 0.6, blur=0.03, clip=inside)
    easel.blob(np.array([x, base]), (1.1 * half, 0.03), shade(cloth, 0.4), 0.55, blur=0.02, clip=inside)
    if scene.collar in (Collar.V_NECK, Collar.SUIT, Collar.SHIRT):
        depth = 0.10 if scene.collar is Collar.V_NECK else 0.14
        opening = np.array([(x - half, base - 0.01), (x, base + depth), (x + half, base - 0.01)])
        inner = scene.skin_rgb if scene.collar is not Collar.SUIT else (222, 224, 226)
        easel.fill(opening, shade(inner, 0.82), blur=0.002)
    if scene.collar in (Collar.SHIRT, Collar.SUIT):
        paper = (226, 228, 230) if scene.collar is Collar.SUIT else shade(cloth, 1.25)
        for side in (-1, 1):
            flap = np.array([(x + side * 1.02 * half, base - 0.035), (x + side * 0.10 * half, base + 0.075),
                             (x + side * 0.72 * half, base + 0.10), (x + side * 1.25 * half, base + 0.01)])  # fmt: skip
            easel.fill(flap, paper, blur=0.0015)
            easel.line(flap[:3], width=0.004, rgb=shade(paper, 0.5), opacity=0.7, blur=0.001)
    if scene.collar is Collar.TURTLENECK:
        top = base - 0.045
        tube = curve([(x - 0.80 * half, top), (x, top + 0.025), (x + 0.80 * half, top), (x + 1.05 * half, base + 0.03),
                      (x, base + 0.05), (x - 1.05 * half, base + 0.03)], closed=True)  # fmt: skip
        easel.fill(tube, shade(cloth, 1.12), blur=0.0015)
        easel.line(tube[:24], width=0.006, rgb=shade(cloth, 0.45), opacity=0.7, blur=0.002)
    if scene.collar is Collar.CREW:
        band = curve([(x - 0.98 * half, base - 0.012), (x, base + 0.030), (x + 0.98 * half, base - 0.012)])
        easel.line(band, width=0.016, rgb=shade(cloth, 0.78), opacity=0.9, blur=0.001)


def _head(easel: Easel, portrait: Portrait, body: Anatomy) -> None:
    skin = portrait.scene.skin_rgb
    for ear, away in zip(body.ears, (portrait.scene.light_x, -portrait.scene.light_x), strict=True):
        easel.fill(ear, shade(skin, 0.82 - 0.15 * away), blur=0.001)
        inner = ear.mean(axis=0) + 0.62 * (ear - ear.mean(axis=0))
        easel.line(inner[8:-20], width=0.007, rgb=shade(skin, 0.42), opacity=0.7, blur=0.003)
    lit = shading.skin(portrait, body, easel.size_px)
    easel.lay(lit, easel.mask(body.face, blur=0.0015))


def _blush(easel: Easel, portrait: Portrait, face: Image.Image) -> None:
    head, f, skin = portrait.head, portrait.features, portrait.scene.skin_rgb
    w = head.half_width
    rosy = (min(255, skin[0] + 10), round(skin[1] * 0.72), round(skin[2] * 0.70))
    for side in (-1, 1):
        cheek = place(head, (side * 0.56 * w, 0.40 * head.chin_drop))
        easel.blob(cheek, (0.20 * w, 0.15 * w), rosy, 0.30, blur=0.02, clip=face)
    if portrait.extras.freckles:
        rng = np.random.default_rng([portrait.seed, 4])
        for x, y in rng.normal((0, 0.5), (0.42, 0.13), (70, 2)):
            easel.blob(place(head, (x * w, y * 0.62 * head.chin_drop)), (0.003, 0.0027), shade(skin, 0.66), 0.6)
    if portrait.extras.mole:
        x, y = portrait.extras.mole
        easel.blob(place(head, (x * w, y * w)), (0.0065, 0.006), shade(skin, 0.35), 0.9, blur=0.001, clip=face)
    # The brows' ridge keeps the sockets in shadow.
    for side in (-1, 1):
        socket = place(head, (side * (f.eye_gap - 0.08) * w, -0.10 * w))
        easel.blob(socket, (0.20 * w, 0.09 * w), shade(skin, 0.55), 0.35, blur=0.014)


def _nose(easel: Easel, portrait: Portrait, body: Anatomy, face: Image.Image) -> None:
    head, f, skin = portrait.head, portrait.features, portrait.scene.skin_rgb
    w = head.half_width
    base = place(head, (0, f.nose_drop * head.chin_drop + 0.02 * w), 1.35)
    side = -0.5 * portrait.scene.light_x
    easel.line(body.nose_side, width=0.022, rgb=shade(skin, 0.55), opacity=0.34, blur=0.010, clip=face)
    easel.blob(base + shift(side * 0.04, 0.012), (f.nose_width * w, 0.010), shade(skin, 0.50), 0.38, blur=0.009)
    easel.line(body.nose_base, width=0.008, rgb=shade(skin, 0.42), opacity=0.55, blur=0.0035)
    for hole in body.nostrils:
        easel.fill(hole, shade(skin, 0.16), 0.9, blur=0.002)


def _mouth(easel: Easel, portrait: Portrait, body: Anatomy) -> None:
    f, skin = portrait.features, portrait.scene.skin_rgb
    upper, lower = body.lips
    if f.teeth:
        gap = np.concatenate([body.mouth, body.mouth_below[::-1]])
        easel.fill(gap, (58, 24, 24))
        easel.fill(gap * (0.86, 0.80) + gap.mean(axis=0) * (0.14, 0.20) - (0, 0.003), (232, 226, 214), blur=0.002)
    bottom = lower.max(axis=0)[1]
    middle = body.mouth.mean(axis=0)
    easel.blob(np.array([middle[0], bottom + 0.008]), (0.05, 0.006), shade(skin, 0.50), 0.55, blur=0.008)
    easel.fill(upper, shade(f.lip_rgb, 0.80), 0.92, blur=0.0025)
    easel.fill(lower, f.lip_rgb, 0.92, blur=0.0025)
    shine = np.array([middle[0] + 0.012 * portrait.scene.light_x, 0.45 * bottom + 0.55 * body.mouth_below[:, 1].max()])
    easel.blob(shine, (0.022, 0.004), (255, 236, 230), 0.34, blur=0.006)
    easel.line(body.mouth, width=0.006, rgb=shade(f.lip_rgb, 0.30), opacity=0.85, blur=0.0015)
    for corner in (body.mouth[0], body.mouth[-1]):
        easel.blob(corner, (0.006, 0.006), shade(skin, 0.40), 0.6, blur=0.004)


def _eye(easel: Easel, portrait: Portrait, eye: Eye) -> None:
    f, skin = portrait.features, portrait.scene.skin_rgb
    outline = np.concatenate([eye.upper, eye.lower[::-1]])
    easel.fill(outline + shift(0, 0.004), shade(skin, 0.60), 0.5, blur=0.006)
    easel.fill(outline, (228, 222, 216), blur=0.001)
    inside = easel.mask(outline)
    easel.blob(eye.iris, (eye.radius, eye.radius), shade(f.iris_rgb, 0.55), clip=inside, blur=0.001)
    ring = shift(0, 0.2 * eye.radius)
    easel.blob(eye.iris + ring, (0.78 * eye.radius, 0.72 * eye.radius), shade(f.iris_rgb, 1.2), 0.85,
               clip=inside, blur=0.002)  # fmt: skip
    easel.blob(eye.iris, (0.45 * eye.radius, 0.45 * eye.radius), (10, 8, 8), clip=inside)
    # The lid throws a shadow on the eye, then the lashes frame it.
    easel.line(eye.upper + shift(0, 0.004), width=0.012, rgb=(40, 30, 28), opacity=0.45, blur=0.004, clip=inside)
    glint = eye.iris + shift(0.35 * eye.radius * (1 if portrait.scene.light_x > 0 else -1), -0.35 * eye.radius)
    easel.blob(glint, (0.0042, 0.0042), (255, 255, 255), 0.95, blur=0.0005)
    easel.line(eye.upper, width=0.0085, rgb=_INK, opacity=0.88, blur=0.0012)
    easel.line(eye.lower, width=0.0045, rgb=shade(skin, 0.38), opacity=0.6, blur=0.0015)
    easel.line(eye.crease, width=0.006, rgb=shade(skin, 0.42), opacity=0.55, blur=0.002)


def _lines(easel: Easel, portrait: Portrait, body: Anatomy, face: Image.Image) -> None:
    depth = 0.22 + 0.38 * portrait.extras.age
    for fold in body.folds:
        easel.line(fold, width=0.009, rgb=shade(portrait.scene.skin_rgb, 0.50), opacity=depth, blur=0.004, clip=face)


def _beard(easel: Easel, portrait: Portrait, body: Anatomy, face: Image.Image, fur: Image.Image) -> None:
    kind = portrait.extras.beard
    if kind is Beard.NONE:
        return
    mask = Image.new("L", easel.image.size)
    for outline in beard_outlines(portrait):
        mask = ImageChops.lighter(mask, easel.mask(outline, blur=0.008))
    for lip in body.lips:
        mask = ImageChops.subtract(mask, easel.mask(lip, blur=0.003))
    if kind is not Beard.FULL:
        mask = ImageChops.multiply(mask, face)
    opacity = 0.34 if kind is Beard.STUBBLE else 0.88
    easel.lay(fur, faded(mask, opacity))


def beard_outlines(portrait: Portrait) -> list[Points]:
    """Closed outlines of the beard, canvas units; empty without one."""
    head, f, kind = portrait.head, portrait.features, portrait.extras.beard
    w, c = head.half_width, head.chin_drop
    nose, mouth, half = (f.nose_drop + 0.045) * c, f.mouth_drop * c, f.mouth_width * w
    below = mouth + (f.lower_lip + f.teeth) * w
    moustache = [(-1.12 * half, mouth + 0.03 * c), (-0.7 * half, nose + 0.03 * c), (0, nose + 0.012 * c),
                 (0.7 * half, nose + 0.03 * c), (1.12 * half, mouth + 0.03 * c), (0.7 * half, mouth - 0.01 * c),
                 (0, mouth - 0.6 * f.upper_lip * w), (-0.7 * half, mouth - 0.01 * c)]  # fmt: skip
    goatee = [(-1.05 * half, mouth), (-0.95 * half, below + 0.10 * c), (-0.5 * half, 1.0 * c), (0, 1.03 * c),
              (0.5 * half, 1.0 * c), (0.95 * half, below + 0.10 * c), (1.05 * half, mouth), (0.75 * half, below),
              (0, below + 0.035 * c), (-0.75 * half, below)]  # fmt: skip
    jaw, chin = head.jaw_ratio * w, 1.0 + 0.09 * (kind is Beard.FULL)
    full = [(-0.99 * w, 0.20 * c), (-0.99 * w, 0.42 * c), (-1.02 * jaw, (head.jaw_height + 0.04) * c),
            (-(head.chin_ratio + 0.1) * w, 0.98 * chin * c), (0, 1.01 * chin * c)]  # fmt: skip
    full = full + [(-x, y) for x, y in full[-2::-1]]
    inner = [(0.86 * w, 0.36 * c), (0.62 * w, mouth - 0.06 * c), (1.15 * half, mouth), (0, below + 0.02 * c)]
    full = full + inner + [(-x, y) for x, y in inner[-2::-1]]
    parts = {
        Beard.NONE: [], Beard.MOUSTACHE: [moustache], Beard.GOATEE: [moustache, goatee],
        Beard.STUBBLE: [moustache, full], Beard.FULL: [moustache, full],
    }[kind]  # fmt: skip
    return [place(head, curve(part, steps=6, closed=True)) for part in parts]


def _brows(easel: Easel, portrait: Portrait, body: Anatomy, rng: np.random.Generator) -> None:
    f, w = portrait.features, portrait.head.half_width
    rgb = shade(portrait.hair.rgb, 0.62)
    width = f.brow_weight * w
    for spine in body.brows:
        n = len(spine)
        taper = np.interp(np.arange(n) / (n - 1), [0, 0.25, 0.65, 1], [0.7, 1.0, 0.85, 0.15])
        reach = taper[:, None] * shift(0, width)
        easel.fill(np.concatenate([spine - reach, (spine + 0.6 * reach)[::-1]]), rgb, 0.72, blur=0.0035)
        starts = rng.integers(0, n - 3, 16)
        sweep = np.array([(0, width * 0.6), (0, -width * 0.8)])
        hairs = [spine[[at, at + 3]] + sweep * taper[at] for at in starts]
        easel.line(*hairs, width=0.0035, rgb=shade(rgb, 0.7), opacity=0.6, blur=0.0008)


def _hair(easel: Easel, hairdo: Hairdo, fur: Image.Image, face: Image.Image) -> None:
    if hairdo.is_bald:
        return
    band = easel.mask(hairdo.band, blur=0.0025)
    if hairdo.style is HairStyle.BUZZ:
        band = faded(band, 0.78)
    # Hair throws a soft shadow on the forehead and the cheeks.
    shadow = ImageChops.offset(band, 0, round(0.022 * easel.size_px)).filter(
        ImageFilter.GaussianBlur(0.016 * easel.size_px)
    )
    easel.image.paste((30, 16, 12), (0, 0), faded(ImageChops.multiply(shadow, face), 0.45))
    if len(hairdo.tail):
        easel.lay(fur, easel.mask(hairdo.tail, blur=0.003))
    easel.lay(fur, band)


def _worn(easel: Easel, portrait: Portrait, body: Anatomy) -> None:
    if portrait.extras.earrings:
        for lobe in body.lobes:
            easel.blob(lobe + shift(0, 0.010), (0.009, 0.011), (214, 184, 108), blur=0.001)
            easel.blob(lobe + shift(-0.002, 0.007), (0.003, 0.003), (255, 250, 226), blur=0.001)
    rim = (30, 28, 30) if portrait.seed % 3 else (112, 84, 52)
    for lens in body.lenses:
        ring = np.concatenate([lens, lens[:2]])
        easel.line(ring + shift(0, 0.007), width=0.010, rgb=(30, 18, 14), opacity=0.30, blur=0.005)
        easel.fill(lens, (220, 232, 240), 0.10)
        easel.line(ring, width=0.010, rgb=rim, opacity=0.95, blur=0.0008)
    for bar in body.frame:
        easel.line(bar, width=0.009, rgb=rim, opacity=0.95, blur=0.0008)
