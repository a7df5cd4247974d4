"""Check or show the settings of a service, with where each came from; secrets are never shown.

`check` refuses what `mgrl serve --config FILE` would refuse, but opens no gallery and no port. Flags go before the
environment (MGRL_SERVER_ADDRESS is [server] address), the environment before the file, the file before the defaults.

examples:
  mgrl config schema                      every setting, its default and what it means
  mgrl config check mgrl.toml
  mgrl config show mgrl.toml              the effective settings, as a file that `serve` would take
  mgrl config check mgrl.toml --set server.threads=4
"""

import argparse
import os
from dataclasses import fields
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mgrl config`."""
    parser.add_argument("action", choices=("check", "show", "schema"))
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?", help="settings (default: MGRL_CONFIG, or none)")
    parser.add_argument("--set", metavar="SECTION.KEY=VALUE", action="append", default=[], help="one setting more")


def run(arguments: argparse.Namespace) -> int:
    """Check and print."""
    from service.settings import assignments, load_settings

    if arguments.action == "schema":
        print("\n".join(_schema()))
        return 0
    file = arguments.file or (Path(os.environ["MGRL_CONFIG"]) if os.environ.get("MGRL_CONFIG") else None)
    loaded = load_settings(file, os.environ, assignments(arguments.set))
    if arguments.action == "show":
        print("\n".join(_as_toml(loaded.settings)))
        return 0
    width = max(len(setting.key) for setting in loaded.settings)
    for setting in loaded.settings:
        print(f"{setting.key:<{width}}  {_toml(setting.value):<30}  {setting.origin}")
    for name in loaded.ignored:
        print(f"the environment variable {name} is of no section of ours and was passed over")
    changed = sum(setting.origin != "default" for setting in loaded.settings)
    print(f"good: {changed} of {len(loaded.settings)} settings are set")
    return 0


def _schema() -> list[str]:
    from service.config_access import GalleryConfig
    from service.settings import SECTIONS, default_of, descriptions, environment_name

    lines = []
    for section, kind in [*SECTIONS.items(), ("galleries.NAME", GalleryConfig)]:
        lines += [f"[{section}]", f"# {(kind.__doc__ or '').splitlines()[0]}"]
        words = descriptions(kind)
        for field in fields(kind):
            lines.append(f"# {words[field.name]} ({environment_name(f'{section}.{field.name}')})")
            value = default_of(field)
            lines.append(f"# {field.name} = (not set)" if value is None else f"{field.name} = {_toml(value)}")
        lines.append("")
    return lines


def _as_toml(settings: Any) -> list[str]:
    from service.config_access import Secret

    lines: list[str] = []
    for key, value, _ in settings:
        section, _, name = key.rpartition(".")
        # A gallery's name may hold dots and spaces.
        head = section.split(".", 1)
        title = f"[{head[0]}]" if len(head) == 1 else f"[{head[0]}.{_toml(head[1])}]"
        if title not in lines:
            lines += [""] * bool(lines) + [title]
        is_shown = value is not None and not isinstance(value, Secret)
        lines.append(f"{name} = {_toml(value)}" if is_shown else f"# {name} = {_toml(value)}")
    return lines


def _toml(value: Any) -> str:
    """A value as TOML; a secret as ***."""
    if value is None:
        return "(not set)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
