"""What an ingestion says of itself, while it runs and when it has ended."""

from dataclasses import dataclass
from typing import Final

LISTED: Final = 100
"""How many skipped photos and duplicates a report names; `on_outcome` hears of all."""


@dataclass(frozen=True)
class IngestProgress:
    """Where a job is. Photos counted in `added` and `replaced` are durable: they survive a crash from here on.

    `total` is None where the source does not know how many it has.
    """

    total: int | None
    added: int
    already_there: int
    skipped: int
    replaced: int = 0
    duplicates: int = 0

    @property
    def done(self) -> int:
        """Photos that need no more work."""
        return self.added + self.replaced + self.already_there + self.duplicates + self.skipped


@dataclass(frozen=True)
class IngestReport:
    """What a job did.

    Args:
        added: photos stored.
        already_there: photos that the gallery had under the same name.
        skipped: (name, reason) of photos that could not be stored, the first 100 of them.
        described: photos that got metadata.
        seconds: wall time.
        failed: how many photos could not be stored.
        replaced: photos whose content had changed under an id that the caller gave.
        duplicates: photos that the gallery had under another name; aliases, too.
        same: (name, the photo's id) of duplicates, the first 100 of them.
        cropped: photos stored that were cropped to a face.
        without_face: photos stored whole because framing found no face in them.
        faceless: names of these, the first 100 of them.
    """

    added: int
    already_there: int
    skipped: tuple[tuple[str, str], ...]
    described: int
    seconds: float
    failed: int = 0
    replaced: int = 0
    duplicates: int = 0
    same: tuple[tuple[str, str], ...] = ()
    cropped: int = 0
    without_face: int = 0
    faceless: tuple[str, ...] = ()

    @property
    def usable(self) -> int:
        """Photos that are in the gallery now."""
        return self.added + self.replaced + self.already_there + self.duplicates
