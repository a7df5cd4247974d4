"""Cached features of one data set: photos, and stages of their drawings, as the frozen layers see them."""

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.encoding import photo_pixels
from indexer.episode import Episode, render_stages
from training.data import find_pair, open_image, split_hash
from training.episodes import make_episodes, name_seed
from training.features import Extractor, Pixels, Source, extract, in_batches
from training.variants import probe_stages

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class People:
    """Some identities of a data set.

    Args:
        data: folder in FS2K's layout.
        names: as in a split file.
        episodes: folder that keeps the drawings.
        stages: T of the drawings.
    """

    data: Path
    names: tuple[str, ...]
    episodes: Path
    stages: int

    @functools.cached_property
    def key(self) -> str:
        """Hash of names, photos, sketches and T."""
        digest = hashlib.sha256(f"{split_hash(self.names)}/{self.stages}".encode())
        for name in self.names:
            pair = find_pair(self.data, name)
            digest.update(hashlib.sha256(pair.photo.read_bytes()).digest())
            digest.update(hashlib.sha256(pair.sketch.read_bytes()).digest())
        return digest.hexdigest()

    def draw(self, on_progress: Callable[[int], None] = lambda done: None) -> dict[str, Episode]:
        """The drawings."""
        pairs = [find_pair(self.data, name) for name in self.names]
        return make_episodes(pairs, self.episodes, self.stages, on_progress=on_progress)


@dataclass(frozen=True)
class FrozenSet:
    """What the frozen layers say about some people.

    Args:
        names: of the people.
        photos: name of an array -> (people, ...) float16.
        sketches: name -> (people, stages, ...) float16.
        ink: (people, stages, 14) bool.
    """

    names: tuple[str, ...]
    photos: dict[str, npt.NDArray[np.float16]]
    sketches: dict[str, npt.NDArray[np.float16]]
    ink: npt.NDArray[np.bool_]


def frozen_set(
    extractor: Extractor,
    people: People,
    cache: Path,
    *,
    some_stages: int | None = None,
    probe_set: str = "aligned",
    on_progress: Progress = lambda what, done, total: None,
) -> FrozenSet:
    """Features of people's photos and drawings, from the cache where they are there.

    Args:
        extractor: the frozen layers.
        people: whose.
        cache: folder of the caches.
        some_stages: of every drawing, only that many: the complete one, and random ones from equal shares of the
            drawing before it; all by default.
        probe_set: how the drawings are disturbed.
        on_progress: called while features are computed.

    Raises:
        DataError: a photo, a sketch or the disk.
    """
    count = len(people.names)
    photos = Source(f"photos/{people.key}", count, in_batches(_photo_parts(extractor, people), 1, is_sketch=False))
    by_array = extract(extractor, photos, cache, lambda done: on_progress("photos", done, count))
    per_person = some_stages or people.stages
    key = f"drawings/{people.key}/{probe_set}/{some_stages}"
    parts = _drawing_parts(extractor, people, some_stages, probe_set)
    drawings = Source(key, count * per_person, in_batches(parts, per_person, is_sketch=True))
    rows = extract(extractor, drawings, cache, lambda done: on_progress("sketches", done, count * per_person))
    ink = rows.pop("ink").reshape(count, per_person, -1).astype(bool)
    by_array.pop("ink")
    sketches = {name: array.reshape(count, per_person, *array.shape[1:]) for name, array in rows.items()}
    return FrozenSet(people.names, by_array, sketches, ink)


def _photo_parts(extractor: Extractor, people: People) -> list[Callable[[], Pixels]]:
    def read(name: str) -> Pixels:
        return photo_pixels(open_image(find_pair(people.data, name).photo), extractor.size_px)[None]

    return [functools.partial(read, name) for name in people.names]


def _drawing_parts(
    extractor: Extractor, people: People, some_stages: int | None, probe_set: str
) -> Sequence[Callable[[], Pixels]]:
    @functools.cache
    def drawings() -> dict[str, Episode]:
        return people.draw()  # only once something is missing: this takes a minute for a thousand sketches

    def draw(name: str) -> Pixels:
        seed = name_seed(name, 0)
        stages = probe_stages(probe_set, drawings()[name], seed)
        canvases = render_stages(stages, extractor.size_px)
        return canvases if some_stages is None else canvases[pick_stages(people.stages, some_stages, seed)]

    return [functools.partial(draw, name) for name in people.names]


def pick_stages(stages: int, some: int, seed: int) -> npt.NDArray[np.int64]:
    """`some` of `stages` in order: the last one, and one at random from each equal share of those before it."""
    edges = np.linspace(0, stages - 1, some).round().astype(int)
    rng = np.random.default_rng(seed)
    early = [int(rng.integers(low, max(low + 1, high))) for low, high in itertools.pairwise(edges)]
    return np.asarray([*early, stages - 1], np.int64)
