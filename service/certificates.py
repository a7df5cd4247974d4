"""The service's certificate, read again when its files change: a renewed one serves the next connection.

A pair of certificate and key that would not work is noticed before gRPC has it, which would say no more than that a
handshake failed.
"""

import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import grpc

from indexer.errors import ConfigError
from service.config_access import TlsConfig

logger = logging.getLogger(__name__)

_EXPIRED: Final = 10
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED."""

Stamp = tuple[tuple[int, int, int] | None, ...]


class Certificates:
    """What the service shows, and asks for.

    Args:
        config: the settings, with a certificate.

    Raises:
        ConfigError: the files cannot be used, or the certificate has expired.
    """

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self._stamp = self._stamp_now()
        self._pair = self._read()
        self._complaint = ""

    def credentials(self) -> grpc.ServerCredentials:
        """For a port; asks for the files' state at every handshake."""
        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._pair,
            self._renewed,  # type: ignore[arg-type]  # None is "as before", whatever the stubs say
            require_client_authentication=self._config.client_ca is not None,
        )
        return credentials

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """A new pair, or None where the one in use stays; gRPC asks in a thread of its own."""
        if (stamp := self._stamp_now()) == self._stamp:
            return None
        try:
            self._pair = self._read()
        except ConfigError as error:
            # Half of a pair, perhaps, or what nobody may read yet: the next connection tries again.
            if str(error) != self._complaint:
                logger.error("the certificate in use stays: %s", error)
            self._complaint = str(error)
            return None
        self._stamp, self._complaint = stamp, ""
        logger.info("the certificate was read again")
        return self._pair

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate, key, roots = self._config.certificate, self._config.key, self._config.client_ca
        assert certificate is not None
        assert key is not None
        try:
            chain, secret = certificate.read_bytes(), key.read_bytes()
            trusted = None if roots is None else roots.read_bytes()
        except OSError as error:
            raise ConfigError(f"[tls] {Path(error.filename).name} cannot be read ({error.strerror})") from error
        until = good_until(certificate, key)
        logger.info("the certificate is good until %s", until.date())
        if roots is not None:
            try:
                ssl.create_default_context(cafile=str(roots))
            except ssl.SSLError as error:
                raise ConfigError(f"[tls] client_ca: {roots.name} holds no PEM certificate") from error
        return grpc.ssl_server_certificate_configuration([(secret, chain)], trusted)

    def _stamp_now(self) -> Stamp:
        return tuple(map(_stamp_of, (self._config.certificate, self._config.key, self._config.client_ca)))


def good_until(certificate: Path, key: Path) -> datetime:
    """When a certificate runs out, after a handshake with itself that shows whether it works at all.

    Raises:
        ConfigError: no PEM files, a key of another certificate, or one that has expired or is not yet valid.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        # No password: a service that starts by itself has nobody to ask.
        server.load_cert_chain(certificate, key, password="")
        client.check_hostname = False
        client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        client.load_verify_locations(certificate)
        until = _handshake(server, client)
    except ssl.SSLCertVerificationError as error:
        what = "has expired; renew it" if error.verify_code == _EXPIRED else f"is not valid: {error.verify_message}"
        raise ConfigError(f"[tls] the certificate {certificate.name} {what}") from error
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            f"[tls] {certificate.name} and {key.name} are no certificate with its own key in PEM form ({error})"
        ) from error
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(until), UTC)


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """What the server's certificate says of its end, once the client has accepted it; no socket is opened."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = server.wrap_bio(to_server, to_client, server_side=True)
    there = client.wrap_bio(to_client, to_server)
    for _ in range(10):
        for side in (there, here):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            if side is there:
                shown = there.getpeercert()
                assert shown is not None
                return str(shown["notAfter"])
    raise ssl.SSLError("the handshake does not end")


def _stamp_of(path: Path | None) -> tuple[int, int, int] | None:
    try:
        status = path.stat() if path is not None else None
    except OSError:
        return None
    return None if status is None else (status.st_ino, status.st_mtime_ns, status.st_size)
