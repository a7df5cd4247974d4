"""What stands between the network and a service's galleries: the guard, the certificates and the audit log."""

from dataclasses import dataclass
from typing import Any, Self

from service.audit import AuditLog
from service.auditor import Auditor
from service.auth.authenticator import Authenticator
from service.certificates import Certificates
from service.config import Config
from service.galleries import Galleries
from service.guard import Guard


@dataclass(frozen=True)
class Access:
    """Made from settings by `Access.open`.

    Args:
        guard: asks who calls.
        certificates: encrypt, or None.
        log: the audit log, or None.
        galleries: what is served.
    """

    guard: Guard
    certificates: Certificates | None
    log: AuditLog | None
    galleries: Galleries

    @classmethod
    def open(cls, config: Config, galleries: Galleries) -> Self:
        """As the settings say.

        Raises:
            ConfigError: keys, certificate or audit log cannot be used.
        """
        authenticator = Authenticator.open(config)
        certificates = Certificates(config.tls) if config.tls.is_on else None
        log = AuditLog.open(config.audit) if config.audit.file is not None else None
        return cls(Guard(galleries, authenticator, log), certificates, log, galleries)

    @property
    def interceptors(self) -> list[Any]:
        """In the order in which calls pass them."""
        return [self.guard, *([] if self.log is None else [Auditor(self.galleries, self.log)])]

    async def close(self) -> None:
        """After the last call: say so in the audit log."""
        if self.log is not None:
            await self.log.close()
