from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.faces import FaceDetector
from indexer.framing import FACE_SIZE, FACE_X, FACE_Y, FaceFraming
from indexer.sketch import Stroke, square
from service.demo.painting import render_photo
from service.demo.portraits import Portrait
from training.commands.evaluate import CROPS, PHOTOS
from training.data import find_photo, open_image
from training.photo_sets import PHOTO_SETS, PhotoReader, centre


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector.open()


def test_the_command_offers_every_set() -> None:
    assert tuple(PHOTO_SETS) == PHOTOS
    assert CROPS == ("none", "face", "stray")


@pytest.mark.parametrize("name", ["padded", "noisy"])
def test_a_photo_lies_whole_somewhere_on_a_larger_one(name: str) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8))
    inner = np.asarray(photo.crop((0, 10, 40, 50)))
    places = set()
    for seed in range(5):
        larger = np.asarray(PHOTO_SETS[name](photo, np.random.default_rng(seed)))
        side = len(larger)
        assert 50 <= side <= 100
        windows = np.lib.stride_tricks.sliding_window_view(larger, inner.shape)[:, :, 0]
        (place,) = np.argwhere((windows == inner).all(axis=(2, 3, 4)))
        places.add((*place.tolist(), side))
    assert len(places) == 5


def test_photos_are_placed_alike_whatever_is_read_before(tiny_fs2k: Path) -> None:
    name = "photo1/image0002"
    reader = PhotoReader(tiny_fs2k, "padded", 3, None)
    other = PhotoReader(tiny_fs2k, "padded", 4, None)
    reader("photo1/image0001")
    first, again = reader(name), PhotoReader(tiny_fs2k, "padded", 3, None)(name)
    np.testing.assert_array_equal(np.asarray(first), np.asarray(again))
    assert first.size != other(name).size
    unchanged = PhotoReader(tiny_fs2k, "unchanged", 3, None)(name)
    np.testing.assert_array_equal(np.asarray(unchanged), np.asarray(open_image(find_photo(tiny_fs2k, name))))


def test_what_framing_did_is_counted(tmp_path: Path, detector: FaceDetector) -> None:
    (tmp_path / "photos").mkdir()
    render_photo(Portrait.random(1), 250).save(tmp_path / "photos" / "anna.png")
    Image.new("RGB", (250, 250)).save(tmp_path / "photos" / "nobody.png")
    reader = PhotoReader(tmp_path, "padded", 0, FaceFraming(detector, 192))
    assert reader("photos/anna").size == (192, 192)
    assert reader("photos/nobody").size != (192, 192)
    assert (reader.cropped, reader.without_face) == (1, 1)


def test_a_centred_drawing_lies_on_the_crop_of_its_photo(detector: FaceDetector) -> None:
    canvas = Image.new("RGB", (500, 600), "gray")
    canvas.paste(render_photo(Portrait.random(1), 220), (250, 90))
    place = centre(canvas, detector)
    assert place is not None
    # A point of the face, drawn on the photo's centred square.
    face = detector.largest(square(canvas))
    assert face is not None
    ((moved,),) = place.move([[Stroke(np.float32([[face.x / 500, face.y / 500]]))]])
    np.testing.assert_allclose(moved.points[0], (FACE_X, FACE_Y), atol=1e-4)
    assert place.scale == pytest.approx(FACE_SIZE * 500 / face.size, rel=1e-4)
    assert centre(Image.new("RGB", (50, 50)), detector) is None
