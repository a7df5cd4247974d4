from pathlib import Path

import pytest
from PIL import Image

from indexer.errors import DataError
from training.data import find_pair, open_image, read_split, split_hash


def test_a_split_names_photos_and_passes_comments_over(tiny_fs2k: Path, tmp_path: Path) -> None:
    assert read_split(tiny_fs2k / "val.txt") == ["photo1/image0005", "photo1/image0006"]
    # As some editors write UTF-8.
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbf" + (tiny_fs2k / "val.txt").read_bytes())
    assert read_split(tmp_path / "marked.txt") == read_split(tiny_fs2k / "val.txt")


def test_a_name_leads_to_its_photo_and_sketch(tiny_fs2k: Path) -> None:
    pair = find_pair(tiny_fs2k, "photo1/image0003")
    assert pair.photo.parts[-3:] == ("photo", "photo1", "image0003.jpg")
    assert pair.sketch.parts[-3:] == ("sketch", "sketch1", "sketch0003.jpg")
    assert open_image(pair.photo).size == (250, 250)


def test_the_hash_is_of_names_in_order() -> None:
    assert split_hash(["a", "b"]) != split_hash(["b", "a"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names no photo"),
        (b"a/1\nb/1\na/1\n", "names a/1 more than once"),
        (None, "no split file at"),
        (b"\xff\xd8\xff\xe0", "must be text with one name"),
        (b"photo1/image0001\nimage0002\n", r"line 2 of .* must be a name such as photo1/image0001, got 'image0002'"),
        (b"photo1/../../secret\n", r"line 1 of .*, got 'photo1/../../secret'"),
        (b"../image0001\n", "line 1 of"),
        (b"/image0001\n", "line 1 of"),
    ],
)
def test_bad_splits_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "split.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_split(tmp_path / "split.txt")


def test_missing_and_broken_images_are_named(tiny_fs2k: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no photo1/image9999"):
        find_pair(tiny_fs2k, "photo1/image9999")
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8broken")
    with pytest.raises(DataError, match=r"x\.jpg is not a readable image"):
        open_image(tmp_path / "x.jpg")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match=r"bomb\.png is not a readable image: a photo may have 64000000 pixels"):
        open_image(tmp_path / "bomb.png")


def test_suffixes_in_capitals_are_found(tmp_path: Path) -> None:
    for name in ("photo/photo1/image0001.JPG", "sketch/sketch1/sketch0001.PNG"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    pair = find_pair(tmp_path, "photo1/image0001")
    assert (pair.photo.suffix, pair.sketch.suffix) == (".JPG", ".PNG")
