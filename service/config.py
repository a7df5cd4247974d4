"""How a service runs: one tree of settings, frozen, checked, passed down.

`service.settings` fills it from a file, the environment and flags. The `Args` of each class are what `mgrl config
schema` shows of its settings.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from indexer.device import DEVICES
from indexer.encoding import default_threads
from indexer.errors import ConfigError
from service.config_access import (
    AuditConfig,
    AuthConfig,
    CreatedConfig,
    GalleryConfig,
    GalleryRules,
    JwtConfig,
    LimitsConfig,
    TlsConfig,
)
from service.logs import FORMATS

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"

_MAX_IDLE_S: Final = 2**32 - 1
"""What an answer can tell its client."""


@dataclass(frozen=True)
class ServerConfig:
    """Settings of one service process.

    Args:
        address: HOST:PORT to listen on; port 0 takes a free one.
        threads: rankings computed at once, at least 1.
        grace_s: seconds that open calls get to finish when the service stops, at least 0.
        refresh_s: seconds between two looks whether a gallery's folder has changed, above 0.
        device: where to encode and search: auto, cpu or cuda.
        model: the ONNX file that made the galleries that name none; the built-in model if not set.
        batches: whether sketches that wait for their encoding are encoded together; for a GPU, on a CPU it is slower.
        approximate: whether galleries of 10,000 photos and more are also laid out for approximate searches.
        writable: whether clients may store and delete photos.
        backups: folder that admins may have galleries copied into; none is made if not set.
        insecure: whether the service may listen beyond this machine without authentication or without encryption.
        processes: that answer on the address, at least 1; they share its threads.
        metrics_address: HOST:PORT of /metrics, /livez and /readyz over HTTP; nowhere if empty.
        log_format: of the lines on stderr: human or json.
        max_load: share of the time that open drawings may keep the machine busy before others are refused, above 0.
        max_wait_s: seconds that rankings may wait in line before new calls are refused, above 0.
        max_drawings: drawings that may be open, at least 1.
        idle_timeout_s: seconds without a message after which a drawing's stream is ended, 1 to 4294967295.

    Raises:
        ConfigError: a setting is out of range.
    """

    address: str = DEFAULT_ADDRESS
    threads: int = field(default_factory=default_threads)
    grace_s: float = 10.0
    refresh_s: float = 0.5
    device: str = "auto"
    model: Path | None = None
    batches: bool = False
    approximate: bool = False
    writable: bool = False
    backups: Path | None = None
    insecure: bool = False
    processes: int = 1
    metrics_address: str = ""
    log_format: str = "human"
    max_load: float = 0.8
    max_wait_s: float = 0.15
    max_drawings: int = 5000
    idle_timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        split_address(self.address)
        if self.threads < 1:
            raise ConfigError(f"threads must be at least 1, got {self.threads}")
        if not self.grace_s >= 0:
            raise ConfigError(f"grace_s must be at least 0, got {self.grace_s}")
        if not self.refresh_s > 0:
            raise ConfigError(f"refresh_s must be above 0, got {self.refresh_s}")
        if self.device not in DEVICES:
            raise ConfigError(f"device must be one of {', '.join(DEVICES)}, got {self.device!r}")
        if self.processes < 1:
            raise ConfigError(f"processes must be at least 1, got {self.processes}")
        if self.metrics_address:
            split_address(self.metrics_address)
        if self.log_format not in FORMATS:
            raise ConfigError(f"log_format must be one of {', '.join(FORMATS)}, got {self.log_format!r}")
        if not self.max_load > 0 or not self.max_wait_s > 0 or self.max_drawings < 1:
            raise ConfigError(
                f"max_load and max_wait_s must be above 0 and max_drawings at least 1, got {self.max_load}, "
                f"{self.max_wait_s} and {self.max_drawings}"
            )
        if not 1 <= self.idle_timeout_s <= _MAX_IDLE_S:
            raise ConfigError(f"idle_timeout_s must be from 1 to {_MAX_IDLE_S}, got {self.idle_timeout_s}")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.address)


@dataclass(frozen=True)
class Config:
    """All settings of a service.

    Raises:
        ConfigError: settings that contradict each other.
    """

    server: ServerConfig = field(default_factory=ServerConfig)
    tls: TlsConfig = field(default_factory=TlsConfig)
    auth: AuthConfig = field(default_factory=AuthConfig)
    jwt: JwtConfig = field(default_factory=JwtConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    created: CreatedConfig = field(default_factory=CreatedConfig)
    galleries: Mapping[str, GalleryConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rules: dict[str, GalleryRules] = {f"galleries.{name}": gallery for name, gallery in self.galleries.items()}
        for section, gallery in {**rules, "created": self.created}.items():
            if gallery.audit_required and self.audit.file is None:
                raise ConfigError(f"[{section}] requires an audit log, but [audit] file is not set")
            if gallery.retention_days and not (gallery.writable or self.server.writable):
                raise ConfigError(
                    f"[{section}] retention_days needs writable = true: this process would delete photos; or run "
                    "`mgrl retention` by cron"
                )
        is_writable = self.server.writable or any(gallery.writable for gallery in self.galleries.values())
        if self.server.processes > 1 and is_writable:
            raise ConfigError("a gallery has one writer: writable needs processes = 1")
        if self.server.processes > 1 and self.created.folder is not None:
            raise ConfigError("what one process makes the others do not serve: [created] needs processes = 1")
        check_exposure(self.server.address, self.asks_who_calls, self.tls.is_on, self.server.insecure)

    @property
    def asks_who_calls(self) -> bool:
        """Whether callers must say who they are."""
        return self.auth.keys is not None or self.jwt.is_on or self.tls.client_ca is not None


def check_exposure(address: str, asks_who_calls: bool, is_encrypted: bool, insecure: bool) -> None:
    """Refuse to listen where others can reach faces without a key, or read keys on the way.

    Raises:
        ConfigError: it would, and nobody said that it may.
    """
    if insecure or is_loopback(address):
        return
    if not asks_who_calls:
        raise ConfigError(
            f"whoever reaches {address} could search these galleries without a key; make one (mgrl keys add) and name "
            "its file, listen on 127.0.0.1, or say --insecure"
        )
    if not is_encrypted:
        raise ConfigError(
            f"keys and faces would pass {address} unencrypted; set a certificate and its key, listen on 127.0.0.1, "
            "or, behind a proxy that encrypts, say --insecure"
        )


def is_loopback(address: str) -> bool:
    """Whether only this machine can connect to an address.

    Raises:
        ConfigError: the address is not HOST:PORT.
    """
    host, _ = split_address(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def split_address(address: str) -> tuple[str, int]:
    """Host (without the brackets of an IPv6 address) and port.

    Raises:
        ConfigError: the address is not HOST:PORT.

    Example:
        >>> split_address("[::1]:50051")
        ('::1', 50051)
    """
    host, _, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or (":" in bare and bare == host) or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ConfigError(f"an address must be HOST:PORT, such as {DEFAULT_ADDRESS} or [::1]:50051, got {address!r}")
    return bare, int(port)
