"""Where the blocks of an arranged gallery lie, asked in two steps so that not even all their centres are read.

64 neighbouring blocks are a group, and their centres a block of a quantised gallery of their own. A query bounds its
distance to the centre of every group, opens the nearest, and bounds its distance to the centres of their blocks. Of ten
million photos these are 2,442 groups, where the centres of all blocks take 35 MB.

The certificate: Eq. (3) is a weighted sum of norms, hence a metric d, and a photo x of a block or a group with centre c
has d(x, y) >= d(c, y) - d(x, c) >= d(c, y) - sum(w_r R_r), R_r being the greatest |x_r - c_r| of its photos. The least
of this over the groups that were not opened, and over the blocks of the others that were not looked at, bounds all of
their photos.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from indexer.arrangement import Rows, Vectors
from indexer.bounds import SLACK
from indexer.fused import Bounds, smallest
from indexer.kernels import BLOCK
from indexer.quantised import QuantisedGallery, Queries
from indexer.regions import REGIONS
from indexer.sharing import Helpers

GROUP: Final = BLOCK * BLOCK
"""Photos of a group, whose blocks' centres are one block of a quantised gallery."""

_LEAST_GROUPS: Final = 32
"""Groups that are opened at least: the centres of their blocks take half a megabyte."""

_TASK: Final = 16
"""Blocks of centres that a thread bounds at a time."""


Ball = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""(n, 14, dim) centres and (n, 14) radii."""


@dataclass(frozen=True, eq=False)
class Balls:
    """Some sets of photos as balls.

    Args:
        centres: quantised.
        radii: (blocks of centres, 64, 14) float32, one a region; behind the last ball they are 0.
    """

    centres: QuantisedGallery
    radii: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.centres)

    @classmethod
    def of(cls, parts: Sequence[Ball], origin: npt.NDArray[np.float32]) -> Self:
        """Balls one after the other, quantised by the way of their centres from the (14, dim) origin."""
        centres, radii = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        quantised = QuantisedGallery(origin)
        quantised.write(0, centres)
        padded = np.zeros((-(-len(radii) // BLOCK) * BLOCK, REGIONS), np.float32)
        padded[: len(radii)] = radii
        return cls(quantised, padded.reshape(-1, BLOCK, REGIONS))

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The balls that gave their `arrays`."""
        return cls(QuantisedGallery.of_arrays(arrays), arrays["radii"])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that they are, by name."""
        return self.centres.arrays() | {"radii": self.radii}

    def bounds(self, query: Queries, some: Rows, helpers: Helpers) -> Bounds:
        """(n, 64) float32 lower bounds of the distance to some balls' centres, infinite where there is none.

        Args:
            query: one, prepared for the centres.
            some: (n,) int64, which blocks of centres.
            helpers: to share the work with.
        """
        words = self.centres.words(None)
        found = np.empty((len(some), BLOCK), np.float32)

        def bound(part: int) -> None:
            here = slice(part * _TASK, (part + 1) * _TASK)
            found[here] = self.centres.photo_bounds(query, some[here], words)

        helpers.share(-(-len(some) // _TASK), bound)
        return found

    def unseen_from(self, to_centres: Bounds, some: Rows, shares: npt.NDArray[np.float32]) -> float:
        """What no photo of some balls is nearer than, over the greatest weight.

        Args:
            to_centres: (n, 64) of `bounds`, infinite for balls that do not count.
            some: the (n,) blocks of centres that they are of.
            shares: (14,) float32 of the query.
        """
        lower = to_centres.astype(np.float64) / SLACK - (self.radii[some] @ shares) * SLACK
        return max(float(lower.min(initial=math.inf)), 0.0) * (1 - 1e-6)


class Centres:
    """The blocks and groups of an arranged gallery. Use `build`; the constructor only stores.

    Args:
        blocks: those that are full, in their order.
        groups: of 64 neighbouring blocks each, the last one of those that are left.
    """

    def __init__(self, blocks: Balls, groups: Balls) -> None:
        self.blocks = blocks
        self.groups = groups

    @classmethod
    def build(cls, order: Rows, vectors: Vectors, origin: npt.NDArray[np.float32]) -> Self:
        """Those of photos in an order of `indexer.arrangement`.

        Args:
            order: (photos,) int64, place -> row.
            vectors: from rows to (n, 14, dim) embeddings.
            origin: (14, dim) float32, near the photos' mean for small errors.
        """
        blocks, groups = [], []
        full = len(order) // BLOCK * BLOCK
        for first in range(0, full, GROUP):
            photos = vectors(order[first : min(first + GROUP, full)])
            blocks.append(_balls(photos.reshape(-1, BLOCK, *photos.shape[1:])))
            groups.append(_balls(photos[None]))
        return cls(Balls.of(blocks, origin), Balls.of(groups, origin))

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The centres that gave their `arrays`."""
        kinds = ("blocks-", "groups-")
        return cls(
            *(
                Balls.of_arrays({name.removeprefix(kind): arrays[name] for name in arrays if name.startswith(kind)})
                for kind in kinds
            )
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that they are, by name."""
        blocks = {f"blocks-{name}": array for name, array in self.blocks.arrays().items()}
        return blocks | {f"groups-{name}": array for name, array in self.groups.arrays().items()}


class Opening:
    """The blocks that one query may look at: those of the groups that it has opened.

    Args:
        centres: of the gallery.
        query: one, prepared for the centres.
        taking: (blocks,) bool, which hold a photo that takes part.
        helpers: to share the work with.
    """

    def __init__(self, centres: Centres, query: Queries, taking: npt.NDArray[np.bool_], helpers: Helpers) -> None:
        self._centres, self._query, self._helpers = centres, query, helpers
        groups = len(centres.groups)
        self._taking = np.zeros((groups, BLOCK), np.bool_)
        self._taking.ravel()[: len(taking)] = taking
        held = np.count_nonzero(self._taking, axis=1)
        self._to_groups = centres.groups.bounds(query, np.arange(-(-groups // BLOCK)), helpers).ravel()[:groups]
        self._to_groups[held == 0] = np.inf
        self._nearest_groups = np.argsort(self._to_groups, kind="stable")[: np.count_nonzero(held)]
        self._blocks_within = np.cumsum(held[self._nearest_groups])
        self._opened = 0
        self._to_blocks = np.full((groups, BLOCK), np.inf, np.float32)

    def open(self, share: float, blocks: int) -> None:
        """Open the nearest groups: as many as such a share of all, and so many that they hold some blocks.

        Args:
            share: 0 to 1.
            blocks: at most as many as take part.
        """
        enough = int(np.searchsorted(self._blocks_within, blocks)) + 1
        wanted = max(math.ceil(share * len(self._to_groups)), enough, _LEAST_GROUPS)
        some = np.sort(self._nearest_groups[self._opened : wanted])
        to_blocks = self._centres.blocks.bounds(self._query, some, self._helpers)
        self._to_blocks[some] = np.where(self._taking[some], to_blocks, np.inf)
        self._opened = min(max(wanted, self._opened), len(self._nearest_groups))

    def nearest(self, count: int) -> Rows:
        """Ascending: the nearest of the opened groups' blocks that are left, at most so many as there are."""
        opened = np.sort(self._nearest_groups[: self._opened])
        places = np.sort(smallest(self._to_blocks[opened].ravel(), count))
        return np.asarray(opened[places // BLOCK] * BLOCK + places % BLOCK)

    def ranked(self) -> Rows:
        """All of the opened groups' blocks that are left, nearest first."""
        left = np.flatnonzero(np.isfinite(self._to_blocks))
        return np.asarray(left[np.argsort(self._to_blocks.ravel()[left], kind="stable")])

    def look_at(self, blocks: Rows) -> None:
        """Note that some opened blocks are not left out."""
        self._to_blocks.ravel()[blocks] = np.inf

    def unseen_from(self) -> float:
        """What no photo of the blocks that were not looked at is nearer than, over the greatest weight."""
        to_groups = np.full(len(self._centres.groups.radii) * BLOCK, np.inf, np.float32)
        closed = self._nearest_groups[self._opened :]
        to_groups[closed] = self._to_groups[closed]
        every, shares = np.arange(len(self._centres.groups.radii)), self._query.shares[0]
        closed_from = self._centres.groups.unseen_from(to_groups.reshape(-1, BLOCK), every, shares)
        if closed_from == 0:  # what a closed group may hold, no block makes worse
            return 0.0
        opened = np.sort(self._nearest_groups[: self._opened])
        return min(closed_from, self._centres.blocks.unseen_from(self._to_blocks[opened], opened, shares))

    def shares_until(self, blocks: Rows) -> npt.NDArray[np.float64]:
        """(n, 2): the shares of the groups and of their blocks, nearest first, with which some blocks are found."""
        found = []
        for values, some in ((self._to_groups, blocks // BLOCK), (self._to_blocks.ravel(), blocks)):
            ranked = np.sort(values[np.isfinite(values)])
            found.append(np.searchsorted(ranked, values[some], side="right") / len(ranked))
        return np.stack(found, axis=1)


def _balls(sets: npt.NDArray[np.float32]) -> Ball:
    """Those of (n, photos, 14, dim) sets."""
    centres = sets.mean(axis=1)
    away = sets - centres[:, None]
    squares = np.einsum("sprd,sprd->spr", away, away, dtype=np.float64).max(axis=1)
    # Above what rounding to float32, here and of the differences, can take off.
    return centres, np.asarray(np.sqrt(squares) * (1 + 1e-6), np.float32)
