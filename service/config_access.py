"""Settings of who may do what: encryption, keys, tokens, limits, the audit log, and each gallery's own."""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

from indexer.errors import ConfigError

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""Of a request: gRPC's own default, stated. A 3 MiB picture and 300,000 points fit."""

ROLES: Final = ("search", "ingest", "admin")
"""What a caller may be allowed: none of them includes another."""

JWT_ALGORITHMS: Final = ("HS256", "RS256", "ES256")


class Secret:
    """Text that no log, error or listing shows."""

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True)
class TlsConfig:
    """Encryption; off without a certificate. The files may be replaced while the service runs.

    Args:
        certificate: PEM file, the service's certificate and those between it and its root.
        key: PEM file, the certificate's private key without a password.
        client_ca: PEM file; if set, clients must show a certificate of these roots.
        client_roles: what a client may do that shows a certificate but no key or token.

    Raises:
        ConfigError: half a pair, or an unknown role.
    """

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    client_roles: tuple[str, ...] = ("search",)

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("certificate and key must be set together, one of them is missing")
        if self.client_ca is not None and self.certificate is None:
            raise ConfigError("client_ca needs the service's own certificate and key, too")
        check_roles(self.client_roles)

    @property
    def is_on(self) -> bool:
        """Whether connections are encrypted."""
        return self.certificate is not None


@dataclass(frozen=True)
class AuthConfig:
    """API keys; none are asked for without a file.

    Args:
        keys: the file that `mgrl keys` writes; read again when it changes.
    """

    keys: Path | None = None


@dataclass(frozen=True)
class JwtConfig:
    """Tokens that another service signs; off without a key.

    Args:
        algorithm: HS256, RS256 or ES256; tokens signed in any other way are refused.
        key: file with the public key (PEM), or with the shared secret of HS256.
        secret: the shared secret of HS256, 32 bytes or more, in place of its file; best set in the environment.
        jwks: file with a JSON web key set, in place of one key; a token names its key by `kid`.
        audience: what the tokens' `aud` must hold.
        issuer: what the tokens' `iss` must be.
        leeway_s: seconds that clocks may differ, 0 to 600.

    Raises:
        ConfigError: no algorithm, audience or issuer, more than one key, or a leeway out of range.
    """

    algorithm: str = ""
    key: Path | None = None
    secret: Secret | None = None
    jwks: Path | None = None
    audience: str = ""
    issuer: str = ""
    leeway_s: float = 30.0

    def __post_init__(self) -> None:
        keys = sum(each is not None for each in (self.key, self.secret, self.jwks))
        if keys > 1:
            raise ConfigError("of key, secret and jwks only one may be set")
        if not 0 <= self.leeway_s <= 600:
            raise ConfigError(f"leeway_s must be from 0 to 600, got {self.leeway_s}")
        if not keys:
            return
        if self.algorithm not in JWT_ALGORITHMS:
            raise ConfigError(f"algorithm must be one of {', '.join(JWT_ALGORITHMS)}, got {self.algorithm!r}")
        if not (self.audience and self.issuer):
            raise ConfigError("audience and issuer must be set: tokens made for others must not open this service")
        if (self.secret is not None and self.algorithm != "HS256") or (self.jwks and self.algorithm == "HS256"):
            raise ConfigError("a secret goes with HS256, a jwks file with RS256 or ES256")

    @property
    def is_on(self) -> bool:
        """Whether tokens are accepted."""
        return self.key is not None or self.secret is not None or self.jwks is not None


@dataclass(frozen=True)
class LimitsConfig:
    """What each caller may ask for, unless its key has limits of its own; 0 is no limit.

    Args:
        calls_per_s: calls a second on average; two seconds' worth may come at once.
        strokes_per_s: strokes a second on average, over all drawings of a caller; two seconds' worth may come at once.
        message_bytes: size of one request, at most 4 MiB.

    Raises:
        ConfigError: a limit is out of range.
    """

    calls_per_s: float = 0.0
    strokes_per_s: float = 0.0
    message_bytes: int = MAX_MESSAGE_BYTES

    def __post_init__(self) -> None:
        for name in ("calls_per_s", "strokes_per_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 1 <= self.message_bytes <= MAX_MESSAGE_BYTES:
            raise ConfigError(f"message_bytes must be from 1 to {MAX_MESSAGE_BYTES}, got {self.message_bytes}")


@dataclass(frozen=True)
class AuditConfig:
    """The audit log; none is written without a file.

    Args:
        file: JSON lines, made if missing, never shortened.
        sync_s: 0 has every record on the disk before its answer leaves; else seconds that a power cut may take.
        rotate_bytes: size from which another file is begun, at least 4096.
        sketches: whether records hold the strokes or the picture that was searched with.
        photos: whether records hold the ids of the photos that were shown.

    Raises:
        ConfigError: a setting is out of range.
    """

    file: Path | None = None
    sync_s: float = 0.0
    rotate_bytes: int = 64 * 1024 * 1024
    sketches: bool = False
    photos: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sync_s) and self.sync_s >= 0):
            raise ConfigError(f"sync_s must be at least 0, got {self.sync_s}")
        if self.rotate_bytes < 4096:
            raise ConfigError(f"rotate_bytes must be at least 4096, got {self.rotate_bytes}")


@dataclass(frozen=True, kw_only=True)
class GalleryRules:
    """What may be done with a gallery, and for how long.

    Args:
        roles: what may be done with it, however many roles a caller has.
        writable: whether clients may store and delete photos, and this process those that are too old; as --writable
            for all galleries.
        purpose_required: whether searches must say what they are for.
        audit_required: whether searches that cannot be recorded are refused; needs [audit] file.
        retention_days: days after which photos are forgotten; 0 keeps them.

    Raises:
        ConfigError: an unknown role, or a negative retention.
    """

    roles: tuple[str, ...] = ROLES
    writable: bool = False
    purpose_required: bool = False
    audit_required: bool = False
    retention_days: float = 0.0

    def __post_init__(self) -> None:
        check_roles(self.roles)
        if not (math.isfinite(self.retention_days) and self.retention_days >= 0):
            raise ConfigError(f"retention_days must be at least 0, got {self.retention_days}")


@dataclass(frozen=True)
class GalleryConfig(GalleryRules):
    """One gallery; it is served under its folder's name.

    Args:
        path: its folder; the gallery's name beside the settings file if not set.
        model: the ONNX file that made it; that of [server] if not set.
    """

    path: Path | None = None
    model: Path | None = None


@dataclass(frozen=True)
class CreatedConfig(GalleryRules):
    """Galleries that admins make over gRPC, and their rules; one that has a section of its own goes by that.

    Args:
        folder: every gallery in it is served, and new ones are made in it; none can be made if not set.
        writable: whether clients may store and delete photos, and this process those that are too old.
    """

    folder: Path | None = None
    writable: bool = field(default=True, kw_only=True)

    def gallery(self, folder: Path) -> GalleryConfig:
        """The settings of a gallery in the folder that has no section of its own."""
        return GalleryConfig(folder, **{rule.name: getattr(self, rule.name) for rule in fields(GalleryRules)})

    def has_found(self, settings: GalleryConfig) -> bool:
        """Whether a gallery is served because it lies in the folder, and not because somebody named it."""
        path = settings.path
        return path is not None and path.parent == self.folder and settings == self.gallery(path)


def check_roles(roles: tuple[str, ...]) -> None:
    """Refuse what is no role.

    Raises:
        ConfigError: one is unknown.
    """
    if unknown := [role for role in roles if role not in ROLES]:
        raise ConfigError(f"roles are {', '.join(ROLES)}, got {unknown[0]!r}")
