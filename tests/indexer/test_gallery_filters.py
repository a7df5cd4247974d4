"""Filters and deletions in a gallery: the ranking of the photos that take part, as if there were no others."""

import gc
import weakref
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from indexer.errors import GalleryError, QueryError, UnknownPhotoError
from indexer.exact import exact_distances, exact_search
from indexer.face_like import FaceLike
from indexer.filters import And, Equals, HasTag, Ids, Not, Or, Range
from indexer.gallery import Gallery
from indexer.metadata import Kind
from indexer.modes import Approximate
from indexer.regions import REGIONS
from indexer.store import NewPhoto, StoreWriter
from tests.conftest import unit_rows
from tests.indexer.test_gallery import ink_of, make_gallery

INK = ink_of(0, 1, 3, 7, 8)
EVERY = np.ones(REGIONS, bool)


@pytest.fixture
def folder(tmp_path: Path, embeddings: npt.NDArray[np.float32]) -> Path:
    make_gallery(tmp_path / "faces", embeddings).close()
    with StoreWriter.open(tmp_path / "faces") as writer:
        writer.declare_fields({"age": Kind.NUMBER, "sex": Kind.STRING, "marks": Kind.TAGS})
        writer.describe(
            {
                f"id{n}": {"age": float(n % 7), "sex": ("female", "male")[n % 2], "marks": ("scar",) * (n % 5 == 0)}
                for n in range(50)
            }
        )
    return tmp_path / "faces"


def names(ranking) -> list[str]:
    return [hit.photo_id for hit in ranking.hits]


@pytest.mark.parametrize(
    ("filter", "passes"),
    [
        (Equals("sex", "female"), lambda n: n < 50 and n % 2 == 0),
        (Range("age", 3.0, 5.0), lambda n: n < 50 and 3 <= n % 7 <= 5),
        (And((HasTag("marks", "scar"), Not(Equals("sex", "male")))), lambda n: n < 50 and n % 10 == 0),
        (Not(Range("age", 0.0)), lambda n: n >= 50),
        (Or((Ids(("id59", "id3", "nobody")), Equals("age", 6.0))), lambda n: n in (3, 59) or (n < 50 and n % 7 == 6)),
        (And(()), lambda n: True),
    ],
)
def test_a_filtered_ranking_is_that_of_the_photos_that_pass(folder, embeddings, probe, filter, passes) -> None:
    gallery = Gallery.open(folder)
    rows = np.array([n for n in range(60) if passes(n)])
    for k in (1, 5, 60):
        ranking = gallery.search(probe, INK, k=k, filter=filter)
        found, distances = exact_search(embeddings[rows], probe, INK, k)
        assert names(ranking) == [f"id{rows[row]}" for row in found]
        assert [hit.distance for hit in ranking.hits] == distances.tolist()
        assert (ranking.gallery_photos, ranking.exact) == (len(rows), True)


def test_a_filter_that_no_photo_passes_gives_an_empty_ranking(folder, probe) -> None:
    for filter in (Equals("sex", "none"), Ids(()), Range("age", 100.0)):
        ranking = Gallery.open(folder).search(probe, INK, filter=filter)
        assert (ranking.hits, ranking.gallery_photos, ranking.exact) == ((), 0, True)


def test_a_filter_that_does_not_fit_is_refused_even_where_an_equal_one_was_let_through(folder, probe) -> None:
    gallery = Gallery.open(folder)
    assert gallery.search(probe, INK, filter=Equals("age", 1.0)).hits
    assert hash(Equals("age", True)) == hash(Equals("age", 1.0))
    with pytest.raises(QueryError, match="field age is a number: the value must be a number, got 'True'"):
        gallery.search(probe, INK, filter=Equals("age", True))
    with pytest.raises(QueryError, match=r"no metadata field is named 'hat'; the gallery has: age \(number\), marks"):
        gallery.search(probe, INK, filter=Equals("hat", "red"))


def delete(folder: Path, *photo_ids: str) -> None:
    with StoreWriter.open(folder) as writer:
        writer.delete(photo_ids)


def test_a_deleted_photo_is_gone_from_the_next_gallery_and_its_rank_is_free(folder, embeddings, probe) -> None:
    before = Gallery.open(folder)
    order = names(before.search(probe, INK, k=60))
    gone = [order[0], order[5], "id30"]
    delete(folder, *gone)
    after = Gallery.open(folder)
    left = [photo_id for photo_id in order if photo_id not in gone]
    assert names(after.search(probe, INK, k=60)) == left
    assert (after.photos, after.search(probe, INK).gallery_photos, len(after.photo_ids)) == (57, 57, 57)
    assert not set(gone) & set(after.photo_ids)
    distances = exact_distances(embeddings, probe, INK)
    for photo_id in left:
        row = int(photo_id.removeprefix("id"))
        counted = [n for n in range(60) if f"id{n}" in left and distances[n] <= distances[row]]
        assert after.rank_of(photo_id, probe, INK) == len(counted)
    for look_up in (after.photo, lambda photo_id: after.rank_of(photo_id, probe, INK)):
        with pytest.raises(UnknownPhotoError):
            look_up(gone[0])
    passing = after.search(probe, INK, k=60, filter=Equals("sex", "female"))
    assert names(passing) == [i for i in left if int(i[2:]) < 50 and int(i[2:]) % 2 == 0]
    assert names(before.search(probe, INK, k=60)) == order, "what was open stays as it was"


def test_a_gallery_whose_photos_are_all_deleted_says_that_it_has_none(folder, probe) -> None:
    delete(folder, *(f"id{n}" for n in range(60)))
    gallery = Gallery.open(folder)
    assert (gallery.photos, gallery.photo_ids) == (0, ())
    with pytest.raises(GalleryError, match="gallery faces has no photos"):
        gallery.search(probe, INK)


def test_a_gallery_is_reopened_beside_itself(folder, embeddings, probe) -> None:
    gallery = Gallery.open(folder)
    assert not gallery.is_stale()
    delete(folder, "id7")
    assert gallery.is_stale()
    second = gallery.reopened()
    assert second._index is gallery._index, "nothing was read again: no vectors have changed"
    assert not second.is_stale()
    with StoreWriter.open(folder) as writer:
        writer.declare_fields({"seen": Kind.BOOL})
        writer.describe({"id8": {"seen": True}})
    third = second.reopened()
    assert names(third.search(probe, INK, filter=Equals("seen", True))) == ["id8"]
    more = unit_rows(np.random.default_rng(9), 2)
    make_gallery_more(folder, more)
    assert third.is_stale()
    fourth = third.reopened()
    assert [g.photos for g in (gallery, second, third, fourth)] == [60, 59, 59, 61]
    kept = np.delete(np.concatenate([embeddings, more]), 7, axis=0)
    ids = [*(f"id{n}" for n in range(60) if n != 7), "new0", "new1"]
    assert names(fourth.search(probe, INK, k=99)) == [ids[row] for row in exact_search(kept, probe, INK, 99)[0]]
    assert "id7" in names(gallery.search(probe, INK, k=99))


def make_gallery_more(folder: Path, rows: npt.NDArray[np.float32]) -> None:
    with StoreWriter.open(folder) as writer:
        writer.append([NewPhoto(f"new{n}", "new.jpg", b"jpeg", bytes([255 - n]) * 32) for n in range(len(rows))], rows)


def test_the_compiled_scan_and_the_approximate_one_obey_both(tmp_path: Path) -> None:
    pytest.importorskip("numba", reason="the compiled scan needs the `fast` extra")
    source = FaceLike(8, seed=5)
    rows = source.photos(12_000)
    make_many(tmp_path / "many", rows)
    with StoreWriter.open(tmp_path / "many") as writer:
        writer.declare_fields({"group": Kind.NUMBER})
        writer.describe({f"id{n}": {"group": float(n % 40)} for n in range(len(rows))})
        writer.delete([f"id{n}" for n in range(0, len(rows), 3)])
    gallery = Gallery.open(tmp_path / "many")
    probe = source.sketches(rows[:1])[0]
    taking = np.array([n for n in range(len(rows)) if n % 3 and n % 40 in (7, 8)])
    filter = Range("group", 7.0, 8.0)
    expected = [f"id{taking[row]}" for row in exact_search(rows[taking], probe, EVERY, 20)[0]]
    assert names(gallery.search(probe, EVERY, k=20, filter=filter)) == expected
    assert gallery.build_approximate()
    assert names(gallery.search(probe, EVERY, k=20, filter=filter)) == expected
    for ranking in (
        gallery.search(probe, EVERY, k=20, mode=Approximate(0.5), filter=filter),
        gallery.search(probe, EVERY, k=20, mode=Approximate(0.5)),
    ):
        found = np.array([int(name[2:]) for name in names(ranking)])
        assert (found % 3 > 0).all()
    delete(tmp_path / "many", "id1")
    newer = gallery.reopened()
    assert newer.search(probe, EVERY, mode=Approximate(0.1)).unseen_from < np.inf, "still laid out"


def make_many(folder: Path, rows: npt.NDArray[np.float32]) -> None:
    with StoreWriter.open_or_create(folder, "ab" * 32, rows.shape[-1]) as writer:
        writer.append([NewPhoto(f"id{n}", "photo.jpg", b"jpeg", n.to_bytes(32, "big")) for n in range(len(rows))], rows)


def test_a_gallery_that_grows_large_is_laid_out_if_that_was_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("numba", reason="the compiled scan needs the `fast` extra")
    source = FaceLike(8, seed=5)
    rows = source.photos(10_001)
    make_many(tmp_path / "many", rows[:9_999])
    gallery = Gallery.open(tmp_path / "many")
    assert not gallery.build_approximate()
    make_gallery_more(tmp_path / "many", rows[9_999:])
    newer = gallery.reopened()
    probe = source.sketches(rows[:1])[0]
    assert gallery.search(probe, EVERY, mode=Approximate(0.1)).unseen_from == np.inf
    assert newer.search(probe, EVERY, mode=Approximate(0.1)).unseen_from < np.inf


def test_an_older_gallery_is_given_up_with_its_last_user(tmp_path: Path) -> None:
    """At once, and not when Python next looks for cycles: its index takes gigabytes."""
    rows = FaceLike(8, seed=5).photos(10_001)
    make_many(tmp_path / "many", rows[:10_000])
    gallery = Gallery.open(tmp_path / "many")
    assert gallery.search(rows[0], EVERY, filter=Ids(("id3",))).hits
    make_gallery_more(tmp_path / "many", rows[10_000:])
    newer = gallery.reopened()
    older = weakref.ref(gallery._index)
    gc.disable()
    try:
        del gallery
        assert older() is None
    finally:
        gc.enable()
    assert newer.photos == 10_001
