"""Every system of the paper by name: how it is trained on frozen features, and what it then says about a data set."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch

from indexer.errors import DataError
from training.baselines.b1 import fit_b1
from training.baselines.b2 import fit_b2
from training.baselines.b3 import PolicyNetwork, fit_b3
from training.baselines.b4 import StageNetwork, fit_b4
from training.baselines.regions import fit_mgrl, fit_single_pass
from training.evaluate import Embedded
from training.features import CropFeatures, Extractor, PassFeatures
from training.frozen import FrozenSet, People, Progress, frozen_set
from training.loop import Drawn, in_chunks
from training.networks import FrozenNetwork, PassNetwork, RegionNetwork, WholeNetwork


@dataclass(frozen=True)
class System:
    """One row of the paper's tables.

    Args:
        title: for tables.
        features: "crops" or "pass": which frozen layers it reads.
        build: an untrained network of so many dimensions.
        fit: trains one: (data set, seed, dim).
        code: raised whenever the same training would end elsewhere.
    """

    title: str
    features: str
    build: Callable[[int], FrozenNetwork]
    fit: Callable[[Drawn, int, int], FrozenNetwork]
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


class Workshop:
    """Trains systems on frozen features and keeps what it has done: a `training.report.jobs.Trainer`.

    Args:
        cache: folder of features and trained heads.
        weights: Inception-V3, or None for random weights.
        fit_stages: stages of every training drawing that are looked at.
        on_progress: called while features are computed.
    """

    trunk: Final = "frozen"

    def __init__(
        self,
        cache: Path,
        weights: Path | None,
        fit_stages: int = 4,
        on_progress: Progress = lambda what, done, total: None,
    ) -> None:
        self._cache, self._weights, self._fit_stages, self._on_progress = cache, weights, fit_stages, on_progress
        self._extractors: dict[str, Extractor] = {}
        self._sets: dict[tuple[str, str, int | None, str], FrozenSet] = {}

    def embed(
        self,
        name: str,
        fit: People,
        val: People,
        distractors: People,
        seed: int,
        dim: int = 16,
        probe_set: str = "aligned",
    ) -> Embedded:
        """Train a system on some people (or read what an earlier call trained) and embed others with it.

        Args:
            name: one of `SYSTEMS`.
            fit: people to train on.
            val: people whose drawings are probes.
            distractors: people whose photos are in the gallery behind those of `val`.
            seed: of the training.
            dim: numbers in a region's embedding.
            probe_set: how the drawings of `val` are disturbed.

        Raises:
            DataError: an image, the people, or the disk.
        """
        system = SYSTEMS[name]
        network, seconds = self._trained(name, fit, seed, dim)
        probes = self._frozen(system, val, None, probe_set)
        others = self._frozen(system, distractors, self._fit_stages)
        gallery = [in_chunks(network.photos, people.photos) for people in (probes, others)]
        with torch.no_grad():
            rows = [network.drawing(_drawing(probes, number)) for number in range(len(val.names))]
        return Embedded(
            torch.stack(rows).numpy(),
            probes.ink,
            torch.cat(gallery).contiguous().numpy(),
            (*val.names, *distractors.names),
            seconds,
        )

    def _trained(self, name: str, people: People, seed: int, dim: int) -> tuple[FrozenNetwork, float]:
        system = SYSTEMS[name]
        extractor = self._extractor(system.features)
        key = f"{system.code}/{name}/{dim}/{extractor.name}/{people.key}/{self._fit_stages}/{seed}"
        path = self._cache / "trained" / f"{name}-{dim}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.pt"
        if (network := _read(system.build(dim), path)) is not None:
            return network, 0.0
        drawn = Drawn(self._frozen(system, people, self._fit_stages))
        start = time.monotonic()
        network = system.fit(drawn, seed, dim)
        seconds = time.monotonic() - start
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_suffix(".tmp")
            torch.save({"system": name, "dim": dim, "model": network.state_dict()}, scratch)
            scratch.replace(path)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"what was trained cannot be kept in {self._cache}: {error}; free some space there"
            ) from error
        return network, seconds

    def _frozen(self, system: System, people: People, some_stages: int | None, probe_set: str = "aligned") -> FrozenSet:
        key = (system.features, people.key, some_stages, probe_set)
        if key not in self._sets:
            extractor = self._extractor(system.features)
            self._sets[key] = frozen_set(
                extractor,
                people,
                self._cache,
                some_stages=some_stages,
                probe_set=probe_set,
                on_progress=self._on_progress,
            )
        return self._sets[key]

    def _extractor(self, features: str) -> Extractor:
        if features not in self._extractors:
            kind = CropFeatures if features == "crops" else PassFeatures
            self._extractors[features] = kind(self._weights)
        return self._extractors[features]


def _drawing(people: FrozenSet, number: int) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array[number])).float() for name, array in people.sketches.items()}


def _read(network: FrozenNetwork, path: Path) -> FrozenNetwork | None:
    """The network as an earlier call trained it; None where there is none, or only a torn file."""
    try:
        network.load_state_dict(torch.load(path, weights_only=True)["model"])
    except Exception:  # a torn file raises almost anything: it is trained again
        return None
    return network.eval()
