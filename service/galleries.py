"""The galleries that one service answers for, all made by the model at hand."""

from collections.abc import Iterable, Iterator

from indexer.encoding import RegionEncoder
from indexer.errors import ConfigError, GalleryError, QueryError
from indexer.gallery import Gallery
from service.errors import UnknownGalleryError


class Galleries:
    """Galleries by name.

    Raises:
        ConfigError: no galleries, or two of the same name.
        GalleryError: one has no photos.
        ModelMismatchError: one was made by another model.
    """

    def __init__(self, galleries: Iterable[Gallery], encoder: RegionEncoder) -> None:
        self._by_name: dict[str, Gallery] = {}
        for gallery in galleries:
            if gallery.name in self._by_name:
                raise ConfigError(f"galleries must have different names, two are named {gallery.name}; rename one")
            if gallery.photos == 0:
                raise GalleryError(f"gallery {gallery.name} has no photos; add some with `mgrl ingest`")
            gallery.check_model(encoder)
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
