"""JSON web tokens that another service signs; needs the extra `jwt` (PyJWT).

Only the one algorithm of the settings is accepted, whatever a token's header says. `sub`, `aud`, `iss` and `exp` must
be there; `roles` is a list of ours, `galleries` one of names, or absent for all.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from indexer.errors import ConfigError
from service.auth.callers import Caller
from service.config_access import ROLES, JwtConfig, LimitsConfig
from service.errors import AuthenticationError

if TYPE_CHECKING:
    import jwt

_LEAST_SECRET_BYTES: Final = 32
"""Of HS256: a shorter one can be found by trying, without asking us."""


class TokenReader:
    """Checks tokens. Use `TokenReader.open`; the constructor only stores.

    Args:
        config: the settings.
        keys: key id -> what PyJWT checks with; "" is the only one.
    """

    def __init__(self, config: JwtConfig, keys: Mapping[str, Any]) -> None:
        self._config = config
        self._keys = keys

    @classmethod
    def open(cls, config: JwtConfig) -> "TokenReader":
        """A reader with the keys of the settings.

        Raises:
            ConfigError: PyJWT is not installed, or a key cannot be used.
        """
        try:
            import jwt
        except ModuleNotFoundError as error:
            raise ConfigError("tokens need the extra `jwt`: pip install 'mgrl[jwt]'") from error
        try:
            if config.jwks is not None:
                keys = _web_keys(jwt.PyJWKSet.from_json(config.jwks.read_text("utf-8")))
            else:
                keys = {"": _single_key(config)}
        except OSError as error:
            raise ConfigError(f"[jwt] its key file cannot be read ({error.strerror})") from error
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f"[jwt] its key is none for {config.algorithm} ({type(error).__name__})") from error
        return cls(config, keys)

    def caller(self, token: str, limits: LimitsConfig) -> Caller:
        """Who a token speaks for.

        Raises:
            AuthenticationError: it is expired, made for others, signed by others, or says too little.
        """
        import jwt

        config = self._config
        try:
            key_id = jwt.get_unverified_header(token).get("kid", "")
            key = self._keys[""] if "" in self._keys else self._keys[key_id]
            claims = jwt.decode(
                token,
                key,
                algorithms=[config.algorithm],
                audience=config.audience,
                issuer=config.issuer,
                leeway=config.leeway_s,
                options={"require": ["exp", "sub", "aud", "iss"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise AuthenticationError("the token has expired; get a new one") from error
        except jwt.ImmatureSignatureError as error:
            raise AuthenticationError(
                f"the token is not valid yet; its maker's clock is more than {config.leeway_s:g} s ahead"
            ) from error
        except (jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
            raise AuthenticationError("the token is not one that this service accepts") from error
        return _caller_of(claims, limits)


def _single_key(config: JwtConfig) -> Any:
    import jwt

    if config.secret is not None:
        data = config.secret.reveal().encode()
    else:
        assert config.key is not None
        data = config.key.read_bytes().strip()
    if config.algorithm == "HS256" and len(data) < _LEAST_SECRET_BYTES:
        raise ConfigError(f"[jwt] the secret must have at least {_LEAST_SECRET_BYTES} bytes, it has {len(data)}")
    if b"PRIVATE KEY" in data:
        raise ConfigError("[jwt] key holds a private key; the service needs the public one alone")
    # Refuses a key of another kind than the algorithm's: a public key must never be taken for a shared secret.
    return jwt.get_algorithm_by_name(config.algorithm).prepare_key(data)


def _web_keys(keys: "jwt.PyJWKSet") -> dict[str, Any]:
    named = {key.key_id: key for key in keys.keys if key.key_id}
    if not named:
        if len(keys.keys) != 1:
            raise ConfigError("[jwt] the keys of a jwks file must have a `kid`, unless there is only one")
        return {"": keys.keys[0]}
    return named


def _caller_of(claims: Mapping[str, Any], limits: LimitsConfig) -> Caller:
    roles, galleries = claims.get("roles"), claims.get("galleries")
    for name, value in (("roles", roles), ("galleries", galleries)):
        is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not is_list and not (name == "galleries" and value is None):
            raise AuthenticationError(f"the token's {name} must be a list of texts")
    known = frozenset(roles or ()) & frozenset(ROLES)
    where = None if galleries is None else frozenset(galleries)
    return Caller(str(claims["sub"])[:200], "token", known, where, limits)
