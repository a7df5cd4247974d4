"""API keys: made once, shown once, kept as hashes in one file.

A key is 256 random bits. Nobody can guess one, so there is nothing to slow a guesser down for: SHA-256 is as safe here
as the slow hashes that passwords need, and does not make every call pay for it. Comparing takes the same time wherever
the first difference is.
"""

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from indexer.errors import ConfigError
from indexer.ledger import replace_file
from service.config_access import LimitsConfig, check_roles

PREFIX: Final = "mgrl_"
"""Of every key: tools that look for leaked secrets find them by it."""

_VERSION: Final = 1
_TOKEN: Final = re.compile(r"mgrl_([0-9a-f]{12})_([\w-]{43})")
_NAME: Final = re.compile(r"[\w][\w.@-]{0,63}")
_NO_HASH: Final = "0" * 64


@dataclass(frozen=True)
class ApiKey:
    """One key as its file keeps it.

    Args:
        name: who holds it; 1 to 64 letters, digits, and `_.@-`.
        id: the part of the key that is no secret, 12 hexadecimal digits.
        sha256: of the whole key, hexadecimal.
        roles: what it opens.
        galleries: where; None is everywhere.
        created: UTC, ISO 8601.
        expires: UTC, ISO 8601, or None.
        revoked: when, or None.
        limits: names of `LimitsConfig` with values of its own.
    """

    name: str
    id: str
    sha256: str
    roles: tuple[str, ...]
    galleries: tuple[str, ...] | None
    created: str
    expires: str | None = None
    revoked: str | None = None
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def expires_at(self) -> float:
        """Unix time; infinite for a key that does not expire."""
        return float("inf") if self.expires is None else datetime.fromisoformat(self.expires).timestamp()

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """A key as it was written.

        Raises:
            KeyError, TypeError, ValueError, ConfigError: it was not written by us.
        """
        known = {field.name for field in fields(cls)}
        galleries = raw["galleries"]
        values = {**raw, "roles": tuple(raw["roles"]), "galleries": None if galleries is None else tuple(galleries)}
        if not (known >= values.keys() and all(isinstance(raw[name], str) for name in ("name", "id", "sha256"))):
            raise ValueError("what is there is no key")
        key = cls(**values)
        check_roles(key.roles)
        LimitsConfig(**key.limits)  # type: ignore[arg-type]  # refuses what is no limit
        _ = key.expires_at
        return key


def load_keys(path: Path) -> list[ApiKey]:
    """The keys of a file.

    Raises:
        ConfigError: no such file, not one of ours, or one that others may change.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            raw = json.loads(file.read())
        if mode & 0o022:
            raise ConfigError(f"the key file {path.name} may be changed by others (mode {mode:04o}); chmod 600 it")
        if raw["version"] != _VERSION:
            raise ConfigError(f"the key file {path.name} has version {raw['version']}, this mgrl reads {_VERSION}")
        return [ApiKey.from_json(key) for key in raw["keys"]]
    except OSError as error:
        raise ConfigError(
            f"the key file {path.name} cannot be read ({error.strerror}); make it with: mgrl keys add NAME --file FILE"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"the key file {path.name} is none that `mgrl keys` wrote ({error})") from error


@contextmanager
def changing_keys(path: Path) -> Iterator[list[ApiKey]]:
    """The keys of a file, to be changed in place; they are written when the body ends, whole or not at all.

    Raises:
        ConfigError: the file is none of ours.
    """
    with open(path.with_name(path.name + ".lock"), "a", opener=_private) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = load_keys(path) if path.exists() else []
        yield keys
        content = {"version": _VERSION, "keys": [asdict(key) for key in keys]}
        replace_file(path, (json.dumps(content, indent=1) + "\n").encode(), mode=0o600)


def add_key(
    keys: list[ApiKey],
    name: str,
    roles: tuple[str, ...],
    galleries: tuple[str, ...] | None,
    expires: datetime | None,
    limits: Mapping[str, float],
) -> str:
    """Make a key; the text that its holder sends, which is kept nowhere.

    Raises:
        ConfigError: the name is taken or cannot be one, or there is no such role.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"a key's name must be 1 to 64 letters, digits and _.@-, got {name!r}")
    if any(key.name == name and key.revoked is None for key in keys):
        raise ConfigError(f"there is a key named {name}; revoke it first, or choose another name")
    if not roles:
        raise ConfigError("a key needs at least one role (--role)")
    check_roles(roles)
    key_id = secrets.token_hex(6)
    token = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    until = None if expires is None else expires.isoformat(timespec="seconds")
    keys.append(ApiKey(name, key_id, hash_of(token), roles, galleries, _now(), until, limits=dict(limits)))
    return token


def revoke_key(keys: list[ApiKey], name: str) -> None:
    """Close a key for good; it stays in the file, so that the audit log's names keep their meaning.

    Raises:
        ConfigError: there is no such key.
    """
    for place, key in enumerate(keys):
        if key.name == name and key.revoked is None:
            keys[place] = replace(key, revoked=_now())
            return
    raise ConfigError(f"there is no key named {name} that could be revoked; `mgrl keys list` shows all")


def find_key(keys: Mapping[str, ApiKey], token: str) -> ApiKey | None:
    """The key that a caller's text opens, expired and revoked ones included; None for a wrong one.

    Args:
        keys: by id.
        token: what the caller sent.
    """
    parts = _TOKEN.fullmatch(token)
    key = keys.get(parts.group(1)) if parts else None
    # Compared in any case, and in constant time: how long a refusal takes tells nothing.
    is_right = hmac.compare_digest(hash_of(token), key.sha256 if key else _NO_HASH)
    return key if is_right else None


def hash_of(token: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
