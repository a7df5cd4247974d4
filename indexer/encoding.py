"""From pixels to fourteen unit rows: the `RegionEncoder` protocol and the ONNX encoder that serves."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from indexer.errors import ConfigError, ModelError, ShapeError
from indexer.regions import REGIONS
from indexer.runtime import onnxruntime
from indexer.sketch import square

DEFAULT_MODEL: Final = Path(__file__).parent / "models" / "default.onnx"


class RegionEncoder(Protocol):
    """Turns photos and sketches into region embeddings; every system of the paper is one."""

    @property
    def dim(self) -> int:
        """Numbers in a region's embedding."""

    @property
    def size_px(self) -> int:
        """Side of the square input in pixels."""

    @property
    def model_hash(self) -> str:
        """Names the weights: galleries made by another hash are refused."""

    def encode_photos(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, size, size, 3) uint8 RGB -> (n, 14, dim) float32, unit rows in region-id order."""

    def encode_sketches(self, canvases: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, size, size) uint8, ink bright on 0 -> (n, 14, dim) float32, unit rows in region-id order."""


class OnnxEncoder:
    """The exported network on ONNX Runtime; safe to call from several threads.

    Use `OnnxEncoder.open`; the constructor only stores.
    """

    def __init__(self, session: onnxruntime.InferenceSession, model: bytes, dim: int, size_px: int) -> None:
        self._session = session
        self._model = model
        self.model_hash = hashlib.sha256(model).hexdigest()
        self.dim = dim
        self.size_px = size_px
        self._no_photo = np.empty((0, size_px, size_px, 3), np.uint8)
        self._no_sketch = np.empty((0, size_px, size_px), np.uint8)

    @classmethod
    def open(cls, path: Path = DEFAULT_MODEL, *, threads: int = 0, device: str = "cpu", spins: bool = True) -> Self:
        """Load an exported model.

        Args:
            path: an ONNX file written by `mgrl export`.
            threads: threads of one call; 0 lets ONNX Runtime choose (all cores).
            device: "cpu" or "cuda".
            spins: whether threads that wait keep their core: quickest alone; beside other work they take a third of the
                CPU time for nothing.

        Raises:
            ModelError: no file there, no ONNX model, or not one of ours.
            ConfigError: there is no such device, or ONNX Runtime cannot use it.
        """
        if device not in ("cpu", "cuda"):
            raise ConfigError(f"the device must be cpu or cuda, got {device!r}")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(
                f"no model file named {path.name} ({error.strerror}); give one written by `mgrl export`"
            ) from error
        options = _options(threads)
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
        gpu = ["CUDAExecutionProvider"] if device == "cuda" else []
        # ONNX Runtime would fall back to the CPU with no more than a remark.
        if not set(gpu) <= set(onnxruntime.get_available_providers()):
            raise ConfigError(
                "this ONNX Runtime has no CUDA; install onnxruntime-gpu in its place, or encode on the cpu"
            )
        try:
            session = onnxruntime.InferenceSession(data, options, providers=[*gpu, "CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exception types share no base but Exception
            raise ModelError(f"{path.name} is not a readable ONNX model; export it again") from error
        if not set(gpu) <= set(session.get_providers()):
            raise ConfigError("ONNX Runtime cannot start CUDA on this machine; check its driver, or encode on the cpu")
        size_px, dim = _sizes(session, path.name)
        return cls(session, data, dim, size_px)

    def single_threaded(self) -> Self:
        """The same model computed by the calling thread alone, so that callers, and not its own threads, share cores.

        An encoder on a GPU is given back as it is.
        """
        if self._session.get_providers()[0] != "CPUExecutionProvider":
            return self
        options = _options(threads=1)
        session = onnxruntime.InferenceSession(self._model, options, providers=["CPUExecutionProvider"])
        return type(self)(session, self._model, self.dim, self.size_px)

    def encode_photos(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, size, size, 3) uint8 RGB -> (n, 14, dim) float32, unit rows in region-id order."""
        expected = (self.size_px, self.size_px, 3)
        if photos.ndim != 4 or photos.shape[1:] != expected or photos.dtype != np.uint8:
            raise ShapeError(f"photos must be (n, {expected}) uint8, got {photos.shape} {photos.dtype}")
        return self._run(photos, self._no_sketch)

    def encode_sketches(self, canvases: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, size, size) uint8, ink bright on 0 -> (n, 14, dim) float32, unit rows in region-id order."""
        expected = (self.size_px, self.size_px)
        if canvases.ndim != 3 or canvases.shape[1:] != expected or canvases.dtype != np.uint8:
            raise ShapeError(f"canvases must be (n, {expected}) uint8, got {canvases.shape} {canvases.dtype}")
        return self._run(self._no_photo, canvases)

    def _run(self, photos: npt.NDArray[np.uint8], sketches: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        images = {"photos": np.ascontiguousarray(photos), "sketches": np.ascontiguousarray(sketches)}
        embeddings: npt.NDArray[np.float32] = self._session.run(None, images)[0]
        return embeddings


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return options


def _sizes(session: onnxruntime.InferenceSession, name: str) -> tuple[int, int]:
    """(side of the inputs, numbers a region): what a region encoder's inputs and outputs say."""
    shapes = {value.name: (value.type, value.shape[1:]) for value in (*session.get_inputs(), *session.get_outputs())}
    match shapes:
        case {
            "photos": ("tensor(uint8)", [int(size_px), int(), 3]),
            "sketches": ("tensor(uint8)", [int(), int()]),
            "embeddings": ("tensor(float)", [int(regions), int(dim)]),
        }:
            sides = {*shapes["photos"][1][:2], *shapes["sketches"][1]}
            if len(shapes) == 3 and sides == {size_px} and regions == REGIONS:
                return size_px, dim
    raise ModelError(
        f"{name} is an ONNX model, but not a region encoder of this version of mgrl; export it again (`mgrl export`)"
    )


def sketch_as_photo(canvases: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Canvases (..., size, size) as the network sees them: (..., size, size, 3) uint8, dark lines on white paper.

    So hair is dark in sketch and photo alike.
    """
    return np.repeat(255 - canvases[..., None], 3, axis=-1)


def photo_pixels(image: Image.Image, size_px: int) -> npt.NDArray[np.uint8]:
    """(size_px, size_px, 3) uint8 RGB: a photo's centred square, scaled to what the network sees."""
    return np.asarray(scaled_photo(image, size_px), dtype=np.uint8)


def scaled_photo(image: Image.Image, size_px: int) -> Image.Image:
    """The same as a picture."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    # Neither of both where there is nothing to do: each copies a picture of which a twentieth is left.
    centred = rgb if rgb.width == rgb.height else square(rgb)
    return centred.resize((size_px, size_px), Image.Resampling.BILINEAR, reducing_gap=3.0)


def default_threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def stack_photos(images: Sequence[Image.Image], size_px: int) -> npt.NDArray[np.uint8]:
    """(n, size_px, size_px, 3) uint8 batch of `photo_pixels`."""
    return np.stack([photo_pixels(image, size_px) for image in images])
