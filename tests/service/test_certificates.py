"""Encryption: certificates that are replaced, that expire, and that clients must show."""

import os
import shutil
import time
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from indexer.errors import ConfigError
from service import certificates, cli
from service.certificates import Certificates, good_until
from service.client import Client
from service.config import Config
from service.config_access import TlsConfig
from service.credentials import Credentials
from service.errors import AuthenticationError, ForbiddenError, ServiceError
from tests.service.conftest import line, png, serving

YESTERDAY = datetime.now(UTC) - timedelta(days=1)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def issue(tmp_path, authority):
    """Writes a certificate and its key; their paths."""

    def write(name="server", ca=authority, **options):
        issued = ca.issue_cert("127.0.0.1", **options)
        certificate, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return certificate, key

    return write


@pytest.fixture
def roots(tmp_path, authority):
    authority.cert_pem.write_to_path(tmp_path / "roots.pem")
    return tmp_path / "roots.pem"


def expired(name="server"):
    return {"name": name, "not_before": YESTERDAY - timedelta(days=9), "not_after": YESTERDAY}


def search(service, **credentials):
    with Client(service.address, timeout_s=5, credentials=Credentials(**credentials)) as client:
        return client.search(strokes=[line()]).hits


def test_an_encrypted_service_answers_those_who_trust_it(gallery, encoder, issue, roots, tmp_path):
    access = Config(tls=TlsConfig(*issue()))
    with serving([gallery], encoder, access=access) as service:
        assert search(service, ca=roots)
        with pytest.raises(ServiceError):
            search(service)  # unencrypted
        trustme.CA().cert_pem.write_to_path(tmp_path / "others.pem")
        with pytest.raises(ServiceError):
            search(service, ca=tmp_path / "others.pem")


def test_a_renewed_certificate_serves_the_next_connection(gallery, encoder, issue, roots, tmp_path, caplog):
    certificate, key = issue()
    new_ca = trustme.CA()
    new_ca.cert_pem.write_to_path(tmp_path / "new-roots.pem")
    with (
        serving([gallery], encoder, access=Config(tls=TlsConfig(certificate, key))) as service,
        Client(service.address, credentials=Credentials(ca=roots)) as older,
        older.draw() as drawing,
    ):
        assert drawing.strokes([line()]).hits
        newer, newer_key = issue("newer", new_ca)
        os.replace(newer, certificate)
        # Half of a pair: the one in use stays.
        assert search(service, ca=roots)
        assert "the certificate in use stays: [tls] server.pem and server.key are no certificate" in caplog.text
        os.replace(newer_key, key)
        assert search(service, ca=tmp_path / "new-roots.pem")
        with pytest.raises(ServiceError):
            search(service, ca=roots)
        # Drawings that have begun are not disturbed.
        assert drawing.strokes([line(0.1, 0.8, 0.9, 0.8)]).hits


def test_an_expired_certificate_is_refused_at_the_start_and_never_taken_later(gallery, encoder, issue, roots, caplog):
    with pytest.raises(ConfigError, match=r"\[tls\] the certificate server\.pem has expired; renew it"):
        Certificates(TlsConfig(*issue(**expired())))
    certificate, key = issue()
    with serving([gallery], encoder, access=Config(tls=TlsConfig(certificate, key))) as service:
        for new, old in zip(issue(**expired("old")), (certificate, key), strict=True):
            shutil.copy(new, old)
        assert search(service, ca=roots)
    assert "the certificate in use stays: [tls] the certificate server.pem has expired" in caplog.text


def test_a_certificate_that_is_good_only_later_is_taken_then(
    gallery, encoder, issue, roots, tmp_path, caplog, monkeypatch
):
    def refuse(*_):
        raise ConfigError("[tls] the certificate server.pem is not valid: certificate is not yet valid")

    certificate, key = issue()
    new_ca = trustme.CA()
    new_ca.cert_pem.write_to_path(tmp_path / "new-roots.pem")
    with serving([gallery], encoder, access=Config(tls=TlsConfig(certificate, key))) as service:
        issue(ca=new_ca)
        with monkeypatch.context() as early:
            early.setattr(certificates, "good_until", refuse)
            for _ in range(2):
                assert search(service, ca=roots)
        assert caplog.text.count("the certificate in use stays") == 1
        assert search(service, ca=tmp_path / "new-roots.pem")


def test_one_that_expires_while_it_serves_is_refused_by_clients(gallery, encoder, issue, roots):
    soon = datetime.now(UTC) + timedelta(seconds=2)
    with serving([gallery], encoder, access=Config(tls=TlsConfig(*issue(not_after=soon)))) as service:
        assert search(service, ca=roots)
        time.sleep(2.5)
        with pytest.raises(ServiceError):
            search(service, ca=roots)


def test_clients_must_show_a_certificate_of_the_right_root(gallery, encoder, issue, roots, tmp_path):
    tls = TlsConfig(*issue(), client_ca=roots)
    with serving([gallery], encoder, access=Config(tls=tls)) as service:
        good, good_key = issue("desk", common_name="desk")
        assert search(service, ca=roots, certificate=good, key=good_key)
        foreign, foreign_key = issue("foreign", trustme.CA())
        late, late_key = issue(**expired("late"))
        for shown in ({}, {"certificate": foreign, "key": foreign_key}, {"certificate": late, "key": late_key}):
            with pytest.raises(ServiceError, match="may take a certificate of yours"):
                search(service, ca=roots, **shown)
        with pytest.raises(ServiceError, match="a service that encrypts takes its root certificates"):
            search(service)


def test_a_certificate_opens_what_the_settings_say(gallery, encoder, issue, roots):
    certificate, key = issue("desk", common_name="desk")
    shown = {"ca": roots, "certificate": certificate, "key": key}
    with (
        serving(
            [gallery], encoder, access=Config(tls=TlsConfig(*issue(), client_ca=roots, client_roles=("ingest",)))
        ) as service,
        pytest.raises(ForbiddenError, match="takes the role search, certificate desk has: ingest"),
    ):
        search(service, **shown)
    # Where certificates have no roles, who shows one alone is told of the key that is missing, and nothing else.
    mute = Config(tls=TlsConfig(*issue(), client_ca=roots, client_roles=()))
    with (
        serving([gallery], encoder, access=mute) as service,
        Client(service.address, credentials=Credentials(**shown)) as client,
    ):
        for call in (client.galleries, client.describe, client.versions):
            with pytest.raises(AuthenticationError, match="no key was sent"):
                call()
    # A certificate without a name is nobody.
    nameless, nameless_key = issue("nameless")
    with serving([gallery], encoder, access=Config(tls=TlsConfig(*issue(), client_ca=roots))) as service:
        with pytest.raises(AuthenticationError):
            search(service, ca=roots, certificate=nameless, key=nameless_key)
        assert search(service, **shown)


def test_when_a_certificate_ends_is_known(issue):
    end = datetime(2037, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert good_until(*issue(not_after=end)) == end


def test_files_that_are_no_pair_are_refused(issue, tmp_path):
    certificate, key = issue()
    _, other_key = issue("other")
    (tmp_path / "text.pem").write_text("no certificate")
    for pair in ((certificate, other_key), (tmp_path / "text.pem", key), (certificate, tmp_path / "text.pem")):
        with pytest.raises(ConfigError, match="are no certificate with its own key in PEM form"):
            Certificates(TlsConfig(*pair))
    with pytest.raises(ConfigError, match=r"\[tls\] none\.pem cannot be read \(No such file"):
        Certificates(TlsConfig(tmp_path / "none.pem", key))
    with pytest.raises(ConfigError, match=r"\[tls\] client_ca: text\.pem holds no PEM certificate"):
        Certificates(TlsConfig(certificate, key, client_ca=tmp_path / "text.pem"))
    early = datetime.now(UTC) + timedelta(days=1)
    with pytest.raises(ConfigError, match=r"the certificate early\.pem is not valid: certificate is not yet valid"):
        Certificates(TlsConfig(*issue("early", not_before=early)))


def test_half_a_clients_pair_is_refused(issue, roots):
    certificate, key = issue()
    with pytest.raises(ConfigError, match="must be given together"):
        Credentials(ca=roots, certificate=certificate)
    with pytest.raises(ConfigError, match="needs the service's root certificates"):
        Credentials(certificate=certificate, key=key)


def test_query_speaks_to_an_encrypted_service(gallery, encoder, issue, roots, tmp_path, capsys, monkeypatch):
    (tmp_path / "sketch.png").write_bytes(png())
    certificate, key = issue("desk", common_name="desk")
    with serving([gallery], encoder, access=Config(tls=TlsConfig(*issue(), client_ca=roots))) as service:
        command = ["query", str(tmp_path / "sketch.png"), "--address", service.address, "--ca", str(roots)]
        assert cli.main([*command, "--certificate", str(certificate), "--certificate-key", str(key)]) == 0
        assert "a lead, not an identification" in capsys.readouterr().out
        assert cli.main(command) == 1
    assert cli.main([*command, "--key-file", str(tmp_path / "none")]) == 1
    assert "the key file none cannot be read" in capsys.readouterr().err
    monkeypatch.setenv("MGRL_API_KEY", "two\nlines")
    assert cli.main(command) == 1
    assert "an API key is one line" in capsys.readouterr().err
