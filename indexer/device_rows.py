"""A gallery's rows in float16 or int8 on one device, and Eq. (3) over them in plain torch.

Rows lie region by region in chunks, so that a scan reads the inked regions alone and growing never copies more than
one chunk. On a GPU `indexer.device_kernel` does in one pass what `add_up` does here operation by operation; on a CPU
this is what the tests hold against brute force. Only this module and those two that it serves (`indexer.device_scan`,
`indexer.device_kernel`) import torch, and nothing imports them before a device other than the CPU is asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from subprocess import CalledProcessError
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from indexer.errors import ConfigError
from indexer.regions import REGIONS

PRECISIONS: Final = ("float16", "int8")
"""Bytes a photo at dim 16: 448, or 252 with a float16 scale for every region's sixteen int8 numbers."""

CHUNK: Final = 2**20
"""Photos of a chunk: large enough that a GPU computes longer than it takes to start the next one."""

BATCHES: Final = (1, 8, 32)
"""Queries that a kernel is compiled for; a batch takes the next larger one, and none is larger than the last."""

_LEVELS: Final = 127
_STEP: Final = 8192
"""Photos that plain torch takes at a time on a CPU: their numbers in float32 stay in the cache."""


@dataclass
class Chunk:
    """Some of the photos of a device.

    Args:
        codes: (14, room, dim) float16 or int8.
        scales: (14, room) float16 that int8 codes are multiplied by; None for float16 codes.
    """

    codes: Tensor
    scales: Tensor | None

    @property
    def room(self) -> int:
        """Photos that fit in."""
        return self.codes.shape[1]


@dataclass(frozen=True)
class Asked:
    """What a batch of queries looks for, on the device.

    Args:
        regions: those that count for any of them.
        region_ids: the same as (n,) int32 on the device: copied once, since every copy waits for the kernels before it.
        probes: (queries, 14, dim) float32, measured from the centre.
        shares: (queries, 14) float32.
    """

    regions: list[int]
    region_ids: Tensor
    probes: Tensor
    shares: Tensor


AddUp = Callable[[Chunk, Asked, Tensor | None, Tensor], None]
"""`add_up` below, or the kernel that does the same."""


class DeviceRows:
    """The photos of one device. Use `indexer.device_scan`, which deals a gallery's photos out.

    Args:
        device: where they live.
        precision: one of `PRECISIONS`.
        centre: (14, dim) float32, what rows are measured from; near their mean for small errors.
        chunk: photos of a chunk, a multiple of 16.
    """

    def __init__(self, device: torch.device, precision: str, centre: npt.NDArray[np.float32], chunk: int) -> None:
        assert chunk % 16 == 0, chunk
        self.device = device
        self.photos = 0
        self.errors = np.zeros(REGIONS)
        """(14,) the greatest distance between a row and what is stored for it, over all photos."""
        self.precision, self._chunk = precision, chunk
        self._centre = torch.from_numpy(centre).to(device)
        self._chunks: list[Chunk] = []
        self._add_up = _add_up_on(device)

    def append(self, embeddings: npt.NDArray[np.float32]) -> None:
        """Add (n, 14, dim) photos, which must not cross the border of a chunk.

        Raises:
            torch.OutOfMemoryError: the device has no room for them; those added before stay as they are.
        """
        number, first = divmod(self.photos, self._chunk)
        last = first + len(embeddings)
        assert last <= self._chunk, (self.photos, len(embeddings))
        chunk = self._reserve(number, last)
        offsets = torch.from_numpy(embeddings).to(self.device).double() - self._centre.double()
        codes, scales = _encoded(offsets, self.precision)
        stored = codes.double() if scales is None else codes.double() * scales.double()[..., None]
        missed = (offsets - stored).square_().sum(dim=2).amax(dim=0).sqrt_()
        self.errors = np.maximum(self.errors, missed.cpu().numpy())
        chunk.codes[:, first:last] = codes.transpose(0, 1)
        if chunk.scales is not None and scales is not None:
            chunk.scales[:, first:last] = scales.T
        self.photos += len(embeddings)

    def totals(
        self, probes: npt.NDArray[np.float32], shares: npt.NDArray[np.float32], bits: npt.NDArray[np.uint8] | None
    ) -> Tensor:
        """(queries, photos) float32 on the device: the shares' sum of distances to the rows as they are stored.

        A GPU is only told to compute them: the call returns before they are there.

        Args:
            probes: (queries, 14, dim) float32, measured from the centre.
            shares: (queries, 14) float32; regions of share 0 in all queries are never read.
            bits: (photos / 8,) bitmap, lowest bit first, of the photos that take part, or None for all; those that do
                not are at infinity.
        """
        regions = np.flatnonzero(shares.any(axis=0)).astype(np.int32)
        there = (torch.from_numpy(array).to(self.device) for array in (regions, probes, shares))
        asked = Asked(regions.tolist(), *there)
        bitmap = None if bits is None else torch.from_numpy(bits).to(self.device)
        totals = torch.empty((len(probes), self.photos), device=self.device)
        for number, chunk in enumerate(self._chunks):
            first = number * self._chunk
            part = totals[:, first : first + self._chunk]
            some = None if bitmap is None else bitmap[first // 8 : (first + self._chunk) // 8]
            self._add_up(chunk, asked, some, part)
        return totals

    def prepare(self, queries: int) -> None:
        """Compile what searches with up to so many queries will call: now, and not under the first stroke.

        Raises:
            ConfigError: the kernel cannot be compiled or run.
        """
        everyone = np.full(-(-self.photos // 8), 255, np.uint8)
        try:
            for size in (size for size in BATCHES if size <= queries):
                probes, shares = (
                    np.zeros((size, *self._centre.shape), np.float32),
                    np.zeros((size, REGIONS), np.float32),
                )
                for bits in (None, everyone):
                    # Looked at, because a GPU reports what went wrong only then.
                    self.totals(probes, shares, bits).sum().item()
        except (RuntimeError, CalledProcessError, OSError) as error:
            raise ConfigError(
                f"the search cannot be compiled for {self.device}: {error}; Triton needs a C compiler, Python's "
                f"headers (on Debian gcc, libc6-dev and python3-dev) and a folder to write to (TRITON_CACHE_DIR)"
            ) from error

    def _reserve(self, number: int, photos: int) -> Chunk:
        """The chunk of that number, with room for so many photos."""
        if number == len(self._chunks):
            self._chunks.append(self._empty(photos))
        held = self._chunks[number]
        if held.room < photos:
            larger = self._empty(max(photos, 2 * held.room))
            larger.codes[:, : held.room] = held.codes
            if larger.scales is not None and held.scales is not None:
                larger.scales[:, : held.room] = held.scales
            self._chunks[number] = larger
        return self._chunks[number]

    def _empty(self, photos: int) -> Chunk:
        # Whole sixteens: a kernel then reads sixteen bytes at a time in every region.
        room = min(-(-photos // 16) * 16, self._chunk)
        kind = torch.float16 if self.precision == "float16" else torch.int8
        codes = torch.empty((REGIONS, room, self._centre.shape[1]), dtype=kind, device=self.device)
        if self.precision == "float16":
            return Chunk(codes, None)
        return Chunk(codes, torch.empty((REGIONS, room), dtype=torch.float16, device=self.device))


def gpus() -> list[str]:
    """The GPUs that torch can use, by its names; none where torch has no CUDA."""
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []


def add_up(chunk: Chunk, asked: Asked, bits: Tensor | None, out: Tensor) -> None:
    """Write `DeviceRows.totals` of one chunk into `out`, (queries, photos) float32.

    Differences are squared as they are, not expanded into products: nothing cancels, and every rounding is relative.
    """
    step = _STEP if out.device.type == "cpu" else max(out.shape[1], 1)
    for start in range(0, out.shape[1], step):
        total = out[:, start : start + step]
        total.zero_()
        here = slice(start, start + total.shape[1])
        for region in asked.regions:
            rows = chunk.codes[region, here].float()
            if chunk.scales is not None:
                rows *= chunk.scales[region, here, None].float()
            for query in range(len(out)):
                squares = (rows - asked.probes[query, region]).square_().sum(dim=1)
                total[query] += asked.shares[query, region] * squares.sqrt_()
    if bits is not None:
        taking = (bits[:, None] >> torch.arange(8, device=bits.device, dtype=torch.uint8)) & 1
        out.masked_fill_(taking.flatten()[: out.shape[1]] == 0, torch.inf)


def _encoded(offsets: Tensor, precision: str) -> tuple[Tensor, Tensor | None]:
    """Codes of (n, 14, dim) float64 offsets, and (n, 14) scales for int8."""
    if precision == "float16":
        return offsets.half(), None
    scales = (offsets.abs().amax(dim=2) / _LEVELS).half()
    # A row of zeros, or too small for float16, is stored as zeros.
    steps = torch.where(scales > 0, scales, 1).double()
    codes = (offsets / steps[..., None]).round_().clamp_(-_LEVELS, _LEVELS)
    return codes.to(torch.int8), scales


def _add_up_on(device: torch.device) -> AddUp:
    """The kernel on a GPU where Triton is installed, which torch brings along on Linux; plain torch elsewhere."""
    if device.type != "cuda":
        return add_up
    try:
        from indexer.device_kernel import add_up_fused
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        return add_up
    return add_up_fused
