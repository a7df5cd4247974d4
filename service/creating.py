"""Galleries that admins make and remove over gRPC: folders in one folder, all of which are served.

A gallery appears by one rename when all of it is there, and goes by one: whenever the service is killed, the folder
holds whole galleries alone, and remains that nobody takes for one until the next start removes them.
"""

import asyncio
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from indexer import versions
from indexer.errors import ConfigError, DataError, GalleryError, GalleryHeldError, QueryError
from indexer.faces import FaceDetector
from indexer.framing import default_crop
from indexer.gallery import Gallery
from indexer.ledger import Framing, fsync_folder, manifest_path, refusal
from indexer.locks import is_being_written
from indexer.metadata import Kind, check_kinds
from indexer.store import StoreWriter
from service.config import Config
from service.config_access import CreatedConfig, GalleryConfig
from service.errors import ExistingGalleryError
from service.galleries import Galleries
from service.opening import Opener

MAX_GALLERIES: Final = 1000
"""In the folder: each is looked at twice a second, and all are listed in one answer."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAKING, _ERASING = ".making-", ".erasing-"


def with_created(config: Config) -> Config:
    """The settings with those of the galleries that lie in the folder for new ones.

    Raises:
        ConfigError: one has the name of a gallery that lies elsewhere, or there can be no galleries in the folder.
    """
    if (folder := config.created.folder) is not None:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"the folder for new galleries must be a folder, {folder.name} is a file; name another")
        if manifest_path(folder).exists():
            raise ConfigError(
                f"the folder for new galleries must hold galleries, {folder.name} is one itself; name the folder that "
                f"it lies in, or serve it alone: mgrl serve {folder.name}"
            )
    found = {path.name: path for path in _found(config.created)}
    for name in found.keys() & config.galleries.keys():
        path = config.galleries[name].path or Path(name)
        if path.resolve() != found[name].resolve():
            raise ConfigError(
                f"galleries must have different names, two are named {name}: one in the folder of [created], one in "
                f"[galleries.{name}]; rename one"
            )
    created = {name: config.created.gallery(path) for name, path in found.items()}
    return replace(config, galleries={**created, **config.galleries})


def sweep(config: Config) -> None:
    """Remove what a service that was killed has left of galleries that it was making or removing."""
    if (folder := config.created.folder) is not None:
        for path in (*folder.glob(f"{_MAKING}*"), *folder.glob(f"{_ERASING}*")):
            if not is_being_written(path):
                shutil.rmtree(path, ignore_errors=True)


class GalleryMaker:
    """Makes and removes galleries of a running service, on its event loop.

    Args:
        galleries: what is served.
        opener: opens galleries, and has the model that new ones are made for.
        config: the settings in force.
    """

    def __init__(self, galleries: Galleries, opener: Opener, config: Callable[[], Config]) -> None:
        self._galleries, self._opener, self._config = galleries, opener, config

    async def create(self, name: str, kinds: Mapping[str, Kind], crop: str = "") -> Gallery:
        """An empty gallery, which is served when this returns.

        Args:
            name: also its folder's.
            kinds: its metadata fields.
            crop: how its photos are cropped, "none" or one of `indexer.framing.TOLERANCES`; empty for the default.

        Raises:
            QueryError: no gallery can have this name, or these fields.
            ExistingGalleryError: there is one.
            ForbiddenError: the call's caller may not use a gallery of this name.
            ConfigError: the service has no folder for new galleries, too many in it, or cannot find faces.
            GalleryError: the disk refuses.
        """
        if not _NAME.fullmatch(name):
            raise QueryError(
                "a gallery's name must be 1 to 64 letters, digits, dots, underscores and hyphens, the first a letter "
                f"or digit; got {name[:80]!r}",
                field="gallery",
            )
        try:
            check_kinds(kinds)
        except DataError as error:
            raise QueryError(str(error), field="fields") from error
        self._galleries.check_free(name)  # at once, so that the call's record names it whatever becomes of the call
        # A caller who goes away must not leave a gallery that is on the disk and not served, nor `delete` the reverse.
        return await asyncio.shield(self._create(name, kinds, Framing(crop or default_crop())))

    async def delete(self, name: str) -> None:
        """Serve a gallery no longer, and remove all of its files.

        Raises:
            UnknownGalleryError, QueryError, ForbiddenError: as `Galleries.find`.
            ConfigError: it does not lie in the folder for new galleries.
            GalleryError: it is being written, or the disk refuses.
        """
        if not name:
            raise QueryError("name the gallery to be removed, also where it is the only one", field="gallery")
        self._galleries.find(name)
        await asyncio.shield(self._delete(name))

    async def _create(self, name: str, kinds: Mapping[str, Kind], framing: Framing) -> Gallery:
        async with self._galleries.changing:
            self._galleries.check_free(name)
            gallery, settings = await asyncio.to_thread(self._make, name, kinds, framing)
            self._galleries.add(gallery, settings)
        return gallery

    async def _delete(self, name: str) -> None:
        async with self._galleries.changing:
            gallery = self._galleries.find(name)
            if gallery.folder.resolve() not in [path.resolve() for path in _found(self._config().created)]:
                raise ConfigError(
                    f"gallery {name} does not lie in this service's folder for new ones ([created] folder), and is not "
                    "removed from afar; take it out of the settings"
                )
            erasing = await asyncio.to_thread(_put_aside, gallery.folder)
            self._galleries.remove(name)
            gallery.close()
            await asyncio.to_thread(_erase, erasing, name)

    def _make(self, name: str, kinds: Mapping[str, Kind], framing: Framing) -> tuple[Gallery, GalleryConfig]:
        config = self._config()
        folder, encoder = config.created.folder, self._opener.own_model(config)
        if folder is None:
            raise ConfigError(
                "this service has no folder for new galleries; start it with `mgrl serve --galleries DIR` ([created] "
                "folder), or make one with mgrl ingest"
            )
        if (folder / name).exists():
            raise ExistingGalleryError(f"the folder for new galleries holds a {name} already; choose another name")
        if len(_found(config.created)) >= MAX_GALLERIES:
            raise ConfigError(f"the folder for new galleries may hold {MAX_GALLERIES}, and it does; delete one")
        if framing.crop != "none":
            FaceDetector.open()
        making = folder / f"{_MAKING}{name}-{secrets.token_hex(4)}"
        try:
            with StoreWriter.open_or_create(making, encoder.model_hash, encoder.dim) as writer:
                writer.declare_fields(kinds)
                writer.keep_framing(framing)
            os.rename(making, folder / name)
            fsync_folder(folder)
        except (OSError, GalleryError) as error:
            shutil.rmtree(making, ignore_errors=True)
            if isinstance(error, GalleryError):
                raise
            raise GalleryError(f"gallery {name} could not be made ({refusal(folder, error)})") from error
        settings = config.created.gallery(folder / name)
        gallery = self._opener.open(name, settings)
        if config.server.approximate:
            gallery.build_approximate()  # once there are enough photos
        return gallery, settings


def _found(created: CreatedConfig) -> list[Path]:
    """The galleries in the folder for new ones."""
    if created.folder is None:
        return []
    paths = (manifest.parent for manifest in sorted(created.folder.glob("*/gallery.json")))
    return [path for path in paths if not path.name.startswith(".") and not path.is_symlink()]


def _put_aside(folder: Path) -> Path:
    """Let a folder be no gallery any more; where it is now."""
    erasing = folder.with_name(f"{_ERASING}{folder.name}-{secrets.token_hex(4)}")
    with StoreWriter.open(folder):  # nobody else writes it
        if any(map(is_being_written, versions.unfinished(folder))):
            raise GalleryHeldError(f"gallery {folder.name} is being written by `mgrl reindex`; wait until it has ended")
        try:
            os.rename(folder, erasing)
            fsync_folder(folder.parent)
        except OSError as error:
            reason = refusal(folder.parent, error)
            raise GalleryError(f"gallery {folder.name} could not be removed ({reason})") from error
    return erasing


def _erase(folder: Path, name: str) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise GalleryError(
            f"gallery {name} is served no longer, but some of its files could not be removed "
            f"({refusal(folder.parent, error)}); the service tries it again when it starts"
        ) from error
