"""The galleries that one service answers for, each with the model that made it."""

from collections.abc import Iterable, Iterator

from indexer.encoding import RegionEncoder
from indexer.errors import ConfigError, GalleryError, QueryError
from indexer.gallery import Gallery
from service.encoders import Encoders
from service.errors import UnknownGalleryError


class Galleries:
    """Galleries by name.

    Raises:
        ConfigError: no galleries, or two of the same name.
        GalleryError: one has no photos.
        ModelMismatchError: one was made by a model that is not at hand.
    """

    def __init__(self, galleries: Iterable[Gallery], encoders: RegionEncoder | Encoders) -> None:
        self.encoders = Encoders.of(encoders)
        self._by_name: dict[str, Gallery] = {}
        for gallery in galleries:
            if gallery.name in self._by_name:
                raise ConfigError(f"galleries must have different names, two are named {gallery.name}; rename one")
            if gallery.photos == 0:
                raise GalleryError(f"gallery {gallery.name} has no photos; add some with `mgrl ingest`")
            self.encoders.for_gallery(gallery)
            self._by_name[gallery.name] = gallery
        if not self._by_name:
            raise ConfigError("a service needs at least one gallery, got none")

    def __iter__(self) -> Iterator[Gallery]:
        return (self._by_name[name] for name in sorted(self._by_name))

    def __len__(self) -> int:
        return len(self._by_name)

    def replace(self, newer: Gallery) -> None:
        """Serve a newer gallery under its name; who holds the older one keeps it."""
        self._by_name[newer.name] = newer

    def find(self, name: str) -> Gallery:
        """The gallery of that name; an empty name means the only one.

        Raises:
            UnknownGalleryError: no gallery of that name.
            QueryError: no name, and several galleries to choose from.
        """
        if name in self._by_name:
            return self._by_name[name]
        names = ", ".join(sorted(self._by_name))
        if name:
            raise UnknownGalleryError(f"no gallery is named {name[:80]!r}; there are: {names}")
        if len(self._by_name) > 1:
            raise QueryError(f"several galleries are served, name one of: {names}")
        return next(iter(self._by_name.values()))
