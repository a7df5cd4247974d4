"""Training batches: random stages of randomly disturbed drawings beside their photos."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from indexer.encoding import photo_pixels
from indexer.episode import Episode
from indexer.regions import ink_mask
from indexer.sketch import Stroke, ink_on_black, rasterise, square
from training.data import Pair, open_image
from training.settings import Augmentation
from training.variants import MOVED_SCALE, MOVED_SHIFT, MOVED_TURN_DEGREES, move, wobble

Pixels = npt.NDArray[np.uint8]


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
        sketches: (b, size, size) uint8 canvases, ink bright on 0.
        photos: (b, size, size, 3) uint8.
        ink: (b, 14) bool.
    """

    sketches: torch.Tensor
    photos: torch.Tensor
    ink: torch.Tensor

    def pin_memory(self) -> Self:
        """In memory that a GPU copies from without waiting; a DataLoader asks for it."""
        return type(self)(*(tensor.pin_memory() for tensor in (self.sketches, self.photos, self.ink)))

    def to(self, device: torch.device) -> Self:
        """On a device; where the memory is pinned, while the CPU goes on."""
        return type(self)(*(tensor.to(device, non_blocking=True) for tensor in (self.sketches, self.photos, self.ink)))


class EpochBatches(torch.utils.data.Dataset[Batch]):
    """All batches of one epoch by their number, in random order, the same for the same seed.

    Every pair is disturbed by its own random numbers, from (seed, epoch, data set, person): any batch, or part of one,
    can be made without those before it, by whatever process.

    Args:
        sets: the data sets; a batch never mixes two, since negatives from another camera are easy.
        batch: pairs a batch; a last small batch is dropped.
        augmentation: how far drawings are disturbed.
        seed: of the run.
        epoch: changes order and disturbances.
        part: from the number of rows of a batch to those that are made of it.
    """

    def __init__(
        self,
        sets: Sequence[PairSet],
        batch: int,
        augmentation: Augmentation,
        seed: int,
        epoch: int,
        part: Callable[[int], slice] = slice,
    ) -> None:
        self._sets, self._augmentation, self._part = sets, augmentation, part
        self._seed = [seed, epoch]
        rng = np.random.default_rng(self._seed)
        plan = [
            (number, members)
            for number, pairs in enumerate(sets)
            for members in _chunks(rng.permutation(len(pairs)), batch)
        ]
        self._plan = [plan[index] for index in rng.permutation(len(plan))]

    def __len__(self) -> int:
        return len(self._plan)

    def rows(self, index: int) -> int:
        """Pairs in the whole of a batch."""
        return len(self._plan[index][1])

    def __getitem__(self, index: int) -> Batch:
        number, members = self._plan[index]
        pairs = self._sets[number]
        canvases, photos = [], []
        for member in members[self._part(len(members))]:
            rng = np.random.default_rng([*self._seed, number, int(member)])
            flip = bool(rng.random() < 0.5)
            canvases.append(_canvas(pairs, int(member), flip, self._augmentation, rng))
            photos.append(_photo(pairs.photos[member], flip, self._augmentation, rng))
        stacked = np.stack(canvases)
        return Batch(
            torch.from_numpy(stacked),
            torch.from_numpy(np.stack(photos)),
            torch.from_numpy(ink_mask(stacked)),
        )


def batch_sizes(pairs: int, batch: int) -> list[int]:
    """Pairs in each of the batches that an epoch makes of a data set."""
    return [len(chunk) for chunk in _chunks(np.arange(pairs), batch)]


def _chunks(order: npt.NDArray[np.int64], batch: int) -> list[npt.NDArray[np.int64]]:
    """Batches of equal size; a remainder of at least half a batch is kept."""
    chunks = [order[start : start + batch] for start in range(0, len(order), batch)]
    return chunks if len(chunks) == 1 or len(chunks[-1]) * 2 >= batch else chunks[:-1]


@dataclass(frozen=True)
class Move:
    """A similarity about the centre of the canvas, as `training.variants.move` takes it.

    Args:
        shift: (x, y) in canvas units.
        turn_degrees: clockwise on the screen, y being down.
        scale: 1 keeps the size.
    """

    shift: tuple[float, float]
    turn_degrees: float
    scale: float

    @classmethod
    def random(cls, rng: np.random.Generator, reach: float) -> Self:
        """As far as in the probe set `moved`, times `reach`."""
        x, y = rng.uniform(-MOVED_SHIFT, MOVED_SHIFT, 2) * reach
        turn = rng.uniform(-MOVED_TURN_DEGREES, MOVED_TURN_DEGREES) * reach
        return cls((x, y), turn, 1 + rng.uniform(-MOVED_SCALE, MOVED_SCALE) * reach)

    def of(self, strokes: Sequence[Stroke], *, flip: bool) -> list[Stroke]:
        """The strokes, mirrored first if `flip`, then moved."""
        return move(strokes, self.shift, self.turn_degrees, self.scale, flip=flip)


def _canvas(pairs: PairSet, member: int, flip: bool, how: Augmentation, rng: np.random.Generator) -> Pixels:
    moved = Move.random(rng, 1.0 if rng.random() < how.moved_share else 1 / 6)
    if rng.random() < how.scan_share:
        return _move_scan(pairs.scans[member], moved, flip)
    episode = pairs.episodes[member]
    strokes = list(episode.strokes[: episode.stage_ends[int(rng.integers(episode.stages))]])
    return rasterise(moved.of(disturb(strokes, how, rng), flip=flip), pairs.size_px)


def disturb(strokes: Sequence[Stroke], how: Augmentation, rng: np.random.Generator) -> list[Stroke]:
    """Strokes of which some are missing, by a shaky hand, with another pen: each with its share's probability."""
    drawn = list(strokes)
    if rng.random() < how.thinned_share:
        kept = rng.random(len(drawn)) < rng.uniform(0.3, 0.9)
        kept[rng.integers(len(drawn))] = True
        drawn = [stroke for stroke, keep in zip(drawn, kept, strict=True) if keep]
    if rng.random() < how.wobbly_share:
        drawn = wobble(drawn, rng)
    pen = rng.uniform(0.75, 1.35)
    return [Stroke(stroke.points, min(stroke.width * pen, 0.2)) for stroke in drawn]


def _move_scan(scan: Pixels, moved: Move, flip: bool) -> Pixels:
    side = len(scan)
    image = Image.fromarray(scan[:, ::-1] if flip else scan)
    # Pillow maps output to input, so the inverse of `move` about the same centre.
    angle = np.deg2rad(moved.turn_degrees)
    inverse = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / moved.scale
    centre = np.array([side / 2, side / 2])
    offset = centre - inverse @ (centre + np.asarray(moved.shift) * side)
    matrix = (*inverse[0], offset[0], *inverse[1], offset[1])
    pixels = image.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(pixels, dtype=np.uint8)


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
