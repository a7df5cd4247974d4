"""The photos of a gallery in pages, in the order of ingestion."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from indexer.contents import is_format_1, read_fields
from indexer.metadata import Value, from_json
from indexer.store import Store
from indexer.tables import PHOTO_METADATA, PHOTOS


@dataclass(frozen=True)
class Listed:
    """A photo without its picture.

    Args:
        row: grows in the order of ingestion.
        photo_id: its id.
        source: the file it came from.
        metadata: what is known about it.
    """

    row: int
    photo_id: str
    source: str
    metadata: Mapping[str, Value] = field(default_factory=dict)


def list_photos(folder: Path, after: int, most: int) -> list[Listed]:
    """A page: the first photos whose row is above `after`, 0 for those of the first page.

    Args:
        folder: the gallery's.
        after: row of the last photo of the page before.
        most: photos of a page; the last one has fewer.

    Raises:
        GalleryError: no gallery there, or its ledger is damaged.
    """
    store = Store.open(folder)
    try:
        with store.reading() as connection:
            columns = PHOTOS.c.row, PHOTOS.c.photo_id, PHOTOS.c.source
            page = sa.select(*columns).where(PHOTOS.c.row > after).order_by(PHOTOS.c.row).limit(most)
            photos = connection.execute(page).all()
            known = {}
            if photos and not is_format_1(connection):
                kinds = read_fields(connection)
                between = PHOTO_METADATA.c.row.between(photos[0].row, photos[-1].row)
                for row, values in connection.execute(sa.select(PHOTO_METADATA).where(between)):
                    known[row] = from_json(values, kinds)
            return [Listed(*photo, metadata=known.get(photo.row, {})) for photo in photos]
    finally:
        store.close()
