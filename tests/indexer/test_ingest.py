import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.encoding import stack_photos
from indexer.errors import ConfigError, DataError, GalleryError, ModelMismatchError
from indexer.filters import And, Equals, Not
from indexer.gallery import Gallery
from indexer.ingest import ingest
from indexer.ingest_report import IngestProgress
from indexer.ledger import replace_file
from indexer.metadata import Kind
from indexer.photos import read_photo
from indexer.store import Store, StoreWriter
from tests.conftest import PixelEncoder


def paint(path: Path, seed: int, size: tuple[int, int] = (60, 80)) -> Path:
    """A small picture of coloured patches, different for every seed."""
    patches = np.random.default_rng(seed).integers(0, 255, size=(6, 5, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(patches).resize(size).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for n in range(10):
        paint(folder / f"set{n % 2}" / f"face{n:02}.jpg", n)
    return folder


def contents(folder: Path) -> tuple[list[str], np.ndarray]:
    contents, segments = Store.open(folder).snapshot()
    ids = contents.photo_ids
    return ids, np.concatenate(list(segments))


def test_photos_become_what_the_encoder_makes_of_them(tmp_path: Path, photos: Path, encoder: PixelEncoder) -> None:
    report = ingest(tmp_path / "g", [photos], encoder, batch=4)
    assert (report.added, report.already_there, report.skipped) == (10, 0, ())
    ids, embeddings = contents(tmp_path / "g")
    files = sorted(photos.rglob("*.jpg"))
    assert ids == [f"{path.parent.name}/{path.stem}" for path in files]
    np.testing.assert_array_equal(embeddings, encoder.encode_photos(stack_photos([*map(read_photo, files)], 192)))
    gallery = Gallery.open(tmp_path / "g")
    gallery.check_model(encoder)
    photo = gallery.photo("set1/face03")
    assert photo.source == "photos/set1/face03.jpg"
    small = Image.open(io.BytesIO(photo.thumbnail))
    assert (small.format, small.size) == ("JPEG", (60, 80))


def test_thumbnails_are_at_most_96_px(tmp_path: Path, encoder: PixelEncoder) -> None:
    for name, size in (("wide", (480, 120)), ("line", (1000, 1)), ("dot", (1, 1))):
        paint(tmp_path / "photos" / f"{name}.png", 1, size)
    ingest(tmp_path / "g", [tmp_path / "photos"], encoder)
    store = Store.open(tmp_path / "g")
    sizes = {name: Image.open(io.BytesIO(store.photo(name).thumbnail)).size for name in ("wide", "line", "dot")}
    assert sizes == {"wide": (96, 24), "line": (96, 1), "dot": (1, 1)}


def test_a_second_run_adds_nothing_and_neither_decodes_nor_encodes(
    tmp_path: Path, photos: Path, encoder: PixelEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(tmp_path / "g", [photos], encoder)
    before = contents(tmp_path / "g")
    monkeypatch.setattr("indexer.loading.read_photo", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setattr(encoder, "encode_photos", lambda *_: pytest.fail("encoded again"))
    report = ingest(tmp_path / "g", [photos], encoder)
    assert (report.added, report.already_there) == (0, 10)
    moved = photos.rename(tmp_path / "elsewhere")
    assert ingest(tmp_path / "g", [moved], encoder).already_there == 10
    after = contents(tmp_path / "g")
    assert after[0] == before[0]
    np.testing.assert_array_equal(after[1], before[1])


def test_new_photos_are_added_behind_the_old(tmp_path: Path, photos: Path, encoder: PixelEncoder) -> None:
    ingest(tmp_path / "g", [photos], encoder)
    paint(photos / "aaa.jpg", 77)
    report = ingest(tmp_path / "g", [photos], encoder)
    assert (report.added, report.already_there) == (1, 10)
    assert contents(tmp_path / "g")[0][-1] == "aaa"


def test_one_content_is_one_photo_whatever_its_name(tmp_path: Path, photos: Path, encoder: PixelEncoder) -> None:
    shutil.copy(photos / "set0" / "face00.jpg", photos / "set0" / "copy.jpg")
    report = ingest(tmp_path / "g", [photos, photos / "set1" / "face01.jpg"], encoder, batch=100)
    assert (report.added, report.already_there, report.duplicates) == (10, 0, 2)
    # The copy's name comes first; so it is the photo, and what it was copied from is the duplicate.
    assert report.same == (("photos/set0/face00.jpg", "set0/copy"), ("face01.jpg", "set1/face01"))
    again = ingest(tmp_path / "g", [photos], encoder)
    assert (again.added, again.already_there, again.duplicates) == (0, 10, 1)


def test_ids_that_collide_grow_until_they_are_free(tmp_path: Path, encoder: PixelEncoder) -> None:
    sources = [tmp_path / name for name in ("one", "two", "deep/two")]
    for seed, path in enumerate((sources[0] / "a.jpg", sources[0] / "a.png", *(s / "a.png" for s in sources[1:]))):
        paint(path, seed)
    ingest(tmp_path / "g", sources, encoder, batch=3)
    assert contents(tmp_path / "g")[0] == ["a", "a.png", "two/a.png", "two/a.png~2"]


def test_files_that_are_no_photos_are_skipped_listed_and_counted(
    tmp_path: Path, photos: Path, encoder: PixelEncoder
) -> None:
    whole = (photos / "set0" / "face00.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "diary.png").write_bytes(b"Dear diary")
    (photos / "empty.webp").touch()
    report = ingest(tmp_path / "g", [photos], encoder, batch=4)
    assert report.added == 10
    reasons = dict(report.skipped)
    assert sorted(reasons) == ["photos/cut.jpg", "photos/diary.png", "photos/empty.webp"]
    assert "cut short or damaged" in reasons["photos/cut.jpg"]
    assert (
        "not a JPEG, PNG, WebP, GIF, BMP or TIFF image (10 bytes, beginning with b'Dear dia')"
        in reasons["photos/diary.png"]
    )
    assert "the file is empty" in reasons["photos/empty.webp"]


def test_progress_counts_only_what_is_durable(tmp_path: Path, photos: Path, encoder: PixelEncoder) -> None:
    (photos / "zero.jpg").touch()
    shutil.copy(photos / "set0" / "face00.jpg", photos / "twin.jpg")
    seen: list[IngestProgress] = []

    def check(now: IngestProgress) -> None:
        seen.append(now)
        assert len(Store.open(tmp_path / "g").snapshot().contents.photo_ids) == now.added

    ingest(tmp_path / "g", [photos], encoder, batch=4, on_progress=check)
    assert seen[-1] == IngestProgress(total=12, added=10, already_there=0, skipped=1, duplicates=1)
    assert [now.done for now in seen] == sorted(now.done for now in seen)
    assert {now.added for now in seen} - {0} == {4, 8, 10}


def test_an_encoder_that_fails_half_way_leaves_whole_batches(
    tmp_path: Path, photos: Path, encoder: PixelEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    encode = encoder.encode_photos

    def fail_in_the_third(batch: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return encode(batch)

    monkeypatch.setattr(encoder, "encode_photos", fail_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        ingest(tmp_path / "g", [photos], encoder, batch=3)
    assert len(contents(tmp_path / "g")[0]) == 6
    assert ingest(tmp_path / "g", [photos], encoder, batch=3).added == 4


def test_bad_jobs_are_refused_before_anything_is_made(tmp_path: Path, photos: Path, encoder: PixelEncoder) -> None:
    (tmp_path / "texts").mkdir()
    with pytest.raises(DataError, match="no folder or file named 'fotos'"):
        ingest(tmp_path / "g", [photos, tmp_path / "fotos"], encoder)
    with pytest.raises(DataError, match=r"no .bmp, .* files in texts; name a folder with photos"):
        ingest(tmp_path / "g", [tmp_path / "texts"], encoder)
    with pytest.raises(ConfigError, match="a batch must hold from 1 to 4096 photos, got 0"):
        ingest(tmp_path / "g", [photos], encoder, batch=0)
    with pytest.raises(GalleryError, match="photos is no gallery and not empty"):
        ingest(photos, [photos], encoder)
    assert not (tmp_path / "g").exists()


def test_another_model_and_a_second_job_are_refused(tmp_path: Path, photos: Path, encoder: PixelEncoder) -> None:
    ingest(tmp_path / "g", [photos], encoder)
    with pytest.raises(ModelMismatchError, match="gallery g was made by model"):
        ingest(tmp_path / "g", [photos], PixelEncoder(seed=1))
    with (
        StoreWriter.open_or_create(tmp_path / "g", encoder.model_hash, encoder.dim),
        pytest.raises(GalleryError, match="gallery g is being written by another process"),
    ):
        ingest(tmp_path / "g", [photos], encoder)


JOB = """
import sys
from pathlib import Path
from indexer.ingest import ingest
from tests.conftest import PixelEncoder

ingest(Path(sys.argv[1]), [Path(sys.argv[2])], PixelEncoder(), batch=3,
       on_progress=lambda now: print(now.added, now.already_there, flush=True))
"""


def test_a_job_killed_again_and_again_ends_like_an_uninterrupted_one(tmp_path: Path, encoder: PixelEncoder) -> None:
    """Each child is killed (SIGKILL) as soon as it has acknowledged one more batch; the next takes up its work."""
    photos = tmp_path / "photos"
    for n in range(60):
        paint(photos / f"{n % 7}" / f"face{n:02}.png", n, (300, 300))
    (photos / "3" / "broken.png").write_bytes(b"no photo")
    acknowledged = 0
    for _ in range(3):
        command = [sys.executable, "-c", JOB, str(tmp_path / "g"), str(photos)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as child:
            assert child.stdout is not None
            for line in child.stdout:
                added, already_there = map(int, line.split())
                if added:
                    os.kill(child.pid, signal.SIGKILL)
                    acknowledged = added + already_there
                    break
        assert child.returncode == -signal.SIGKILL
        ids, embeddings = contents(tmp_path / "g")
        assert len(set(ids)) == len(ids) == len(embeddings) >= acknowledged
    report = ingest(tmp_path / "g", [photos], encoder, batch=3)
    assert 0 < report.added == 60 - report.already_there
    assert [name for name, _ in report.skipped] == ["photos/3/broken.png"]
    ingest(tmp_path / "whole", [photos], encoder, batch=3)
    found, expected = contents(tmp_path / "g"), contents(tmp_path / "whole")
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])


def test_a_full_disk_says_what_the_rest_takes_and_keeps_what_was_acknowledged(
    tmp_path: Path, photos: Path, encoder: PixelEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0

    def until_full(path: Path, data: bytes) -> None:
        nonlocal written
        written += 1
        if written > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace_file(path, data)

    monkeypatch.setattr("indexer.segments.replace_file", until_full)
    told: list[IngestProgress] = []
    message = (
        r"3 photos could not be stored \(No space left on device; .* The 4 photos that are left may take about 0.0 MB"
    )
    with pytest.raises(GalleryError, match=message):
        ingest(tmp_path / "g", [photos], encoder, batch=3, on_progress=told.append)
    assert told[-1].added == len(contents(tmp_path / "g")[0]) == 6
    monkeypatch.undo()
    assert ingest(tmp_path / "g", [photos], encoder).added == 4


def test_metadata_is_stored_with_the_photos(tmp_path: Path, photos: Path, encoder: PixelEncoder) -> None:
    path = tmp_path / "people.csv"
    path.write_text("photo_id,age,marks:tags\nset0/face00,31,scar|mole\nset1/face03,,ring\n")
    (photos / "set1" / "face03.jpg").rename(tmp_path / "face03.jpg")
    report = ingest(tmp_path / "g", [photos], encoder, batch=4)
    (tmp_path / "face03.jpg").rename(photos / "set1" / "face03.jpg")
    report = ingest(tmp_path / "g", [photos], encoder, batch=4, metadata=path)
    assert (report.added, report.already_there, report.described) == (1, 9, 2)
    gallery = Gallery.open(tmp_path / "g")
    assert gallery.fields == {"age": Kind.NUMBER, "marks": Kind.TAGS}
    assert gallery.photo("set0/face00").metadata == {"age": 31.0, "marks": ("mole", "scar")}
    assert gallery.photo("set1/face03").metadata == {"marks": ("ring",)}
    assert gallery.photo("set0/face02").metadata == {}
    # Another file changes the fields it names and no others; an empty cell takes a value away.
    path.write_text("photo_id,marks:tags,seen\nset0/face00,,2024-05-01\n")
    ingest(tmp_path / "g", [photos], encoder, metadata=path)
    photo = Store.open(tmp_path / "g").photo("set0/face00")
    assert photo.metadata == {"age": 31.0, "seen": date(2024, 5, 1)}


def test_bad_metadata_is_refused_before_anything_is_made(tmp_path: Path, photos: Path, encoder: PixelEncoder) -> None:
    path = tmp_path / "people.csv"
    for text, message in (
        ("photo_id,age\nset0/face00,31\nset0/face77,31\n", r"people.csv: no photo has the id 'set0/face77'"),
        ("photo_id,age:number\nset0/face00,old\n", r"people.csv: line 2, field age: the value must be a number"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            ingest(tmp_path / "g", [photos], encoder, metadata=path)
        assert not (tmp_path / "g").exists()
    (tmp_path / "list.csv").write_text("path,photo_id,age:number\nphotos/set0/face00.jpg,anna,31\n")
    path.write_text("photo_id,age:string\nanna,old\n")
    with pytest.raises(DataError, match="field age is a number in this gallery, not a string; give it another name"):
        ingest(tmp_path / "g", [tmp_path / "list.csv"], encoder, metadata=path)
    assert not (tmp_path / "g").exists()
    path.write_text("photo_id,age\nset0/face00,31\n")
    ingest(tmp_path / "g", [photos], encoder, metadata=path)
    path.write_text("photo_id,name\nset0/face00,anna\nset0/face77,ben\n")
    with pytest.raises(DataError, match="no photo has the id 'set0/face77'"):
        ingest(tmp_path / "g", [photos], encoder, metadata=path)
    assert Gallery.open(tmp_path / "g").fields == {"age": Kind.NUMBER}
    path.write_text("photo_id,age:string\nset0/face00,old\n")
    with pytest.raises(DataError, match="field age is a number in this gallery, not a string; give it another name"):
        ingest(tmp_path / "g", [photos], encoder, metadata=path)


def test_the_attributes_of_fs2k_filter_its_photos(shared: Path, tmp_path: Path, encoder: PixelEncoder) -> None:
    listed = json.loads((shared / "fs2k" / "anno_train.json").read_text())
    photos = shared / "fs2k" / "photo" / "photo3"
    people = {
        entry["image_name"].removeprefix("photo3/"): entry
        for entry in listed
        if entry["image_name"].startswith("photo3/")
    }
    some = [path for path in sorted(photos.glob("*.jpg")) if path.stem in people][:60]
    lines = [
        {"photo_id": path.stem, "sex": "female" if people[path.stem]["gender"] else "male"}
        | {"smiles": people[path.stem]["smile"] == 0, "hair_color": people[path.stem]["hair_color"]}
        for path in some
    ]
    path = tmp_path / "people.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert ingest(tmp_path / "g", some, encoder, metadata=path).described == 60
    gallery = Gallery.open(tmp_path / "g")
    probe, ink = encoder.encode_sketches(np.zeros((1, 192, 192), np.uint8))[0], np.ones(14, bool)
    everyone = [hit.photo_id for hit in gallery.search(probe, ink, k=60).hits]
    wanted = And((Equals("sex", "female"), Equals("smiles", True), Not(Equals("hair_color", 1.0))))
    passing = {line["photo_id"] for line in lines if line["sex"] == "female" and line["smiles"]} & {
        line["photo_id"] for line in lines if line["hair_color"] != 1
    }
    assert 3 < len(passing) < 40
    found = gallery.search(probe, ink, k=60, filter=wanted)
    assert [hit.photo_id for hit in found.hits] == [photo_id for photo_id in everyone if photo_id in passing]
    assert (found.gallery_photos, found.exact) == (len(passing), True)
