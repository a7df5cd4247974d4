"""Training batches: random stages of randomly disturbed drawings beside their photos."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from indexer.encoding import photo_pixels, sketch_as_photo
from indexer.episode import Episode
from indexer.errors import ConfigError
from indexer.regions import ink_mask
from indexer.sketch import Stroke, ink_on_black, rasterise, square
from training.data import Pair, open_image
from training.variants import MOVED_SCALE, MOVED_SHIFT, MOVED_TURN_DEGREES, move, wobble

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Augmentation:
    """How drawings and photos are disturbed in training; shares are probabilities.

    Args:
        moved_share: drawings moved as far as in the robustness set `moved`; the others by a sixth of that.
        thinned_share: drawings of which a random part of the strokes is missing.
        wobbly_share: drawings with a shaky hand.
        scan_share: finished sketches shown as the scanned picture and not as strokes.
        grey_share: photos without colour.

    Raises:
        ConfigError: a share outside 0..1.
    """

    moved_share: float = 0.25
    thinned_share: float = 0.15
    wobbly_share: float = 0.15
    scan_share: float = 0.06
    grey_share: float = 0.15

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} must be a share from 0 to 1, got {share}")


class PairSet:
    """Photos, scans and episodes of one split in memory: 180 kB an identity.

    Args:
        pairs: identities.
        episodes: name -> drawing.
        size_px: side of the network's input.
    """

    def __init__(self, pairs: Sequence[Pair], episodes: Mapping[str, Episode], size_px: int) -> None:
        self.names = [pair.name for pair in pairs]
        self.size_px = size_px
        self.episodes = [episodes[name] for name in self.names]
        self.photos = np.stack([photo_pixels(open_image(pair.photo), size_px) for pair in pairs])
        self.scans = np.stack([ink_on_black(square(open_image(pair.sketch)), size_px) for pair in pairs])

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Batch:
    """One step's input: sketch i shows the person of photo i.

    Args:
        sketches: (b, size, size, 3) uint8, as the network sees a canvas.
        photos: (b, size, size, 3) uint8.
        ink: (b, 14) bool.
    """

    sketches: torch.Tensor
    photos: torch.Tensor
    ink: torch.Tensor


class EpochBatches(torch.utils.data.IterableDataset[Batch]):
    """All batches of one epoch, in random order, the same for the same seed.

    Args:
        sets: the data sets; a batch never mixes two, since negatives from another camera are easy.
        batch: pairs a batch; a last small batch is dropped.
        augmentation: how far drawings are disturbed.
        seed: of the run.
        epoch: changes order and disturbances.
    """

    def __init__(self, sets: Sequence[PairSet], batch: int, augmentation: Augmentation, seed: int, epoch: int) -> None:
        self._sets, self._batch, self._augmentation = sets, batch, augmentation
        self._seed = [seed, epoch]

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng(self._seed)
        plan = [
            (number, members)
            for number, pairs in enumerate(self._sets)
            for members in _chunks(rng.permutation(len(pairs)), self._batch)
        ]
        for index in rng.permutation(len(plan)):
            number, members = plan[index]
            yield self._make(number, members, rng)

    def _make(self, number: int, members: npt.NDArray[np.int64], rng: np.random.Generator) -> Batch:
        pairs = self._sets[number]
        canvases, photos = [], []
        for member in members:
            flip = bool(rng.random() < 0.5)
            canvases.append(_canvas(pairs, int(member), flip, self._augmentation, rng))
            photos.append(_photo(pairs.photos[member], flip, self._augmentation, rng))
        stacked = np.stack(canvases)
        return Batch(
            torch.from_numpy(sketch_as_photo(stacked)),
            torch.from_numpy(np.stack(photos)),
            torch.from_numpy(ink_mask(stacked)),
        )


def batches_in(pairs: int, batch: int) -> int:
    """Batches that an epoch makes of a data set."""
    return len(_chunks(np.arange(pairs), batch))


def _chunks(order: npt.NDArray[np.int64], batch: int) -> list[npt.NDArray[np.int64]]:
    """Batches of equal size; a remainder of at least half a batch is kept."""
    chunks = [order[start : start + batch] for start in range(0, len(order), batch)]
    return chunks if len(chunks) == 1 or len(chunks[-1]) * 2 >= batch else chunks[:-1]


def _canvas(pairs: PairSet, member: int, flip: bool, how: Augmentation, rng: np.random.Generator) -> Pixels:
    reach = 1.0 if rng.random() < how.moved_share else 1 / 6
    x, y = rng.uniform(-MOVED_SHIFT, MOVED_SHIFT, 2) * reach
    turn = rng.uniform(-MOVED_TURN_DEGREES, MOVED_TURN_DEGREES) * reach
    scale = 1 + rng.uniform(-MOVED_SCALE, MOVED_SCALE) * reach
    if rng.random() < how.scan_share:
        return _move_scan(pairs.scans[member], (x, y), turn, scale, flip)
    episode = pairs.episodes[member]
    strokes = list(episode.strokes[: episode.stage_ends[int(rng.integers(episode.stages))]])
    if rng.random() < how.thinned_share:
        kept = rng.random(len(strokes)) < rng.uniform(0.3, 0.9)
        kept[rng.integers(len(strokes))] = True
        strokes = [stroke for stroke, keep in zip(strokes, kept, strict=True) if keep]
    if rng.random() < how.wobbly_share:
        strokes = wobble(strokes, rng)
    pen = rng.uniform(0.75, 1.35)
    strokes = [Stroke(stroke.points, min(stroke.width * pen, 0.2)) for stroke in strokes]
    return rasterise(move(strokes, (x, y), turn, scale, flip=flip), pairs.size_px)


def _move_scan(scan: Pixels, shift: tuple[float, float], turn: float, scale: float, flip: bool) -> Pixels:
    side = len(scan)
    image = Image.fromarray(scan[:, ::-1] if flip else scan)
    # Pillow maps output to input, so the inverse of `move` about the same centre.
    angle = np.deg2rad(turn)
    inverse = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
    centre = np.array([side / 2, side / 2])
    offset = centre - inverse @ (centre + np.asarray(shift) * side)
    matrix = (*inverse[0], offset[0], *inverse[1], offset[1])
    moved = image.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(moved, dtype=np.uint8)


def _photo(photo: Pixels, flip: bool, how: Augmentation, rng: np.random.Generator) -> Pixels:
    pixels = photo[:, ::-1] if flip else photo
    reach = 3
    row, column = rng.integers(0, 2 * reach + 1, 2)
    side = len(pixels)
    pixels = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")[
        row : row + side, column : column + side
    ]
    colour = pixels.astype(np.float32)
    if rng.random() < how.grey_share:
        colour = np.repeat(colour.mean(axis=-1, keepdims=True), 3, axis=-1)
    gain = rng.uniform(0.75, 1.3) * rng.uniform(0.93, 1.07, 3)
    mean = colour.mean()
    colour = (colour - mean) * rng.uniform(0.75, 1.3) + mean * gain
    return np.asarray(np.clip(colour, 0, 255), dtype=np.uint8)
