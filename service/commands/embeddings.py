"""What `mgrl ingest --embeddings` does in place of decoding and encoding photos."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from indexer.errors import ConfigError

if TYPE_CHECKING:
    from indexer.ingest_report import IngestProgress, IngestReport


_OF_PHOTOS: Final = ("fields", "duplicates", "failed", "outcomes", "crop", "faces")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument(
        "--embeddings",
        metavar="FILE",
        type=Path,
        help="in place of SOURCE: .npz, .npy or .parquet, see docs/ingestion.md",
    )
    parser.add_argument("--model-hash", metavar="SHA256", help="of the model that made them; or name it with --model")


def run(args: argparse.Namespace, on_progress: Callable[["IngestProgress"], None]) -> "IngestReport":
    """Store the file's embeddings.

    Raises:
        ConfigError: it does not go with the other options, or no model is named.
        PublicError: as `indexer.ingest_embeddings`.
    """
    from indexer.encoding import OnnxEncoder
    from indexer.ingest_embeddings import BATCH, ingest_embeddings

    if args.sources or args.metadata:
        raise ConfigError("--embeddings takes the place of SOURCE and --metadata; give one or the other")
    if of_photos := [f"--{name}" for name in _OF_PHOTOS if getattr(args, name) not in (None, "skip")]:
        raise ConfigError(f"--embeddings does not go with {', '.join(of_photos)}: there are no photo files")
    if (args.model is None) == (args.model_hash is None):
        raise ConfigError("--embeddings needs the model that made them: either --model FILE or --model-hash SHA256")
    model_hash = args.model_hash.lower() if args.model is None else OnnxEncoder.open(args.model).model_hash
    batch = BATCH if args.batch is None else args.batch
    return ingest_embeddings(
        args.gallery, args.embeddings, model_hash, batch=batch, wait_s=args.wait, on_progress=on_progress
    )
