"""Fixture: a small data set in FS2K's layout, drawn here: portraits as photos, their strokes as sketches."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

PEOPLE = 6


@pytest.fixture(scope="session")
def tiny_fs2k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people that differ in face, eyes and hair; splits fit.txt (4) and val.txt (2)."""
    root = tmp_path_factory.mktemp("fs2k")
    (root / "photo" / "photo1").mkdir(parents=True)
    (root / "sketch" / "sketch1").mkdir(parents=True)
    names = [f"photo1/image{number:04d}" for number in range(1, PEOPLE + 1)]
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        photo, sketch = _portrait(rng)
        photo.save(root / "photo" / f"{name}.jpg")
        sketch.save(root / "sketch" / f"{name.replace('photo', 'sketch').replace('image', 'sketch')}.jpg")
    (root / "fit.txt").write_text("\n".join(names[:4]) + "\n")
    (root / "val.txt").write_text("# two people\n" + "\n".join(names[4:]) + "\n\n")
    return root


def _portrait(rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    width, height, eye_y, eye_x = rng.uniform([60, 80, 105, 24], [90, 105, 125, 34])
    skin, hair = rng.integers(120, 230, 3), rng.integers(10, 110, 3)
    photo = Image.new("RGB", (250, 250), tuple(rng.integers(90, 250, 3).tolist()))
    sketch = Image.new("L", (250, 250), 240)
    face = (125 - width, 130 - height, 125 + width, 130 + height)
    eyes = [(125 + side * eye_x - 11, eye_y - 6, 125 + side * eye_x + 11, eye_y + 6) for side in (-1, 1)]
    mouth = (125 - 22, 180, 125 + 22, 180 + float(rng.uniform(6, 20)))
    pen, pencil = ImageDraw.Draw(photo), ImageDraw.Draw(sketch)
    pen.ellipse((face[0] - 8, face[1] - 14, face[2] + 8, face[3] - 40), fill=tuple(hair.tolist()))
    pen.ellipse((face[0], face[1] + 18, face[2], face[3]), fill=tuple(skin.tolist()))
    pencil.ellipse((face[0], face[1] + 18, face[2], face[3]), outline=50, width=3)
    pencil.arc((face[0] - 8, face[1] - 14, face[2] + 8, face[3] - 40), 180, 360, fill=40, width=4)
    for x in np.linspace(face[0] + 15, face[2] - 15, 14):
        pencil.line((x, face[1] + 22, x + rng.uniform(-12, 12), face[1] - 4), fill=70, width=2)
    for box in (*eyes, mouth):
        pen.ellipse(box, fill=(40, 30, 30))
        pencil.ellipse(box, outline=40, width=2)
    pencil.line((125, eye_y + 8, 118, 160, 130, 163), fill=60, width=2)
    return photo, sketch
