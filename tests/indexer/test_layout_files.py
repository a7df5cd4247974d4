import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba", reason="only the compiled scan has a layout; it needs the `fast` extra")

from indexer.approximate import ApproximateScan
from indexer.contents import read_segments
from indexer.exact import exact_search
from indexer.gallery import Gallery
from indexer.layout_files import layout_is_whole
from indexer.modes import Approximate
from indexer.regions import REGIONS
from indexer.store import Store, StoreWriter
from tests.conftest import unit_rows
from tests.indexer.test_store import MODEL, new_photos

PHOTOS = 10_050
DIM = 4
EVERY = np.ones(REGIONS, bool)

Rows = npt.NDArray[np.float32]


def append(folder: Path, first: int, rows: Rows) -> None:
    with StoreWriter.open_or_create(folder, MODEL, DIM) as writer:
        writer.append(new_photos(first, len(rows)), rows)


@pytest.fixture(scope="module")
def rows() -> Rows:
    return unit_rows(np.random.default_rng(0), PHOTOS + 100, DIM)


@pytest.fixture
def folder(tmp_path: Path, rows: Rows) -> Path:
    append(tmp_path / "g", 0, rows[:6000])
    append(tmp_path / "g", 6000, rows[6000:PHOTOS])
    return tmp_path / "g"


def saved(folder: Path) -> list[Path]:
    return sorted((folder / "index").glob("*"))


def is_whole(folder: Path) -> bool:
    store = Store.open(folder)
    with store.reading() as connection:
        return layout_is_whole(folder, read_segments(connection), DIM)


def assert_right(gallery: Gallery, rows: Rows) -> None:
    expected = exact_search(rows, rows[7], EVERY, 10)
    found = gallery.search(rows[7], EVERY, 10)
    assert [hit.photo_id for hit in found.hits] == [f"p{row}" for row in expected[0]]
    assert [hit.distance for hit in found.hits] == expected[1].tolist()


def laid_out(folder: Path) -> Gallery:
    gallery = Gallery.open(folder)
    assert gallery.build_approximate()
    return gallery


Answers = list[tuple[list[str], float, bool]]


def answers(gallery: Gallery, rows: Rows) -> Answers:
    found = [gallery.search(row, EVERY, 10, mode=Approximate(0.9)) for row in rows[:20]]
    return [([hit.photo_id for hit in each.hits], each.unseen_from, each.exact) for each in found]


@pytest.fixture(scope="module")
def once_laid_out(tmp_path_factory: pytest.TempPathFactory, rows: Rows) -> tuple[Path, Answers]:
    folder = tmp_path_factory.mktemp("laid") / "g"
    append(folder, 0, rows[:PHOTOS])
    return folder, answers(laid_out(folder), rows)


@pytest.fixture
def with_layout(once_laid_out: tuple[Path, Answers], tmp_path: Path) -> tuple[Path, Answers]:
    """A folder with its layout, and what it answers."""
    return shutil.copytree(once_laid_out[0], tmp_path / "copy"), once_laid_out[1]


def test_the_layout_of_approximate_search_is_made_once(
    folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answers(laid_out(folder), rows)
    assert {exact for _, _, exact in expected} != {True}
    monkeypatch.setattr(ApproximateScan, "build", lambda *_: pytest.fail("made although it was saved"))
    gallery = laid_out(folder)
    assert answers(gallery, rows) == expected
    assert_right(gallery, rows[:PHOTOS])
    (home,) = saved(folder)
    assert not [path for path in home.iterdir() if path.suffix not in (".npy", ".json")]
    data = b"".join(path.read_bytes() for path in home.iterdir())
    assert not any(row[region].tobytes() in data for row in rows[:20] for region in range(REGIONS)), "no second copy"


@pytest.mark.parametrize(
    "name", ["order.npy", "photos-codes.npy", "centres-blocks-heads.npy", "shares-14-10.npy", "header.json"]
)
@pytest.mark.parametrize("damage", ["altered", "cut", "missing"])
def test_a_layout_that_is_not_whole_is_made_again_and_replaced(
    with_layout: tuple[Path, Answers], rows: Rows, name: str, damage: str
) -> None:
    folder, expected = with_layout
    path = saved(folder)[0] / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1 if damage == "altered" else 0
    path.unlink()
    if damage != "missing":
        path.write_bytes(data if damage == "altered" else data[:-1])
    assert not is_whole(folder)
    assert answers(laid_out(folder), rows) == expected
    assert is_whole(folder)
    assert [path.suffix for path in saved(folder)] == [""]


@pytest.mark.parametrize("text", ["{}", "[]", '{"order.npy": []}'])
def test_a_layout_whose_header_names_too_little_is_made_again(
    with_layout: tuple[Path, Answers], rows: Rows, text: str
) -> None:
    folder, expected = with_layout
    header = saved(folder)[0] / "header.json"
    header.write_text(text)
    assert answers(laid_out(folder), rows) == expected
    assert "photos-codes.npy" in header.read_text()


def test_a_layout_of_another_format_is_no_fault_and_gives_way(
    with_layout: tuple[Path, Answers], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, expected = with_layout
    (before,) = saved(folder)
    (before / "order.npy").write_bytes(b"what it is then")
    monkeypatch.setattr("indexer.layout_files._FORMAT", 99)
    assert is_whole(folder)
    assert answers(laid_out(folder), rows) == expected
    (after,) = saved(folder)
    assert after != before


def test_new_segments_need_a_new_layout(folder: Path, rows: Rows) -> None:
    old = laid_out(folder)
    before = saved(folder)
    append(folder, PHOTOS, rows[PHOTOS:])
    new = old.reopened()
    assert len(saved(folder)) == 1
    assert saved(folder) != before
    assert is_whole(folder)
    assert_right(old, rows[:PHOTOS])
    assert_right(new, rows)
    assert answers(new, rows)


def test_a_disk_without_room_for_the_layout_leaves_none_and_searches_all_the_same(
    folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    gallery = Gallery.open(folder)
    monkeypatch.setattr("indexer.layout_files.np.save", full)
    assert gallery.build_approximate()
    assert answers(gallery, rows)
    assert saved(folder) == []


def test_a_layout_of_segments_that_went_meanwhile_is_not_saved(folder: Path, rows: Rows) -> None:
    gallery = Gallery.open(folder)
    with StoreWriter.open(folder) as writer:
        writer.delete(["p3"])
        from indexer.compaction import compact

        compact(writer)
    assert gallery.build_approximate()
    assert answers(gallery, rows)
    assert saved(folder) == []


def test_who_opens_an_earlier_moment_removes_no_layout(folder: Path, rows: Rows) -> None:
    """A reader that is slower than compaction knows only segments that are no longer the gallery's."""
    from indexer.layout_files import remove_other_layouts

    laid_out(folder)
    before = saved(folder)
    remove_other_layouts(folder, [], DIM, lambda: False)
    assert saved(folder) == before
    remove_other_layouts(folder, [], DIM, lambda: True)
    assert saved(folder) == []
