"""What frozen layers say about photos and drawings, computed once and kept on disk as memory-mapped float16.

Fourteen crops through a deep trunk take a quarter of a second an image on two cores: a baseline with a frozen trunk
reads this cache instead and trains in seconds. A cache belongs to its weights, its images and the code that made it;
the name of its folder says which, so a cache of anything else is never read.
"""

import hashlib
import io
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indexer.encoding import default_threads, sketch_as_photo
from indexer.errors import DataError
from indexer.ledger import replace_file
from indexer.regions import REGIONS, ink_mask
from indexer.runtime import onnxruntime
from training.encoder.layers import WHOLE_GRID, CropLayers, PassLayers
from training.encoder.mgrl import CROP_PX, WHOLE_PX, crop_pixels, whole_pixels
from training.encoder.single_pass import POOLED, pool_regions

_CODE: Final = 1
"""Raised whenever features of the same images would differ."""

_SPARE_BYTES: Final = 64 << 20
"""What must stay free on the disk."""

Pixels = npt.NDArray[np.uint8]
Half = npt.NDArray[np.float16]


class Extractor(Protocol):
    """Frozen layers: images in, named arrays out."""

    @property
    def name(self) -> str:
        """Names layers and weights."""

    @property
    def size_px(self) -> int:
        """Side of the images."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name of an array -> its shape for one image."""

    def run(self, images: Pixels, ink: npt.NDArray[np.bool_]) -> Mapping[str, Half]:
        """(n, size, size, 3) uint8 RGB and (n, 14) bool -> arrays of n rows; regions without ink may be zeros."""


class CropFeatures:
    """The paper's fourteen crops: the whole image to Mixed_7c, each cell to Mixed_6e, pooled by their maxima.

    Args:
        weights: Inception-V3, or None for random weights.
    """

    size_px: Final = CropLayers.size_px

    def __init__(self, weights: Path | None) -> None:
        layers = CropLayers(weights).eval()
        trunk = layers.trunk
        self.name = layers.name
        self.shapes = {"whole": (2048, WHOLE_GRID, WHOLE_GRID), "cells": (REGIONS - 1, 768)}
        self._whole = _session(nn.Sequential(trunk.until_mixed_6e, trunk.until_mixed_7c), WHOLE_PX)
        self._cells = _session(trunk.until_mixed_6e, CROP_PX)

    def run(self, images: Pixels, ink: npt.NDArray[np.bool_]) -> Mapping[str, Half]:
        """As `Extractor.run`."""
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32)) / 255
        whole = self._maps(self._whole, whole_pixels(pixels))
        cells = torch.zeros(len(images), REGIONS - 1, 768)
        for region in range(1, REGIONS):
            inked = torch.from_numpy(ink[:, region])
            if inked.any():
                maps = self._maps(self._cells, crop_pixels(pixels[inked], region))
                cells[inked, region - 1] = maps.amax(dim=(2, 3))
        whole = F.adaptive_max_pool2d(whole, WHOLE_GRID)
        return {"whole": whole.half().numpy(), "cells": cells.half().numpy()}

    def _maps(self, session: onnxruntime.InferenceSession, pixels: Tensor) -> Tensor:
        # As in the released code, each place of a map is a unit vector over its channels.
        return F.normalize(torch.from_numpy(session.run(None, {"x": pixels.contiguous().numpy()})[0]))


class PassFeatures:
    """One pass to Mixed_5d, regions pooled: what the heads of the single-pass encoder see.

    Args:
        weights: Inception-V3, or None for random weights.
    """

    size_px: Final = PassLayers.size_px

    def __init__(self, weights: Path | None) -> None:
        layers = PassLayers(weights).eval()
        self.name = layers.name
        self.shapes = {"regions": (REGIONS, POOLED)}
        self._session = _session(layers.trunk, self.size_px)

    def run(self, images: Pixels, ink: npt.NDArray[np.bool_]) -> Mapping[str, Half]:
        """As `Extractor.run`."""
        pixels = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
        maps = torch.from_numpy(self._session.run(None, {"x": pixels})[0])
        return {"regions": pool_regions(maps).half().numpy()}


@dataclass(frozen=True)
class Source:
    """Images whose features are wanted.

    Args:
        key: says which images these are, down to the pixel: a hash over files and settings.
        rows: how many.
        batches: makes them from the given row on: pairs of (b, size, size, 3) uint8 and (b, 14) bool; batches may be
            of any size but always the same ones.
    """

    key: str
    rows: int
    batches: Callable[[int], Iterator[tuple[Pixels, npt.NDArray[np.bool_]]]]


def extract(
    extractor: Extractor, source: Source, cache: Path, on_progress: Callable[[int], None] = lambda done: None
) -> dict[str, npt.NDArray[np.float16]]:
    """Features of all images of a source, read from the cache where they are there, computed where not.

    A stopped extraction goes on with the first batch that was not finished.

    Args:
        extractor: the frozen layers.
        source: the images.
        cache: folder of all caches.
        on_progress: called with the number of rows there are.

    Returns:
        Name -> (rows, ...) float16, memory-mapped, read-only; and "ink", (rows, 14) bool.

    Raises:
        DataError: the disk is full (what is done is kept), or the folder cannot be written.
    """
    folder = cache / hashlib.sha256(f"{_CODE}/{extractor.name}/{source.key}".encode()).hexdigest()[:24]
    shapes = {name: (source.rows, *shape) for name, shape in extractor.shapes.items()}
    try:
        done = _open(folder, shapes)
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in (*shapes, "ink")}
        on_progress(done)
        for images, ink in source.batches(done) if done < source.rows else ():
            for name, rows in {**extractor.run(images, ink), "ink": ink}.items():
                arrays[name][done : done + len(images)] = rows
                arrays[name].flush()
            done += len(images)
            replace_file(folder / "done.json", json.dumps({"rows": done}).encode())
            on_progress(done)
    except OSError as error:
        raise DataError(
            f"features cannot be kept in {cache}: {error.strerror}; free some space there or name another folder, "
            "and run again: what is done is kept"
        ) from error
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in (*shapes, "ink")}


def _open(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Make the arrays where they are not there, or not whole; rows that are done."""
    try:
        done = int(json.loads((folder / "done.json").read_bytes())["rows"])
        if all(np.load(folder / f"{name}.npy", mmap_mode="r").shape == shape for name, shape in shapes.items()):
            np.load(folder / "ink.npy", mmap_mode="r")
            return done
    except (FileNotFoundError, ValueError, KeyError, TypeError, EOFError):
        pass  # nothing is there, or a torn file: begin again
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    needed = sum(2 * int(np.prod(shape)) for shape in shapes.values())
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise DataError(
            f"features need {needed >> 20} MiB in {folder.parent}, where {free >> 20} MiB are free; "
            "free some space there or name another folder"
        )
    rows = next(iter(shapes.values()))[0]
    for name, shape in shapes.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float16, shape).flush()
    np.lib.format.open_memmap(folder / "ink.npy", "w+", np.bool_, (rows, REGIONS)).flush()
    return 0


def in_batches(
    parts: Sequence[Callable[[], Pixels]], rows_each: int, is_sketch: bool
) -> Callable[[int], Iterator[tuple[Pixels, npt.NDArray[np.bool_]]]]:
    """The `batches` of a source made of parts with equally many rows; a part is drawn or read when its turn comes.

    Args:
        parts: each gives (rows_each, size, size, 3) uint8, or (rows_each, size, size) canvases.
        rows_each: rows of a part.
        is_sketch: whether parts are canvases: then regions without ink are marked.
    """

    def batches(first: int) -> Iterator[tuple[Pixels, npt.NDArray[np.bool_]]]:
        for part in parts[first // rows_each :]:
            images = part()
            if is_sketch:
                yield sketch_as_photo(images), ink_mask(images)
            else:
                yield images, np.ones((len(images), REGIONS), bool)

    return batches


def _session(layers: nn.Module, side: int) -> onnxruntime.InferenceSession:
    """The layers on ONNX Runtime, twice as fast as PyTorch on a CPU."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            layers,
            (torch.zeros(2, 3, side, side),),
            buffer,  # type: ignore[arg-type]  # a file object is fine, says the documentation
            input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
            opset_version=17,
            dynamo=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = default_threads()
    options.log_severity_level = 3
    gpu = ["CUDAExecutionProvider"] if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else []
    return onnxruntime.InferenceSession(buffer.getvalue(), options, providers=[*gpu, "CPUExecutionProvider"])
