import numba
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer import kernels
from indexer.bounds import SLACK
from indexer.exact import exact_distances
from indexer.fusion import EQUAL_WEIGHTS, region_weights
from indexer.kernels import BLOCK
from indexer.quantised import QuantisedGallery, _bitmap
from indexer.regions import REGIONS
from tests.conftest import unit_rows


def built(gallery: npt.NDArray[np.float32], centre: npt.NDArray[np.float32] | None = None) -> QuantisedGallery:
    quantised = QuantisedGallery(gallery.mean(axis=0) if centre is None else centre)
    quantised.write(0, gallery)
    return quantised


def bounds_of(
    quantised: QuantisedGallery, probe: npt.NDArray[np.float32], weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(photos,) bounds in the scale of the weights."""
    shares = (weights / weights.max()).astype(np.float32)
    blocks = np.arange(-(-len(quantised) // BLOCK))
    lower = quantised.photo_bounds(quantised.prepared(probe[None], shares[None]), blocks, quantised.words(None))
    return lower.ravel()[: len(quantised)].astype(np.float64) * weights.max()


def on_rounding_edges(rng: np.random.Generator, photos: int, dim: int) -> npt.NDArray[np.float32]:
    """Rows whose distance from 0 is k + 1/2 steps of 1/127 in every number: each is off by half a step."""
    levels = rng.integers(-127, 127, size=(photos, REGIONS, dim)) + 0.5
    levels[::BLOCK] = 127  # the block's largest number, which sets its step
    return (levels / 127).astype(np.float32)


def galleries(rng: np.random.Generator, dim: int) -> list[npt.NDArray[np.float32]]:
    photos = int(rng.integers(1, 200))
    unit = unit_rows(rng, photos, dim)
    one = unit_rows(rng, 1, dim)
    near = one + rng.normal(scale=10.0 ** rng.integers(-8, 0), size=unit.shape).astype(np.float32)
    return [
        unit,
        np.repeat(one, photos, axis=0),
        np.where(rng.random((photos, 1, 1)) < 0.5, one, -one).astype(np.float32),
        near,
        (near / np.linalg.norm(near, axis=-1, keepdims=True)).astype(np.float32),
        on_rounding_edges(rng, photos, dim),
        (unit * rng.uniform(0, 30, size=(photos, 1, 1))).astype(np.float32),
        np.zeros_like(unit),
        (unit * np.float32(1e-30)).astype(np.float32),
    ]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), dim=st.sampled_from([1, 2, 7, 8, 16, 17, 64]))
def test_bounds_never_exceed_the_distance(seed: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    for gallery in galleries(rng, dim):
        centre = [None, np.zeros_like(gallery[0]), unit_rows(rng, 1, dim)[0]][rng.integers(3)]
        quantised = built(gallery, centre)
        ink = rng.random(REGIONS) < 0.7
        weights = region_weights(ink, {1: rng.random(), 2: 1.0, 3: rng.random()})
        if not weights.any():
            continue
        for probe in (gallery[0], -gallery[-1], unit_rows(rng, 1, dim)[0], np.zeros_like(gallery[0])):
            distances = np.einsum("pr,r->p", _distances(gallery, probe), weights)
            assert (bounds_of(quantised, probe, weights) <= distances * SLACK).all()


def _distances(gallery: npt.NDArray[np.float32], probe: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.linalg.norm(gallery.astype(np.float64) - probe.astype(np.float64), axis=-1)


def test_sums_of_very_many_numbers_wrap_around() -> None:
    """All numbers of a region at their greatest: no 32 bits hold the sum of their products with bytes."""
    rows = np.full((3, REGIONS, 9000), 9000**-0.5, np.float32) * np.float32([1, -1, 0.5])[:, None, None]
    quantised, weights = built(rows, np.zeros_like(rows[0])), region_weights(np.ones(REGIONS, bool))
    for probe in rows:
        distances = np.einsum("pr,r->p", _distances(rows, probe), weights)
        lower = bounds_of(quantised, probe, weights)
        assert (lower <= distances * SLACK).all()
        assert (lower >= distances - 0.05).all()


def test_bounds_are_close_to_the_distance() -> None:
    rng = np.random.default_rng(1)
    # As embeddings of faces are: region by region in one direction from 0, a few tenths apart.
    gallery = unit_rows(rng, 1)[0] + rng.normal(scale=0.08, size=(640, REGIONS, 16))
    gallery = (gallery / np.linalg.norm(gallery, axis=-1, keepdims=True)).astype(np.float32)
    quantised, ink = built(gallery), np.ones(REGIONS, bool)
    distances = exact_distances(gallery, gallery[3], ink)
    lost = distances - bounds_of(quantised, gallery[3], region_weights(ink))
    assert np.median(distances) > 0.9
    assert 0 < np.median(lost) < 0.025
    assert lost.max() < 0.05


def test_the_error_on_rounding_edges_is_half_a_step_in_every_number() -> None:
    gallery = on_rounding_edges(np.random.default_rng(2), BLOCK, 16)
    quantised = built(gallery, np.zeros_like(gallery[0]))
    np.testing.assert_allclose(quantised._heads[:, :1, 3], 4 * 0.5 / 127, rtol=1e-4)


def test_regions_without_a_share_are_never_read() -> None:
    rng = np.random.default_rng(3)
    gallery, probe = unit_rows(rng, 100), unit_rows(rng, 1)[0]
    quantised = built(gallery)
    ink = np.zeros(REGIONS, bool)
    ink[[0, 3, 13]] = True
    weights = region_weights(ink, EQUAL_WEIGHTS)
    expected = bounds_of(quantised, probe, weights)
    quantised._heads[[1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12]] = np.nan
    np.testing.assert_array_equal(bounds_of(quantised, probe, weights), expected)


def test_photos_and_blocks_that_take_no_part_are_infinitely_far() -> None:
    rng = np.random.default_rng(4)
    gallery, probes = unit_rows(rng, 200), unit_rows(rng, 3)
    quantised, shares = built(gallery), np.ones((3, REGIONS), np.float32)
    allowed = np.zeros(200, bool)
    allowed[[5, 130, 199]] = True
    words = quantised.words(allowed)
    assert [bin(word).count("1") for word in words.tolist()] == [1, 0, 1, 1]
    blocks = np.arange(4)
    queries = quantised.prepared(probes, shares)
    least = quantised.bounds(queries, blocks, words)
    every = quantised.photo_bounds(queries[1:2], blocks, quantised.words(None)).ravel()
    lower = quantised.photo_bounds(queries[1:2], blocks, words).ravel()
    assert np.flatnonzero(np.isfinite(lower)).tolist() == [5, 130, 199]
    np.testing.assert_array_equal(lower[[5, 130, 199]], every[[5, 130, 199]])
    np.testing.assert_allclose(least[1], [every[5], np.inf, every[130], every[199]], rtol=1e-6)
    assert not np.isfinite(every[200:]).any()


def test_what_is_written_in_parts_is_what_is_written_at_once() -> None:
    gallery = unit_rows(np.random.default_rng(5), 500)
    whole, parts = built(gallery), QuantisedGallery(gallery.mean(axis=0))
    for stop in (3, 64, 100, 300, 500):
        first = len(parts) - len(parts) % BLOCK
        parts.write(first, gallery[first:stop])
    for mine, other in ((whole._codes, parts._codes), (whole._heads, parts._heads)):
        np.testing.assert_array_equal(mine[:, :8], other[:, :8])
    assert parts.nbytes <= whole.nbytes * 1.4


def test_a_photo_takes_one_byte_a_number_and_little_more() -> None:
    quantised = built(unit_rows(np.random.default_rng(6), 640))
    assert quantised.nbytes / 640 < 1.09 * REGIONS * 16


def test_the_bitmap_has_the_photo_of_lowest_row_in_the_lowest_bit() -> None:
    assert _bitmap(np.arange(70) == 65).tolist() == [0, 2]
    assert _bitmap(np.ones(64, bool)).tolist() == [2**64 - 1]


@pytest.mark.parametrize("dim", [3, 40])
@pytest.mark.parametrize("queries", [1, 3])
def test_the_compiled_kernel_does_what_its_python_says(monkeypatch: pytest.MonkeyPatch, queries: int, dim: int) -> None:
    rng = np.random.default_rng(7)
    gallery, probes = unit_rows(rng, 70, dim), unit_rows(rng, queries, dim)
    quantised, blocks = built(gallery), np.arange(2)
    shares = (rng.random((queries, REGIONS)) * (rng.random((queries, REGIONS)) < 0.5)).astype(np.float32)
    words = quantised.words(rng.random(70) < 0.5)
    outputs = []
    query = quantised.prepared(probes, shares)
    for scan in (kernels.scan_blocks, kernels._scan_blocks):
        if scan is kernels._scan_blocks:
            for name in ("dot", "dot_ahead", "add_roots", "finish", "add_region"):
                monkeypatch.setattr(kernels, name, getattr(kernels, f"_{name}"))
        least, lower = np.empty((queries, 2), np.float32), np.empty((queries, 2, BLOCK), np.float32)
        scan(quantised._codes, quantised._heads, words, blocks, *query.arrays(), least, lower)
        outputs.append((least, lower))
    # The processor's roots are rough, and no larger than true ones.
    for compiled, plain in zip(*outputs, strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=2e-3, atol=1e-6)


def test_roots_are_never_larger_than_the_true_ones() -> None:
    """From zero to the longest rows, a million squares of every size in float32."""
    squares = np.geomspace(2.0**-100, 1e9, 1_000_064).astype(np.float32)
    roots, dots = np.zeros(len(squares), np.float32), np.zeros(BLOCK, np.int32)

    @numba.njit
    def add_all(squares, roots, dots):  # type: ignore[no-untyped-def]
        zero, one = np.float32(0), np.float32(1)
        for at in range(0, squares.shape[0], BLOCK):
            kernels.add_roots(dots, squares, at, zero, one, zero, kernels.ROOT_SHARE, roots, at)

    add_all(squares, roots, dots)
    true = np.sqrt(squares.astype(np.float64))
    assert (roots <= true * SLACK).all()
    assert (roots >= true * (1 - 2.0**-10)).all()


@pytest.mark.parametrize("dim", [5, 16])
def test_codes_and_errors_are_what_their_definition_says(dim: int) -> None:
    """The stored integers times their step, norm and error, against numpy over whole blocks."""
    gallery = unit_rows(np.random.default_rng(8), 130, dim)
    quantised = built(gallery)
    region = 9
    rows = gallery[BLOCK : 2 * BLOCK, region].astype(np.float64) - quantised.centre[region]
    twice_step, norm, norm_step, error = quantised._heads[region, 1].astype(np.float64)
    coded = quantised._codes[region, 1, :-BLOCK].reshape(-1, BLOCK, 4).transpose(1, 0, 2).reshape(BLOCK, -1)
    coded = coded.astype(np.int64) - kernels.ZERO
    assert not coded[:, dim:].any()
    np.testing.assert_allclose(twice_step, 2 * np.abs(rows).max() / 127, rtol=1e-6)
    steps = coded[:, :dim] * (twice_step / 2)
    assert np.abs(rows - steps).max() <= twice_step / 4 * (1 + 1e-6)
    np.testing.assert_allclose(error, np.linalg.norm(rows - steps, axis=1).max(), rtol=1e-5)
    assert error >= np.linalg.norm(rows - steps, axis=1).max()
    squares = np.square(steps).sum(axis=1)
    norms = norm + norm_step * quantised._codes[region, 1, -BLOCK:].astype(np.float64)
    assert (norms <= squares).all()
    assert (norms > squares - 1.01 * norm_step).all()
