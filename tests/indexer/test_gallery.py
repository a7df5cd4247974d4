import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from indexer.errors import GalleryError, ModelMismatchError, QueryError, ShapeError, UnknownPhotoError
from indexer.exact import exact_distances, exact_search
from indexer.fusion import region_distances
from indexer.gallery import Gallery
from indexer.regions import REGION_IDS, REGIONS
from indexer.store import NewPhoto, StoreWriter
from tests.conftest import PixelEncoder, unit_rows

WEIGHTS = {1: 0.5, 2: 1.0, 3: 2.0}


def make_gallery(folder: Path, embeddings: npt.NDArray[np.float32], batch: int = 20) -> Gallery:
    with StoreWriter.open_or_create(folder, "ab" * 32, embeddings.shape[-1]) as writer:
        for first in range(0, len(embeddings), batch):
            rows = embeddings[first : first + batch]
            photos = [
                NewPhoto(f"id{n}", f"photos/id{n}.jpg", b"jpeg", hashlib.sha256(bytes([n])).digest())
                for n in range(first, first + len(rows))
            ]
            writer.append(photos, rows)
    return Gallery.open(folder)


@pytest.fixture
def gallery(tmp_path: Path, embeddings: npt.NDArray[np.float32]) -> Gallery:
    return make_gallery(tmp_path / "faces", embeddings)


def ink_of(*regions: int) -> npt.NDArray[np.bool_]:
    ink = np.zeros(REGIONS, bool)
    ink[list(regions)] = True
    return ink


def test_a_gallery_says_what_it_is(gallery: Gallery) -> None:
    assert (gallery.name, gallery.photos, gallery.dim, gallery.model_hash) == ("faces", 60, 16, "ab" * 32)
    assert gallery.photo_ids == tuple(f"id{n}" for n in range(60))


def test_a_ranking_is_that_of_brute_force(
    gallery: Gallery, embeddings: npt.NDArray[np.float32], probe: npt.NDArray[np.float32]
) -> None:
    ink = ink_of(0, 1, 3, 7, 8)
    ranking = gallery.search(probe, ink, k=40, weights=WEIGHTS)
    rows, distances = exact_search(embeddings, probe, ink, 40, WEIGHTS)
    assert [hit.photo_id for hit in ranking.hits] == [f"id{row}" for row in rows]
    assert [hit.distance for hit in ranking.hits] == distances.tolist()
    assert [hit.rank for hit in ranking.hits] == list(range(1, 41))
    assert (ranking.gallery_photos, ranking.exact) == (60, True)


def test_the_parts_of_a_hit_explain_its_distance(
    gallery: Gallery, embeddings: npt.NDArray[np.float32], probe: npt.NDArray[np.float32]
) -> None:
    ink = ink_of(0, 2, 3)
    for hit in gallery.search(probe, ink, k=5, weights=WEIGHTS).hits:
        row = int(hit.photo_id.removeprefix("id"))
        expected = region_distances(probe, embeddings[row][None])[0]
        np.testing.assert_array_equal(hit.region_distances[ink], expected[ink])
        assert not hit.region_distances[~ink].any()
        for granularity, ids in REGION_IDS.items():
            inked = [expected[region] for region in ids if ink[region]]
            mean = sum(inked) / len(inked) if inked else 0.0
            assert hit.granularity_distances[granularity] == pytest.approx(mean, rel=1e-12)
        total = sum(WEIGHTS[g] * part for g, part in hit.granularity_distances.items())
        assert hit.distance == pytest.approx(total, rel=1e-12)


def test_rank_counts_ties_against_the_photo(
    gallery: Gallery, embeddings: npt.NDArray[np.float32], probe: npt.NDArray[np.float32]
) -> None:
    ink = ink_of(1, 6, 9)
    distances = exact_distances(embeddings, probe, ink)
    for row in range(60):
        assert gallery.rank_of(f"id{row}", probe, ink) == sum(distances <= distances[row])
    assert gallery.rank_of("id0", embeddings[0], ink) == 5, "five equal photos: the last of them"


def test_a_k_above_the_gallery_gives_every_photo(gallery: Gallery, probe: npt.NDArray[np.float32]) -> None:
    hits = gallery.search(probe, ink_of(0), k=1000).hits
    assert sorted(hit.photo_id for hit in hits) == sorted(gallery.photo_ids)


def test_queries_that_rank_nothing_are_refused(gallery: Gallery, probe: npt.NDArray[np.float32]) -> None:
    for query in (gallery.search, lambda *args: gallery.rank_of("id1", *args)):
        with pytest.raises(QueryError, match="no ink yet: the canvas is empty, so all photos tie"):
            query(probe, ink_of())
    with pytest.raises(QueryError, match=r"are 0 for every granularity that has ink, so all photos tie"):
        gallery.search(probe, ink_of(0), weights={1: 0.0, 2: 1.0, 3: 1.0})
    with pytest.raises(QueryError, match="k must be at least 1, got 0"):
        gallery.search(probe, ink_of(0), k=0)
    with pytest.raises(QueryError, match=r"weight of granularity 3 must be finite and >= 0, got -2\.0"):
        gallery.search(probe, ink_of(0), weights={1: 1.0, 2: 1.0, 3: -2.0})
    with pytest.raises(ShapeError, match=r"probe must be \(14, 16\) float32"):
        gallery.search(probe[:, :8], ink_of(0))
    with pytest.raises(ShapeError, match=r"ink must be \(14,\), got \(9,\)"):
        gallery.search(probe, np.ones(9, bool))


def test_an_empty_gallery_opens_and_says_so_when_searched(tmp_path: Path, probe: npt.NDArray[np.float32]) -> None:
    gallery = make_gallery(tmp_path / "new", np.empty((0, REGIONS, 16), np.float32))
    assert gallery.photos == 0
    with pytest.raises(GalleryError, match="gallery new has no photos; add some with `mgrl ingest`"):
        gallery.search(probe, ink_of(0))


def test_an_unknown_photo_is_named(gallery: Gallery, probe: npt.NDArray[np.float32]) -> None:
    assert gallery.photo("id3").source == "photos/id3.jpg"
    for look_up in (gallery.photo, lambda photo_id: gallery.rank_of(photo_id, probe, ink_of(0))):
        with pytest.raises(UnknownPhotoError, match="gallery faces has no photo 'id99'"):
            look_up("id99")


def test_an_encoder_of_another_model_is_refused(gallery: Gallery) -> None:
    encoder = PixelEncoder()
    message = rf"gallery faces was made by model abababababab .* this model is {encoder.model_hash[:12]}"
    with pytest.raises(ModelMismatchError, match=message):
        gallery.check_model(encoder)
    encoder.model_hash = "ab" * 32
    gallery.check_model(encoder)


def test_no_message_shows_a_path_of_the_server(tmp_path: Path, gallery: Gallery) -> None:
    segment = tmp_path / "faces" / "segments" / "000001.vec"
    segment.write_bytes(b"")
    for broken in (tmp_path / "faces", tmp_path / "gone", tmp_path):
        with pytest.raises(GalleryError) as caught:
            Gallery.open(broken)
        assert str(tmp_path.parent) not in str(caught.value)


def test_concurrent_searches_and_look_ups_agree_with_single_ones(gallery: Gallery) -> None:
    probes = unit_rows(np.random.default_rng(2), 32)

    def best(probe: npt.NDArray[np.float32]) -> str:
        return gallery.photo(gallery.search(probe, ink_of(0, 4, 9), k=1).hits[0].photo_id).source

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(best, probes)) == [best(probe) for probe in probes]
