"""Ingestion with framing: crops, several faces of a file, and what is there already."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer import loading
from indexer.backup import copy_gallery
from indexer.encoding import photo_pixels
from indexer.errors import ConfigError
from indexer.faces import FaceDetector
from indexer.framing import FaceFraming, Faces
from indexer.ingest import ingest
from indexer.ingest_report import IngestProgress, IngestReport
from indexer.ledger import Framing, read_manifest
from indexer.photos import read_photo
from indexer.placing import Duplicates
from indexer.preparing import Decoding, Encoding, EncodingProcesses
from indexer.reindex import reindex
from indexer.store import Store, StoreWriter
from indexer.upload import Upload
from indexer.upserting import Upserted, Upserter
from service.demo.painting import render_photo
from service.demo.portraits import Portrait
from tests.conftest import PixelEncoder
from tests.indexer.test_ingest import contents

ENCODER = PixelEncoder()


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector.open()


def jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A face that lies well, one far from the middle, two faces, and nobody."""
    folder = tmp_path / "photos"
    folder.mkdir()
    painted(1, 250).save(folder / "anna.png")
    placed((2, 160, (400, 20))).save(folder / "bob.png")
    placed((3, 300, (20, 150)), (4, 200, (380, 30))).save(folder / "pair.png")
    Image.new("RGB", (300, 200), "teal").save(folder / "wall.png")
    return folder


def painted(seed: int, size_px: int) -> Image.Image:
    return render_photo(Portrait.random(seed), size_px)


def placed(*faces: tuple[int, int, tuple[int, int]]) -> Image.Image:
    canvas = Image.new("RGB", (640, 480), "gray")
    for seed, size, at in faces:
        canvas.paste(painted(seed, size), at)
    return canvas


def run(
    gallery: Path, source: Path, detector: FaceDetector, faces: Faces = "largest", **options: object
) -> IngestReport:
    prepare = Decoding(192, framing=FaceFraming(detector, 192, faces=faces))
    return ingest(gallery, [source], ENCODER, prepare=prepare, **options)


def test_photos_are_cropped_to_the_largest_face_and_it_is_said_of_which(
    tmp_path: Path, photos: Path, detector: FaceDetector
) -> None:
    report = run(tmp_path / "g", photos, detector)
    assert (report.added, report.cropped, report.without_face, report.faceless) == (4, 2, 1, ("photos/wall.png",))
    ids, embeddings = contents(tmp_path / "g")
    assert ids == ["anna", "bob", "pair", "wall"]
    whole = ingest(tmp_path / "whole", [photos], ENCODER)
    assert (whole.cropped, whole.without_face) == (0, 0)
    _, as_they_are = contents(tmp_path / "whole")
    is_same = [np.allclose(one, other, atol=1e-6) for one, other in zip(embeddings, as_they_are, strict=True)]
    assert is_same == [True, False, False, True]


def test_the_thumbnail_shows_the_crop(tmp_path: Path, photos: Path, detector: FaceDetector) -> None:
    run(tmp_path / "g", photos, detector)
    store = Store.open(tmp_path / "g")
    crop, whole = (Image.open(io.BytesIO(store.photo(name).thumbnail)) for name in ("bob", "wall"))
    assert (crop.size, whole.size) == ((96, 96), (96, 64))
    (seen,) = detector.look(crop.resize((192, 192)), 128)
    assert (seen.x / 192, seen.y / 192) == pytest.approx((0.495, 0.545), abs=0.05)


def test_a_large_photo_is_read_small_only_where_its_crop_loses_nothing(
    detector: FaceDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int | None] = []

    def noted(data: bytes, least_px: int | None = None) -> Image.Image:
        read.append(least_px)
        return read_photo(data, least_px=least_px)

    monkeypatch.setattr(loading, "read_photo", noted)
    framing = FaceFraming(detector, 96)
    near, far = Image.new("RGB", (1400, 1400), "gray"), Image.new("RGB", (1400, 1400), "gray")
    near.paste(painted(3, 1200), (0, 200))
    far.paste(painted(3, 400), (0, 200))
    for image, expected in ((painted(1, 900), [192]), (near, [192]), (far, [192, None])):
        read.clear()
        (decoded,) = loading.decode_faces(jpeg(image), 96, framing)
        assert read == expected
        (whole,) = framing.frame(read_photo(jpeg(image)))
        assert decoded.cropped == whole.cropped == (image in (near, far))
        assert np.abs(decoded.pixels.astype(float) - photo_pixels(whole.image, 96)).mean() < 3


def test_all_gives_a_photo_a_face(tmp_path: Path, photos: Path, detector: FaceDetector) -> None:
    seen: list[IngestProgress] = []
    report = run(tmp_path / "g", photos, detector, "all", on_progress=seen.append)
    assert (report.added, report.cropped, report.without_face) == (5, 3, 1)
    assert (seen[-1].total, seen[-1].done) == (5, 5)
    ids, _ = contents(tmp_path / "g")
    assert ids == ["anna", "bob", "pair#1", "pair#2", "wall"]
    store = Store.open(tmp_path / "g")
    assert store.photo("pair#2").source == "photos/pair.png#2"
    assert store.photo("pair#1").thumbnail != store.photo("pair#2").thumbnail
    again = run(tmp_path / "g", photos, detector, "all")
    assert (again.added, again.already_there, again.duplicates) == (0, 4, 0)


def test_a_file_with_several_faces_is_known_under_another_name(
    tmp_path: Path, photos: Path, detector: FaceDetector
) -> None:
    run(tmp_path / "g", photos, detector, "all")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "copy.png").write_bytes((photos / "pair.png").read_bytes())
    report = run(tmp_path / "g", tmp_path / "more", detector, "all")
    assert (report.added, report.same) == (0, (("more/copy.png", "pair#1"),))
    report = run(tmp_path / "g", tmp_path / "more", detector, "all", duplicates=Duplicates.KEEP)
    assert report.added == 2
    assert contents(tmp_path / "g")[0][-2:] == ["copy#1", "copy#2"]


def test_a_face_s_id_that_another_photo_has_grows(tmp_path: Path, detector: FaceDetector) -> None:
    (tmp_path / "photos").mkdir()
    painted(1, 250).save(tmp_path / "photos" / "a#1.png")
    placed((3, 300, (20, 150)), (4, 200, (380, 30))).save(tmp_path / "photos" / "a.png")
    report = run(tmp_path / "g", tmp_path / "photos", detector, "all")
    assert report.added == 3
    ids = contents(tmp_path / "g")[0]
    assert len(set(ids)) == 3
    assert {"a#1", "a#2"} < set(ids)


def test_faces_get_the_metadata_of_their_photo(tmp_path: Path, photos: Path, detector: FaceDetector) -> None:
    (tmp_path / "people.csv").write_text("photo_id,place\npair,Oslo\nbob,Rome\n")
    report = run(tmp_path / "g", photos, detector, "all", metadata=tmp_path / "people.csv")
    assert report.described == 3
    store = Store.open(tmp_path / "g")
    assert [store.photo(name).metadata for name in ("pair#1", "pair#2", "bob", "anna")] == [
        {"place": "Oslo"}, {"place": "Oslo"}, {"place": "Rome"}, {}
    ]  # fmt: skip


def test_reject_many_skips_photos_of_several_people(tmp_path: Path, photos: Path, detector: FaceDetector) -> None:
    report = run(tmp_path / "g", photos, detector, "reject-many")
    assert (report.added, report.failed) == (3, 1)
    ((name, reason),) = report.skipped
    assert name == "photos/pair.png"
    assert reason == "the photo shows 2 faces; crop it to one, or choose --faces largest or all"


def test_threads_and_processes_crop_alike(tmp_path: Path, photos: Path, detector: FaceDetector) -> None:
    framing = FaceFraming(detector, 192, faces="all")
    data = (photos / "pair.png").read_bytes()
    in_thread = Encoding(ENCODER, 1, framing)(data)
    with EncodingProcesses(PixelEncoder, 1, framing) as processes:
        in_process = processes(data)
    assert len(in_thread) == len(in_process) == 2
    for one, other in zip(in_thread, in_process, strict=True):
        assert one.thumbnail == other.thumbnail
        np.testing.assert_allclose(one.embedding, other.embedding, atol=1e-6)


def test_a_gallery_of_faces_changes_its_model(tmp_path: Path, photos: Path, detector: FaceDetector) -> None:
    run(tmp_path / "g", photos, detector, "all")
    new = PixelEncoder(dim=8, size_px=96, seed=1)
    done = reindex(tmp_path / "g", [photos], new, prepare=Decoding(96, framing=FaceFraming(detector, 96, faces="all")))
    assert (done.switched, done.photos) == (True, 5)


def test_a_face_whose_file_s_first_face_was_deleted_changes_its_model(
    tmp_path: Path, photos: Path, detector: FaceDetector
) -> None:
    run(tmp_path / "g", photos, detector, "all")
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.delete(["pair#1"])
    new = PixelEncoder(dim=8, size_px=96, seed=1)
    done = reindex(tmp_path / "g", [photos], new, prepare=Decoding(96, framing=FaceFraming(detector, 96, faces="all")))
    assert (done.switched, done.lacks) == (True, ())
    assert contents(tmp_path / "g")[0] == ["anna", "bob", "pair#2", "wall"]


def uploaded(gallery: Path, *photos: Path) -> Upserted:
    upserter = Upserter.open(gallery, ENCODER)
    try:
        return upserter.store([Upload(f"up-{photo.stem}", photo.read_bytes()) for photo in photos])
    finally:
        upserter.close()


def test_photos_that_are_uploaded_are_cropped_as_the_gallerys_others_are(
    tmp_path: Path, photos: Path, detector: FaceDetector
) -> None:
    run(tmp_path / "g", photos, detector)
    done = uploaded(tmp_path / "g", *sorted(photos.iterdir()))
    assert (done.stored, done.failures, done.without_face) == (4, {}, 1)
    ids, embeddings = contents(tmp_path / "g")
    for name in ("anna", "bob", "pair", "wall"):
        ours, theirs = embeddings[ids.index(name)], embeddings[ids.index(f"up-{name}")]
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    ingest(tmp_path / "whole", [photos], ENCODER)
    assert uploaded(tmp_path / "whole", photos / "bob.png").without_face == 0
    ids, embeddings = contents(tmp_path / "whole")
    np.testing.assert_allclose(embeddings[ids.index("bob")], embeddings[ids.index("up-bob")], atol=1e-6)


def test_one_photo_is_uploaded_under_one_id_whatever_becomes_of_several_faces(
    tmp_path: Path, photos: Path, detector: FaceDetector
) -> None:
    run(tmp_path / "all", photos, detector, "all")
    assert uploaded(tmp_path / "all", photos / "pair.png").stored == 1
    run(tmp_path / "strict", photos, detector, "reject-many")
    assert "shows 2 faces" in str(uploaded(tmp_path / "strict", photos / "pair.png").failures[0])


def test_a_gallery_is_cropped_in_one_way(tmp_path: Path, photos: Path, detector: FaceDetector) -> None:
    run(tmp_path / "g", photos, detector, "all")
    with pytest.raises(ConfigError, match="gallery g are taken with --crop face, and others taken with --crop none"):
        ingest(tmp_path / "g", [photos], ENCODER)
    # What becomes of several faces is a matter of the source.
    run(tmp_path / "g", photos, detector, "reject-many")
    assert read_manifest(tmp_path / "g").framing == Framing("face", "all")


def test_the_first_photos_that_come_say_how_a_gallery_is_cropped(tmp_path: Path, photos: Path) -> None:
    with StoreWriter.open_or_create(tmp_path / "g", ENCODER.model_hash, ENCODER.dim) as writer:
        assert writer.manifest.framing is None
    uploaded(tmp_path / "g")
    assert read_manifest(tmp_path / "g").framing is None
    uploaded(tmp_path / "g", photos / "bob.png")
    assert read_manifest(tmp_path / "g").framing == Framing("face")
    copy_gallery(tmp_path / "g", tmp_path / "copy")
    assert read_manifest(tmp_path / "copy").framing == Framing("face")


def test_a_change_of_the_model_may_change_the_crop_but_not_halfway(
    tmp_path: Path, photos: Path, detector: FaceDetector
) -> None:
    ingest(tmp_path / "g", [photos], ENCODER)
    (photos / "bob.png").rename(tmp_path / "bob.png")
    new = PixelEncoder(dim=8, size_px=96, seed=1)
    cropping = Decoding(96, framing=FaceFraming(detector, 96))
    assert not reindex(tmp_path / "g", [photos], new, prepare=cropping).switched
    with pytest.raises(ConfigError, match="taken with --crop face, and others taken with --crop none"):
        reindex(tmp_path / "g", [photos, tmp_path / "bob.png"], new)
    assert reindex(tmp_path / "g", [photos, tmp_path / "bob.png"], new, prepare=cropping).switched
    assert Store.open(tmp_path / "g").manifest.framing == Framing("face")
