"""The vector files of a gallery: each holds the embeddings of some photos, is written once, and is verified when read.

A file is raw little-endian float32 (photos, 14, dim). Its length and checksum are in the ledger's table of segments.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.errors import GalleryError
from indexer.ledger import replace_file
from indexer.regions import REGIONS


def row_bytes(dim: int) -> int:
    """What the vectors of one photo take."""
    return 4 * REGIONS * dim


def segment_path(folder: Path, segment: int, generation: int = 0) -> Path:
    """Where a segment's vectors lie."""
    again = f"-{generation}" if generation else ""
    return folder / "segments" / f"{segment:06}{again}.vec"


def path_of(folder: Path, segment: Any) -> Path:
    """Where the vectors of a row of the ledger's table lie."""
    return segment_path(folder, segment.segment, segment.generation)


def write_segment(
    folder: Path, embeddings: npt.NDArray[np.float32], segment: int, generation: int = 0
) -> dict[str, Any]:
    """Write a segment that no ledger knows yet, on disk when this returns.

    Returns:
        Its row of the ledger's table.

    Raises:
        OSError: the disk refuses; nothing is left.
    """
    data, sha256 = segment_bytes(embeddings)
    replace_file(segment_path(folder, segment, generation), data)
    content = {"rows": len(embeddings), "bytes": len(data), "sha256": sha256}
    return {"segment": segment, "generation": generation, **content}


def segment_bytes(embeddings: npt.NDArray[np.float32]) -> tuple[bytes, str]:
    """What a segment's file holds, and its checksum."""
    data = np.ascontiguousarray(embeddings, "<f4").tobytes()
    return data, hashlib.sha256(data).hexdigest()


def read_segment(folder: Path, segment: Any, gallery: str) -> npt.NDArray[np.float32]:
    """(photos, 14, dim) float32 of a row of the ledger's table, verified; messages name the gallery.

    Raises:
        GalleryError: it is missing or altered.
    """
    path = path_of(folder, segment)
    where = f"gallery {gallery}: segment {path.name}"
    advice = "restore the folder from a copy or ingest its photos anew"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise GalleryError(f"{where} cannot be read ({error.strerror}); {advice}") from error
    if len(data) != segment.bytes:
        raise GalleryError(f"{where} has {len(data)} bytes, the ledger says {segment.bytes}; {advice}")
    if hashlib.sha256(data).hexdigest() != segment.sha256:
        raise GalleryError(f"{where} does not match its checksum, it was altered; {advice}")
    return np.frombuffer(data, "<f4").astype(np.float32, copy=False).reshape(segment.rows, REGIONS, -1)
