"""Check or show an audit log, with all of its files.

`verify` checks that no record was changed, taken out or put in: every one names the hash of the one before. Exit
status 1 if any was. Who can write the file could still write all of it anew, or cut off its end, so keep the number and
the hash that `verify` prints elsewhere, and give them to the next check with --expect.

examples:
  mgrl audit verify audit.jsonl
  mgrl audit verify audit.jsonl --expect 1204:9f86d081884c7d65...
  mgrl audit show audit.jsonl --gallery staff --caller desk --since 2026-01-31
"""

import argparse
import re
import sys
from pathlib import Path

from indexer.console import print_table, write_json
from indexer.errors import ConfigError
from service.audit_chain import Head, read_records, verify

_MOST_SHOWN = 50

_MOMENT = re.compile(r"(\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d(\.\d{6}Z)?)?)?)?)?)?)?", re.ASCII)
"""The beginning of a record's moment, or all of it, so that texts can be compared; or nothing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mgrl audit`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="verify|show")
    check = actions.add_parser("verify", help="check that nothing was changed or taken out")
    check.add_argument("file", metavar="FILE", type=Path, help="the log that is written to; older files lie beside it")
    check.add_argument("--expect", metavar="N:HASH", help="a record that was there at an earlier check")
    check.add_argument("--json", metavar="FILE", type=Path, help="also write what was found as JSON")
    show = actions.add_parser("show", help="print records")
    show.add_argument("file", metavar="FILE", type=Path)
    show.add_argument("--gallery", help="only of this one")
    show.add_argument("--caller", help="only of this one")
    show.add_argument(
        "--since", metavar="DATE", default="", help="only from this moment on (UTC), such as 2026-01-31T12:00"
    )
    show.add_argument("--all", action="store_true", help="print more than the last 50")


def run(arguments: argparse.Namespace) -> int:
    """Check, or print."""
    if arguments.action == "show":
        return _show(arguments)
    found = verify(arguments.file, _head(arguments.expect))
    for line in (*found.remarks, *found.problems):
        print(line, file=sys.stderr)
    content = {
        "records": found.records,
        "first": found.first,
        "head": {"number": found.head.number, "hash": found.head.hash},
        "problems": list(found.problems),
        "remarks": list(found.remarks),
    }
    write_json(arguments.json, content)
    if found.problems:
        print(f"{len(found.problems)} problems in {found.records} records")
        return 1
    print(f"good: {found.records} records, the last is {found.head.number}:{found.head.hash}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    if not _MOMENT.fullmatch(arguments.since):
        raise ConfigError(f"--since takes a moment in UTC, such as 2026-01-31T12:00, got {arguments.since!r}")
    rows = [
        (
            str(record["n"]),
            str(record["at"])[:19],
            str(record["event"]) + (f" {record['state']}" if record.get("state") not in (None, "shown") else ""),
            *(str(record.get(name, "")) for name in ("caller", "gallery", "purpose", "results")),
        )
        for record in read_records(arguments.file)
        if arguments.gallery in (None, record.get("gallery"))
        and arguments.caller in (None, record.get("caller"))
        and record["at"] >= arguments.since
    ]
    shown = rows if arguments.all else rows[-_MOST_SHOWN:]
    title = f"{len(shown)} of {len(rows)} records"
    print_table(title, ("record", "time (UTC)", "event", "caller", "gallery", "purpose", "results"), shown)
    return 0


def _head(text: str | None) -> Head | None:
    if text is None:
        return None
    parts = re.fullmatch(r"([0-9]{1,18}):([0-9a-f]{64})", text)
    if parts is None:
        raise ConfigError(f"--expect takes N:HASH as `mgrl audit verify` prints them, got {text!r}")
    return Head(int(parts.group(1)), parts.group(2))
