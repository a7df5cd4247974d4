"""Deletes photos from a gallery, whichever of its versions has them: deleted means the same everywhere.

`indexer.compaction` takes what is left of them, rows of vectors that nothing names, out of the files.
"""

from collections.abc import Iterable, Sequence, Set
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

from indexer import edits, ledger, versions
from indexer.errors import GalleryError, GalleryHeldError, unknown_photo
from indexer.ledger import LEDGER
from indexer.store import StoreWriter


def delete(writer: StoreWriter, photo_ids: Sequence[str]) -> None:
    """Take photos out for good, by any of their names, all or none, see `StoreWriter.delete`.

    Versions that were the gallery's, which services without the newer model still serve, lose them as well, and so does
    one in the making. Where `mgrl reindex` is at work on that, it drops them itself when it ends or goes on.

    Raises:
        UnknownPhotoError: an id is not there.
        GalleryError: the disk refuses.
    """
    with writer.reading() as connection:
        there = edits.rows_of(connection, photo_ids)
        photos = edits.photos_in(connection, there.values())
    names, contents = {*photo_ids, *photos}, set(photos.values())
    if missing := [photo_id for photo_id in photo_ids if photo_id not in there]:
        raise unknown_photo(writer.name, missing[0])
    # The gallery's own last: killed in between, it still has the photos, and the same again goes on.
    for version in versions.superseded(writer.root):
        if (version / LEDGER).exists():
            _delete_superseded(writer, version, names, contents)
    for version in versions.unfinished(writer.root):
        with suppress(GalleryHeldError), StoreWriter.open(version) as unfinished:
            with unfinished.reading() as connection:
                known = _known(connection, names, contents, writer)
            unfinished.delete(known)
    writer.delete(photo_ids)


def _known(connection: sa.Connection, names: Iterable[str], contents: Set[bytes], writer: StoreWriter) -> list[str]:
    """Ids in another version of photos that are to go.

    It may lack the alias by which one is named now, and still have one under the name it had before a rename. Copies
    that the gallery keeps under names of their own stay.
    """
    same = edits.ids_of_contents(connection, contents)
    now = writer.contents_of(same)
    return list(edits.rows_of(connection, [*names, *(name for name in same if now.get(name) not in contents)]))


def _delete_superseded(writer: StoreWriter, version: Path, names: Iterable[str], contents: Set[bytes]) -> None:
    """Nobody else writes it, and compaction removes it under the lock that the caller holds."""
    engine = ledger.open_engine(version)
    try:
        with engine.begin() as connection:
            edits.delete_photos(connection, _known(connection, names, contents, writer))
            edits.touch(connection)
        ledger.empty_log(engine)
    except sa.exc.DBAPIError as error:
        raise GalleryError(
            f"gallery {writer.name}: photos could not be deleted from the version that it had before "
            f"({ledger.refusal(version, error)})"
        ) from error
    finally:
        engine.dispose()
