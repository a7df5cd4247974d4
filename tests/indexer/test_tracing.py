import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from indexer.drawing_order import Part, episode_from_sketch, head_parts, length
from indexer.episode import ink_share
from indexer.errors import SketchError
from indexer.sketch import Stroke, rasterise
from indexer.tracing import clean, trace


def face_sketch(side: int = 250, paper: int = 235, ink: int = 60) -> Image.Image:
    """A face of ellipses and lines, hand drawn enough to have junctions."""
    image = Image.new("L", (side, side), paper)
    pen = ImageDraw.Draw(image)
    s = side / 250
    for left, top, right, bottom in (
        (55, 20, 195, 215),
        (80, 100, 115, 118),
        (135, 100, 170, 118),
        (100, 165, 150, 180),
    ):
        pen.ellipse((left * s, top * s, right * s, bottom * s), outline=ink, width=round(3 * s))
    for x in range(60, 190, 8):
        pen.line((x * s, 45 * s, (x + 20) * s, 15 * s), fill=ink, width=round(2 * s))
    pen.line((125 * s, 110 * s, 118 * s, 145 * s, 130 * s, 148 * s), fill=ink, width=round(2 * s))
    pen.line((60 * s, 215 * s, 20 * s, 248 * s), fill=ink, width=round(3 * s))
    pen.line((190 * s, 215 * s, 230 * s, 248 * s), fill=ink, width=round(3 * s))
    return image


def grown(bitmap: np.ndarray) -> np.ndarray:
    padded = np.pad(bitmap, 1)
    return np.any([padded[r : r + len(bitmap), c : c + len(bitmap)] for r in range(3) for c in range(3)], axis=0)


def coverage(sketch: Image.Image) -> tuple[float, float]:
    """(ink that strokes reach within a pixel, stroke pixels that lie on ink within a pixel)."""
    cleaned = clean(sketch)
    drawn = rasterise(trace(sketch), len(cleaned)) >= 128
    return (cleaned & grown(drawn)).sum() / cleaned.sum(), (drawn & grown(cleaned)).sum() / drawn.sum()


def test_the_union_of_all_strokes_is_the_cleaned_sketch() -> None:
    recall, precision = coverage(face_sketch())
    assert recall > 0.95
    assert precision > 0.98


def test_two_crossing_lines_are_two_strokes() -> None:
    image = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(image).line((20, 100, 180, 100), fill=0, width=3)
    ImageDraw.Draw(image).line((100, 20, 100, 180), fill=0, width=3)
    strokes = [stroke for stroke in trace(image) if length(stroke) > 0.1]
    assert sorted(round(length(stroke), 1) for stroke in strokes) == [0.8, 0.8]


def test_width_is_measured() -> None:
    for width in (3, 5, 7):
        image = Image.new("L", (240, 240), 255)
        ImageDraw.Draw(image).line((30, 120, 210, 120), fill=0, width=width)
        (stroke,) = trace(image)
        assert stroke.width * 240 == pytest.approx(width, abs=1.2)


def test_polarity_and_tint_of_the_paper_do_not_matter() -> None:
    reference = clean(face_sketch(paper=255, ink=0))
    shaded = np.asarray(face_sketch(), dtype=float) * np.linspace(0.75, 1, 250)[None, :]
    for image in (Image.fromarray(shaded.astype(np.uint8)), Image.eval(face_sketch(), lambda v: 255 - v)):
        ink = clean(image)
        assert (ink & reference).sum() / (ink | reference).sum() > 0.8


def test_blank_paper_is_refused() -> None:
    with pytest.raises(SketchError, match="no pencil line found"):
        trace(Image.new("L", (200, 200), 240))


@pytest.mark.parametrize("stages", [1, 8, 70])
def test_ink_grows_at_every_stage_and_the_first_is_not_blank(stages: int) -> None:
    episode = episode_from_sketch(face_sketch(), stages)
    canvases = episode.canvases()
    assert len(canvases) == stages
    sums = canvases.sum(axis=(1, 2), dtype=np.int64)
    assert np.diff([0, *sums]).min() > 0
    np.testing.assert_array_equal(canvases[-1], rasterise(episode.strokes))
    for earlier, later in pairwise(canvases):
        assert (later >= earlier).all()


def test_the_same_seed_draws_the_same_and_shuffling_keeps_the_strokes() -> None:
    one, two = (episode_from_sketch(face_sketch(), 20, seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.canvases(), two.canvases())
    shuffled = episode_from_sketch(face_sketch(), 20, seed=5, shuffled=True)
    np.testing.assert_array_equal(shuffled.canvases()[-1], one.canvases()[-1])
    assert not np.array_equal(shuffled.canvases()[3], one.canvases()[3])


def test_large_scale_comes_first() -> None:
    episode = episode_from_sketch(face_sketch(), 10)
    lengths = [length(stroke) for stroke in episode.strokes]
    third = len(lengths) // 3
    assert np.mean(lengths[:third]) > 1.5 * np.mean(lengths[-third:])


def test_parts_follow_from_the_place_on_the_head() -> None:
    def at(x: float, y: float, size: float = 0.05) -> Stroke:
        return Stroke(np.float32([[x - size, y], [x, y + 0.005], [x + size, y]]))

    angles = np.linspace(0, 2 * np.pi, 60)
    head = Stroke(np.stack([0.5 + 0.28 * np.cos(angles), 0.45 + 0.38 * np.sin(angles)], axis=1).astype(np.float32))
    parts = head_parts([head, at(0.5, 0.68), at(0.4, 0.5), at(0.5, 0.55, 0.01), at(0.3, 0.95)])
    assert parts[1:].tolist() == [Part.MOUTH, Part.FEATURES, Part.WRINKLES, Part.NECK]


def test_too_many_stages_for_the_ink_is_refused() -> None:
    image = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(image).line((90, 100, 110, 100), fill=0, width=3)
    with pytest.raises(SketchError, match="ask for fewer"):
        episode_from_sketch(image, 70)


def test_very_many_stages_are_refused_in_no_time() -> None:
    """Halving strokes until there are enough must not look at every stroke for every half."""
    tiles = np.kron(np.indices((40, 40)).sum(0) % 2, np.ones((4, 4))).astype(np.uint8) * 255
    start = time.monotonic()
    with pytest.raises(SketchError, match="100000 were asked for; ask for fewer"):
        episode_from_sketch(Image.fromarray(tiles), 100_000)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("name", ["sketch1/sketch0001", "sketch3/sketch0001"])
def test_real_sketches(shared: Path, name: str) -> None:
    image = Image.open(shared / "fs2k" / "sketch" / f"{name}.jpg")
    recall, precision = coverage(image)
    assert recall > 0.93
    assert precision > 0.98
    share = ink_share(episode_from_sketch(image, 70).canvases())
    assert share[[9, 19, 29, 39, 49, 59]] == pytest.approx([0.28, 0.49, 0.70, 0.84, 0.92, 0.99], abs=0.1)
