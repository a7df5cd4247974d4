"""Opens what the settings name: each model file once, and every gallery with the one that made it."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from indexer.device import choose_device
from indexer.encoding import DEFAULT_MODEL, OnnxEncoder
from indexer.errors import ConfigError, ModelMismatchError, PublicError
from indexer.gallery import Gallery
from indexer.ledger import folder_name
from service.config import Config
from service.config_access import GalleryConfig
from service.encoders import Encoders
from service.galleries import Galleries

logger = logging.getLogger(__name__)


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
            ConfigError, GalleryError, ModelError, ModelMismatchError: one of them cannot be served; see `open_each`.
        """
        if not config.galleries and config.created.folder is None:
            raise ConfigError(
                "a service needs at least one gallery, got none; name one, or [galleries.NAME] in a file, or a folder "
                "for new ones (--galleries DIR)"
            )
        encoders = Encoders(*self.models(config).values())
        opened, broken = self.open_each(config, config.galleries, encoders)
        return Galleries(opened, encoders, config.galleries, broken)

    def open_each(
        self, config: Config, names: Iterable[str], encoders: Encoders
    ) -> tuple[list[Gallery], dict[str, PublicError]]:
        """Some galleries of the settings.

        One that nobody named, that only lies in the folder for new ones, is left out where it cannot be served: the
        others shall not go down with it.

        Args:
            config: the settings.
            names: of the galleries.
            encoders: one of them must have made each.

        Returns:
            The galleries; and why others were left out, by name.

        Raises:
            ConfigError, GalleryError, ModelMismatchError: one that was named cannot be served.
        """
        opened, broken = list[Gallery](), dict[str, PublicError]()
        try:
            for name in names:
                try:
                    opened.append(self._fitting(name, config.galleries[name], encoders))
                except PublicError as error:
                    if not config.created.has_found(config.galleries[name]):
                        raise
                    logger.warning("gallery %s cannot be served, the others are: %s", name, error)
                    broken[name] = error
        except BaseException:
            for gallery in opened:
                gallery.close()
            raise
        return opened, broken

    def _fitting(self, name: str, settings: GalleryConfig, encoders: Encoders) -> Gallery:
        gallery = self.open(name, settings)
        try:
            encoders.for_gallery(gallery)
        except ModelMismatchError:
            gallery.close()
            raise
        return gallery

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
