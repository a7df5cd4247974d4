"""How a client shows who it is, and knows whom it talks to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from indexer.errors import ConfigError
from service.config import is_loopback
from service.config_access import Secret


@dataclass(frozen=True)
class Credentials:
    """What a client needs for a service that asks for it.

    Args:
        ca: PEM file with the roots of the service's certificate; encrypts.
        certificate: PEM file, the client's own certificate, where the service asks for one; with its `key`.
        key: PEM file, the certificate's private key.
        token: an API key or a JSON web token.
        insecure: whether the token may travel unencrypted to another machine.

    Raises:
        ConfigError: half a pair of certificate and key.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: Secret | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("a client's certificate and its key must be given together, one of them is missing")
        if self.certificate is not None and self.ca is None:
            raise ConfigError("a client's certificate needs the service's root certificates, too (ca)")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return () if self.token is None else (("authorization", f"Bearer {self.token.reveal()}"),)

    def channel(self, target: str, options: Sequence[tuple[str, Any]], open_insecure: Any, open_secure: Any) -> Any:
        """A channel of `grpc` or `grpc.aio`.

        Args:
            target: HOST:PORT.
            options: of the channel.
            open_insecure: `insecure_channel` of either.
            open_secure: `secure_channel` of either.

        Raises:
            ConfigError: a file cannot be read, or a key would travel unencrypted.
        """
        if self.ca is None:
            if self.token is not None and not self.insecure and not _is_here(target):
                raise ConfigError(f"the key would travel to {target} unencrypted; give the service's root certificate")
            return open_insecure(target, options=options)
        try:
            roots, key, chain = (
                None if path is None else path.read_bytes() for path in (self.ca, self.key, self.certificate)
            )
        except OSError as error:
            raise ConfigError(f"{Path(error.filename).name} cannot be read ({error.strerror})") from error
        return open_secure(target, grpc.ssl_channel_credentials(roots, key, chain), options=options)


NO_CREDENTIALS: Final = Credentials()


def _is_here(target: str) -> bool:
    try:
        return is_loopback(target)
    except ConfigError:
        return target.startswith("unix:")
