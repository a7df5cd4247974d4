"""An encoder's retrieval on drawings: the same encoder, ink mask, rasteriser and Eq. (3) as the service."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.encoding import RegionEncoder, stack_photos
from indexer.episode import Episode, render_stages
from indexer.errors import ConfigError, DataError, SketchError
from indexer.fusion import EQUAL_WEIGHTS, fused_distance, region_weights
from indexer.regions import REGIONS, ink_mask
from training.data import find_photo, open_image
from training.episodes import name_seed
from training.metrics import target_ranks
from training.variants import PROBE_SETS, probe_stages

_BATCH = 32


@dataclass(frozen=True)
class Protocol:
    """How an evaluation is done.

    Args:
        stages: T.
        probe_set: aligned, shuffled, moved, dropped or wobbly.
        seed: of the drawings and of the probe set.
        weights: alpha, beta and gamma.

    Raises:
        ConfigError: no stage, or no such probe set.
        QueryError: a weight is missing, negative or not finite.
    """

    stages: int
    probe_set: str = "aligned"
    seed: int = 0
    weights: Mapping[int, float] = field(default_factory=lambda: EQUAL_WEIGHTS)

    def __post_init__(self) -> None:
        if self.stages < 1:
            raise ConfigError(f"a drawing must have at least 1 stage, got {self.stages}")
        if self.probe_set not in PROBE_SETS:
            raise ConfigError(f"there is no probe set {self.probe_set!r}; choose one of {', '.join(PROBE_SETS)}")
        region_weights(np.ones(REGIONS, bool), self.weights)


def encode_gallery(
    data: Path, names: Sequence[str], encoder: RegionEncoder, on_progress: Callable[[int], None] = lambda done: None
) -> npt.NDArray[np.float32]:
    """(photos, 14, dim) embeddings of the named photos.

    Raises:
        DataError: a photo is missing or unreadable.
    """
    rows = np.empty((len(names), REGIONS, encoder.dim), np.float32)
    for start in range(0, len(names), _BATCH):
        images = [open_image(find_photo(data, name)) for name in names[start : start + _BATCH]]
        rows[start : start + len(images)] = encoder.encode_photos(stack_photos(images, encoder.size_px))
        on_progress(start + len(images))
    return rows


def evaluate_ranks(
    episodes: Mapping[str, Episode],
    gallery_names: Sequence[str],
    gallery: npt.NDArray[np.float32],
    encoder: RegionEncoder,
    protocol: Protocol,
    on_progress: Callable[[int], None] = lambda done: None,
) -> npt.NDArray[np.int64]:
    """Rank of the target at every stage of every drawing.

    Args:
        episodes: name of the target -> drawing.
        gallery_names: names in the order of `gallery`; every target is among them.
        gallery: (photos, 14, dim) embeddings.
        encoder: makes the probes' embeddings.
        protocol: stages, probe set, seed, weights.
        on_progress: called with the number of drawings done.

    Returns:
        (episodes, stages) int64, 1-based; a stage without ink ranks last.

    Raises:
        DataError: what the probe set leaves of a drawing has too little ink for its stages.
    """
    column = {name: number for number, name in enumerate(gallery_names)}
    ranks = np.empty((len(episodes), protocol.stages), np.int64)
    for number, (name, episode) in enumerate(episodes.items()):
        try:
            stages = probe_stages(protocol.probe_set, episode, name_seed(name, protocol.seed))
        except SketchError as error:
            raise DataError(f"{name}, {protocol.probe_set}: {error}") from error
        canvases = render_stages(stages, encoder.size_px)
        inks = ink_mask(canvases)
        probes = np.concatenate(
            [encoder.encode_sketches(canvases[at : at + _BATCH]) for at in range(0, len(canvases), _BATCH)]
        )
        distances = np.stack(
            [
                fused_distance(probe, gallery, ink, protocol.weights) if ink.any() else np.full(len(gallery), np.nan)
                for probe, ink in zip(probes, inks, strict=True)
            ]
        )
        ranks[number] = target_ranks(distances, np.full(protocol.stages, column[name]))
        on_progress(number + 1)
    return ranks
