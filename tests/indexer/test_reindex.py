"""Another model for a gallery: beside the old version, resumed, switched in one step."""

import errno
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer import versions
from indexer.backup import copy_gallery
from indexer.compaction import compact, forget
from indexer.deleting import delete
from indexer.errors import DataError, GalleryError, GalleryHeldError, ModelMismatchError, UnknownPhotoError
from indexer.gallery import Gallery
from indexer.ingest import ingest
from indexer.metadata import Kind
from indexer.placing import Duplicates
from indexer.regions import REGIONS
from indexer.reindex import reindex
from indexer.store import Alias, NewPhoto, Store, StoreWriter
from indexer.usage import usage
from indexer.verification import verify
from tests.conftest import PixelEncoder, unit_rows
from tests.folder_bytes import folder_bytes
from tests.old_formats import age_back

EVERY = np.ones(REGIONS, bool)
OLD, NEW = PixelEncoder(), PixelEncoder(dim=8, size_px=96, seed=1)


def paint(folder: Path, *numbers: int) -> None:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        noise = np.random.default_rng(number).integers(0, 255, (120, 100, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"face{number}.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    paint(tmp_path / "photos", *range(10))
    return tmp_path / "photos"


@pytest.fixture
def folder(tmp_path: Path, photos: Path) -> Path:
    ingest(tmp_path / "g", [photos], OLD, batch=4)
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.declare_fields({"age": Kind.NUMBER})
        writer.describe({"face3": {"age": 30.0}})
        writer.add_aliases([Alias("anna", "anna.png", of="face3")])
        writer.delete(["face7"])
    return tmp_path / "g"


def ids(folder: Path) -> list[str]:
    return sorted(Gallery.open(folder).photo_ids)


def nearest(folder: Path, encoder: PixelEncoder, photo: Path) -> str:
    pixels = np.asarray(Image.open(photo).resize((encoder.size_px,) * 2, Image.Resampling.BILINEAR))
    return Gallery.open(folder).search(encoder.encode_photos(pixels[None])[0], EVERY, 1).hits[0].photo_id


def test_a_gallery_changes_its_model_and_nothing_else(folder: Path, photos: Path, tmp_path: Path) -> None:
    with Store.open(folder).reading() as connection:
        stored = connection.exec_driver_sql("SELECT photo_id, stored_s - 5 FROM photos ORDER BY 1").all()
    with StoreWriter.open(folder) as writer, writer.writing("test") as connection:
        connection.exec_driver_sql("UPDATE photos SET stored_s = stored_s - 5")
    before = ids(folder)
    photos.rename(tmp_path / "moved")
    (tmp_path / "moved" / "face2.png").rename(tmp_path / "moved" / "renamed.png")
    paint(tmp_path / "moved", 77)
    done = reindex(folder, [tmp_path / "moved"], NEW, batch=3)
    assert (done.encoded, done.photos, done.missing, done.switched) == (9, 9, 0, True)
    store = Store.open(folder)
    assert (store.manifest.model_hash, store.manifest.dim, store.name) == (NEW.model_hash, 8, "g")
    assert ids(folder) == before
    assert (store.photo("face2").source, store.photo("anna").metadata) == ("photos/face2.png", {"age": 30.0})
    with store.reading() as connection:
        assert connection.exec_driver_sql("SELECT photo_id, stored_s FROM photos ORDER BY 1").all() == stored
    assert nearest(folder, NEW, tmp_path / "moved" / "face5.png") == "face5"
    assert verify(folder).faults == ()
    with pytest.raises(ModelMismatchError):
        StoreWriter.open_or_create(folder, OLD.model_hash, 16)
    ingest(folder, [tmp_path / "moved"], NEW)
    assert set(ids(folder)) == {*before, "face7", "face77"}
    again = reindex(folder, [tmp_path / "moved"], NEW)
    assert (again.encoded, again.switched) == (0, False)


def test_both_versions_answer_while_the_new_one_is_made_and_after(folder: Path, photos: Path, tmp_path: Path) -> None:
    served = Gallery.open(folder)
    making = versions.version_folder(folder, NEW.model_hash)
    seen = []

    def look(done: int, total: int) -> None:
        seen.append((done, total))
        assert nearest(folder, OLD, photos / "face5.png") == "face5"
        assert Gallery.open(making).photos == done

    reindex(folder, [photos], NEW, batch=4, on_progress=look)
    assert seen == [(4, 9), (8, 9), (9, 9)]
    assert (served.is_stale(), served.model_hash) == (True, OLD.model_hash)
    assert served.search(unit_rows(np.random.default_rng(0), 1)[0], EVERY, 99).gallery_photos == 9
    assert served.photo("face5").thumbnail
    newer = served.reopened()
    assert (newer.model_hash, newer.photos, newer.is_stale()) == (NEW.model_hash, 9, False)


def test_photos_that_are_nowhere_are_named_and_nothing_is_switched(folder: Path, photos: Path) -> None:
    for number in (1, 2):
        (photos / f"face{number}.png").unlink()
    (photos / "face3.png").write_bytes(b"altered")
    done = reindex(folder, [photos], NEW)
    assert (done.missing, sorted(done.lacks), done.switched) == (3, ["face1", "face2", "face3"], False)
    assert Store.open(folder).manifest.model_hash == OLD.model_hash
    paint(photos, 1, 3)
    done = reindex(folder, [photos], NEW)
    assert (done.encoded, done.lacks, done.switched) == (2, ("face2",), False)
    done = reindex(folder, [photos], NEW, leaves_out=True)
    assert (done.encoded, done.lacks, done.switched) == (0, ("face2",), True)
    assert ids(folder) == [f"face{n}" for n in range(10) if n not in (2, 7)]
    assert Store.open(folder).photo("anna").photo_id == "face3"
    with pytest.raises(DataError, match="no folder or file named 'gone'"):
        reindex(folder, [photos.with_name("gone")], OLD)


def test_what_changes_meanwhile_is_in_the_new_version(folder: Path, photos: Path) -> None:
    """Between two runs photos are deleted, replaced, added, copied, described and named anew."""
    (photos / "face1.png").rename(photos.with_name("late.png"))
    assert not reindex(folder, [photos], NEW).switched
    paint(photos, 20, 21)
    with StoreWriter.open(folder) as writer:
        writer.delete(["face4"])
        writer.describe({"face3": {"age": 31.0}, "face5": {"age": 5.0}})
        writer.upsert([_photo("face6", photos / "face20.png")], unit_rows(np.random.default_rng(0), 1))
        writer.append([_photo("copy of 8", photos / "face8.png")], unit_rows(np.random.default_rng(1), 1))
        writer.upsert([_photo("face3", photos / "face21.png")], unit_rows(np.random.default_rng(2), 1))
    done = reindex(folder, [photos, photos.with_name("late.png")], NEW)
    assert (done.missing, done.switched) == (0, True)
    assert ids(folder) == ["anna", "copy of 8", *(f"face{n}" for n in (0, 1, 2, 3, 5, 6, 8, 9))]
    store = Store.open(folder)
    assert [store.photo(name).metadata for name in ("face3", "face5", "anna")] == [
        {"age": 31.0}, {"age": 5.0}, {"age": 31.0},
    ]  # fmt: skip
    assert nearest(folder, NEW, photos / "face20.png") == "face6"
    assert nearest(folder, NEW, photos / "face3.png") == "anna"
    assert verify(folder).faults == ()


def _photo(name: str, path: Path) -> NewPhoto:
    return NewPhoto(name, path.name, b"thumbnail", content_hash=hashlib.sha256(path.read_bytes()).digest())


def test_the_earlier_version_is_there_until_compaction(folder: Path, photos: Path) -> None:
    reindex(folder, [photos], NEW)
    used = usage(folder)
    assert used.superseded > 9 * 896
    assert used.reclaimable >= used.superseded
    files = [
        path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json" and "lock" not in path.name
    ]
    assert used.total - (folder / "versions" / NEW.model_hash[:16] / "gallery.json").stat().st_size == sum(
        path.stat().st_size for path in files
    )
    with StoreWriter.open(folder) as writer:
        compact(writer)
    assert usage(folder).superseded == 0
    assert not (folder / "ledger.sqlite").exists()
    assert len(ids(folder)) == 9
    # And back: the first model's version is made anew, the other one is then the earlier one.
    assert reindex(folder, [photos], OLD).switched
    assert reindex(folder, [photos], NEW).encoded == 0
    with StoreWriter.open(folder) as writer:
        compact(writer)
    assert sorted(path.name for path in (folder / "versions").iterdir()) == [NEW.model_hash[:16]]
    assert len(ids(folder)) == 9


def test_a_copy_is_of_the_version_in_use(folder: Path, photos: Path, tmp_path: Path) -> None:
    reindex(folder, [photos], NEW)
    copy_gallery(folder, tmp_path / "copy")
    assert ids(tmp_path / "copy") == ids(folder)
    assert Store.open(tmp_path / "copy").manifest.model_hash == NEW.model_hash
    assert not (tmp_path / "copy" / "versions").exists()


def test_a_gallery_changes_when_another_lies_in_its_place_and_not_before(
    folder: Path, photos: Path, tmp_path: Path
) -> None:
    reindex(folder, [photos], NEW)
    gallery = Gallery.open(folder)
    copy_gallery(folder, tmp_path / "backup")
    folder.rename(tmp_path / "damaged")
    assert not gallery.is_stale()
    copy_gallery(tmp_path / "backup", folder)
    assert gallery.is_stale()
    assert not gallery.reopened().is_stale()


def test_a_forgotten_photo_is_in_no_version(folder: Path, photos: Path) -> None:
    (photos / "face1.png").rename(photos.with_name("late.png"))
    assert not reindex(folder, [photos], NEW).switched
    row = Gallery.open(versions.version_folder(folder, NEW.model_hash))._index.vectors(np.arange(8))
    with StoreWriter.open(versions.version_folder(folder, NEW.model_hash)), StoreWriter.open(folder) as writer:
        with pytest.raises(
            GalleryHeldError, match="gallery g is being encoded anew by `mgrl reindex`, which would keep"
        ):
            forget(writer, ["face5"])
        assert writer.photo("face5")
    with StoreWriter.open(folder) as writer:
        forget(writer, ["face5"])
    assert b"face5" not in folder_bytes(folder)
    assert reindex(folder, [photos, photos.with_name("late.png")], NEW).switched
    with StoreWriter.open(folder) as writer:
        forget(writer, ["face6"])
    data = folder_bytes(folder)
    assert b"face6" not in data
    assert b"face8" in data
    assert sum(vectors[0].tobytes() in data for vectors in row) == 6


def test_a_photo_is_forgotten_in_every_version_whatever_it_is_called_there(folder: Path, photos: Path) -> None:
    (photos / "face1.png").rename(photos.with_name("late.png"))
    assert not reindex(folder, [photos], NEW).switched
    making = versions.version_folder(folder, NEW.model_hash)
    with StoreWriter.open(folder) as writer:
        writer.add_aliases([Alias("ben", "ben.png", of="face4")])
        writer.upsert([_photo("face4", photos / "face0.png")], unit_rows(np.random.default_rng(0), 1))
        assert {"face3", "face4"} <= set(ids(making))
        forget(writer, ["anna"])  # an alias of face3
        assert {"face3", "face4"} & set(ids(making)) == {"face4"}
        forget(writer, ["ben"])  # which was face4 when the other version was made
    assert sorted(ids(making)) == [f"face{number}" for number in (0, 2, 5, 6, 8, 9)]
    assert b"face3" not in folder_bytes(folder)


def test_what_is_deleted_is_deleted_from_every_version(folder: Path, photos: Path) -> None:
    earlier = Gallery.open(folder)
    thumbnail = earlier.photo("face5").thumbnail
    reindex(folder, [photos], NEW)
    (photos / "face1.png").unlink()
    third = PixelEncoder(dim=16, size_px=96, seed=3)
    reindex(folder, [photos], third)
    making = versions.version_folder(folder, third.model_hash)
    assert thumbnail in folder_bytes(folder)
    with StoreWriter.open(folder) as writer:
        with pytest.raises(UnknownPhotoError, match="'face99'"):
            delete(writer, ["face5", "face99"])
        assert len(ids(making)) == 8
        delete(writer, ["face5", "anna"])  # which is face3
    assert thumbnail not in folder_bytes(folder)
    assert ids(making) == [f"face{number}" for number in (0, 2, 4, 6, 8, 9)]
    assert earlier.has_changed()
    assert sorted(earlier.reopened(stays=True).photo_ids) == [f"face{number}" for number in (0, 1, 2, 4, 6, 8, 9)]
    with pytest.raises(UnknownPhotoError):
        earlier.photo("anna")
    assert versions.superseded(folder) == [folder]
    assert verify(folder).faults == verify(making).faults == ()


@pytest.mark.parametrize("is_done", [False, True])
def test_a_photo_is_deleted_in_every_version_whatever_it_is_called_there(
    folder: Path, photos: Path, is_done: bool
) -> None:
    shutil.copy(photos / "face5.png", photos / "copy.png")
    ingest(folder, [photos], OLD, duplicates=Duplicates.KEEP)
    away = (photos / "face0.png").rename(photos / "away")
    assert reindex(folder, [photos], NEW, leaves_out=is_done).switched == is_done
    (other,) = versions.superseded(folder) if is_done else versions.unfinished(folder)
    with StoreWriter.open(folder) as writer:
        writer.add_aliases([Alias("tim", "tim.png", of="face4")])
        writer.upsert([_photo("face4", away)], unit_rows(np.random.default_rng(0), 1, writer.manifest.dim))
        delete(writer, ["tim", "face5"])  # the first was face4 when the other version was made
    left = set(Store(folder, other, versions.manifest_of(folder, other)).snapshot().contents.photo_ids)
    assert {"face4", "face5", "copy"} & left == {"copy"}  # of face5


def test_a_version_in_the_making_drops_what_was_deleted_while_it_was_written(folder: Path, photos: Path) -> None:
    def forsake(done: int, total: int) -> None:
        if done == 3:
            with StoreWriter.open(folder) as writer:
                delete(writer, ["face0", "face5"])

    assert reindex(folder, [photos], NEW, batch=3, on_progress=forsake).switched
    assert ids(folder) == [f"face{number}" for number in (1, 2, 3, 4, 6, 8, 9)]


def test_a_version_in_the_making_is_whole_with_a_field_that_came_meanwhile(folder: Path, photos: Path) -> None:
    def describe(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt
        with StoreWriter.open(folder) as writer:
            writer.declare_fields({"sex": Kind.STRING})
            writer.describe({photo_id: {"sex": "f"} for photo_id in ids(folder)})

    with pytest.raises(KeyboardInterrupt):
        reindex(folder, [photos], NEW, batch=3, on_progress=describe)
    making = versions.version_folder(folder, NEW.model_hash)
    assert verify(making).faults == ()
    assert Store.open(making).photo("face4").metadata == {"sex": "f"}


def test_a_photo_that_is_deleted_while_it_is_looked_at_is_no_error(folder: Path, photos: Path, monkeypatch) -> None:
    names_of = Store.names_of

    def found_and_deleted(store: Store, content: bytes) -> list[tuple[str, str]]:
        names = names_of(store, content)
        if ("face5", "photos/face5.png") in names:
            with StoreWriter.open(folder) as writer:
                writer.delete(["face5"])
        return names

    monkeypatch.setattr(Store, "names_of", found_and_deleted)
    assert reindex(folder, [photos], NEW).switched
    assert ids(folder) == [f"face{number}" for number in (0, 1, 2, 3, 4, 6, 8, 9)]


REINDEXER = """
import os, sys
from pathlib import Path
from sqlalchemy.engine.default import DefaultDialect
from indexer.reindex import reindex
from tests.crash import Fatal
from tests.indexer.test_reindex import NEW

dying = Fatal(at=int(sys.argv[3]))
os.replace, DefaultDialect.do_commit = dying(os.replace), dying(DefaultDialect.do_commit)
reindex(Path(sys.argv[1]), [sys.argv[2]], NEW, batch=3)
print("switched")
"""


@pytest.mark.parametrize("fatal", [1, 3, 4, 7, 11, 12, 13])
def test_a_run_killed_at_any_write_goes_on(folder: Path, photos: Path, fatal: int) -> None:
    command = [sys.executable, "-c", REINDEXER, str(folder), str(photos), str(fatal)]
    child = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert child.returncode == (0 if child.stdout else -9), child.stderr
    before = Store.open(folder)
    expected = [f"face{n}" for n in range(10) if n != 7]
    assert ids(folder) == expected
    assert (before.manifest.model_hash == NEW.model_hash) is bool(child.stdout)
    done = reindex(folder, [photos], NEW, batch=3)
    assert Store.open(folder).manifest.model_hash == NEW.model_hash
    assert ids(folder) == expected
    assert Store.open(folder).photo("anna").metadata == {"age": 30.0}
    assert done.encoded <= 9 - 3 * min(2, (fatal - 4) // 3)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_gallery_of_an_old_format_changes_its_model(tmp_path: Path, photos: Path, version: int) -> None:
    ingest(tmp_path / "g", [photos], OLD)
    age_back(tmp_path / "g", version)
    assert reindex(tmp_path / "g", [photos], NEW).switched
    assert len(ids(tmp_path / "g")) == 10


def test_the_photos_may_come_from_a_manifest_or_an_archive_whatever_it_says_of_them(
    tmp_path: Path, photos: Path
) -> None:
    ingest(tmp_path / "g", [photos], OLD)
    rows = [f"photos/face{number}.png,{number}\n" for number in range(5)]
    (tmp_path / "some.csv").write_text("path,not a field\n" + "".join(rows))
    with tarfile.open(tmp_path / "others.tar", "w") as archive:
        for number in range(5, 10):
            archive.add(photos / f"face{number}.png", f"{number}.png")
            sidecar = tarfile.TarInfo(f"{number}.json")
            sidecar.size = len(said := b'{"not a field": 1}')
            archive.addfile(sidecar, io.BytesIO(said))
    done = reindex(tmp_path / "g", [tmp_path / "some.csv", tmp_path / "others.tar"], NEW)
    assert (done.encoded, done.skipped, done.switched) == (10, (), True)


def test_copies_that_were_kept_are_kept(tmp_path: Path, photos: Path) -> None:
    shutil.copy(photos / "face1.png", photos / "again.png")
    ingest(tmp_path / "g", [photos], OLD, duplicates=Duplicates.KEEP)
    before = ids(tmp_path / "g")
    assert len(before) == 11
    done = reindex(tmp_path / "g", [photos], NEW)
    assert (done.encoded, done.switched, ids(tmp_path / "g")) == (11, True, before)


def test_a_gallery_json_that_names_a_place_elsewhere_is_refused(folder: Path) -> None:
    for home in ("../elsewhere", "versions/../../x", "/etc", 7):
        (folder / "gallery.json").write_text(json.dumps({"format_version": 3, "home": home}))
        with pytest.raises(GalleryError, match=r"gallery g: its gallery\.json names no version"):
            Store.open(folder)


def test_a_removal_of_earlier_versions_that_fails_is_done_again(folder: Path, photos: Path, monkeypatch) -> None:
    for encoder in (NEW, OLD):
        reindex(folder, [photos], encoder)
    assert len(versions.superseded(folder)) == 2
    refused = OSError(errno.EIO, "Input/output error")

    def refuse(*_: object, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise refused

    # At the first file, and when all are gone but that is not said yet, as a crash would leave them.
    for broken in ("shutil.rmtree", "indexer.versions.replace_file"):
        with monkeypatch.context() as disk, StoreWriter.open(folder) as writer:
            disk.setattr(broken, refuse)
            with pytest.raises(GalleryError, match="versions that it had before could not be removed"):
                compact(writer)
        assert len(versions.superseded(folder)) == 2
    with StoreWriter.open(folder) as writer:
        compact(writer)
    assert (versions.superseded(folder), len(ids(folder))) == ([], 9)
    assert not (folder / "segments").exists()


@pytest.mark.parametrize("gone", [0, 1, 2, 3])
def test_an_earlier_version_that_was_being_removed_is_made_anew(
    folder: Path, photos: Path, gone: int, monkeypatch
) -> None:
    reindex(folder, [photos], NEW)
    reindex(folder, [photos], OLD)
    earlier = versions.version_folder(folder, NEW.model_hash)

    def killed(path: Path) -> None:  # after some files, in whatever order the disk has them
        for file in sorted(path.rglob("*.*"), reverse=True)[:gone]:
            file.unlink()
        raise KeyboardInterrupt

    with StoreWriter.open(folder) as writer:
        monkeypatch.setattr(shutil, "rmtree", killed)
        monkeypatch.setattr(versions, "superseded", lambda _: [earlier])
        with pytest.raises(KeyboardInterrupt):
            compact(writer)
        monkeypatch.undo()
    assert reindex(folder, [photos], NEW).switched
    assert (verify(folder).faults, len(ids(folder))) == ((), 9)


def test_an_earlier_version_is_taken_up_again_only_while_nobody_removes_it(folder: Path, photos: Path) -> None:
    for encoder in (NEW, OLD):
        reindex(folder, [photos], encoder)
    earlier = versions.superseded(folder)
    with StoreWriter.open(folder), pytest.raises(GalleryError, match="is being written by another process"):
        reindex(folder, [photos], NEW)
    assert versions.superseded(folder) == earlier
    assert reindex(folder, [photos], NEW).switched
