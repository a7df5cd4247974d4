import numpy as np

from indexer.face_like import OWN_DISTANCE, VARIANCE, FaceLike, statistics
from indexer.fusion import region_distances
from indexer.regions import REGION_IDS


def test_rows_are_unit_and_the_same_for_the_same_seed() -> None:
    photos = FaceLike(4, seed=3).photos(70_000)
    assert photos.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(photos, axis=-1), 1, atol=1e-6)
    np.testing.assert_array_equal(FaceLike(4, seed=3).photos(70_000)[-1], photos[-1])
    assert not np.array_equal(FaceLike(4, seed=4).photos(1)[0], photos[0])


def test_distances_are_those_of_the_real_faces_they_were_measured_on() -> None:
    source = FaceLike(16)
    photos = source.photos(2000)
    found = statistics(photos, source.sketches(photos))
    for granularity, real in {1: 0.17, 2: 0.42, 3: 0.40}.items():
        assert abs(found["photo_to_photo"][granularity] / real - 1) < 0.15
        assert abs(found["sketch_to_own_photo"][granularity] / OWN_DISTANCE[granularity] - 1) < 0.1
    spread = ((photos - photos.mean(axis=0)) ** 2).sum(axis=-1).mean(axis=0)
    for granularity, ids in REGION_IDS.items():
        assert abs(spread[list(ids)].mean() / VARIANCE[granularity] - 1) < 0.2


def test_statistics_are_medians_of_plain_distances() -> None:
    source = FaceLike(8)
    photos = source.photos(60)
    sketches = source.sketches(photos)
    own = np.median([region_distances(sketches[i], photos[i : i + 1])[0, 0] for i in range(60)])
    assert statistics(photos, sketches)["sketch_to_own_photo"][1] == round(float(own), 3)


def test_any_dim_from_two_on_is_made() -> None:
    for dim in (2, 17, 64):
        source = FaceLike(dim)
        photos = source.photos(5)
        assert photos.shape == source.sketches(photos).shape == (5, 14, dim)
        assert np.isfinite(photos).all()
