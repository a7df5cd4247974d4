"""Whether `mgrl ingest` crops photos to their faces, and what it does with several."""

import argparse
from typing import TYPE_CHECKING, Final

from indexer.errors import ConfigError

if TYPE_CHECKING:
    from indexer.framing import FaceFraming

CROPS: Final = ("face", "stray", "none")
FACES: Final = ("largest", "all", "reject-many")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--crop",
        choices=CROPS,
        help="crop photos to the face: all in which it lies elsewhere than in the middle, only where it lies far from "
        "there (stray), or none (default: face, or none where the extra `faces` is not installed)",
    )
    parser.add_argument(
        "--faces",
        choices=FACES,
        help="of several faces take the largest (the default), or all as photos ID#1, ID#2, ..., or skip the photo",
    )


def chosen_crop(args: argparse.Namespace) -> str:
    """face, stray or none."""
    from indexer.faces import FaceDetector

    if args.crop is not None:
        return str(args.crop)
    # Who asks for faces shall not get whole photos because the extra is missing.
    return "face" if args.faces or FaceDetector.is_installed() else "none"


def framing(args: argparse.Namespace, size_px: int) -> "FaceFraming | None":
    """What crops the photos, or None.

    Raises:
        ConfigError: the extra `faces` is asked for and not installed, or --faces goes without a crop.
    """
    from indexer.faces import FaceDetector
    from indexer.framing import FaceFraming

    crop = chosen_crop(args)
    if crop != "none":
        return FaceFraming(FaceDetector.open(), size_px, faces=args.faces or "largest", crop=crop)
    if args.faces:
        raise ConfigError(f"--faces {args.faces} looks for faces, --crop none does not; leave one of them out")
    return None
