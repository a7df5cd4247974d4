"""The models that one service has loaded. A gallery is searched with the one that made it."""

from collections.abc import Iterator

from indexer.encoding import RegionEncoder
from indexer.errors import ConfigError, ModelMismatchError
from indexer.gallery import Gallery
from indexer.ledger import Manifest, check_model


class Encoders:
    """Encoders by the hash of their weights, one at least.

    Args:
        encoders: the first one names itself in the message that refuses a gallery of another model.
    """

    def __init__(self, *encoders: RegionEncoder) -> None:
        if not encoders:
            raise ConfigError("a service needs at least one model, got none")
        self._by_hash = {encoder.model_hash: encoder for encoder in encoders}

    @classmethod
    def of(cls, encoders: "RegionEncoder | Encoders") -> "Encoders":
        """The same, or the only one."""
        return encoders if isinstance(encoders, Encoders) else cls(encoders)

    def __iter__(self) -> Iterator[RegionEncoder]:
        return iter(self._by_hash.values())

    def add(self, encoder: RegionEncoder) -> None:
        """Have one more, for galleries to come."""
        self._by_hash[encoder.model_hash] = encoder

    def for_gallery(self, gallery: Gallery) -> RegionEncoder:
        """The encoder that made a gallery.

        Raises:
            ModelMismatchError: none of these did.
        """
        return self.for_model(gallery.name, gallery.manifest)

    def for_model(self, name: str, manifest: Manifest) -> RegionEncoder:
        """The encoder that made a gallery of this manifest.

        Raises:
            ModelMismatchError: none of these did.
        """
        encoder = self._by_hash.get(manifest.model_hash)
        if encoder is None and len(self._by_hash) > 1:
            known = ", ".join(sorted(model_hash[:12] for model_hash in self._by_hash))
            raise ModelMismatchError(
                f"gallery {name} was made by model {manifest.model_hash[:12]}, the service has {known}; name "
                "the file of its model in the gallery's settings, or change the gallery's model (`mgrl reindex`)"
            )
        encoder = encoder or next(iter(self._by_hash.values()))
        check_model(name, manifest, encoder.model_hash, encoder.dim)
        return encoder
