import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.errors import ImageError
from indexer.ingest import ingest
from indexer.loading import decode
from indexer.preparing import Decoding, Encoding, EncodingProcesses
from tests.conftest import PixelEncoder
from tests.indexer.test_ingest import contents, paint


@pytest.fixture(scope="module")
def processes() -> Any:
    with EncodingProcesses(PixelEncoder, 2) as started:
        yield started


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for n in range(20):
        paint(tmp_path / "photos" / f"face{n:02}.jpg", n)
    (tmp_path / "photos" / "face05.png").write_bytes(b"no photo")
    return tmp_path / "photos"


def test_threads_and_processes_store_the_same(
    tmp_path: Path, photos: Path, encoder: PixelEncoder, processes: EncodingProcesses
) -> None:
    kinds = {"batches": Decoding(encoder.size_px), "threads": Encoding(encoder, 3), "processes": processes}
    stored = {}
    for name, prepare in kinds.items():
        report = ingest(tmp_path / name, [photos], encoder, batch=8, prepare=prepare)
        assert (report.added, report.failed) == (20, 1)
        stored[name] = contents(tmp_path / name)
    for name in ("threads", "processes"):
        assert stored[name][0] == stored["batches"][0]
        np.testing.assert_allclose(stored[name][1], stored["batches"][1], atol=1e-6)


def test_what_a_process_refuses_comes_back_as_it_was_said(processes: EncodingProcesses) -> None:
    with pytest.raises(ImageError, match="not a JPEG"):
        processes(b"no photo")


def test_a_photo_is_prepared_in_another_process(photos: Path, processes: EncodingProcesses) -> None:
    data = (photos / "face00.jpg").read_bytes()
    (found,) = processes(data)
    expected = decode(data, 192)
    assert found.thumbnail == expected.thumbnail
    assert found.embedding is not None
    np.testing.assert_allclose(found.embedding, PixelEncoder().encode_photos(expected.pixels[None])[0], atol=1e-6)


def test_a_killed_process_ends_the_job_and_says_why(photos: Path) -> None:
    with EncodingProcesses(PixelEncoder, 1) as started:
        started((photos / "face00.jpg").read_bytes())
        (process,) = started._pool._processes
        os.kill(process, signal.SIGINT)  # of a terminal: ends the job, not its workers
        started((photos / "face01.jpg").read_bytes())
        os.kill(process, signal.SIGKILL)
        with pytest.raises(MemoryError, match="fewer of them"):
            started((photos / "face01.jpg").read_bytes())


def test_a_square_photo_has_the_thumbnail_of_all_of_it(tmp_path: Path) -> None:
    from io import BytesIO

    from PIL import Image

    for size, expected in (((300, 300), (96, 96)), ((300, 200), (96, 64)), ((50, 50), (50, 50))):
        picture = Image.open(BytesIO(decode(paint(tmp_path / "a.png", 1, size).read_bytes(), 192).thumbnail))
        assert picture.size == expected
