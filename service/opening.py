"""Opens what the settings name: each model file once, and every gallery with the one that made it."""

from collections.abc import Mapping
from pathlib import Path

from indexer.device import choose_device
from indexer.encoding import DEFAULT_MODEL, OnnxEncoder
from indexer.errors import ConfigError
from indexer.gallery import Gallery
from indexer.ledger import folder_name
from service.config import Config
from service.config_access import GalleryConfig
from service.encoders import Encoders
from service.galleries import Galleries


class Opener:
    """Opens galleries and models for one process, where and with as many threads as it may use.

    Args:
        config: says so.
        encoders: models that are open already, by file.

    Raises:
        ConfigError: there is no such device.
    """

    def __init__(self, config: Config, encoders: Mapping[Path, OnnxEncoder] | None = None) -> None:
        self._threads = config.server.threads
        self._device = choose_device(config.server.device)
        self._encoders = dict(encoders or {})

    def open_all(self, config: Config) -> Galleries:
        """Every gallery of the settings.

        Raises:
            ConfigError, GalleryError, ModelError, ModelMismatchError: one of them cannot be served.
        """
        if not config.galleries and config.created.folder is None:
            raise ConfigError(
                "a service needs at least one gallery, got none; name one, or [galleries.NAME] in a file, or a folder "
                "for new ones (--galleries DIR)"
            )
        opened = [self.open(name, gallery) for name, gallery in config.galleries.items()]
        return Galleries(opened, Encoders(*self.models(config).values()), config.galleries)

    def own_model(self, config: Config) -> OnnxEncoder:
        """The model of the galleries that name none.

        Raises:
            ModelError: its file is no model.
        """
        return self._model(config.server.model or DEFAULT_MODEL)

    def models(self, config: Config) -> Mapping[Path, OnnxEncoder]:
        """The models that the settings' galleries were made by, or will be, by file.

        Raises:
            ModelError: a file is no model.
        """
        if config.created.folder is not None:
            self.own_model(config)
        for gallery in config.galleries.values():
            self._model(gallery.model or config.server.model or DEFAULT_MODEL)
        return self._encoders

    def _model(self, path: Path) -> OnnxEncoder:
        if path not in self._encoders:
            self._encoders[path] = OnnxEncoder.open(path, threads=self._threads, device=self._device, spins=False)
        return self._encoders[path]

    def open(self, name: str, settings: GalleryConfig) -> Gallery:
        """One gallery.

        Raises:
            ConfigError: the folder has another name.
            GalleryError: it is no gallery.
        """
        path = settings.path or Path(name)
        gallery = Gallery.open(path, device=self._device)
        if folder_name(path) != name:
            gallery.close()
            raise ConfigError(
                f"[galleries.{name}] path: the folder is named {folder_name(path)}, and a gallery is served under its "
                "folder's name; rename one of them"
            )
        return gallery
