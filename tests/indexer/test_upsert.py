"""Photos that are replaced, and photos with several names."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import GalleryError, UnknownPhotoError
from indexer.gallery import Gallery
from indexer.metadata import Kind
from indexer.store import Alias, Store, StoreWriter
from tests.conftest import unit_rows
from tests.indexer.test_store import make_store, new_photos

ROWS = unit_rows(np.random.default_rng(9), 4)


def changed(name: str, version: str = "new") -> list:
    """A photo of this id with other content."""
    (photo,) = new_photos(0, 1)
    return [replace(photo, photo_id=name, thumbnail=f"{version} {name}".encode(), content_hash=version.encode() * 8)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_store(tmp_path / "g", 3, 2)
    with StoreWriter.open(tmp_path / "g") as writer:
        writer.declare_fields({"age": Kind.NUMBER, "sex": Kind.STRING})
        writer.describe({"p1": {"age": 30.0, "sex": "female"}})
    return tmp_path / "g"


def ids(folder: Path) -> list[str]:
    return [photo_id for photo_id in Store.open(folder).snapshot().contents.photo_ids if photo_id]


def test_a_photo_is_replaced_in_one_commit_and_comes_last(folder: Path) -> None:
    with StoreWriter.open(folder) as writer:
        before = writer.version()
        writer.upsert([replace(changed("p1")[0], metadata={"age": 31.0}), *new_photos(5, 1)], ROWS[:2])
        assert writer.version() == before + 1
        photo = writer.photo("p1")
        assert (photo.thumbnail, photo.metadata) == (b"new p1", {"age": 31.0, "sex": "female"})
        assert dict(writer.names())["p1"] == b"new" * 8
    assert ids(folder) == ["p0", "p2", "p3", "p4", "p1", "p5"]
    gallery = Gallery.open(folder)
    hits = gallery.search(ROWS[0], np.ones(14, bool), 6).hits
    assert [hit.photo_id for hit in hits if hit.distance == 0] == ["p1"]
    assert b"thumbnail 1" not in b"".join(path.read_bytes() for path in folder.glob("ledger.sqlite*"))


def test_an_equal_photo_that_is_replaced_loses_its_place(tmp_path: Path) -> None:
    same = np.repeat(ROWS[:1], 2, axis=0)
    with StoreWriter.open_or_create(tmp_path / "g", "ab" * 32, 16) as writer:
        writer.append(new_photos(0, 2), same)
        assert [hit.photo_id for hit in found(tmp_path / "g")] == ["p0", "p1"]
        writer.upsert(changed("p0"), same[:1])
    assert [hit.photo_id for hit in found(tmp_path / "g")] == ["p1", "p0"]


def found(folder: Path) -> tuple:
    return Gallery.open(folder).search(ROWS[0], np.ones(14, bool), 2).hits


def test_an_alias_stands_for_its_photo(folder: Path) -> None:
    with StoreWriter.open(folder) as writer:
        writer.add_aliases([Alias("anna", "album/anna.jpg", of="p1")])
        writer.add_aliases([Alias("ann", "album/ann.jpg", of="anna")])
        assert writer.photo("anna") == writer.photo("ann") == writer.photo("p1")
        assert (dict(writer.names())["ann"], writer.count()) == (dict(writer.names())["p1"], 5)
        assert set(dict(writer.names())) == {"p0", "p1", "p2", "p3", "p4", "ann", "anna"}
        writer.describe({"anna": {"age": 40.0}})
        assert writer.photo("p1").metadata == {"age": 40.0, "sex": "female"}
        assert "anna" not in ids(folder)
        writer.delete(["ann"])
        for name in ("p1", "ann", "anna"):
            with pytest.raises(UnknownPhotoError):
                writer.photo(name)
    ledger = b"".join(path.read_bytes() for path in folder.glob("ledger.sqlite*"))
    assert b"album/" not in ledger


def test_names_are_given_once(folder: Path) -> None:
    with StoreWriter.open(folder) as writer:
        writer.add_aliases([Alias("anna", "a.jpg", of="p1")])
        for taken in ("p2", "anna"):
            with pytest.raises(GalleryError, match=f"gallery g has a photo '{taken}' already; give it another id"):
                writer.add_aliases([Alias("fresh", "f.jpg", of="p0"), Alias(taken, "b.jpg", of="p0")])
            with pytest.raises(GalleryError, match=f"gallery g has a photo '{taken}' already; give it another id"):
                writer.append(changed(taken), ROWS[:1])
        with pytest.raises(GalleryError, match="two have the same id"):
            writer.add_aliases([Alias("twice", "a.jpg", of="p0"), Alias("twice", "b.jpg", of="p2")])
        with pytest.raises(GalleryError, match="two have the same id"):
            writer.upsert(changed("p1") * 2, ROWS[:2])
        with pytest.raises(UnknownPhotoError, match="gallery g has no photo 'nobody'"):
            writer.add_aliases([Alias("fresh", "f.jpg", of="nobody")])
        assert writer.photo("p1").thumbnail == b"thumbnail 1"
        assert "fresh" not in dict(writer.names())


def test_replaced_content_lives_on_under_an_alias(folder: Path) -> None:
    with StoreWriter.open(folder) as writer:
        writer.add_aliases([Alias("anna", "album/anna.jpg", of="p1"), Alias("bea", "album/bea.jpg", of="p1")])
        old = dict(writer.names())["p1"]
        writer.upsert(changed("p1"), ROWS[:1])
        anna = writer.photo("anna")
        assert (anna.photo_id, anna.source, anna.thumbnail) == ("anna", "album/anna.jpg", b"thumbnail 1")
        assert anna.metadata == writer.photo("p1").metadata == {"age": 30.0, "sex": "female"}
        assert writer.photo("bea") == anna
        assert (dict(writer.names())["anna"], dict(writer.names())["p1"]) == (old, b"new" * 8)
        writer.upsert(changed("bea", "other"), ROWS[1:2])
        assert writer.photo("bea").thumbnail == b"other bea"
    assert ids(folder) == ["p0", "anna", "p2", "p3", "p4", "p1", "bea"]


def test_the_same_content_may_be_kept_twice(folder: Path) -> None:
    (photo,) = new_photos(1, 1)
    with StoreWriter.open(folder) as writer:
        writer.append([replace(photo, photo_id="copy")], ROWS[:1])
        assert dict(writer.names())["copy"] == dict(writer.names())["p1"]
        assert writer.count() == 6
