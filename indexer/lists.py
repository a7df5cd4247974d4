"""Inner-product lists of the FAISS indices, one per granularity, with a certificate of what they cannot have missed.

This is how a GPU takes part in an exact search: it answers only "the m largest inner products", at most 2048 of them,
and knows no filters. The probe's regions without ink are zeroed, so a granularity's inner product adds up the cosines
of its inked regions, and the last one on a list bounds every photo that is not on it. The same code runs on the CPU
indices, where the tests compare it with brute force.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Self

import faiss
import numpy as np
import numpy.typing as npt

from indexer.errors import ConfigError
from indexer.regions import REGION_IDS

GPU_NAMES: Final = ("StandardGpuResources", "GpuClonerOptions", "index_cpu_to_gpu", "get_num_gpus")
"""What this module uses of a FAISS with GPU support; a test looks each up where such a wheel is installed."""

_LENGTHS: Final = (256, 2048)
"""Proposals per granularity, tried in turn before a full scan; FAISS on a GPU gives at most 2048."""

_GPU_SCRATCH_BYTES: Final = 256 << 20
_UNIT_ROUNDOFF: Final = 2.0**-24


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

    def widening(
        self,
        probe: npt.NDArray[np.float32],
        weights: npt.NDArray[np.float64],
        k: int,
        sq_norms: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    ) -> Iterator[tuple[npt.NDArray[np.int64], float]]:
        """Ever larger sets of photos, each with a distance that no photo outside of it falls short of.

        Args:
            probe: (14, dim) float32.
            weights: (14,) `region_weights` of the query, not all 0.
            k: length of the ranking; sets of fewer photos are not worth a look.
            sq_norms: (14,) least and greatest squared norm in the gallery, region by region.

        Yields:
            Ascending rows, and the certificate: every photo outside is farther, rounding included.

        A photo outside of granularity g's list has an inner product of at most v, the last on the list. Its squared
        distances s over the n inked regions then add up to at least S = sum(m + |y|^2) - 2v (m: least squared norm),
        and since no root(s) exceeds L = max(M + |y|), the distances add up to at least S / L: for unit rows
        n - v, the sum of the 1 - cosine. A photo outside of all lists is outside of each, so the bounds add up.
        Float32 adds (width + 1)u sum(M|y|) to v.
        """
        photos = next(iter(self._indices.values())).ntotal
        least, most = sq_norms
        square = np.einsum("rd,rd->r", probe, probe, dtype=np.float64)
        for length in _LENGTHS:
            wanted = min(max(length, k), photos)
            if wanted > _LENGTHS[-1]:
                return
            seen, unseen_from = [], 0.0
            for granularity, ids in REGION_IDS.items():
                inked = [region for region in ids if weights[region] > 0]
                if not inked:
                    continue
                last, rows = self._propose(granularity, probe, inked, wanted)
                width = len(ids) * probe.shape[1]
                norms = np.sqrt(most[inked] * square[inked])
                last += (width + 1) * _UNIT_ROUNDOFF * float(norms.sum())
                longest = float((np.sqrt(most[inked]) + np.sqrt(square[inked])).max())
                total = float((least[inked] + square[inked]).sum()) - 2 * last
                # Within a granularity all inked regions weigh the same.
                unseen_from += float(weights[inked[0]]) * max(total, 0.0) / max(longest, 1e-30)
                seen.append(rows)
            yield np.unique(np.concatenate(seen)), unseen_from * (1 - 1e-9)
            if wanted == photos:
                return

    def _propose(
        self, granularity: int, probe: npt.NDArray[np.float32], inked: list[int], length: int
    ) -> tuple[float, npt.NDArray[np.int64]]:
        """The least inner product on one list, and the list's rows."""
        ids = REGION_IDS[granularity]
        query = np.zeros((len(ids), probe.shape[1]), np.float32)
        query[[region - ids.start for region in inked]] = probe[inked]
        search, flat = self._indices[granularity].search, query.reshape(1, -1)
        answer = search(flat, length) if self._owner is None else self._owner.submit(search, flat, length).result()
        return float(answer[0][0, -1]), answer[1][0].astype(np.int64)
