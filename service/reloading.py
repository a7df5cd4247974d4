"""Takes in changed settings while the service runs: galleries, keys, certificates, limits, what is put on record.

All of it is read and opened before anything changes; what cannot be used is logged, and the settings stay as they were.
What a running process cannot change is named, and waits for a restart.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields, replace
from typing import Final, NamedTuple

from indexer.errors import ConfigError, PublicError
from indexer.gallery import Gallery
from service.access import Access
from service.auth.authenticator import Authenticator
from service.certificates import Certificates
from service.config import Config
from service.config_access import GalleryConfig
from service.galleries import Galleries
from service.opening import Opener

logger = logging.getLogger(__name__)

_KEPT_TLS: Final = ("certificate", "key", "client_ca")
_KEPT_AUDIT: Final = ("file", "rotate_bytes")


class _Prepared(NamedTuple):
    opened: list[Gallery]
    broken: dict[str, PublicError]
    authenticator: Authenticator


class Reloader:
    """Changes a running service, on its event loop.

    Args:
        read: reads the settings anew, from wherever they came.
        opener: opens galleries as those that are served were opened.
        config: the settings in force.
        galleries: what is served.
        access: what stands before it.
    """

    def __init__(
        self, read: Callable[[], Config], opener: Opener, config: Config, galleries: Galleries, access: Access
    ) -> None:
        self._read = read
        self._opener = opener
        self._config = config
        self._galleries = galleries
        self._access = access

    @property
    def config(self) -> Config:
        """The settings in force."""
        return self._config

    async def reload(self) -> bool:
        """Take in what has changed; False, with a line in the log, where the settings stay as they were."""
        async with self._galleries.changing:
            try:
                newer, waiting = settled(self._config, await asyncio.to_thread(self._read))
                prepared = await asyncio.to_thread(self._prepare, newer)
            except (PublicError, OSError) as error:
                logger.error("the settings as they were stay in force: %s", error)
                return False
            for line in (*self._apply(newer, prepared), *(f"{key} takes a restart" for key in waiting)):
                logger.info("settings: %s", line)
            return True

    def _prepare(self, newer: Config) -> _Prepared:
        """Open what is new; nothing that is served changes."""
        if not newer.galleries and newer.created.folder is None:
            raise ConfigError("a service needs at least one gallery, there would be none")
        if newer.tls.is_on:
            Certificates(newer.tls)
        authenticator = Authenticator.open(newer)
        for encoder in self._opener.models(newer).values():
            self._galleries.encoders.add(encoder)
        names = [name for name, settings in newer.galleries.items() if not self._is_served(name, settings)]
        opened, broken = self._opener.open_each(newer, names, self._galleries.encoders)
        with ExitStack() as unless_all_are_ready:
            for gallery in opened:
                unless_all_are_ready.callback(gallery.close)
            if newer.server.approximate:
                for gallery in opened:
                    gallery.build_approximate()
            unless_all_are_ready.pop_all()
        return _Prepared(opened, broken, authenticator)

    def _is_served(self, name: str, settings: GalleryConfig) -> bool:
        """Whether the gallery that these settings mean is open already."""
        before = self._galleries.all_settings.get(name)
        is_same = before is not None and (before.path, before.model) == (settings.path, settings.model)
        return is_same and name not in self._galleries.broken

    def _apply(self, newer: Config, prepared: _Prepared) -> list[str]:
        gone = self._galleries.all_settings.keys() - newer.galleries.keys()
        self._galleries.change(prepared.opened, gone, newer.galleries, prepared.broken)
        self._access.guard.authenticator = prepared.authenticator
        if self._access.log is not None:
            self._access.log.config = newer.audit
        lines = [f"gallery {gallery.name} is served, {gallery.photos} photos" for gallery in prepared.opened]
        lines += [f"gallery {name} is served no longer" for name in sorted(gone)]
        for section in ("tls", "auth", "jwt", "limits", "audit"):
            if getattr(newer, section) != getattr(self._config, section):
                lines.append(f"[{section}] has changed")
        self._config = newer
        return lines or ["nothing has changed"]


def settled(before: Config, newer: Config) -> tuple[Config, list[str]]:
    """The newer settings, with those of before where a running process cannot change them; and the names of these.

    Raises:
        ConfigError: the newer ones do not go with those of before.
    """
    kept = {"server": [field.name for field in fields(before.server)], "tls": _KEPT_TLS, "audit": _KEPT_AUDIT}
    sections, waiting = {}, []
    for section, names in kept.items():
        old, new = getattr(before, section), getattr(newer, section)
        values = {name: getattr(old, name) for name in names}
        waiting += [f"{section}.{name}" for name, value in values.items() if value != getattr(new, name)]
        sections[section] = replace(new, **values)
    try:
        return replace(newer, **sections), waiting
    except ConfigError as error:
        raise ConfigError(f"{error}: changes to {', '.join(waiting)} take a restart") from error
