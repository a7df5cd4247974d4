from pathlib import Path

import pytest

from indexer.errors import DataError
from training.data import find_pair, open_image, read_split, split_hash


def test_a_split_names_photos_and_passes_comments_over(tiny_fs2k: Path) -> None:
    assert read_split(tiny_fs2k / "val.txt") == ["photo1/image0005", "photo1/image0006"]


def test_a_name_leads_to_its_photo_and_sketch(tiny_fs2k: Path) -> None:
    pair = find_pair(tiny_fs2k, "photo1/image0003")
    assert pair.photo.parts[-3:] == ("photo", "photo1", "image0003.jpg")
    assert pair.sketch.parts[-3:] == ("sketch", "sketch1", "sketch0003.jpg")
    assert open_image(pair.photo).size == (250, 250)


def test_the_hash_is_of_names_in_order() -> None:
    assert split_hash(["a", "b"]) != split_hash(["b", "a"])


@pytest.mark.parametrize(
    ("text", "message"), [("", "names no photo"), ("a\nb\na\n", "names 1 photos twice"), (None, "no split file at")]
)
def test_bad_splits_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "split.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_split(tmp_path / "split.txt")


def test_missing_and_broken_images_are_named(tiny_fs2k: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no photo1/image9999"):
        find_pair(tiny_fs2k, "photo1/image9999")
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8broken")
    with pytest.raises(DataError, match=r"x\.jpg is not a readable image"):
        open_image(tmp_path / "x.jpg")
