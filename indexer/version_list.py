"""The versions of a gallery, with what each of them holds."""

from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from indexer import versions
from indexer.errors import GalleryError
from indexer.ledger import Manifest
from indexer.store import Store
from indexer.usage import version_bytes


class State(StrEnum):
    """What a version is to its gallery."""

    CURRENT = "current"
    UNFINISHED = "unfinished"
    SUPERSEDED = "superseded"


@dataclass(frozen=True)
class Version:
    """One of them.

    Args:
        state: what it is to the gallery.
        manifest: what it says of itself.
        photos: in it.
        bytes: of its files.
    """

    state: State
    manifest: Manifest
    photos: int
    bytes: int


def list_versions(folder: Path) -> list[Version]:
    """The versions, the current one first.

    One that goes while it is read is left out, and one that an older release took out of use and has no record of.

    Raises:
        GalleryError: no gallery there, or it is damaged.
    """
    listed = [_read(folder, versions.home_of(folder), State.CURRENT)]
    others = {State.UNFINISHED: versions.unfinished(folder), State.SUPERSEDED: versions.superseded(folder)}
    for state, paths in others.items():
        for path in paths:
            with suppress(GalleryError):
                listed.append(_read(folder, path, state))
    return listed


def _read(folder: Path, version: Path, state: State) -> Version:
    manifest = versions.manifest_of(folder, version)
    store = Store(folder, version, manifest)
    try:
        return Version(state, manifest, store.count(), version_bytes(version))
    finally:
        store.close()
