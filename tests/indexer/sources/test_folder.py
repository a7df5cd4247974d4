import os
import subprocess
from pathlib import Path

import pytest

from indexer.errors import DataError, ImageError
from indexer.sources.item import Survey
from indexer.sources.spelled import open_source


def test_photos_are_listed_in_order_with_ids_and_names(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    for name in ("b/two.JPG", "b/one.v2.png", "a.webp", "notes.txt", "c.jpeg", "b.d/x.jpg", "b-e.jpg"):
        (faces / name).parent.mkdir(parents=True, exist_ok=True)
        (faces / name).write_bytes(name.encode())
    source = open_source(str(faces))
    found = list(source.items({}))
    assert [(item.photo_id, item.name, item.read()) for item in found] == [
        ("a", "faces/a.webp", b"a.webp"),
        ("b/one.v2", "faces/b/one.v2.png", b"b/one.v2.png"),
        ("b/two", "faces/b/two.JPG", b"b/two.JPG"),
        ("b-e", "faces/b-e.jpg", b"b-e.jpg"),
        ("b.d/x", "faces/b.d/x.jpg", b"b.d/x.jpg"),
        ("c", "faces/c.jpeg", b"c.jpeg"),
    ]
    assert [path for path in sorted(faces.rglob("*.*")) if path.suffix != ".txt" and path.is_file()] == [
        Path(item.locator["path"]) for item in found
    ]
    assert source.survey({}) == Survey(6)


def test_a_file_that_is_named_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "single.bin").write_bytes(b"x")
    (item,) = open_source(str(tmp_path / "single.bin")).items({})
    assert (item.photo_id, item.name, item.read()) == ("single", "single.bin", b"x")


def test_a_loop_of_links_ends_and_names_that_are_no_utf_8_are_kept(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "round.jpg").symlink_to(tmp_path / "round.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).touch()
    found = list(open_source(str(tmp_path)).items({}))
    assert [item.photo_id for item in found] == ["caf�", "round"]
    assert found[0].read() == b""
    with pytest.raises(ImageError, match="Too many levels of symbolic links"):
        found[1].read()


def test_folders_may_be_as_deep_as_a_path_can_be(tmp_path: Path) -> None:
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(1200):  # deeper than Python's stack
            os.mkdir("d")
            os.chdir("d")
        Path("deep.jpg").touch()
    finally:
        os.chdir(before)
    (item,) = open_source(str(tmp_path)).items({})
    # Who cleans up behind the tests would end at Python's stack, and with it the next run in the same folder.
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)
    assert item.photo_id == "d/" * 1200 + "deep"


def test_a_missing_source_is_named_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder or file named 'fotos'; check the spelling") as caught:
        open_source(str(tmp_path / "fotos"))
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(DataError, match=r"a source has no name; `\.` is the folder that you are in"):
        open_source("")
