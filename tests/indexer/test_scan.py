import io

import numpy as np
import pytest
from PIL import Image

from indexer.errors import SketchError
from indexer.scan import SCAN_PX, clean_scan, levelled_ink, turn_deg
from indexer.sketch import rasterise
from service.demo.pencil import draw_strokes
from service.demo.sample import person


def sketch(number=3, size_px=576) -> np.ndarray:
    """(size_px, size_px) uint8, dark on white."""
    return 255 - rasterise(draw_strokes(person(2, number), np.random.default_rng(number)), size_px)


def encoded(pixels, kind="PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, kind, quality=85)
    return file.getvalue()


def cleaned(pixels, kind="PNG") -> np.ndarray:
    with Image.open(io.BytesIO(clean_scan(encoded(pixels, kind)))) as picture:
        return np.asarray(picture).astype(float)


def on_a_table(pixels, degrees=6.0) -> np.ndarray:
    """A sheet, darker than white and turned, on a dark table, in light that fades to the right, with grain."""
    paper = Image.new("L", (760, 820), 230)
    paper.paste(Image.fromarray((pixels * (230 / 255)).astype(np.uint8)), (90, 130))
    turned = paper.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=55)
    table = Image.new("L", (turned.width + 160, turned.height + 60), 55)
    table.paste(turned, (110, 25))
    lit = np.asarray(table, float) * np.linspace(1.0, 0.6, table.width)
    return lit + np.random.default_rng(0).normal(0, 3, lit.shape)


def likeness(one, other) -> float:
    """Correlation of two drawings, blurred: lines need not lie on the same pixel."""
    small = [
        np.asarray(Image.fromarray(np.uint8(picture)).resize((48, 48), Image.Resampling.BOX)).ravel()
        for picture in (one, other)
    ]
    return float(np.corrcoef(*small)[0, 1])


def test_a_clean_sketch_stays_as_it_is():
    drawn = sketch(size_px=SCAN_PX)
    found = cleaned(drawn)
    assert found.shape == (SCAN_PX, SCAN_PX)
    assert np.abs(found - drawn).mean() < 2


def test_light_on_dark_comes_out_dark_on_light():
    assert np.abs(cleaned(255 - sketch()) - cleaned(sketch())).mean() < 1


def test_a_photographed_sheet_is_cut_out_flattened_turned_and_framed():
    found = cleaned(on_a_table(sketch()), "JPEG")
    assert np.mean(found > 250) > 0.8  # paper, and no table
    ink = np.flatnonzero((found < 128).any(axis=0))
    assert ink[0] < 0.12 * SCAN_PX
    assert ink[-1] > 0.88 * SCAN_PX
    # The same sketch, framed alike, and not another person's.
    alone = np.pad(sketch(), 300, constant_values=255)
    assert likeness(found, cleaned(alone)) > 0.75
    assert likeness(found, cleaned(alone)) > likeness(found, cleaned(np.pad(sketch(8), 300, constant_values=255)))


@pytest.mark.parametrize("degrees", [-10, -5, 5, 10])
def test_a_turned_face_is_turned_back(degrees):
    errors = []
    for number in range(1, 9):
        turned = Image.fromarray(sketch(number)).rotate(degrees, Image.Resampling.BICUBIC, fillcolor=255)
        errors.append(abs(turn_deg(levelled_ink(np.asarray(turned, np.float32) / 255)) + degrees))
    assert np.median(errors) <= 2


def test_an_upright_face_is_not_turned():
    assert {turn_deg(levelled_ink(sketch(number).astype(np.float32) / 255)) for number in range(1, 9)} == {0.0}


def test_shade_and_grain_are_no_ink():
    shaded = sketch() * np.linspace(0.55, 1.0, 576)[:, None] + np.random.default_rng(1).normal(0, 3, (576, 576))
    ink = levelled_ink(np.clip(shaded, 0, 255).astype(np.float32) / 255)
    drawn = sketch() < 128
    assert ink[drawn].mean() > 0.7
    assert ink[~drawn].mean() < 0.06


def test_a_small_drawing_in_a_corner_fills_the_frame():
    sheet = np.full((900, 700), 255, np.uint8)
    sheet[40:240, 60:260] = sketch(size_px=200)
    found = cleaned(sheet) < 128
    rows, columns = (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
    assert max(np.ptp(rows), np.ptp(columns)) > 0.85 * SCAN_PX


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"%PDF-1.7", "must be a whole JPEG, PNG or WebP file"),
        (encoded(sketch())[:2000], "cut short or damaged"),
        (b"x" * (20 << 20) + b"x", "a scan may have 20 MiB, got 20.0"),
        (encoded(np.full((200, 200), 240)), "shows no ink"),
        (encoded(np.full((3, 3), 240)), "shows no ink"),
    ],
)
def test_what_is_no_scan_says_why(data, words):
    with pytest.raises(SketchError, match=words):
        clean_scan(data)
