import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.errors import ConfigError, ImageError
from indexer.faces import Face, FaceDetector
from indexer.framing import (
    FACE_SIZE,
    FACE_X,
    FACE_Y,
    TOLERANCES,
    FaceFraming,
    crop,
    crop_box,
    lies_well,
)
from indexer.photos import read_photo
from indexer.sketch import square
from service.demo.painting import render_photo
from service.demo.portraits import Portrait

TIGHT = TOLERANCES["face"]


class KnownFaces:
    """A detector that is told the faces; what it sees from near it takes from afar."""

    def __init__(self, *faces: Face) -> None:
        self._faces = list(faces)

    def largest(self, _: Image.Image) -> Face | None:
        return self._faces[0] if self._faces else None

    def all(self, _: Image.Image) -> list[Face]:
        return self._faces

    def look(self, _: Image.Image, __: int) -> list[Face]:
        return []


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector.open()


def painted(seed: int, size_px: int) -> Image.Image:
    return render_photo(Portrait.random(seed), size_px)


def face(x: float, y: float, size: float) -> Face:
    return Face(x, y, size, 0.9)


def framed_place(detector: FaceDetector, image: Image.Image) -> tuple[float, float, float]:
    found = detector.look(image, 128)[0]
    return found.x / image.width, found.y / image.height, found.size / image.width


def test_a_crop_has_its_face_where_training_photos_have_it() -> None:
    left, top, side = crop_box(face(300, 200, 90))
    assert side == pytest.approx(150)
    assert (300 - left) / side == pytest.approx(FACE_X)
    assert (200 - top) / side == pytest.approx(FACE_Y)


def test_a_crop_inside_a_photo_is_that_part_of_it() -> None:
    photo = painted(0, 400)
    expected = photo.resize((160, 160), Image.Resampling.BILINEAR, box=(40, 60, 360, 380), reducing_gap=3.0)
    np.testing.assert_array_equal(np.asarray(crop(photo, (40, 60, 320), 160)), np.asarray(expected))


@pytest.mark.parametrize("box", [(-50, -20, 150), (30, 70, 100), (-500, -400, 1000), (99.2, -60, 90), (-89.5, 20, 90)])
def test_beyond_the_edge_the_last_pixels_go_on(box: tuple[float, float, float]) -> None:
    photo = painted(1, 100)
    padded = Image.fromarray(np.pad(np.asarray(photo), ((1000, 1000), (1000, 1000), (0, 0)), mode="edge"))
    left, top, side = box
    beyond = (left + 1000, top + 1000, left + side + 1000, top + side + 1000)
    expected = padded.resize((96, 96), Image.Resampling.BILINEAR, box=beyond)
    found = crop(photo, box, 96)
    assert found.size == (96, 96)
    # The edge comes to lie on a whole pixel of the result: half a pixel beside the place it has here at most.
    assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).mean() < 6


def test_a_large_photo_needs_no_large_margin() -> None:
    assert crop(Image.new("RGB", (4000, 3000), "red"), (-9e5, -9e5, 2e6), 192).size == (192, 192)


def test_photos_whose_face_lies_well_are_not_touched() -> None:
    photo = painted(2, 250)
    (framed,) = FaceFraming(KnownFaces(face(125, 136, 150)), 192).frame(photo)
    assert framed.image is photo
    assert framed.face == face(125, 136, 150)
    assert not framed.cropped


@pytest.mark.parametrize(
    ("x", "y", "size", "well"),
    [
        (FACE_X, FACE_Y, FACE_SIZE, True),
        (FACE_X + 0.049, FACE_Y - 0.049, FACE_SIZE, True),
        (FACE_X + 0.051, FACE_Y, FACE_SIZE, False),
        (FACE_X, FACE_Y - 0.051, FACE_SIZE, False),
        (FACE_X, FACE_Y, FACE_SIZE * 1.14, True),
        (FACE_X, FACE_Y, FACE_SIZE * 1.16, False),
        (FACE_X, FACE_Y, FACE_SIZE / 1.14, True),
        (FACE_X, FACE_Y, FACE_SIZE / 1.16, False),
    ],
)
def test_a_face_lies_well_within_the_tolerance(x: float, y: float, size: float, well: bool) -> None:
    assert lies_well(face(x * 200, y * 200, size * 200), (200, 200), TIGHT) is well
    # What is searched of a photo that is no square is its centred square.
    assert lies_well(face(x * 200 + 50, y * 200, size * 200), (300, 200), TIGHT) is well
    assert lies_well(face(x * 200, y * 200 + 30, size * 200), (200, 260), TIGHT) is well


def test_a_photo_without_a_face_stays_whole() -> None:
    photo = Image.new("RGB", (300, 200))
    for faces in ("largest", "all", "reject-many"):
        (framed,) = FaceFraming(KnownFaces(), 192, faces=faces).frame(photo)
        assert (framed.image, framed.face, framed.cropped) == (photo, None, False)


def test_what_becomes_of_several_faces_is_the_caller_s_choice() -> None:
    photo = Image.new("RGB", (1000, 600))
    faces = [face(300, 300, 200), face(700, 300, 120), face(900, 500, 40), face(950, 50, 20)]
    detector = KnownFaces(*faces)
    assert [each.face for each in FaceFraming(detector, 192).frame(photo)] == faces[:1]
    crops = FaceFraming(detector, 192, faces="all").frame(photo)
    assert [each.face for each in crops] == faces[:2]  # the others are passers-by
    assert all(each.image.size == (192, 192) and each.cropped for each in crops)
    with pytest.raises(ImageError, match="the photo shows 2 faces; crop it to one, or choose --faces largest or all"):
        FaceFraming(detector, 192, faces="reject-many").frame(photo)
    assert len(FaceFraming(KnownFaces(faces[0], faces[2]), 192, faces="reject-many").frame(photo)) == 1


def test_stray_leaves_more_photos_alone() -> None:
    detector = KnownFaces(face(80, 150, 110))
    photo = Image.new("RGB", (250, 250))
    assert FaceFraming(detector, 192).frame(photo)[0].cropped
    assert not FaceFraming(detector, 192, crop="stray").frame(photo)[0].cropped
    assert FaceFraming(KnownFaces(face(60, 150, 110)), 192, crop="stray").frame(photo)[0].cropped
    assert FaceFraming(KnownFaces(face(125, 136, 90)), 192, crop="stray").frame(photo)[0].cropped


def test_unknown_policies_are_refused() -> None:
    with pytest.raises(ConfigError, match="faces must be one of largest, all, reject-many, got 'both'"):
        FaceFraming(KnownFaces(), 192, faces="both")
    with pytest.raises(ConfigError, match="crop must be one of face, stray, got 'none'"):
        FaceFraming(KnownFaces(), 192, crop="none")


@pytest.mark.parametrize(("scale", "left", "top"), [(0.7, 0.1, 0.3), (0.4, 0.6, 0.0), (0.15, 0.2, 0.8)])
def test_a_face_anywhere_comes_to_lie_in_its_place(
    detector: FaceDetector, scale: float, left: float, top: float
) -> None:
    canvas = Image.new("RGB", (900, 900), (120, 140, 90))
    canvas.paste(painted(3, round(900 * scale)), (round(900 * left), round(900 * top)))
    (framed,) = FaceFraming(detector, 192).frame(canvas)
    x, y, size = framed_place(detector, framed.image)
    assert abs(x - FACE_X) < 0.03
    assert abs(y - FACE_Y) < 0.03
    assert size == pytest.approx(FACE_SIZE, rel=0.08)


def test_framing_is_the_same_in_another_process(detector: FaceDetector) -> None:
    framing = FaceFraming(detector, 96, faces="all", crop="stray")
    sent = pickle.loads(pickle.dumps(framing))
    canvas = Image.new("RGB", (500, 500))
    canvas.paste(painted(4, 200), (300, 0))
    (one,), (two,) = framing.frame(canvas), sent.frame(canvas)
    np.testing.assert_array_equal(np.asarray(one.image), np.asarray(two.image))


def test_the_place_of_faces_is_that_of_the_training_photos(shared: Path, detector: FaceDetector) -> None:
    names = (shared / "fs2k" / "splits" / "dataset1-fit.txt").read_text().split()[::8]
    photos = [square(read_photo(shared / "fs2k" / "photo" / f"{name}.jpg")) for name in names]
    found = np.array([framed_place(detector, photo) for photo in photos])
    np.testing.assert_allclose(np.median(found, axis=0), (FACE_X, FACE_Y, FACE_SIZE), atol=0.006)
    framing = FaceFraming(detector, 192)
    assert np.mean([framing.frame(photo)[0].cropped for photo in photos]) < 0.03
