import math

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba", reason="the compiled scan needs the `fast` extra")

from indexer.bounds import shares_of
from indexer.centres import GROUP, Centres, Opening
from indexer.fusion import region_distances
from indexer.kernels import BLOCK
from indexer.regions import REGIONS
from indexer.sharing import Helpers
from tests.conftest import unit_rows

GROUPS = 40
BLOCKS = GROUPS * BLOCK - 10  # the last group is not full
PHOTOS = BLOCKS * BLOCK + 7  # nor is the last block
DIM = 4

Vectors = npt.NDArray[np.float32]


def grouped(rng: np.random.Generator, photos: int, spread: float) -> Vectors:
    """Rows whose groups of 4096 lie around a place each, and their blocks around places near it."""
    groups = unit_rows(rng, -(-photos // GROUP), DIM).repeat(GROUP, axis=0)[:photos]
    blocks = rng.normal(scale=spread, size=(-(-photos // BLOCK), REGIONS, DIM)).repeat(BLOCK, axis=0)[:photos]
    return (groups + blocks + rng.normal(scale=spread / 4, size=groups.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def photos() -> Vectors:
    return grouped(np.random.default_rng(0), PHOTOS, 0.02)


def centres_of(photos: Vectors) -> Centres:
    centres = Centres.build(np.arange(len(photos)), lambda rows: photos[rows], photos[:1000].mean(axis=0))
    centres.blocks.centres.covers([centres.groups.centres])
    return centres


@pytest.fixture(scope="module")
def centres(photos: Vectors) -> Centres:
    return centres_of(photos)


def shares_for(rng: np.random.Generator, inked: int) -> npt.NDArray[np.float32]:
    weights = rng.random(REGIONS) * (np.argsort(rng.random(REGIONS)) < inked)
    return shares_of(weights)


def opening_of(
    centres: Centres, probe: Vectors, shares: npt.NDArray[np.float32], taking: npt.NDArray[np.bool_] | None = None
) -> Opening:
    every = np.ones(len(centres.blocks), bool)
    query = centres.blocks.centres.prepared(probe[None], shares[None])
    return Opening(centres, query, every if taking is None else taking, Helpers(2, "test"))


def least_of_blocks(photos: Vectors, probe: Vectors, shares: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(blocks,) the distance of each full block's nearest photo, in float64."""
    full = len(photos) // BLOCK * BLOCK
    distances = region_distances(probe.astype(np.float64), photos[:full].astype(np.float64)) @ shares.astype(float)
    return np.asarray(distances.reshape(-1, BLOCK).min(axis=1))


@pytest.mark.parametrize("inked", [1, 5, 14])
@pytest.mark.parametrize("share", [0, 0.9, 1])
def test_no_photo_of_what_was_not_looked_at_is_nearer_than_the_certificate(
    photos: Vectors, centres: Centres, inked: int, share: float
) -> None:
    rng = np.random.default_rng(inked)
    informative = 0
    for row in rng.integers(PHOTOS, size=6):
        shares, probe = shares_for(rng, inked), photos[row]
        opening = opening_of(centres, probe, shares)
        opening.open(share, BLOCK)
        seen = opening.nearest(BLOCK)
        opening.look_at(seen)
        left_out = np.delete(least_of_blocks(photos, probe, shares), seen)
        assert opening.unseen_from() <= left_out.min()
        informative += opening.unseen_from() > 0.5 * left_out.min()
    assert informative >= 4 or inked == 1  # one region is near in other groups, too


def test_a_photo_that_strayed_into_a_far_group_lowers_the_certificate(photos: Vectors) -> None:
    strayed = photos.copy()
    probe = strayed[0].copy()
    strayed[20 * GROUP + 70] = probe  # in a group that is not opened: its centre hardly moves
    for share, looked_at in ((0.0, 64), (1.0, 64)):
        shares = np.ones(REGIONS, np.float32)
        ones = [opening_of(centres_of(each), probe, shares) for each in (photos, strayed)]
        for opening in ones:
            opening.open(share, looked_at)
            opening.look_at(opening.nearest(looked_at))
        assert ones[1].unseen_from() == 0 < ones[0].unseen_from()


def test_all_that_was_looked_at_leaves_nothing_unseen(photos: Vectors, centres: Centres) -> None:
    opening = opening_of(centres, photos[5], np.ones(REGIONS, np.float32))
    opening.open(1, BLOCKS)
    nearest = opening.nearest(BLOCKS)
    np.testing.assert_array_equal(nearest, np.arange(BLOCKS))
    opening.look_at(nearest[1:])
    assert opening.unseen_from() < math.inf
    opening.look_at(nearest[:1])
    assert opening.unseen_from() == math.inf


def test_the_nearest_blocks_of_the_opened_groups_come_in_order(photos: Vectors, centres: Centres) -> None:
    probe, shares = photos[100], np.ones(REGIONS, np.float32)
    full = photos[: BLOCKS * BLOCK].reshape(BLOCKS, BLOCK, REGIONS, DIM).mean(axis=1)
    query = centres.blocks.centres.prepared(probe[None], shares[None])
    bounds = centres.blocks.bounds(query, np.arange(GROUPS), Helpers(1, "test")).ravel()
    assert np.isinf(bounds[BLOCKS:]).all()
    below = region_distances(probe, full).sum(axis=1) - bounds[:BLOCKS]
    assert below.min() > -1e-4
    assert below.max() < 0.1 * bounds[:BLOCKS].max()
    expected = np.argsort(bounds[:BLOCKS], kind="stable")
    opening = opening_of(centres, probe, shares)
    opening.open(1, 1)
    np.testing.assert_array_equal(opening.nearest(5), np.sort(expected[:5]))
    np.testing.assert_array_equal(opening.ranked()[:5], expected[:5])
    assert sorted(opening.ranked()) == list(range(BLOCKS))
    opening.look_at(expected[:5])
    np.testing.assert_array_equal(opening.ranked()[:5], expected[5:10])


def test_groups_are_opened_until_they_hold_enough_blocks_that_take_part(photos: Vectors, centres: Centres) -> None:
    taking = np.zeros(BLOCKS, bool)
    taking[::BLOCK] = True  # one of each group
    taking[7 * BLOCK : 8 * BLOCK] = False  # and of one none
    opening = opening_of(centres, photos[7 * GROUP], np.ones(REGIONS, np.float32), taking)
    for wanted in (38, 39):
        opening.open(0, wanted)
        assert len(opening.ranked()) == wanted
        assert np.isin(opening.nearest(wanted), np.flatnonzero(taking)).all()
    opening.look_at(opening.nearest(39))
    assert opening.unseen_from() == math.inf


def test_nothing_that_takes_part_opens_nothing(photos: Vectors, centres: Centres) -> None:
    opening = opening_of(centres, photos[0], np.ones(REGIONS, np.float32), np.zeros(BLOCKS, bool))
    opening.open(1, 0)
    assert len(opening.nearest(0)) == len(opening.ranked()) == 0
    assert opening.unseen_from() == math.inf


def test_shares_say_when_blocks_are_found(photos: Vectors, centres: Centres) -> None:
    opening = opening_of(centres, photos[3 * GROUP + 5], np.ones(REGIONS, np.float32))
    opening.open(1, BLOCKS)
    order = opening.ranked()
    groups, blocks = opening.shares_until(order[[0, 9, BLOCKS - 1]]).T
    np.testing.assert_array_equal(blocks, [1 / BLOCKS, 10 / BLOCKS, 1])
    assert groups[0] == groups[1] == 1 / GROUPS
    assert groups[2] > 0.5


def test_centres_are_what_their_arrays_say(photos: Vectors, centres: Centres) -> None:
    read = Centres.of_arrays(centres.arrays())
    for opened in (centres, read):
        opening = opening_of(opened, photos[9], np.ones(REGIONS, np.float32))
        opening.open(0, 70)
        opening.look_at(opening.nearest(70))
        found = opening.unseen_from(), opening.ranked().tolist()
        if opened is centres:
            expected = found
    assert found == expected
