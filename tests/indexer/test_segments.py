from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest

from indexer.errors import GalleryError
from indexer.regions import REGION_IDS
from indexer.segments import open_segment, row_bytes, segment_path, write_segment
from tests.conftest import unit_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "segments").mkdir()
    return tmp_path


@pytest.mark.parametrize(("photos", "dim"), [(1, 1), (3, 4), (64, 16), (1001, 16), (5, 7)])
def test_a_file_is_what_faiss_writes_of_each_granularity_aligned(folder: Path, photos: int, dim: int) -> None:
    rows = unit_rows(np.random.default_rng(0), photos, dim)
    written = write_segment(folder, rows, 1)
    data, end = segment_path(folder, 1).read_bytes(), 0
    for granularity, ids in REGION_IDS.items():
        index = faiss.IndexFlatIP(dim * granularity**2)
        index.add(np.ascontiguousarray(rows[:, ids.start : ids.stop]).reshape(photos, -1))
        serialised = faiss.serialize_index(index).tobytes()
        start = data.index(serialised)
        numbers = 4 * photos * index.d
        assert (start + len(serialised) - numbers) % 64 == 0
        assert data[end:start] == bytes(start - end), "nothing else is in the file"
        assert start - end < 64
        end = start + len(serialised)
    assert len(data) == end == written["bytes"]
    assert written["rows"] == photos


def test_faiss_searches_the_mapped_file_itself(folder: Path) -> None:
    rows = unit_rows(np.random.default_rng(1), 200, 16)
    data = open_segment(folder, SimpleNamespace(**write_segment(folder, rows, 1)), 16, "g").data
    end = 0
    for granularity, ids in REGION_IDS.items():
        header = data.tobytes().index(b"IxFI", end)
        index = faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(data[header:]), len(data) - header))
        end = header + 1
        assert int(index.get_xb()) % 64 == 0
        assert data.ctypes.data < int(index.get_xb()) < data.ctypes.data + len(data), "it is no copy"
        flat = np.ascontiguousarray(rows[:, ids.start : ids.stop]).reshape(200, -1)
        products, nearest = index.search(flat[:5], 3)
        np.testing.assert_array_equal(nearest[:, 0], np.arange(5))
        np.testing.assert_allclose(products[:, 0], granularity**2, rtol=1e-6)


def test_what_was_written_is_read_and_cannot_be_changed(folder: Path) -> None:
    rows = unit_rows(np.random.default_rng(2), 70, 4)
    opened = open_segment(folder, SimpleNamespace(**write_segment(folder, rows, 3, generation=2)), 4, "g")
    np.testing.assert_array_equal(opened.embeddings(), rows)
    for granularity, part in opened.part().items():
        ids = REGION_IDS[granularity]
        np.testing.assert_array_equal(part, rows[:, ids.start : ids.stop].reshape(70, -1))
        with pytest.raises(ValueError, match="read-only"):
            part[0] = 0


def test_a_file_of_another_dim_is_refused_though_its_checksum_fits(folder: Path) -> None:
    segment = SimpleNamespace(**write_segment(folder, unit_rows(np.random.default_rng(3), 8, 6), 1))
    with pytest.raises(GalleryError, match=r"segment 000001.vec does not hold 8 photos of 4 numbers a region"):
        open_segment(folder, segment, 4, "g")
    segment.rows = 9
    with pytest.raises(GalleryError, match=r"does not hold 9 photos of 6 numbers"):
        open_segment(folder, segment, 6, "g")


def test_a_file_is_hardly_longer_than_its_vectors(folder: Path) -> None:
    written = write_segment(folder, unit_rows(np.random.default_rng(4), 64, 16), 1)
    assert 64 * row_bytes(16) < written["bytes"] < 64 * row_bytes(16) * 1.005
