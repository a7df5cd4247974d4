from itertools import pairwise

import numpy as np
import pytest

from indexer.encoding import DEFAULT_MODEL, OnnxEncoder, photo_pixels
from indexer.fusion import fused_distance
from indexer.regions import ink_mask
from indexer.sketch import Canvas, Stroke, rasterise
from service.demo.anatomy import anatomy, curve
from service.demo.hairdressing import dress
from service.demo.painting import render_photo
from service.demo.parts import Beard, Glasses, HairStyle
from service.demo.pencil import draw_strokes
from service.demo.portraits import Portrait


def drawing(seed: int, hand: int = 0) -> list[Stroke]:
    return draw_strokes(Portrait.random(seed), np.random.default_rng(hand))


def test_a_seed_stands_for_one_person_one_photo_and_one_drawing():
    assert Portrait.random(5) == Portrait.random(5)
    first, second = (np.asarray(render_photo(Portrait.random(5), 128)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for one, two in zip(drawing(5), drawing(5), strict=True):
        np.testing.assert_array_equal(one.points, two.points)


def test_photos_of_different_seeds_differ_in_more_than_their_background():
    faces = [np.asarray(render_photo(Portrait.random(seed), 96), np.int16)[30:80, 25:70] for seed in range(12)]
    for one in range(len(faces)):
        for two in range(one):
            assert np.abs(faces[one] - faces[two]).mean() > 8


def test_another_hand_draws_the_same_face_with_other_lines():
    one, two = drawing(3, hand=0), drawing(3, hand=1)
    assert not np.array_equal(one[0].points, two[0].points)
    # The lines stray by a few thousandths of the canvas, no more: the hair outline comes first in both.
    assert np.abs(one[0].points[0] - two[0].points[0]).max() < 0.03


def test_the_gallery_knows_every_kind_of_hair_beard_and_glasses():
    people = [Portrait.random(seed) for seed in range(300)]
    assert {p.hair.style for p in people} == set(HairStyle)
    assert {p.extras.beard for p in people} == set(Beard)
    assert {p.extras.glasses for p in people} == set(Glasses)


@pytest.mark.parametrize("seed", range(12))
def test_strokes_stay_on_the_canvas_and_ink_every_region(seed):
    strokes = drawing(seed)
    assert 30 <= len(strokes) <= 320
    for stroke in strokes:
        assert ((stroke.points >= 0) & (stroke.points <= 1)).all()
        assert 0.004 <= stroke.width <= 0.03
    assert ink_mask(rasterise(strokes)).all()


def test_the_drawing_goes_from_large_to_small():
    canvas, inked = Canvas(), []
    strokes = drawing(1)
    for stroke in strokes:
        canvas.draw([stroke])
        inked.append(int((canvas.pixels() > 32).sum()))
    assert all(before <= after for before, after in pairwise(inked))
    extent = [np.ptp(stroke.points, axis=0).max() for stroke in strokes]
    assert np.mean(extent[:4]) > 3 * np.mean(extent[-10:])


def test_face_hair_and_features_lie_where_a_passport_photo_has_them():
    for seed in range(60):
        portrait = Portrait.random(seed)
        body = anatomy(portrait)
        left, top = body.face.min(axis=0)
        right, chin = body.face.max(axis=0)
        assert 0.40 < right - left < 0.58
        assert 0.05 < top < 0.2
        assert 0.72 < chin < 0.90
        eyes = [eye.iris[1] for eye in body.eyes]
        assert 0.38 < min(eyes) <= max(eyes) < 0.50
        assert max(eyes) < body.nose_base[:, 1].mean() < body.mouth[:, 1].mean() < chin
        hairdo = dress(portrait)
        assert hairdo.is_bald or hairdo.outer[:, 1].min() > 0


def test_photo_and_sketch_share_their_geometry():
    portrait = Portrait.random(4)
    photo = np.asarray(render_photo(portrait, 192).convert("L"), np.float32)
    for eye in anatomy(portrait).eyes:
        x, y = np.round(eye.iris * 191).astype(int)
        around = photo[y - 12 : y + 13, x - 12 : x + 13]
        # The pupil is the darkest thing near where the strokes put it.
        assert photo[y - 1 : y + 2, x - 1 : x + 2].min() < around.mean() - 40


def test_a_curve_passes_through_its_control_points():
    control = np.array([(0.0, 0.0), (1.0, 2.0), (3.0, 1.0), (4.0, 4.0)])
    np.testing.assert_allclose(curve(control, steps=5)[::5], control, atol=1e-12)
    np.testing.assert_allclose(curve(control, steps=5, closed=True)[::5], control, atol=1e-12)


@pytest.mark.skipif(not DEFAULT_MODEL.is_file(), reason="the default model is not in this checkout")
def test_the_default_model_finds_the_person_that_was_drawn():
    # Chance is a mean rank of 30 among 60.
    encoder = OnnxEncoder.open(threads=1)
    people = [Portrait.random(seed) for seed in range(60)]
    gallery = encoder.encode_photos(np.stack([photo_pixels(render_photo(p, 192), 192) for p in people]))
    ranks = []
    for target in range(0, 60, 6):
        canvas = rasterise(drawing(target))
        distances = fused_distance(encoder.encode_sketches(canvas[None])[0], gallery, ink_mask(canvas))
        ranks.append(int((distances <= distances[target]).sum()))
    assert np.mean(ranks) < 4
