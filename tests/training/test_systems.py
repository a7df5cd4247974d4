"""Every system on features that are made up: it trains, its rows are unit rows, and what it promises holds."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")

from indexer.errors import DataError  # noqa: E402
from indexer.regions import REGIONS  # noqa: E402
from training.baselines.b3 import TURNOVER_WEIGHT, rewards  # noqa: E402
from training.baselines.b4 import StageNetwork  # noqa: E402
from training.commands import report  # noqa: E402
from training.frozen import FrozenSet, pick_stages  # noqa: E402
from training.loop import Drawn, Recipe, in_chunks  # noqa: E402
from training.networks import RegionNetwork, WholeNetwork  # noqa: E402
from training.systems import SYSTEMS  # noqa: E402
from training.triplets import fused, negatives, region_distances, triplet  # noqa: E402

PEOPLE, STAGES = 4, 3


def made_up(seed: int = 0) -> FrozenSet:
    """Sketches that are noisy copies of their photos, with less noise as the drawing goes on."""
    rng = np.random.default_rng(seed)
    shapes = {"whole": (2048, 2, 2), "cells": (13, 768), "regions": (14, 1440)}
    photos = {name: np.abs(rng.normal(size=(PEOPLE, *shape))).astype(np.float16) for name, shape in shapes.items()}
    sketches = {}
    for name, shape in shapes.items():
        noise = rng.normal(size=(PEOPLE, STAGES, *shape)) / np.arange(1, STAGES + 1).reshape(1, -1, *[1] * len(shape))
        sketches[name] = (photos[name][:, None] + 0.3 * noise).astype(np.float16)
    ink = np.ones((PEOPLE, STAGES, REGIONS), bool)
    ink[:, 0, 5:] = False
    return FrozenSet(tuple(f"photo1/image{n:04}" for n in range(PEOPLE)), photos, sketches, ink)


SHORT = Recipe(epochs=1, batch=4)


@pytest.mark.slow
def test_the_report_names_every_system_in_its_help() -> None:
    assert list(report.SYSTEMS) == list(SYSTEMS)


@pytest.mark.parametrize("name", list(SYSTEMS))
def test_every_system_trains_and_gives_unit_rows(name: str) -> None:
    system, frozen = SYSTEMS[name], made_up()
    fit: Callable[..., torch.nn.Module] = system.fit
    network = fit(Drawn(frozen), 0, 8, SHORT)
    photos = in_chunks(network.photos, frozen.photos, chunk=4)
    drawing = {key: torch.from_numpy(array[0]).float() for key, array in frozen.sketches.items()}
    with torch.no_grad():
        rows = network.drawing(drawing)
    assert photos.shape == (PEOPLE, REGIONS, 8)
    assert rows.shape == (STAGES, REGIONS, 8)
    for found in (photos, rows):
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(found.shape[:2]), atol=1e-4, rtol=0)
    again = system.build(8)
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(in_chunks(again.eval().photos, frozen.photos), photos)


def test_the_same_seed_gives_the_same_system() -> None:
    fit: Callable[..., torch.nn.Module] = SYSTEMS["single-pass"].fit
    one, two, other = (fit(Drawn(made_up()), seed, 4, SHORT).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_later_stages_never_change_earlier_embeddings_of_the_causal_lstm() -> None:
    torch.manual_seed(0)
    network = StageNetwork(WholeNetwork(8), causal=True).eval()
    stages = torch.rand(4, 2048, 2, 2)
    with torch.no_grad():
        whole = network.drawing({"whole": stages})
        changed = network.drawing({"whole": torch.cat([stages[:2], torch.rand(2, 2048, 2, 2)])})
        alone = network.drawing({"whole": stages[:1]})
    torch.testing.assert_close(whole[:2], changed[:2])
    torch.testing.assert_close(whole[:1], alone)
    assert not torch.allclose(whole[2], changed[2])
    assert not torch.allclose(whole[2:3], network.sketches({"whole": stages[2:3]}))  # what was drawn before matters


def test_the_released_lstm_sees_one_stage_at_a_time() -> None:
    torch.manual_seed(0)
    network = StageNetwork(WholeNetwork(8), causal=False).eval()
    stages = torch.rand(3, 2048, 2, 2)
    with torch.no_grad():
        together = network.drawing({"whole": stages})
        alone = torch.cat([network.drawing({"whole": stages[n : n + 1]}) for n in range(3)])
    torch.testing.assert_close(together, alone)


def test_the_released_code_mixes_the_cells_of_a_sketch_at_test_time() -> None:
    torch.manual_seed(0)
    plain = RegionNetwork(8).eval()
    released = RegionNetwork(8, across_cells=True).eval()
    released.load_state_dict(plain.state_dict())
    maps = {"whole": torch.rand(2, 2048, 2, 2), "cells": torch.rand(2, 13, 768)}
    with torch.no_grad():
        torch.testing.assert_close(plain.photos(maps), released.photos(maps))
        assert not torch.allclose(plain.sketches(maps)[:, 1:], released.sketches(maps)[:, 1:], atol=1e-3)
        torch.testing.assert_close(plain.sketches(maps)[:, 0], released.sketches(maps)[:, 0])


def test_negatives_are_other_people_unless_as_released() -> None:
    anchors = torch.arange(4).repeat(200)
    draw = partial(negatives, 4, anchors)
    assert (draw(may_be_positive=False, generator=torch.Generator().manual_seed(0)) != anchors).all()
    assert (draw(may_be_positive=True, generator=torch.Generator().manual_seed(0)) == anchors).any()


def test_the_triplet_loss_by_hand() -> None:
    assert float(triplet(torch.tensor([0.5, 0.1]), torch.tensor([0.6, 0.9]))) == pytest.approx(0.1)


def test_the_fused_distance_equals_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    distances, ink = rng.random((5, REGIONS)).astype(np.float32), rng.random((5, REGIONS)) < 0.5
    found = fused(torch.from_numpy(distances), torch.from_numpy(ink)).numpy()
    for row in range(5):
        expected = 0.0
        for regions in ([0], [1, 2, 3, 4], range(5, 14)):
            inked = [distances[row, region] for region in regions if ink[row, region]]
            expected += sum(inked) / len(inked) if inked else 0.0
        assert found[row] == pytest.approx(expected, rel=1e-5)
    same = torch.zeros(1, REGIONS, 4, requires_grad=True)
    region_distances(same, torch.zeros(1, REGIONS, 4)).sum().backward()
    assert same.grad is not None
    assert torch.isfinite(same.grad).all()


def test_the_reward_is_one_over_the_rank_less_the_turnover() -> None:
    gallery = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.2]]), dim=1)
    actions = torch.stack([gallery[[1, 0]], gallery[[0, 0]]])  # (2 people, 2 stages)
    found = rewards(actions, torch.tensor([0, 0]), gallery)
    assert found[0, 1] == pytest.approx(1.0, abs=2 * TURNOVER_WEIGHT)
    assert found[0, 0] == pytest.approx(0.5, abs=1e-6)  # the target is second: behind the photo that was aimed at
    assert found[1].tolist() == pytest.approx([1.0, 1.0])


def test_a_ranking_that_turns_over_more_than_before_costs_a_little() -> None:
    angles = torch.tensor([0.0, 0.5, 1.2])
    gallery = torch.stack([angles.cos(), angles.sin()], dim=1)
    # Seen from 0 the photos come in the order 0 1 2, from 1.2 in the order 2 1 0.
    at = torch.tensor([0.0, 0.0, 1.2, 1.2])
    actions = torch.stack([at.cos(), at.sin()], dim=1)[None]
    (found,) = rewards(actions, torch.tensor([1]), gallery)
    # Nothing turns over, then all three pairs, then nothing: only the growth from 0 to 1 is paid for.
    assert ((0.5 - found) / TURNOVER_WEIGHT).tolist() == pytest.approx([0, 0, 1, 0], abs=1e-2)


def test_stages_are_spread_and_end_with_the_complete_one() -> None:
    for seed in range(5):
        picked = pick_stages(20, 4, seed)
        assert picked[-1] == 19
        assert (np.diff(picked) > 0).all()
        assert np.digitize(picked[:-1], [6, 13]).tolist() == [0, 1, 2]


def test_one_person_alone_and_white_sketches_are_refused() -> None:
    frozen = made_up()
    one = FrozenSet(frozen.names[:1], frozen.photos, frozen.sketches, frozen.ink)
    with pytest.raises(DataError, match="at least 2 people, photo1/image0000 is alone"):
        Drawn(one)
    frozen.ink[2] = False
    with pytest.raises(DataError, match="1 finished sketches have no ink, such as photo1/image0002"):
        Drawn(frozen)
