"""Inner-product lists of the FAISS indices, one per granularity, with a certificate of what they cannot have missed.

This is how FAISS on a GPU takes part in an exact search: it answers only "the m largest inner products", at most 2048
of them, and knows no filters. The probe's regions without ink are zeroed, so a granularity's inner product adds up the
cosines of its inked regions, and the last one on a list bounds every photo that is not on it. The same code runs on the
CPU indices, where the tests compare it with brute force.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Self

import faiss
import numpy as np
import numpy.typing as npt

from indexer.arrangement import Rows
from indexer.bounds import UNIT_ROUNDOFF
from indexer.errors import ConfigError
from indexer.exact import Found
from indexer.regions import REGION_IDS

GPU_NAMES: Final = ("StandardGpuResources", "GpuClonerOptions", "index_cpu_to_gpu", "get_num_gpus")
"""What this module uses of a FAISS with GPU support; a test looks each up where such a wheel is installed."""

_LENGTHS: Final = (256, 2048)
"""Proposals per granularity, tried in turn before a full scan; FAISS on a GPU gives at most 2048."""

SqNorms = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

_GPU_SCRATCH_BYTES: Final = 256 << 20


class FaissLists:
    """Proposes photos by granularity. Use `build`; the constructor only stores.

    FAISS's GPU indices are not safe to share between threads, not even to read: one owner thread makes every call.
    """

    def __init__(self, indices: Mapping[int, Any], owner: ThreadPoolExecutor | None, resources: Any = None) -> None:
        self._indices = indices
        self._owner = owner
        self._resources = resources  # FAISS keeps only a borrowed pointer to them

    @classmethod
    def build(cls, cpu_indices: Mapping[int, Any], device: str) -> Self:
        """Lists over the given CPU indices themselves, or over copies of them on the first GPU.

        Raises:
            ConfigError: the device is neither "cpu" nor "cuda", or no GPU can be used.
        """
        if device == "cpu":
            return cls(cpu_indices, None)
        if device != "cuda":
            raise ConfigError(f"device must be cpu or cuda, got {device!r}")
        if not hasattr(faiss, "StandardGpuResources"):
            raise ConfigError("device cuda needs torch with CUDA or the faiss-gpu package; see the `gpu` extra")
        if not faiss.get_num_gpus():
            raise ConfigError("device cuda needs a CUDA GPU, FAISS sees none; use device cpu")
        owner = ThreadPoolExecutor(1, thread_name_prefix="faiss-gpu")
        return owner.submit(cls._on_gpu, cpu_indices, owner).result()

    @classmethod
    def _on_gpu(cls, cpu_indices: Mapping[int, Any], owner: ThreadPoolExecutor) -> Self:
        resources = faiss.StandardGpuResources()
        resources.setTempMemory(_GPU_SCRATCH_BYTES)
        options = faiss.GpuClonerOptions()
        options.useFloat16 = False  # the certificate's error bound is that of float32
        copies = {g: faiss.index_cpu_to_gpu(resources, 0, index, options) for g, index in cpu_indices.items()}
        return cls(copies, owner, resources)

    def add(self, granularity: int, rows: npt.NDArray[np.float32]) -> None:
        """Append what the CPU index got too; without effect where the lists are those of the CPU index itself."""
        if self._owner is not None:
            self._owner.submit(self._indices[granularity].add, rows).result()

    def proven(
        self,
        queries: Sequence[int],
        probes: npt.NDArray[np.float32],
        weights: npt.NDArray[np.float64],
        k: int,
        sq_norms: SqNorms,
        rank: Callable[[int, Rows], Found],
    ) -> dict[int, Found]:
        """The rankings that the lists can prove; the other queries have to be scanned for.

        All queries share the FAISS calls: one a granularity, and one more for those that need longer lists.

        Args:
            queries: which of the probes to rank.
            probes: (n, 14, dim) float32.
            weights: (n, 14) `region_weights`, not all 0 for any of the queries.
            k: length of the rankings, at most the number of photos.
            sq_norms: (14,) least and greatest squared norm in the gallery, region by region.
            rank: from a query and ascending rows to the k nearest of them and their exact distances.
        """
        photos = next(iter(self._indices.values())).ntotal
        found: dict[int, Found] = {}
        for length in _LENGTHS:
            wanted = min(max(length, k), photos)
            asked = [query for query in queries if query not in found]
            if wanted > _LENGTHS[-1] or not asked:
                break
            for query, (rows, unseen_from) in zip(
                asked, self.proposals(probes[asked], weights[asked], wanted, sq_norms), strict=True
            ):
                ranking = rank(query, rows)
                if len(rows) == photos or ranking[1][-1] < unseen_from:
                    found[query] = ranking
        return found

    def proposals(
        self,
        probes: npt.NDArray[np.float32],
        weights: npt.NDArray[np.float64],
        length: int,
        sq_norms: SqNorms,
    ) -> list[tuple[Rows, float]]:
        """For each query the ascending rows on its lists, and a distance that no photo off them falls short of.

        A photo outside of granularity g's list has an inner product of at most v, the last on the list. Its squared
        distances s over the n inked regions then add up to at least S = sum(m + |y|^2) - 2v (m: least squared norm),
        and since no root(s) exceeds L = max(M + |y|), the distances add up to at least S / L: for unit rows
        n - v, the sum of the 1 - cosine. A photo outside of all lists is outside of each, so the bounds add up.
        Float32 adds (width + 1)u sum(M|y|) to v.
        """
        seen: list[list[Rows]] = [[] for _ in probes]
        unseen_from = np.zeros(len(probes))
        for granularity, ids in REGION_IDS.items():
            inked = weights[:, ids.start : ids.stop] > 0
            asked = np.flatnonzero(inked.any(axis=1))
            if not len(asked):
                continue
            flat = np.where(inked[asked, :, None], probes[asked, ids.start : ids.stop], 0).reshape(len(asked), -1)
            products, rows = self._search(granularity, flat, length)
            for query, last, own in zip(asked, products[:, -1], rows, strict=True):
                regions = ids.start + np.flatnonzero(inked[query])
                least, most = (norms[regions] for norms in sq_norms)
                # Within a granularity all inked regions weigh the same.
                bound = _unlisted_from(float(last), probes[query, regions], least, most, flat.shape[1])
                unseen_from[query] += weights[query, regions[0]] * bound
                seen[query].append(own)
        lists = (np.unique(np.concatenate(some)).astype(np.int64) for some in seen)
        return list(zip(lists, (unseen_from * (1 - 1e-9)).tolist(), strict=True))

    def _search(
        self, granularity: int, queries: npt.NDArray[np.float32], length: int
    ) -> tuple[npt.NDArray[np.float32], Rows]:
        """(n, length) inner products, largest first, and the rows they belong to."""
        search = self._indices[granularity].search
        found = search(queries, length) if self._owner is None else self._owner.submit(search, queries, length).result()
        products, rows = found
        return products, rows


def _unlisted_from(
    last: float,
    probe: npt.NDArray[np.float32],
    least: npt.NDArray[np.float64],
    most: npt.NDArray[np.float64],
    width: int,
) -> float:
    """What the distances of a photo off one granularity's list add up to at least; `FaissLists.proposals` says why.

    Args:
        last: the least inner product on the list.
        probe: (n, dim), the inked regions.
        least: (n,) least squared norms in the gallery.
        most: (n,) greatest ones.
        width: numbers that FAISS added up.
    """
    square = np.einsum("rd,rd->r", probe, probe, dtype=np.float64)
    last += (width + 1) * UNIT_ROUNDOFF * float(np.sqrt(most * square).sum())
    longest = float((np.sqrt(most) + np.sqrt(square)).max())
    return max(float((least + square).sum()) - 2 * last, 0.0) / max(longest, 1e-30)
