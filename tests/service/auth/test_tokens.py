"""JSON web tokens: which are accepted, and which never."""

import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from indexer.errors import ConfigError
from service.auth.tokens import TokenReader
from service.config_access import JwtConfig, LimitsConfig, Secret
from service.errors import AuthenticationError

SECRET = "a shared secret of more than 32 bytes"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
EXPECTED = {"audience": "mgrl", "issuer": "desk"}


def pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def claims(**more):
    now = time.time()
    return {"sub": "anna", "aud": "mgrl", "iss": "desk", "exp": now + 60, "iat": now, "roles": ["search"], **more}


def sign(key=SECRET, algorithm="HS256", headers=None, **more):
    content = {name: value for name, value in claims(**more).items() if value is not None}
    return jwt.encode(content, key, algorithm, headers=headers)


@pytest.fixture
def reader():
    return TokenReader.open(JwtConfig("HS256", secret=Secret(SECRET), **EXPECTED))


def caller(reader, token):
    return reader.caller(token, LimitsConfig())


def test_a_token_names_its_bearer_roles_and_galleries(reader):
    anna = caller(reader, sign(roles=["search", "ingest", "of another service"], galleries=["staff"]))
    assert (anna.name, anna.kind, anna.roles) == ("anna", "token", {"search", "ingest"})
    assert anna.may_use("staff")
    assert not anna.may_use("guests")
    assert caller(reader, sign()).may_use("guests")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"aud": "other"}, "not one that this service accepts"),
        ({"iss": "other"}, "not one that this service accepts"),
        ({"aud": None}, "not one that this service accepts"),
        ({"iss": None}, "not one that this service accepts"),
        ({"exp": None}, "not one that this service accepts"),
        ({"sub": None}, "not one that this service accepts"),
        ({"key": "another secret of more than 32 bytes, as long"}, "not one that this service accepts"),
        ({"roles": "search"}, "the token's roles must be a list of texts"),
        ({"roles": None}, "the token's roles must be a list of texts"),
        ({"galleries": "staff"}, "the token's galleries must be a list of texts"),
        ({"galleries": [1]}, "the token's galleries must be a list of texts"),
    ],
)
def test_tokens_that_are_not_for_us_are_refused(reader, more, message):
    with pytest.raises(AuthenticationError, match=message):
        caller(reader, sign(**more))


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "mgrl", "é.é.é", "eyJhbGciOiJIUzI1NiJ9..", "." * 5000])
def test_what_is_no_token_is_refused(reader, token):
    with pytest.raises(AuthenticationError, match="not one that this service accepts"):
        caller(reader, token)


def test_clocks_may_differ_by_the_leeway_and_no_more(reader):
    now = time.time()
    assert caller(reader, sign(exp=now - 20)).name == "anna"
    with pytest.raises(AuthenticationError, match="has expired"):
        caller(reader, sign(exp=now - 40))
    for early in ("iat", "nbf"):
        assert caller(reader, sign(**{early: now + 20})).name == "anna"
        with pytest.raises(AuthenticationError, match="its maker's clock is more than 30 s ahead"):
            caller(reader, sign(**{early: now + 40}))


def test_a_token_without_a_signature_is_refused(reader):
    def part(content):
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    with pytest.raises(AuthenticationError, match="not one that"):
        caller(reader, f"{part({'alg': 'none'})}.{part(claims())}.")


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256")])
def test_public_keys_are_enough(tmp_path, key, algorithm):
    (tmp_path / "key.pem").write_bytes(pem(key))
    reader = TokenReader.open(JwtConfig(algorithm, key=tmp_path / "key.pem", **EXPECTED))
    assert caller(reader, sign(key, algorithm)).name == "anna"
    # A public key is known to all: it must not pass as the secret of HS256.
    with pytest.raises(AuthenticationError):
        caller(reader, sign("x" * 40, "HS256"))


def test_a_public_key_is_no_shared_secret(tmp_path):
    (tmp_path / "key.pem").write_bytes(pem(RSA))
    with pytest.raises(ConfigError, match=r"\[jwt\] its key is none for HS256"):
        TokenReader.open(JwtConfig("HS256", key=tmp_path / "key.pem", **EXPECTED))


def web_key(key, kid):
    maker = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**maker.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}


def test_a_key_set_is_asked_by_the_tokens_key_id(tmp_path):
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    keys = {"keys": [web_key(RSA, "old"), web_key(other, "new"), web_key(EC, "curve")]}
    (tmp_path / "jwks.json").write_text(json.dumps(keys))
    reader = TokenReader.open(JwtConfig("RS256", jwks=tmp_path / "jwks.json", **EXPECTED))
    assert caller(reader, sign(RSA, "RS256", {"kid": "old"})).name == "anna"
    assert caller(reader, sign(other, "RS256", {"kid": "new"})).name == "anna"
    for token in (
        sign(RSA, "RS256", {"kid": "new"}),
        sign(RSA, "RS256", {"kid": "unknown"}),
        sign(RSA, "RS256"),
        sign(EC, "ES256", {"kid": "curve"}),
    ):
        with pytest.raises(AuthenticationError):
            caller(reader, token)


@pytest.mark.parametrize(
    ("algorithm", "content", "message"),
    [
        ("HS256", b"short", "the secret must have at least 32 bytes, it has 5"),
        ("RS256", b"no key at all, but long enough for one", r"\[jwt\] its key is none for RS256"),
        ("ES256", pem(RSA), r"\[jwt\] its key is none for ES256"),
        ("RS256", RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "holds a private key"),
        ("RS256", None, r"\[jwt\] its key file cannot be read \(No such file"),
    ],
)
def test_keys_that_cannot_be_are_refused(tmp_path, algorithm, content, message):
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as refused:
        TokenReader.open(JwtConfig(algorithm, key=tmp_path / "key", **EXPECTED))
    assert "no key at all" not in str(refused.value)


def test_a_broken_key_set_is_refused(tmp_path):
    for content in ("", "[]", '{"keys": []}', '{"keys": [{"kty": "RSA"}]}'):
        (tmp_path / "jwks.json").write_text(content)
        with pytest.raises(ConfigError, match=r"\[jwt\] its key is none for RS256"):
            TokenReader.open(JwtConfig("RS256", jwks=tmp_path / "jwks.json", **EXPECTED))
