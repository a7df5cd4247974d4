"""How long photos are kept: those that were stored longer ago than a gallery's period are forgotten."""

import time
from dataclasses import dataclass

import sqlalchemy as sa

from indexer.compaction import forget
from indexer.errors import ConfigError
from indexer.store import Store, StoreWriter
from indexer.tables import PHOTOS, layout

_DAY_S = 86_400


@dataclass(frozen=True)
class Retention:
    """What became of a gallery: photos that were forgotten, and those that are left."""

    forgotten: int
    kept: int


def photos_older_than(store: Store, days: float) -> list[str]:
    """Ids of the photos that were stored more than so many days ago, oldest first.

    None in a gallery that no writer has opened since photos have a time.

    Raises:
        ConfigError: the days are not above 0.
    """
    if not days > 0:
        raise ConfigError(f"photos are kept for a number of days above 0, got {days}")
    with store.reading() as connection:
        if layout(connection) < 4:
            return []
        old = sa.select(PHOTOS.c.photo_id).where(PHOTOS.c.stored_s < time.time() - days * _DAY_S)
        return list(connection.execute(old.order_by(PHOTOS.c.stored_s, PHOTOS.c.photo_id)).scalars())


def retain(writer: StoreWriter, days: float) -> Retention:
    """Forget the photos that were stored more than so many days ago, see `compaction.forget`.

    Raises:
        ConfigError: the days are not above 0.
        GalleryError: a segment is damaged, or the disk refuses; the gallery is as it was.
    """
    if old := photos_older_than(writer, days):
        forget(writer, old)
    return Retention(len(old), writer.count())
