"""Finds out who calls: by an API key, a token, or the certificate that the connection was made with."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from indexer.errors import ConfigError
from service.auth.callers import ANYONE, Caller
from service.auth.keys import PREFIX, ApiKey, find_key, load_keys
from service.auth.tokens import TokenReader
from service.config import Config
from service.config_access import LimitsConfig
from service.errors import AuthenticationError

logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 1.0
"""Seconds between two looks whether the key file changed: a revoked key opens nothing after that."""


class KeyRing:
    """The keys of one file, read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._stamp_now()
        self._keys = {key.id: key for key in load_keys(path)}
        self._looked = time.monotonic()
        self._complaint = ""

    def find(self, token: str) -> ApiKey | None:
        """The key that a text opens, expired and revoked ones included."""
        self._look()
        return find_key(self._keys, token)

    def _look(self) -> None:
        if time.monotonic() - self._looked < _LOOK_EVERY_S:
            return
        self._looked = time.monotonic()
        if (stamp := self._stamp_now()) == self._stamp:
            return
        try:
            self._keys = {key.id: key for key in load_keys(self._path)}
        except ConfigError as error:
            # The file is replaced as a whole by `mgrl keys`; what somebody broke by hand must not lock everybody out.
            # Tried again, for what puts it right may not change its stamp: chmod.
            if str(error) != self._complaint:
                logger.error("the keys as they were stay in force: %s", error)
            self._complaint = str(error)
        else:
            self._stamp, self._complaint = stamp, ""
            logger.info("keys were read again: %d", len(self._keys))

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


class Authenticator:
    """Knows the callers of a service. Use `Authenticator.open`; the constructor only stores.

    Args:
        config: the settings.
        keys: API keys, or None.
        tokens: reads JSON web tokens, or None.
        clock: Unix time, for what expires.
    """

    def __init__(
        self,
        config: Config,
        keys: KeyRing | None = None,
        tokens: TokenReader | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._keys = keys
        self._tokens = tokens
        self._clock = clock

    @classmethod
    def open(cls, config: Config) -> "Authenticator":
        """With the keys that the settings name.

        Raises:
            ConfigError: a file of keys cannot be used.
        """
        keys = KeyRing(config.auth.keys) if config.auth.keys is not None else None
        return cls(config, keys, TokenReader.open(config.jwt) if config.jwt.is_on else None)

    def identify(
        self, metadata: Iterable[tuple[str, str | bytes]], connection: Mapping[str, Iterable[bytes]]
    ) -> Caller:
        """Who calls; asked again with every message of a stream.

        Args:
            metadata: of the call; `authorization: Bearer KEY` is looked at.
            connection: gRPC's auth context.

        Raises:
            AuthenticationError: a key or token that is wrong, expired or revoked; or none where one is asked for.
        """
        if not self._config.asks_who_calls:
            return replace(ANYONE, limits=self._config.limits)
        sent = next((value for name, value in metadata if name == "authorization"), None)
        if sent is None:
            return self._by_certificate(connection)
        scheme, _, token = (sent if isinstance(sent, str) else "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise AuthenticationError("the metadata `authorization` must be `Bearer KEY`, with an API key or a token")
        if token.startswith(PREFIX) and self._keys is not None:
            return self._by_key(self._keys.find(token))
        if self._tokens is not None:
            return self._tokens.caller(token, self._config.limits)
        raise AuthenticationError("the key is not known here")

    def _by_key(self, key: ApiKey | None) -> Caller:
        if key is None:
            raise AuthenticationError("the key is not known here")
        if key.revoked is not None:
            raise AuthenticationError(f"the key {key.name} was revoked")
        if self._clock() >= key.expires_at:
            until = datetime.fromtimestamp(key.expires_at, UTC)
            raise AuthenticationError(f"the key {key.name} expired on {until:%Y-%m-%d}; get a new one")
        galleries = None if key.galleries is None else frozenset(key.galleries)
        limits = limits_of(key, self._config.limits)
        return Caller(key.name, "key", frozenset(key.roles), galleries, limits)

    def _by_certificate(self, connection: Mapping[str, Iterable[bytes]]) -> Caller:
        # Only certificates that a root of ours signed get this far: the handshake refuses all others.
        name = next(iter(connection.get("x509_common_name", ())), None)
        roles = frozenset(self._config.tls.client_roles)
        if self._config.tls.client_ca is None or not name or not roles:
            raise AuthenticationError(
                "no key was sent; commands take --key-file, other callers add the metadata `authorization: Bearer KEY`"
            )
        return Caller(name.decode("utf-8", "replace")[:200], "certificate", roles, limits=self._config.limits)


def limits_of(key: ApiKey, default: LimitsConfig) -> LimitsConfig:
    """A key's own limits, with the service's for what it leaves out."""
    return replace(default, **key.limits)  # type: ignore[arg-type]  # names and numbers were checked when it was read
