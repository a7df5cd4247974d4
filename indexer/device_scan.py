"""Exact search on GPUs: what `indexer.fused` does, over a copy of the rows on one device or dealt out to several.

Eq. (3) is a sum over the regions of one photo, so photos may lie anywhere: every device adds up its own, the smallest
sums of all devices together give the distance that the k-th photo cannot exceed, and each device names the photos that
it cannot rule out. The caller ranks those in float64. Several devices work at the same time, told by one thread.

Why nothing is missed. Within a region, let x be a photo's row, y the probe's and m a fixed centre. The device holds c,
which is x - m in float16 or int8, and e, the largest |x - m - c| of all photos (`DeviceRows.errors`). With
v = float32(y - m) the triangle inequality gives

    |c - v| <= |x - y| + e + u|v|             (u = 2^-24: the rounding of v)

so with the shares w of the query

    sum(w |c - v|) <= D + offset,             offset = sum(w (e + u|v|)).

The device computes the left side in float32 from differences, in which nothing cancels: the difference, its square,
dim - 1 sums, the root (2u on a GPU, whose roots are not IEEE's), weight, product and 13 sums round by less than
(dim / 2 + 20)u in all. A photo nearer than some distance R thus has a computed sum of at most (R + offset) times
1 + (dim + 40)u.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from indexer.arrangement import Rows, Vectors
from indexer.bounds import UNIT_ROUNDOFF, shares_of
from indexer.device_rows import BATCHES, CHUNK, PRECISIONS, DeviceRows
from indexer.errors import ConfigError

if TYPE_CHECKING:
    from indexer.fused import Distances

_ENCODED: Final = 2**16
"""Photos handed to a device at a time: 59 MB in float32, and some three times that there for a moment."""

_SAMPLE: Final = 2**16
"""Photos whose mean is the centre: any centre is right, a mean makes the errors small."""

_SUMS: Final = 2**28
"""Sums of a batch: queries times photos that a device holds at a time, one GB."""


class DeviceScan:
    """Candidates for exact search, found on devices. Use `build`; the constructor only stores.

    Searches may run at the same time; `update` may not run beside them.

    Args:
        devices: chunk number i of the gallery lies on device i modulo their number.
        precision: one of `PRECISIONS`, or None for the first one that there is room for.
        centre: (14, dim) float32.
        chunk: photos of a chunk.
    """

    helpers: Final = None
    """No threads share its searches."""

    def __init__(
        self, devices: Sequence[torch.device], precision: str | None, centre: npt.NDArray[np.float32], chunk: int
    ) -> None:
        self._devices, self._centre, self._chunk = devices, centre, chunk
        self._precisions = list(PRECISIONS) if precision is None else [precision]
        self._start_anew()

    def _start_anew(self) -> None:
        precision = self._precisions.pop(0)
        self._shards = [DeviceRows(device, precision, self._centre, self._chunk) for device in self._devices]
        self._photos = 0

    @classmethod
    def build(
        cls, photos: int, vectors: Vectors, devices: Sequence[str], precision: str | None = None, chunk: int = CHUNK
    ) -> Self:
        """A scan over a gallery.

        Args:
            photos: how many there are.
            vectors: gives the embeddings of rows.
            devices: torch's names, such as "cuda:0"; more than one share the photos.
            precision: "float16", or "int8" for half the memory and some more photos to rank; by default float16 for as
                long as there is room.
            chunk: photos that lie together, a multiple of 16.

        Raises:
            ConfigError: a device cannot be used or has no room, or there is no such precision.
        """
        if precision not in (None, *PRECISIONS):
            raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        centre = vectors(np.arange(min(photos, _SAMPLE))).mean(axis=0, dtype=np.float64).astype(np.float32)
        scan = cls([_usable(name) for name in devices], precision, centre, chunk)
        scan.update(0, photos, vectors)
        return scan

    @property
    def precision(self) -> str:
        """How the rows are stored: "float16" or "int8"."""
        return self._shards[0].precision

    def update(self, first: int, photos: int, vectors: Vectors) -> None:
        """Take in the rows from `first` on; `photos` is the size of the gallery with them.

        Raises:
            ConfigError: a device has no room for them.
        """
        assert first == self._photos, (first, self._photos)
        while not self._append(photos, vectors):
            if not self._precisions:
                raise ConfigError(
                    f"{', '.join(map(str, self._devices))} has no room for {photos} photos in {self.precision}; "
                    f"use more GPUs or device cpu"
                )
            first = 0
            self._start_anew()
        if not first:
            for shard in self._shards:
                shard.prepare(self._batch)

    def _append(self, photos: int, vectors: Vectors) -> bool:
        """Whether there was room."""
        while self._photos < photos:
            number, held = divmod(self._photos, self._chunk)
            last = min(self._photos + min(_ENCODED, self._chunk - held), photos)
            try:
                self._shards[number % len(self._shards)].append(vectors(np.arange(self._photos, last)))
            except torch.OutOfMemoryError:
                # Not handled here: as long as the exception lives, so does all that was in use when it was raised.
                return False
            self._photos = last
        return True

    def candidates(
        self,
        probes: npt.NDArray[np.float32],
        weights: npt.NDArray[np.float64],
        k: int,
        allowed: npt.NDArray[np.bool_] | None,
        distances: "Distances",
    ) -> Iterator[Rows]:
        """For each query the ascending rows of photos among which the k nearest are: as `FusedScan.candidates`."""
        units = weights.max(axis=1)
        shares = shares_of(weights)
        centred = probes - self._centre
        working = [shard for shard in self._shards if shard.photos]
        bits = [None if allowed is None else self._bitmap(number, allowed) for number in range(len(working))]
        for start in range(0, len(probes), self._batch):
            some = slice(start, start + self._batch)
            # Every device is told before the first one is waited for.
            told = zip(working, bits, strict=True)
            totals = [shard.totals(centred[some], shares[some], own) for shard, own in told]
            reach = [
                distances(start + place, rows).max() / units[start + place]
                for place, rows in enumerate(self._smallest(totals, k))
            ]
            limits = (np.array(reach) + self._offsets(centred[some], shares[some])) * self._slack
            yield from self._within(totals, limits.astype(np.float32))

    @property
    def _batch(self) -> int:
        return max(1, min(BATCHES[-1], _SUMS // self._photos))

    @property
    def _slack(self) -> float:
        dim: int = self._centre.shape[1]
        return 1 + (dim + 40) * UNIT_ROUNDOFF

    def _offsets(self, centred: npt.NDArray[np.float32], shares: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """(queries,) what storing the rows and rounding the probes may have added to a sum."""
        errors = np.max([shard.errors for shard in self._shards], axis=0)
        lengths = np.sqrt(np.einsum("qrd,qrd->qr", centred, centred, dtype=np.float64))
        return np.asarray((shares * (errors + 2 * UNIT_ROUNDOFF * lengths)).sum(axis=1) * (1 + 2.0**-20))

    def _smallest(self, totals: Sequence[Tensor], k: int) -> Iterator[Rows]:
        """Per query the rows of the k smallest sums."""
        found = [torch.topk(part, min(k, part.shape[1]), largest=False, sorted=False) for part in totals]
        values = np.concatenate([some.values.cpu().numpy() for some in found], axis=1)
        rows = [self._rows(number, some.indices.cpu().numpy()) for number, some in enumerate(found)]
        best = np.argpartition(values, k - 1, axis=1)[:, :k]
        yield from np.take_along_axis(np.concatenate(rows, axis=1), best, axis=1)

    def _within(self, totals: Sequence[Tensor], limits: npt.NDArray[np.float32]) -> Iterator[Rows]:
        """Per query the ascending rows of the sums up to its limit."""
        found = []
        for number, part in enumerate(totals):
            inside = part <= torch.from_numpy(limits).to(part.device)[:, None]
            queries, places = inside.nonzero(as_tuple=True)
            found.append((queries.cpu().numpy(), self._rows(number, places.cpu().numpy())))
        for query in range(len(limits)):
            yield np.sort(np.concatenate([rows[queries == query] for queries, rows in found]))

    def _rows(self, shard: int, places: npt.NDArray[np.int64]) -> Rows:
        """The gallery's rows of a shard's places."""
        return (places // self._chunk * len(self._shards) + shard) * self._chunk + places % self._chunk

    def _bitmap(self, shard: int, allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
        """A shard's photos that take part, eight a byte."""
        step = len(self._shards) * self._chunk
        starts = range(shard * self._chunk, len(allowed), step)
        own = [allowed[start : start + self._chunk] for start in starts]
        return np.packbits(np.concatenate([*own, np.empty(0, np.bool_)]), bitorder="little")


def _usable(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch has both for a device that it lacks
        raise ConfigError(f"torch cannot use device {name!r}: {str(error).splitlines()[0]}") from error
    return device
