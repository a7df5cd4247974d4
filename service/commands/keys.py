"""Make, list and revoke the API keys of a service.

A key is shown once, when it is made, on stdout and nowhere else; its file holds a hash. A running service reads the
file again within a second of its change. Callers send `authorization: Bearer KEY`; `mgrl query` has
--key-file for it.

examples:
  mgrl keys add desk --role search --gallery staff --expires 90d > desk.key
  mgrl keys add feeder --role ingest --calls-per-s 20
  mgrl keys list
  mgrl keys revoke desk
"""

import argparse
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from indexer.console import print_table
from indexer.errors import ConfigError
from service.auth.keys import ApiKey, add_key, changing_keys, load_keys, revoke_key
from service.config_access import ROLES, LimitsConfig

_UNITS: Final = {"h": "hours", "d": "days", "w": "weeks"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mgrl keys`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="add|list|revoke")
    add = actions.add_parser("add", help="make a key")
    add.add_argument("name", metavar="NAME", help="who holds it; the audit log says it")
    add.add_argument("--role", choices=ROLES, action="append", required=True, help="what it opens; may be repeated")
    add.add_argument("--gallery", action="append", help="where; may be repeated (default: everywhere)")
    add.add_argument(
        "--expires", metavar="WHEN", default="365d", help="12h, 90d, 2027-01-31 or never (default: %(default)s)"
    )
    add.add_argument("--calls-per-s", metavar="N", type=float, help="in place of the service's limit; 0 is none")
    add.add_argument("--strokes-per-s", metavar="N", type=float, help="in place of the service's limit; 0 is none")
    add.add_argument("--message-bytes", metavar="N", type=int, help="in place of the service's limit")
    listing = actions.add_parser("list", help="show all keys, without what opens anything")
    revoke = actions.add_parser("revoke", help="close a key for good")
    revoke.add_argument("name", metavar="NAME")
    for action in (add, listing, revoke):
        action.add_argument(
            "--file", type=Path, default=Path(os.environ.get("MGRL_AUTH_KEYS") or "keys.json"),
            help="the keys' file (default: MGRL_AUTH_KEYS, or keys.json)",
        )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Change the file, or show it."""
    if arguments.action == "list":
        columns = ("name", "state", "roles", "galleries", "created", "expires")
        print_table(f"keys of {arguments.file.name}", columns, [_row(key) for key in load_keys(arguments.file)])
        return 0
    if arguments.action == "add":
        arguments.file.parent.mkdir(parents=True, exist_ok=True)
    with changing_keys(arguments.file) as keys:
        if arguments.action == "revoke":
            revoke_key(keys, arguments.name)
        else:
            token = _add(keys, arguments)
    if arguments.action == "revoke":
        print(f"revoked {arguments.name}")
    else:
        print(token)
        print("this key is shown once; who has it has the roles it was made for", file=sys.stderr)
    return 0


def _add(keys: list[ApiKey], arguments: argparse.Namespace) -> str:
    given = {
        "calls_per_s": arguments.calls_per_s,
        "strokes_per_s": arguments.strokes_per_s,
        "message_bytes": arguments.message_bytes,
    }
    limits = {name: value for name, value in given.items() if value is not None}
    LimitsConfig(**limits)
    roles = tuple(dict.fromkeys(arguments.role))
    galleries = None if arguments.gallery is None else tuple(dict.fromkeys(arguments.gallery))
    return add_key(keys, arguments.name, roles, galleries, _expiry(arguments.expires), limits)


def _expiry(text: str) -> datetime | None:
    if text == "never":
        return None
    now = datetime.now(UTC)
    try:
        if span := re.fullmatch(r"(\d{1,6})([hdw])", text):
            until = now + timedelta(**{_UNITS[span.group(2)]: int(span.group(1))})
        else:
            until = datetime.fromisoformat(text)
            until = until if until.tzinfo else until.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"--expires takes 12h, 90d, 4w, a date such as 2027-01-31, or never; got {text!r}") from error
    if until <= now:
        raise ConfigError(f"--expires must lie ahead, got {text}")
    return until


def _row(key: ApiKey) -> tuple[str, ...]:
    is_over = key.expires_at <= datetime.now(UTC).timestamp()
    state = "revoked" if key.revoked else "expired" if is_over else "good"
    where = "all" if key.galleries is None else ", ".join(key.galleries)
    return key.name, state, ", ".join(key.roles), where, key.created[:10], (key.expires or "never")[:10]
