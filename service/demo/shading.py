"""Light: the backdrop, skin from a relief, hair from its strands, and what a camera does to the picture."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from service.demo.anatomy import Anatomy, Points, place
from service.demo.portraits import Portrait

Plane = npt.NDArray[np.float32]
"""(size, size) float32."""

_RELIEF_PX: Final = 96
"""Shading is smooth: computed small and scaled up, it costs a seventh."""


def backdrop(portrait: Portrait, size_px: int) -> Image.Image:
    """RGB wall behind the person, brighter where the lamp falls."""
    y, x = np.mgrid[0:64, 0:64].astype(np.float32) / 63
    scene = portrait.scene
    falloff = 1.08 - 0.34 * ((x - 0.5 - 0.25 * scene.light_x) ** 2 + (y - 0.35) ** 2)
    wall = np.clip(falloff[..., None] * np.array(scene.background_rgb, np.float32), 0, 255).astype(np.uint8)
    return Image.fromarray(wall).resize((size_px, size_px), Image.Resampling.BICUBIC)


def skin(portrait: Portrait, body: Anatomy, size_px: int) -> Image.Image:
    """RGB of the size of the picture: what the face looks like before its features are painted on."""
    scene = portrait.scene
    height = _relief(portrait, body)
    slope_y, slope_x = np.gradient(height, np.float32(1 / _RELIEF_PX))
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    lamp = np.array([scene.light_x, scene.light_y, 0.95], np.float32)
    lamp /= np.linalg.norm(lamp)
    facing = (-slope_x * lamp[0] - slope_y * lamp[1] + lamp[2]) / length
    diffuse = np.clip(facing, 0, 1)
    level = 1 + scene.contrast * 0.62 * (diffuse - 0.80)
    half = lamp + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    gloss = np.clip((-slope_x * half[0] - slope_y * half[1] + half[2]) / length, 0, 1) ** 26
    powers = np.array([0.80, 1.0, 1.15], np.float32)
    rgb = np.array(scene.skin_rgb, np.float32) * np.clip(level, 0.12, 1.5)[..., None] ** powers + 26 * gloss[..., None]
    picture = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))
    return picture.resize((size_px, size_px), Image.Resampling.BICUBIC)


def hair(portrait: Portrait, lines: Sequence[Points], size_px: int, rng: np.random.Generator) -> Image.Image:
    """RGB of the size of the picture, hair everywhere: sheen from the lamp, strands as they run."""
    big = Image.new("L", (2 * size_px, 2 * size_px), 128)
    pen = ImageDraw.Draw(big)
    for line in lines:
        tone = int(np.clip(rng.normal(128, 46), 20, 250))
        pen.line((line * 2 * size_px).ravel().tolist(), fill=tone, width=int(rng.integers(2, 7)))
    texture = np.asarray(big.reduce(2).filter(ImageFilter.GaussianBlur(size_px / 420)), np.float32) / 128
    axis = np.arange(size_px, dtype=np.float32) / size_px
    scene, head = portrait.scene, portrait.head
    top = head.eye_y - 0.72 * head.crown_rise
    across = np.exp(-(((axis - head.centre_x - 0.13 * scene.light_x) / 0.20) ** 2))
    sheen = 0.55 * np.exp(-(((axis - top) / 0.065) ** 2))[:, None] * across[None, :]
    below = 1.0 - 0.35 * np.clip((axis - head.eye_y) / 0.5, 0, 1)[:, None]
    side = 1 + 0.22 * scene.light_x * np.clip((axis - head.centre_x) / 0.3, -1, 1)[None, :]
    # Gloss lifts black hair by a constant as well: pure scaling would leave it flat.
    light = (0.55 + 0.45 * texture) * below * side
    rgb = np.array(portrait.hair.rgb, np.float32) * (light * (1 + sheen))[..., None] + (34 * sheen * texture)[..., None]
    rgb += ((texture - 1) * 16)[..., None]
    return Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))


def develop(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The lens's softness and the sensor's grain."""
    soft = picture.filter(ImageFilter.GaussianBlur(picture.width / 480))
    grain = rng.integers(-4, 5, (picture.height, picture.width, 1), dtype=np.int16)
    return Image.fromarray(np.clip(np.asarray(soft, np.int16) + grain, 0, 255).astype(np.uint8))


def _relief(portrait: Portrait, body: Anatomy) -> Plane:
    """Height of the face above the picture plane, canvas units, _RELIEF_PX square."""
    head, f = portrait.head, portrait.features
    w, c = head.half_width, head.chin_drop
    axis = (np.arange(_RELIEF_PX, dtype=np.float32) + 0.5) / _RELIEF_PX
    across = (axis - head.centre_x) / (1.10 * w)
    down = axis - head.eye_y
    down = np.where(down > 0, down / (1.18 * c), down / (1.12 * head.crown_rise))
    dome = 1 - np.abs(across[None, :]) ** 2.3 - np.abs(down[:, None]) ** 2.6
    height = 0.78 * w * np.sqrt(np.clip(dome, 0.02, 1))

    def bump(x: float, y: float, wide: float, tall: float, rise: float, relief: float = 1.0) -> None:
        # Gaussian, all numbers but y in half face widths; separable, so an outer product.
        nonlocal height
        at = place(head, (x * w, y), relief)
        gx = np.exp(-0.5 * ((axis - at[0]) / (wide * w)) ** 2)
        gy = np.exp(-0.5 * ((axis - at[1]) / (tall * w)) ** 2)
        height = height + np.float32(rise * w) * gy[:, None] * gx[None, :]

    nose, mouth = f.nose_drop * c, f.mouth_drop * c
    bump(0, 0.35 * nose, 0.085, 0.30, 0.06 + 0.05 * f.nose_bridge, 1.2)
    bump(0, 0.62 * nose, 0.095, 0.20, 0.10, 1.25)
    bump(0, nose - 0.08 * w, 0.12, 0.11, 0.15, 1.35)
    for side in (-1, 1):
        bump(side * 0.75 * f.nose_width, nose - 0.05 * w, 0.07, 0.08, 0.055, 1.2)
        bump(side * f.eye_gap, 0.0, 0.20, 0.13, -0.085)
        bump(side * f.eye_gap, 0.0, 0.11, 0.07, 0.05)
        bump(side * 0.58, 0.40 * c, 0.20, 0.17, 0.075)
        bump(side * 0.40, -(f.brow_rise + 0.02) * w, 0.24, 0.08, 0.035)
        bump(side * (f.mouth_width + 0.10), mouth, 0.09, 0.12, -0.022)
    bump(0, mouth, 0.30, 0.20, 0.055)
    bump(0, mouth - 0.6 * f.upper_lip * w, 0.22, 0.045, 0.018)
    bump(0, mouth + 0.6 * f.lower_lip * w, 0.20, 0.055, 0.03)
    bump(0, mouth + (f.lower_lip + 0.09) * w, 0.20, 0.06, -0.03)
    bump(0, 0.93 * c, 0.20, 0.13, 0.07)
    bump(0, -0.55 * head.crown_rise, 0.45, 0.28, 0.03)
    return np.asarray(height, np.float32)
