"""`mgrl bench service` against a service that encrypts, asks for a key, and wants to know a purpose."""

import json

import pytest
import trustme

from service.auth.keys import add_key, changing_keys
from service.cli import main
from service.config import Config
from service.config_access import AuthConfig, GalleryConfig, TlsConfig
from tests.service.conftest import serving


@pytest.fixture
def secured(gallery, encoder, tmp_path):
    """A service, and the words that let a caller in."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key, roots = (tmp_path / name for name in ("server.pem", "server.key", "roots.pem"))
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    authority.cert_pem.write_to_path(roots)
    with changing_keys(tmp_path / "keys.json") as keys:
        (tmp_path / "bench.key").write_text(add_key(keys, "bench", ("search",), ("faces",), None, {}))
    access = Config(
        tls=TlsConfig(certificate, key),
        auth=AuthConfig(tmp_path / "keys.json"),
        galleries={"faces": GalleryConfig(purpose_required=True)},
    )
    with serving([gallery], encoder, access=access) as service:
        yield service, ["--ca", str(roots), "--key-file", str(tmp_path / "bench.key")]


def test_a_secured_deployment_is_measured(secured, tmp_path, capsys):
    service, words = secured
    load = ["bench", "service", "--address", service.address, "--sessions", "2", "--seconds", "0.5", "--per-s", "8"]
    load += ["--json", str(tmp_path / "found.json"), *words]
    assert main([*load, "--purpose", "a test"]) == 0, capsys.readouterr().err
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert (row["strokes"] > 0, row["errors"]) == (True, 0)
    assert main(load) == 1
    assert "gallery faces wants to know what a search is for" in capsys.readouterr().err


def test_without_a_key_the_deployment_says_so(secured, capsys):
    service, (*roots, _, _) = secured
    assert main(["bench", "service", "--address", service.address, *roots]) == 1
    assert "key" in capsys.readouterr().err


def test_credentials_are_for_a_service_that_runs(tmp_path, capsys):
    assert main(["bench", "service", "--key-file", str(tmp_path / "bench.key")]) == 1
    assert "give its --address" in capsys.readouterr().err
