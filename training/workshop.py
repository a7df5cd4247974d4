"""Trains systems on frozen features, and says what they make of a data set's drawings and photos."""

import time
from pathlib import Path

import numpy as np
import torch

from indexer.errors import ModelError
from training.evaluate import Embedded
from training.features import CropFeatures, Extractor, PassFeatures
from training.frozen import FrozenSet, People, Progress, frozen_set
from training.loop import Drawn, in_chunks
from training.networks import FrozenNetwork
from training.systems import SYSTEMS, System
from training.trained import keep_trained, read_trained, trained_network, trained_path


class Workshop:
    """Trains systems on frozen features and keeps what it has done: a `training.report.jobs.Trainer`.

    Args:
        cache: folder of features and trained heads.
        weights: Inception-V3, or None for random weights.
        fit_stages: stages of every training drawing that are looked at.
        on_progress: called while features are computed.
    """

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

    @property
    def trunk(self) -> str:
        """For tables, so that nobody takes figures of a trunk that never learnt anything for a system's."""
        return "frozen" if self._weights else "random"

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
        path = trained_path(self._cache, f"{name}-{dim}", key)
        if (network := _read(path)) is not None:
            return network, 0.0
        drawn = Drawn(self._frozen(system, people, self._fit_stages))
        start = time.monotonic()
        network = system.fit(drawn, seed, dim, None)
        seconds = time.monotonic() - start
        keep_trained(path, name, network, extractor.name)
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


def _read(path: Path) -> FrozenNetwork | None:
    """The network as an earlier call trained it; None where there is none, or only a damaged file."""
    content = read_trained(path)
    try:
        return None if content is None else trained_network(content)
    except ModelError:
        return None
