"""An encoder's retrieval on drawings: the same encoder, ink mask, rasteriser and Eq. (3) as the service."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from indexer.encoding import RegionEncoder, stack_photos
from indexer.episode import Episode, render_stages
from indexer.errors import ConfigError, DataError, SketchError
from indexer.fusion import EQUAL_WEIGHTS, fused_distance, region_weights
from indexer.regions import REGIONS, ink_mask
from training.data import find_photo, open_image
from training.episodes import name_seed
from training.metrics import target_ranks
from training.photo_sets import Place
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
    data: Path,
    names: Sequence[str],
    encoder: RegionEncoder,
    on_progress: Callable[[int], None] = lambda done: None,
    read: Callable[[str], Image.Image] | None = None,
) -> npt.NDArray[np.float32]:
    """(photos, 14, dim) embeddings of the named photos.

    Args:
        data: folder in FS2K's layout.
        names: of the photos.
        encoder: makes the embeddings.
        on_progress: called with the number of photos done.
        read: gives the picture of a name; by default the photo as it is.

    Raises:
        DataError: a photo is missing or unreadable.
    """
    read = read or (lambda name: open_image(find_photo(data, name)))
    rows = np.empty((len(names), REGIONS, encoder.dim), np.float32)
    for start in range(0, len(names), _BATCH):
        images = [read(name) for name in names[start : start + _BATCH]]
        rows[start : start + len(images)] = encoder.encode_photos(stack_photos(images, encoder.size_px))
        on_progress(start + len(images))
    return rows


@dataclass(frozen=True)
class Embedded:
    """What an encoder says about the drawings of a data set and its gallery: all that ranking needs.

    Args:
        probes: (drawings, stages, 14, dim) float32.
        ink: (drawings, stages, 14) bool.
        gallery: (photos, 14, dim) float32; the drawings' own photos come first, in their order.
        names: of the photos.
        seconds: its training took in this call.
    """

    probes: npt.NDArray[np.float32]
    ink: npt.NDArray[np.bool_]
    gallery: npt.NDArray[np.float32]
    names: tuple[str, ...]
    seconds: float = 0.0

    def ranks(self, weights: Mapping[int, float] = EQUAL_WEIGHTS, photos: int | None = None) -> npt.NDArray[np.int64]:
        """Rank of the target at every stage of every drawing.

        Args:
            weights: alpha, beta and gamma.
            photos: rank among the first so many photos of the gallery only.

        Returns:
            (drawings, stages) int64, 1-based; a stage without ink ranks last.
        """
        gallery = self.gallery[:photos]
        stages = self.probes.shape[1]
        ranks = np.empty(self.probes.shape[:2], np.int64)
        for number, (rows, inks) in enumerate(zip(self.probes, self.ink, strict=True)):
            distances = np.stack(
                [
                    fused_distance(probe, gallery, ink, weights) if ink.any() else np.full(len(gallery), np.nan)
                    for probe, ink in zip(rows, inks, strict=True)
                ]
            )
            ranks[number] = target_ranks(distances, np.full(stages, number))
        return ranks


def embed_drawings(
    episodes: Mapping[str, Episode],
    encoder: RegionEncoder,
    protocol: Protocol,
    on_progress: Callable[[int], None] = lambda done: None,
    places: Mapping[str, Place] | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """(drawings, stages, 14, dim) probes and (drawings, stages, 14) ink of every stage of every drawing.

    Args:
        episodes: name of the target -> drawing.
        encoder: makes the embeddings.
        protocol: stages, probe set, seed.
        on_progress: called with the number of drawings done.
        places: name of the target -> where its drawing is moved; the others stay.

    Raises:
        DataError: what the probe set leaves of a drawing has too little ink for its stages.
    """
    probes = np.empty((len(episodes), protocol.stages, REGIONS, encoder.dim), np.float32)
    inks = np.empty((len(episodes), protocol.stages, REGIONS), bool)
    for number, (name, episode) in enumerate(episodes.items()):
        try:
            stages = probe_stages(protocol.probe_set, episode, name_seed(name, protocol.seed))
        except SketchError as error:
            raise DataError(f"{name}, {protocol.probe_set}: {error}") from error
        if places and name in places:
            stages = places[name].move(stages)
        probes[number], inks[number] = embed_canvases(render_stages(stages, encoder.size_px), encoder)
        on_progress(number + 1)
    return probes, inks


def embed_canvases(
    canvases: npt.NDArray[np.uint8], encoder: RegionEncoder
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """(n, size, size) uint8 -> (n, 14, dim) probes and (n, 14) ink."""
    parts = [encoder.encode_sketches(canvases[at : at + _BATCH]) for at in range(0, len(canvases), _BATCH)]
    return np.concatenate(parts), ink_mask(canvases)
