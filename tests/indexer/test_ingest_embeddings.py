import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import ConfigError, DataError, GalleryError, ModelMismatchError
from indexer.gallery import Gallery
from indexer.ingest_embeddings import ingest_embeddings
from indexer.regions import REGIONS
from indexer.store import Store, StoreWriter
from tests.conftest import unit_rows

HASH = "ab" * 32
ROWS = unit_rows(np.random.default_rng(0), 40, 8)
IDS = [f"person{row:02}" for row in range(40)]


def write(path: Path, rows: slice = slice(None), embeddings: np.ndarray = ROWS, **fields: object) -> Path:
    np.savez(path, photo_id=np.array(IDS[rows]), embeddings=embeddings[rows], **fields)  # type: ignore[arg-type]
    return path


def test_photos_are_found_by_their_rows(tmp_path: Path) -> None:
    told: list[int] = []
    path = write(tmp_path / "faces.npz", age=np.arange(40))
    report = ingest_embeddings(tmp_path / "g", path, HASH, batch=16, on_progress=lambda now: told.append(now.added))
    assert (report.added, report.already_there, report.skipped, report.described) == (40, 0, (), 40)
    assert told == [16, 32, 40]
    gallery = Gallery.open(tmp_path / "g")
    assert gallery.photo_ids == tuple(IDS)
    assert (gallery.model_hash, gallery.dim) == (HASH, 8)
    for row in (0, 17, 39):
        best = gallery.search(ROWS[row], np.ones(REGIONS, bool), 1).hits[0]
        assert best.photo_id == IDS[row]
        assert best.distance == pytest.approx(0, abs=1e-3)
    photo = gallery.photo(IDS[17])
    assert (photo.source, photo.thumbnail, photo.metadata) == ("faces.npz", b"", {"age": 17.0})
    gallery.close()


def test_running_again_stores_what_is_missing_and_changes_metadata(tmp_path: Path) -> None:
    ingest_embeddings(tmp_path / "g", write(tmp_path / "half.npz", slice(20), age=np.arange(20)), HASH)
    report = ingest_embeddings(tmp_path / "g", write(tmp_path / "all.npz", age=np.arange(40) + 1), HASH, batch=16)
    assert (report.added, report.already_there, report.described) == (20, 20, 40)
    store = Store.open(tmp_path / "g")
    assert store.count() == 40
    assert store.photo(IDS[3]).metadata == {"age": 4.0}
    store.close()
    report = ingest_embeddings(tmp_path / "g", tmp_path / "all.npz", HASH, batch=16)
    assert (report.added, report.already_there, report.described) == (0, 40, 0)


def test_another_row_under_an_id_takes_its_place(tmp_path: Path) -> None:
    ingest_embeddings(tmp_path / "g", write(tmp_path / "old.npz", age=np.arange(40), height=np.arange(40)), HASH)
    rows = ROWS.copy()
    rows[[3, 7]] = unit_rows(np.random.default_rng(9), 2, 8)
    ages = np.arange(40, dtype=np.float64)
    ages[7] = np.nan
    report = ingest_embeddings(tmp_path / "g", write(tmp_path / "new.npz", embeddings=rows, age=ages), HASH, batch=16)
    assert (report.added, report.replaced, report.already_there) == (0, 2, 38)
    gallery = Gallery.open(tmp_path / "g")
    assert gallery.photos == 40
    assert gallery.search(rows[3], np.ones(REGIONS, bool), 1).hits[0].photo_id == IDS[3]
    assert gallery.photo(IDS[3]).metadata == {"age": 3.0, "height": 3.0}
    assert gallery.photo(IDS[7]).metadata == {"height": 7.0}
    gallery.close()


def test_rows_that_do_not_hold_are_listed_and_the_others_stored(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[5, 0] = 0
    report = ingest_embeddings(tmp_path / "g", write(tmp_path / "faces.npz", embeddings=rows), HASH)
    assert report.added == 39
    assert [name for name, _ in report.skipped] == [IDS[5]]


def test_another_model_or_dim_is_refused(tmp_path: Path) -> None:
    ingest_embeddings(tmp_path / "g", write(tmp_path / "faces.npz"), HASH)
    with pytest.raises(ModelMismatchError):
        ingest_embeddings(tmp_path / "g", write(tmp_path / "faces.npz"), "cd" * 32)
    other = unit_rows(np.random.default_rng(0), 40, 4)
    with pytest.raises(ModelMismatchError):
        ingest_embeddings(tmp_path / "g", write(tmp_path / "other.npz", embeddings=other), HASH)


@pytest.mark.parametrize("wrong", ["", "ab", "AB" * 32, "zz" * 32])
def test_a_model_hash_is_a_sha_256(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        ingest_embeddings(tmp_path / "g", write(tmp_path / "faces.npz"), wrong)
    assert not (tmp_path / "g").exists()


def test_an_empty_or_wrong_file_makes_no_gallery(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no photos"):
        ingest_embeddings(tmp_path / "g", write(tmp_path / "none.npz", slice(0)), HASH)
    with pytest.raises(DataError, match="cannot read"):
        ingest_embeddings(tmp_path / "g", tmp_path / "missing.npz", HASH)
    with pytest.raises(ConfigError, match="1 to 65536"):
        ingest_embeddings(tmp_path / "g", write(tmp_path / "faces.npz"), HASH, batch=0)
    assert not (tmp_path / "g").exists()


def test_a_gallery_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    with (
        StoreWriter.open_or_create(tmp_path / "g", HASH, 8),
        pytest.raises(GalleryError, match="being written"),
    ):
        ingest_embeddings(tmp_path / "g", write(tmp_path / "faces.npz"), HASH)


_PEAK = """
import resource, sys
from pathlib import Path
from indexer.ingest_embeddings import ingest_embeddings
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ingest_embeddings(Path(sys.argv[1]), Path(sys.argv[2]), "ab" * 32, batch=1000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="kilobytes on Linux only")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file of 86 MB, in a gallery below the size that gets an index."""
    rows = unit_rows(np.random.default_rng(0), 9000, 256 // 2)
    np.savez(tmp_path / "faces.npz", photo_id=np.arange(9000).astype(str), embeddings=rows)
    command = [sys.executable, "-c", _PEAK, str(tmp_path / "g"), str(tmp_path / "faces.npz")]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(run.stdout) < 50_000
