"""The galleries that one service answers for, each with the model that made it."""

import asyncio
import threading
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from indexer.encoding import RegionEncoder
from indexer.errors import ConfigError, GalleryError, PublicError, QueryError
from indexer.gallery import Gallery
from service.auth.callers import current_call
from service.config_access import ROLES, GalleryConfig
from service.encoders import Encoders
from service.errors import ExistingGalleryError, ForbiddenError, UnknownGalleryError

_DEFAULTS: Final = GalleryConfig()
_NONE: Final[Mapping[str, PublicError]] = MappingProxyType({})


class Galleries:
    """Galleries by name. Inside a call there are those alone that its caller may use.

    Args:
        galleries: none, one or several; some may have no photos yet.
        encoders: the models that made them.
        settings: by name; the defaults for a gallery that is not there.
        broken: why further galleries cannot be served, by name.

    Raises:
        ConfigError: two have the same name.
        ModelMismatchError: one was made by a model that is not at hand.
    """

    def __init__(
        self,
        galleries: Iterable[Gallery],
        encoders: RegionEncoder | Encoders,
        settings: Mapping[str, GalleryConfig] | None = None,
        broken: Mapping[str, PublicError] = _NONE,
    ) -> None:
        self.encoders = Encoders.of(encoders)
        self._settings = dict(settings or {})
        self.broken = dict(broken)
        """Why galleries that are there cannot be served, by name."""
        self.changing = asyncio.Lock()
        """Held by whoever adds galleries to those that are served, or takes some away."""
        self._replacing = threading.Lock()  # `replace` comes from another thread than what adds and removes
        self._by_name: dict[str, Gallery] = {}
        for gallery in galleries:
            if gallery.name in self._by_name:
                raise ConfigError(f"galleries must have different names, two are named {gallery.name}; rename one")
            self.check(gallery)
            self._by_name[gallery.name] = gallery

    def __iter__(self) -> Iterator[Gallery]:
        return (gallery for name, gallery in sorted(self._by_name.items()) if _may_use(name))

    def __len__(self) -> int:
        return sum(map(_may_use, self._by_name))

    @property
    def all_settings(self) -> Mapping[str, GalleryConfig]:
        """What was said about each gallery, by name."""
        return self._settings

    def settings(self, name: str) -> GalleryConfig:
        """What was said about a gallery."""
        return self._settings.get(name, _DEFAULTS)

    def check(self, gallery: Gallery) -> None:
        """Refuse a gallery that cannot be searched.

        Raises:
            ModelMismatchError: it was made by a model that is not at hand.
        """
        self.encoders.for_gallery(gallery)

    def check_caller(self, name: str) -> None:
        """Refuse what the call's caller may not do with a gallery of that name; an empty name is open to all.

        Raises:
            ForbiddenError: so; in the same words whether or not there is a gallery that the caller may not use.
        """
        call = current_call()
        if name and not _may_use(name):
            raise ForbiddenError(f"{call.caller if call else 'nobody'} may not use gallery {name[:80]!r}")
        if name in self._by_name and call and call.role in ROLES and call.role not in self.settings(name).roles:
            raise ForbiddenError(f"gallery {name} is not open to the role {call.role} in this service")

    def check_free(self, name: str) -> None:
        """Refuse a name that is taken, or that the call's caller may not use.

        Raises:
            ForbiddenError, ExistingGalleryError: so.
        """
        self.check_caller(name)
        if (call := current_call()) is not None:
            call.gallery = name
        if name in self._by_name:
            raise ExistingGalleryError(f"a gallery named {name} is served already; choose another name")

    def add(self, gallery: Gallery, settings: GalleryConfig) -> None:
        """Serve one more."""
        with self._replacing:
            self._by_name[gallery.name] = gallery
            self._settings[gallery.name] = settings

    def remove(self, name: str) -> None:
        """Serve one no longer."""
        with self._replacing:
            del self._by_name[name]
            self._settings.pop(name, None)

    def latest(self, gallery: Gallery) -> Gallery:
        """The gallery that is served under the name of this one now; the same where there is none. From any thread."""
        return self._by_name.get(gallery.name, gallery)

    def replace(self, older: Gallery, newer: Gallery) -> bool:
        """Serve a newer gallery in place of an older one, if that is served still; who holds it keeps it.

        It may have been removed while the newer one was being opened, or changed settings may have put another folder
        under its name.

        Returns:
            Whether the newer one is served.
        """
        with self._replacing:
            is_served = self._by_name.get(older.name) is older
            if is_served:
                self._by_name[older.name] = newer
        return is_served

    def change(
        self,
        add: Iterable[Gallery],
        remove: Iterable[str],
        settings: Mapping[str, GalleryConfig],
        broken: Mapping[str, PublicError] = _NONE,
    ) -> None:
        """Serve some more, or in place of others of their names, and some no longer; all with these settings."""
        gone = {*remove, *broken}
        with self._replacing:
            changed = {name: gallery for name, gallery in self._by_name.items() if name not in gone}
            self._by_name = changed | {gallery.name: gallery for gallery in add}
            self._settings, self.broken = dict(settings), dict(broken)

    def find(self, name: str) -> Gallery:
        """The gallery of that name; an empty name means the only one.

        Raises:
            UnknownGalleryError: no gallery of that name.
            QueryError: no name, and several galleries to choose from.
            GalleryError: it is there and cannot be served.
            ForbiddenError: the call's caller may not do here what it is about to.
        """
        self.check_caller(name)
        mine = list(self)
        names = ", ".join(gallery.name for gallery in mine)
        if name or not mine:
            self._check_whole(name or next(filter(_may_use, self.broken), ""))
        if not self._by_name:
            raise UnknownGalleryError("no gallery is served yet; make one (CreateGallery)")
        if name and name not in self._by_name:
            raise UnknownGalleryError(f"no gallery is named {name[:80]!r}; there are: {names}")
        if not name and not mine:
            raise ForbiddenError("the caller may use none of the galleries that are served")
        if not name and len(mine) > 1:
            raise QueryError(f"several galleries are served, name one of: {names}")
        gallery = self._by_name[name] if name else mine[0]
        self.check_caller(gallery.name)
        if (call := current_call()) is not None:
            call.gallery = gallery.name
        return gallery

    def _check_whole(self, name: str) -> None:
        if (reason := self.broken.get(name)) is not None:
            raise GalleryError(
                f"gallery {name} cannot be served: {reason}; when that is put right (`mgrl verify {name}` says more), "
                "reload the settings or restart the service"
            )


def _may_use(name: str) -> bool:
    call = current_call()
    return call is None or call.caller.may_use(name)
