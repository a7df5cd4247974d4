"""What the embeddings of photos must be before they are kept."""

from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.errors import ShapeError
from indexer.regions import REGIONS

_UNIT_WITHIN: Final = 0.01
"""Far above what float16 or a GPU rounds a unit row to."""


def check_rows(embeddings: npt.NDArray[np.float32], photos: int, dim: int) -> None:
    """Refuse what cannot be the embeddings of so many photos.

    Raises:
        ShapeError: not (photos, 14, dim), or no finite unit rows.
    """
    expected = (photos, REGIONS, dim)
    if embeddings.shape != expected:
        raise ShapeError(f"embeddings must be {expected} for these photos, got {embeddings.shape}")
    if not np.isfinite(embeddings).all():
        raise ShapeError("embeddings must hold finite numbers, got NaN or infinity; the encoder is broken")
    lengths = np.linalg.norm(embeddings, axis=2)
    if lengths.size and np.abs(lengths - 1).max() > _UNIT_WITHIN:
        wrong = lengths.flat[np.abs(lengths - 1).argmax()]
        raise ShapeError(f"embeddings must be rows of length 1, one is {wrong:.4g} long; the encoder is broken")
