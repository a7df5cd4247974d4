"""Whether `mgrl ingest` and `mgrl reindex` crop photos to their faces, and what they do with several."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from indexer.errors import ConfigError

if TYPE_CHECKING:
    from indexer.encoding import RegionEncoder
    from indexer.framing import FaceFraming
    from indexer.ledger import Manifest

CROPS: Final = ("face", "stray", "none")
FACES: Final = ("largest", "all", "reject-many")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--crop",
        choices=CROPS,
        help="crop photos to the face: all in which it lies elsewhere than in the middle, only where it lies far from "
        "there (stray), or none (default: as the gallery's other photos; of a new one face, or none where the extra "
        "`faces` is not installed)",
    )
    parser.add_argument(
        "--faces",
        choices=FACES,
        help="of several faces take the largest, or all as photos ID#1, ID#2, ..., or skip the photo (default: as when "
        "the gallery was made, then the largest)",
    )


def framing(args: argparse.Namespace, encoder: "RegionEncoder") -> "FaceFraming | None":
    """What crops the photos of a gallery for an encoder, or None.

    Raises:
        ConfigError: its photos are cropped otherwise than is asked for, the extra `faces` is needed and not installed,
            or --faces goes without a crop.
    """
    from indexer.faces import FaceDetector
    from indexer.framing import FaceFraming, default_crop
    from indexer.ledger import Framing, check_framing, folder_name

    manifest = _manifest(args.gallery, encoder.model_hash)
    known = manifest.framing if manifest is not None else None
    # Who asks for faces shall not get whole photos because the extra is missing.
    crop = args.crop or (known.crop if known else "face" if args.faces else default_crop())
    asked = Framing(crop, args.faces or (known.faces if known else "largest"))
    if manifest is not None and manifest.model_hash == encoder.model_hash:
        check_framing(folder_name(args.gallery), manifest, asked)
    if asked.crop != "none":
        return FaceFraming(FaceDetector.open(), encoder.size_px, faces=asked.faces, crop=asked.crop)
    if args.faces:
        raise ConfigError(f"--faces {args.faces} looks for faces, --crop none does not; leave one of them out")
    return None


def _manifest(gallery: Path, model_hash: str) -> "Manifest | None":
    """What the gallery's version of this model says of itself, or else the one in use; None where there is none yet."""
    from indexer import versions
    from indexer.ledger import manifest_path, read_manifest

    for version in (versions.version_folder(gallery, model_hash), versions.home_of(gallery)):
        if manifest_path(version).exists():
            return read_manifest(version)
    return None


def kept_crop(gallery: Path) -> str:
    """How the photos of a gallery that was ingested are cropped: face, stray or none."""
    from indexer.ledger import read_manifest
    from indexer.versions import home_of

    kept = read_manifest(home_of(gallery)).framing
    return "none" if kept is None else kept.crop
