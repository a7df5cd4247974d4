import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw

from indexer.errors import SketchError
from indexer.regions import ink_mask
from indexer.sketch import CANVAS_PX, MAX_STROKE_POINTS, Canvas, Stroke, rasterise, read_raster


def random_strokes(rng: np.random.Generator, count: int) -> list[Stroke]:
    paths = np.clip(rng.random((count, 1, 2)) + np.cumsum(rng.normal(0, 0.02, (count, 9, 2)), axis=1), 0, 1)
    return [Stroke(path.astype(np.float32)) for path in paths]


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def line_drawing(ink: int, paper: int) -> Image.Image:
    image = Image.new("L", (300, 300), paper)
    ImageDraw.Draw(image).line((60, 150, 240, 150), fill=ink, width=6)
    return image


def test_stroke_by_stroke_gives_the_same_pixels_as_all_at_once() -> None:
    strokes = random_strokes(np.random.default_rng(1), 40)
    canvas = Canvas()
    for stroke in strokes:
        canvas.draw([stroke])
        canvas.pixels()
    np.testing.assert_array_equal(canvas.pixels(), rasterise(strokes))


@pytest.mark.parametrize("width", [0.001, 0.02, 0.2])
def test_a_stroke_anywhere_changes_no_pixel_outside_what_is_drawn_again(width: float) -> None:
    """Drawn after the picture was read, at the edges too, a stroke gives what it gives on an empty canvas."""
    rng = np.random.default_rng(3)
    ends = [[0, 0], [1, 1], [0, 1], [0.5, 0.5], *rng.random((20, 2)).tolist()]
    for start, end in pairwise(ends):
        stroke = Stroke(np.float32([start, end]), width)
        canvas = Canvas()
        canvas.pixels()
        canvas.draw([stroke])
        whole = Canvas()
        whole.draw([stroke, Stroke(np.float32([[0, 0]]), 1e-3), Stroke(np.float32([[1, 1]]), 1e-3)])
        dots = rasterise([Stroke(np.float32([[0, 0]]), 1e-3), Stroke(np.float32([[1, 1]]), 1e-3)])
        np.testing.assert_array_equal(np.where(dots, 0, whole.pixels()), np.where(dots, 0, canvas.pixels()))


def test_a_line_lies_where_its_points_say() -> None:
    pixels = rasterise([Stroke(np.float32([[0.25, 0.5], [0.75, 0.5]]), width=4 / CANVAS_PX)]).astype(float)
    rows, columns = np.nonzero(pixels > 128)
    assert (pixels.sum(axis=1) @ (np.arange(CANVAS_PX) + 0.5)) / pixels.sum() == pytest.approx(96, abs=0.3)
    assert columns.min() == pytest.approx(48 - 2, abs=1.5)
    assert columns.max() == pytest.approx(144 + 2, abs=1.5)
    assert len(set(rows)) == 4


def test_paper_is_exactly_zero_and_a_single_point_is_a_dot() -> None:
    pixels = rasterise([Stroke(np.float32([[0.5, 0.5]]), width=0.03)])
    assert pixels[0, 0] == 0
    assert pixels[96, 96] == 255
    assert 15 < (pixels > 128).sum() < 45


def test_pressure_makes_a_line_thicker() -> None:
    path = np.float32([[0.1, 0.5], [0.9, 0.5]])
    light = rasterise([Stroke(path, 0.04, np.float32([0.25, 0.25]))])
    full = rasterise([Stroke(path, 0.04, np.float32([1, 1]))])
    assert full.sum() > 2.5 * light.sum()


def test_add_tells_whether_a_stroke_shows() -> None:
    canvas = Canvas()
    wide = Stroke(np.float32([[0.2, 0.5], [0.8, 0.5]]), width=0.1)
    assert canvas.add(wide)
    assert not canvas.add(Stroke(np.float32([[0.3, 0.5], [0.7, 0.5]]), width=0.01))
    assert canvas.add(Stroke(np.float32([[0.3, 0.1], [0.7, 0.1]]), width=0.01))


@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (255, 0), (90, 235), (200, 20)])
def test_raster_polarity_is_detected(ink: int, paper: int) -> None:
    canvas = read_raster(png(line_drawing(ink, paper)))
    assert canvas.shape == (CANVAS_PX, CANVAS_PX)
    assert canvas[0, 0] == 0
    assert canvas[96, 96] > 128
    assert ink_mask(canvas)[[0, 3, 4]].all()


def test_transparent_png_is_on_white_paper() -> None:
    image = Image.new("RGBA", (240, 240), (0, 0, 0, 0))
    ImageDraw.Draw(image).line((40, 120, 200, 120), fill=(0, 0, 0, 255), width=5)
    canvas = read_raster(png(image))
    assert canvas[0, 0] == 0
    assert canvas[96, 96] > 128


def test_a_phone_s_photo_of_a_sketch_is_turned_upright() -> None:
    upright = Image.new("L", (240, 240), 255)
    ImageDraw.Draw(upright).line((20, 40, 220, 40), fill=0, width=6)
    exif = Image.Exif()
    exif[274] = 6  # the camera was held sideways: turn clockwise to show
    buffer = io.BytesIO()
    upright.rotate(90).save(buffer, "PNG", exif=exif)
    np.testing.assert_array_equal(read_raster(buffer.getvalue()), read_raster(png(upright)))


def test_sixteen_bits_a_pixel_are_read_as_eight() -> None:
    grey = line_drawing(0, 255)
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_raster(png(wide)), read_raster(png(grey)))


def test_raster_is_cropped_to_its_centred_square() -> None:
    image = Image.new("L", (400, 200), 255)
    ImageDraw.Draw(image).rectangle((0, 0, 60, 199), fill=0)  # outside the centred square
    assert not read_raster(png(image)).any()


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[np.nan, 0.5]], "point 0 is not a finite number"),
        ([[0.5, 0.5], [0.5, np.inf]], "point 1 is not a finite number"),
        ([[0.5, 0.5], [1.5, 0.5]], r"point 1 is at \(1.5, 0.5\), canvas units run from 0 to 1"),
        (np.zeros((0, 2)), "at least one"),
        (np.zeros((3, 3)), "at least one"),
    ],
)
def test_bad_points_are_named(points: object, message: str) -> None:
    with pytest.raises(SketchError, match=message):
        Stroke(np.asarray(points, dtype=np.float32))


def test_a_stroke_of_a_million_points_is_refused() -> None:
    with pytest.raises(SketchError, match=f"may have {MAX_STROKE_POINTS} points, got 1000000"):
        Stroke(np.full((1_000_000, 2), 0.5, np.float32))


@pytest.mark.parametrize("width", [0, -1, 0.5, float("nan")])
def test_a_width_out_of_range_is_refused(width: float) -> None:
    with pytest.raises(SketchError, match="width must be above 0"):
        Stroke(np.float32([[0.5, 0.5]]), width)


def test_pressure_must_fit_its_points() -> None:
    with pytest.raises(SketchError, match="one number a point"):
        Stroke(np.float32([[0.5, 0.5]]), pressure=np.float32([1, 1]))
    with pytest.raises(SketchError, match="between 0 and 1"):
        Stroke(np.float32([[0.5, 0.5]]), pressure=np.float32([np.nan]))


@pytest.mark.parametrize("data", [b"", b"not an image", png(line_drawing(0, 255))[:200]])
def test_what_is_no_whole_picture_is_refused(data: bytes) -> None:
    with pytest.raises(SketchError, match="whole PNG, JPEG or WebP"):
        read_raster(data)


def test_a_huge_picture_is_refused_before_it_is_decoded() -> None:
    for size in ((5000, 5000), (20_000, 20_000)):  # the second is beyond Pillow's own limit
        with pytest.raises(SketchError, match=r"at most 4096 px a side: .* pixels"):
            read_raster(png(Image.new("1", size)))
    with pytest.raises(SketchError, match="4096 px a side, got 5000x100"):
        read_raster(png(Image.new("1", (5000, 100))))
    with pytest.raises(SketchError, match="bytes"):
        read_raster(b"\0" * 4_000_000)
