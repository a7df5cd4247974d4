import io
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.errors import GalleryError, ImageError, QueryError, UnknownPhotoError
from indexer.gallery import Gallery
from indexer.ledger import Framing
from indexer.metadata import Kind
from indexer.regions import REGIONS
from indexer.store import StoreWriter
from indexer.upload import Upload
from indexer.upserting import Upserter
from tests.conftest import PixelEncoder


def jpeg(seed: int, size: int = 200) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def upserter(tmp_path: Path, encoder: PixelEncoder) -> Iterator[Upserter]:
    with StoreWriter.open_or_create(tmp_path / "g", encoder.model_hash, encoder.dim) as writer:
        writer.keep_framing(Framing("none"))
    opened = Upserter.open(tmp_path / "g", encoder)
    yield opened
    opened.close()


def nearest(folder: Path, encoder: PixelEncoder, image: bytes) -> str:
    gallery = Gallery.open(folder)
    pixels = np.asarray(Image.open(io.BytesIO(image)).resize((192, 192), Image.Resampling.BILINEAR))
    found = gallery.search(encoder.encode_photos(pixels[None])[0], np.ones(REGIONS, bool), 1).hits[0].photo_id
    gallery.close()
    return found


def test_an_id_names_its_photo(tmp_path: Path, upserter: Upserter, encoder: PixelEncoder) -> None:
    first = upserter.store([Upload("a", jpeg(0)), Upload("b", jpeg(1), source="camera 3")])
    assert (first.stored, first.unchanged, first.failures) == (2, 0, {})
    again = upserter.store([Upload("a", jpeg(0)), Upload("b", jpeg(2)), Upload("c", jpeg(0))])
    assert (again.stored, again.unchanged, again.failures) == (2, 1, {})
    gallery = Gallery.open(tmp_path / "g")
    assert sorted(gallery.photo_ids) == ["a", "b", "c"]
    assert (gallery.photo("a").source, gallery.photo("b").source) == ("a", "b")
    gallery.close()
    assert nearest(tmp_path / "g", encoder, jpeg(2)) == "b"


def test_the_same_id_twice_at_once_ends_with_the_later_picture(
    tmp_path: Path, upserter: Upserter, encoder: PixelEncoder
) -> None:
    done = upserter.store([Upload("a", jpeg(0)), Upload("a", jpeg(1)), Upload("b", jpeg(2)), Upload("a", jpeg(1))])
    assert (done.stored, done.unchanged) == (3, 1)
    assert nearest(tmp_path / "g", encoder, jpeg(1)) == "a"


def test_metadata_is_checked_and_of_a_known_photo_changed(tmp_path: Path, upserter: Upserter) -> None:
    upserter.declare({"age": Kind.NUMBER, "seen": Kind.DATE})
    upserter.store([Upload("a", jpeg(0), {"age": 30, "seen": date(2024, 1, 1)})])
    done = upserter.store(
        [
            Upload("a", jpeg(0), {"age": 31}),
            Upload("b", jpeg(1), {"age": "old"}),
            Upload("c", jpeg(2), {"name": "x"}),
            Upload("d", jpeg(3), {"seen": datetime(2024, 1, 1, 12)}),  # a date to Python
        ]
    )
    assert (done.stored, done.unchanged, sorted(done.failures)) == (0, 1, [1, 2, 3])
    assert "field seen: the value must be a date such as 2024-02-29, got '2024-01-01 12:00" in str(done.failures[3])
    assert "field age: the value must be a number" in str(done.failures[1])
    assert "no field 'name', it has age, seen" in str(done.failures[2])
    assert all(isinstance(error, QueryError) for error in done.failures.values())
    assert upserter._store.photo("a").metadata == {"age": 31.0, "seen": date(2024, 1, 1)}


def test_a_field_of_another_kind_is_refused(upserter: Upserter) -> None:
    upserter.declare({"age": Kind.NUMBER})
    with pytest.raises(QueryError, match="is a number in this gallery"):
        upserter.declare({"age": Kind.STRING})
    with pytest.raises(QueryError, match="no digit first"):
        upserter.declare({"1st": Kind.STRING})


@pytest.mark.parametrize(
    ("photo", "kind", "message"),
    [
        (Upload("a", b""), ImageError, "empty"),
        (Upload("a", b"no picture"), ImageError, "not a JPEG"),
        (Upload("a", jpeg(0)[:2000]), ImageError, "cut short"),
        (Upload("", jpeg(0)), QueryError, "1 to 1000 characters"),
        (Upload("x" * 1001, jpeg(0)), QueryError, "1 to 1000 characters"),
        (Upload("a", jpeg(0), source="a\nb"), QueryError, "printable"),
    ],
)
def test_a_photo_that_does_not_hold_fails_alone(
    photo: Upload, kind: type[Exception], message: str, upserter: Upserter
) -> None:
    done = upserter.store([Upload("before", jpeg(1)), photo, Upload("after", jpeg(2))])
    assert (done.stored, list(done.failures)) == (2, [1])
    assert isinstance(done.failures[1], kind)
    assert message in str(done.failures[1])


def test_deleting_is_all_or_none(upserter: Upserter) -> None:
    upserter.store([Upload("a", jpeg(0)), Upload("b", jpeg(1))])
    with pytest.raises(UnknownPhotoError, match="'c'"):
        upserter.delete(["a", "c"])
    upserter.delete(["a"])
    assert upserter._store.count() == 1


def test_the_lock_is_held_until_it_is_closed(tmp_path: Path, upserter: Upserter, encoder: PixelEncoder) -> None:
    with pytest.raises(GalleryError, match="being written"):
        Upserter.open(tmp_path / "g", encoder)
    upserter.close()
    Upserter.open(tmp_path / "g", encoder).close()
