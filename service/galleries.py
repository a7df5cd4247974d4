"""The galleries that one service answers for, each with the model that made it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from indexer.encoding import RegionEncoder
from indexer.errors import ConfigError, GalleryError, QueryError
from indexer.gallery import Gallery
from service.auth.callers import current_call
from service.config_access import ROLES, GalleryConfig
from service.encoders import Encoders
from service.errors import ForbiddenError, UnknownGalleryError

_DEFAULTS: Final = GalleryConfig()


class Galleries:
    """Galleries by name. Inside a call there are those alone that its caller may use.

    Args:
        galleries: one at least.
        encoders: the models that made them.
        settings: by name; the defaults for a gallery that is not there.

    Raises:
        ConfigError: no galleries, or two of the same name.
        GalleryError: one has no photos.
        ModelMismatchError: one was made by a model that is not at hand.
    """

    def __init__(
        self,
        galleries: Iterable[Gallery],
        encoders: RegionEncoder | Encoders,
        settings: Mapping[str, GalleryConfig] | None = None,
    ) -> None:
        self.encoders = Encoders.of(encoders)
        self._settings = dict(settings or {})
        self._by_name: dict[str, Gallery] = {}
        for gallery in galleries:
            if gallery.name in self._by_name:
                raise ConfigError(f"galleries must have different names, two are named {gallery.name}; rename one")
            self.check(gallery)
            self._by_name[gallery.name] = gallery
        if not self._by_name:
            raise ConfigError("a service needs at least one gallery, got none")

    def __iter__(self) -> Iterator[Gallery]:
        return (gallery for name, gallery in sorted(self._by_name.items()) if _may_use(name))

    def __len__(self) -> int:
        return sum(map(_may_use, self._by_name))

    def settings(self, name: str) -> GalleryConfig:
        """What was said about a gallery."""
        return self._settings.get(name, _DEFAULTS)

    def check(self, gallery: Gallery) -> None:
        """Refuse a gallery that cannot be searched.

        Raises:
            GalleryError: it has no photos.
            ModelMismatchError: it was made by a model that is not at hand.
        """
        if gallery.photos == 0:
            raise GalleryError(f"gallery {gallery.name} has no photos; add some with `mgrl ingest`")
        self.encoders.for_gallery(gallery)

    def replace(self, older: Gallery, newer: Gallery) -> None:
        """Serve a newer gallery in place of an older one, if that is served still; who holds it keeps it.

        Changed settings may have put another folder under its name while the newer one was being opened.
        """
        if self._by_name.get(older.name) is older:
            self._by_name[older.name] = newer

    def change(self, add: Iterable[Gallery], remove: Iterable[str], settings: Mapping[str, GalleryConfig]) -> None:
        """Serve some more, or in place of others of their names, and some no longer; all with these settings."""
        gone = set(remove)
        changed = {name: gallery for name, gallery in self._by_name.items() if name not in gone}
        self._by_name = changed | {gallery.name: gallery for gallery in add}
        self._settings = dict(settings)

    def find(self, name: str) -> Gallery:
        """The gallery of that name; an empty name means the only one.

        Raises:
            UnknownGalleryError: no gallery of that name.
            QueryError: no name, and several galleries to choose from.
            ForbiddenError: the call's caller may not do here what it is about to.
        """
        call = current_call()
        if call is not None and name and not call.caller.may_use(name):
            # The same whether or not there is such a gallery.
            raise ForbiddenError(f"{call.caller} may not use gallery {name[:80]!r}")
        mine = list(self)
        names = ", ".join(gallery.name for gallery in mine)
        if name and name not in self._by_name:
            raise UnknownGalleryError(f"no gallery is named {name[:80]!r}; there are: {names}")
        if not name and not mine:
            raise ForbiddenError("the caller may use none of the galleries that are served")
        if not name and len(mine) > 1:
            raise QueryError(f"several galleries are served, name one of: {names}")
        gallery = self._by_name[name] if name else mine[0]
        if call is not None and call.role in ROLES and call.role not in self.settings(gallery.name).roles:
            raise ForbiddenError(f"gallery {gallery.name} is not open to the role {call.role} in this service")
        if call is not None:
            call.gallery = gallery.name
        return gallery


def _may_use(name: str) -> bool:
    call = current_call()
    return call is None or call.caller.may_use(name)
