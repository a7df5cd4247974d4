"""A photo that somebody sends to be stored. On its own, so that a client need not load what stores it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from indexer.metadata import Value


@dataclass(frozen=True, eq=False)
class Upload:
    """A photo to store.

    Args:
        photo_id: its id; checked when it is stored, as is everything else.
        image: a photo file.
        metadata: field -> value; fields that are not named stay as they are.
        source: where it came from; its id where empty.
    """

    photo_id: str
    image: bytes
    metadata: Mapping[str, Value] = field(default_factory=dict)
    source: str = ""
