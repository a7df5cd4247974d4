"""Every system of the paper by name: what it reads, how it is built and how it is trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from training.baselines.b1 import fit_b1
from training.baselines.b2 import fit_b2
from training.baselines.b3 import PolicyNetwork, fit_b3
from training.baselines.b4 import StageNetwork, fit_b4
from training.baselines.regions import fit_mgrl, fit_single_pass
from training.loop import Recipe, TrainingSet
from training.networks import FrozenNetwork, PassNetwork, RegionNetwork, WholeNetwork


@dataclass(frozen=True)
class System:
    """One row of the paper's tables.

    Args:
        title: for tables.
        features: "crops" or "pass": which frozen layers it reads.
        build: an untrained network of so many dimensions.
        fit: trains one: (data set, seed, dim, recipe; None for its own, made for a frozen trunk).
        code: raised whenever the same training would end elsewhere.
    """

    title: str
    features: str
    build: Callable[[int], FrozenNetwork]
    fit: Callable[[TrainingSet, int, int, Recipe | None], FrozenNetwork]
    code: int = 1


def _stages(causal: bool) -> Callable[[int], FrozenNetwork]:
    return lambda dim: StageNetwork(WholeNetwork(dim), causal=causal)


SYSTEMS: Final[Mapping[str, System]] = {
    "b1": System("B1 triplet, complete sketches", "crops", WholeNetwork, fit_b1),
    "b2": System("B2 triplet, all stages", "crops", WholeNetwork, fit_b2),
    "b3": System("B3 reinforcement learning", "crops", lambda dim: PolicyNetwork(WholeNetwork(dim)), fit_b3, code=2),
    "b4-as-released": System(
        "B4 CNN + LSTM, as released", "crops", _stages(causal=False), partial(fit_b4, causal=False)
    ),
    "b4-causal": System("B4 CNN + LSTM, causal", "crops", _stages(causal=True), partial(fit_b4, causal=True)),
    "mgrl-as-released": System(
        "MGRL, as released",
        "crops",
        partial(RegionNetwork, across_cells=True),
        partial(fit_mgrl, variant="as_released"),
    ),
    "mgrl-as-written": System("MGRL, as written", "crops", RegionNetwork, partial(fit_mgrl, variant="as_written")),
    "mgrl-corrected": System("MGRL, corrected", "crops", RegionNetwork, partial(fit_mgrl, variant="corrected")),
    "single-pass": System("single pass, heads only", "pass", PassNetwork, fit_single_pass),
}
"""Name -> system, in the order of the paper's table."""
