"""How a service runs: read once, checked, passed down."""

import ipaddress
from dataclasses import dataclass, field
from typing import Final

from indexer.encoding import default_threads
from indexer.errors import ConfigError

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""Of a request: gRPC's own default, stated. A 3 MiB picture and 300,000 points fit."""


@dataclass(frozen=True)
class ServerConfig:
    """Settings of one service process.

    Args:
        address: HOST:PORT to listen on; port 0 takes a free one.
        threads: rankings computed at once, at least 1.
        grace_s: seconds that open calls get to finish when the service stops, at least 0.
        refresh_s: seconds between two looks whether a gallery's folder has changed, above 0.

    Raises:
        ConfigError: a setting is out of range.
    """

    address: str = DEFAULT_ADDRESS
    threads: int = field(default_factory=default_threads)
    grace_s: float = 10.0
    refresh_s: float = 0.5

    def __post_init__(self) -> None:
        split_address(self.address)
        if self.threads < 1:
            raise ConfigError(f"threads must be at least 1, got {self.threads}")
        if not self.grace_s >= 0:
            raise ConfigError(f"grace_s must be at least 0, got {self.grace_s}")
        if not self.refresh_s > 0:
            raise ConfigError(f"refresh_s must be above 0, got {self.refresh_s}")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        host, _ = split_address(self.address)
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
