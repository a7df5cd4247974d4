"""Fills the tree of `service.config` from a TOML file, the environment and flags, and remembers where each came from.

Flags go before the environment, the environment before the file, the file before the defaults. What is not known is
refused with the nearest name that is. In the environment `server.address` is MGRL_SERVER_ADDRESS, and `retention_days`
of gallery `night-shift` MGRL_GALLERIES_NIGHT_SHIFT_RETENTION_DAYS.
"""

import difflib
import inspect
import os
import re
import tomllib
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args, get_origin, get_type_hints

from indexer.errors import ConfigError
from service.config import Config
from service.config_access import GalleryConfig, Secret

SECTIONS: Final[Mapping[str, type]] = {
    name: hint for name, hint in get_type_hints(Config).items() if isinstance(hint, type)
}
"""Section -> its class, but for [galleries.NAME], which is a table of `GalleryConfig`."""

PREFIX: Final = "MGRL_"


class Origin(NamedTuple):
    """Where a value was set, and the folder that its relative paths start from."""

    name: str
    folder: Path


class Setting(NamedTuple):
    """One effective setting, such as ("server.address", "127.0.0.1:50051", "default")."""

    key: str
    value: Any
    origin: str


@dataclass(frozen=True)
class Loaded:
    """What was read.

    Args:
        config: the settings.
        settings: each of them with its origin, in the order of the schema.
        ignored: variables that begin like ours and are none.
    """

    config: Config
    settings: tuple[Setting, ...]
    ignored: tuple[str, ...]


Layer = dict[str, tuple[Any, Origin]]
"""Dotted key -> raw value and origin."""


def load_settings(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, tuple[Any, str]]) -> Loaded:
    """The settings of a service.

    Args:
        file: TOML, or None.
        environment: such as `os.environ`.
        flags: dotted key -> value (text, or of the setting's own type) and the flag's name.

    Raises:
        ConfigError: a key is unknown, or a value is of another type or out of range.
    """
    here = Path.cwd()
    layer: Layer = {} if file is None else dict(_from_file(file))
    names = _gallery_names([*layer, *flags])
    ours, ignored = _from_environment(environment, names)
    layer.update(ours)
    layer.update({key: (value, Origin(flag, here)) for key, (value, flag) in flags.items()})
    known = set(all_keys(_gallery_names(layer)))
    for key, (_, origin) in layer.items():
        if key not in known:
            raise unknown_name(f"{origin.name}: there is no setting {key}", key, known)
    return _build(layer, ignored)


def assignments(texts: Iterable[str]) -> dict[str, tuple[Any, str]]:
    """What `--set SECTION.KEY=VALUE` sets, for `load_settings`.

    Raises:
        ConfigError: a text is no assignment.
    """
    flags: dict[str, tuple[Any, str]] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"--set takes SECTION.KEY=VALUE, such as server.threads=4, got {text!r}")
        flags[key.strip()] = (value.strip(), "--set")
    return flags


def all_keys(galleries: Iterable[str]) -> list[str]:
    """Every dotted key of the schema."""
    keys = [f"{section}.{field.name}" for section, kind in SECTIONS.items() for field in fields(kind)]
    return keys + [f"galleries.{name}.{field.name}" for name in galleries for field in fields(GalleryConfig)]


def unknown_name(message: str, name: str, known: Iterable[str]) -> ConfigError:
    """An error that names the nearest known name."""
    nearest = difflib.get_close_matches(name, list(known), 1, 0.6)
    return ConfigError(message + (f"; did you mean {nearest[0]}?" if nearest else "; `mgrl config schema` lists all"))


def descriptions(kind: type) -> dict[str, str]:
    """Field -> what the docstring of its class, or of one that this builds on, says of it."""
    said: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        section = re.search(r"^Args:\n((?:^    .*\n?)+)", inspect.cleandoc(each.__doc__ or ""), re.MULTILINE)
        text = section.group(1) if section else ""
        entries = re.findall(r"^    (\w+): ((?:.*\n?)(?:^ {8}.*\n?)*)", text, re.MULTILINE)
        said |= {name: " ".join(words.split()) for name, words in entries}
    return said


def default_of(field: "Field[Any]") -> Any:
    """What a setting is unless it is set."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def environment_name(key: str) -> str:
    """The variable of a dotted key.

    Example:
        >>> environment_name("galleries.night-shift.retention_days")
        'MGRL_GALLERIES_NIGHT_SHIFT_RETENTION_DAYS'
    """
    return PREFIX + re.sub(r"[^A-Z0-9]", "_", key.upper())


def _from_file(file: Path) -> Iterator[tuple[str, tuple[Any, Origin]]]:
    origin = Origin(file.name, file.resolve().parent)
    try:
        tables = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"the settings file {file} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file.name} is no TOML file: {error}") from error
    for section, table in tables.items():
        if section != "galleries" and section not in SECTIONS:
            raise unknown_name(f"{file.name}: there is no section [{section}]", section, [*SECTIONS, "galleries"])
        if not isinstance(table, dict):
            raise ConfigError(f"{file.name}: {section} must be a section, [{section}]")
        for key, value in table.items():
            if section != "galleries":
                yield f"{section}.{key}", (value, origin)
                continue
            if not isinstance(value, dict):
                raise ConfigError(f"{file.name}: [galleries] holds one section a gallery, [galleries.NAME]; got {key}")
            yield f"galleries.{key}.path", (value.get("path", key), origin)
            yield from ((f"galleries.{key}.{name}", (each, origin)) for name, each in value.items() if name != "path")


def _from_environment(environment: Mapping[str, str], galleries: Iterable[str]) -> tuple[Layer, tuple[str, ...]]:
    """What is set there; and what begins like ours and is not, as the variables that Kubernetes makes for a service."""
    names: dict[str, list[str]] = {}
    for key in all_keys(galleries):
        names.setdefault(environment_name(key), []).append(key)
    sections = tuple(environment_name(section) + "_" for section in (*SECTIONS, "galleries"))
    layer: Layer = {}
    ignored = []
    for name, text in environment.items():
        if not name.startswith(PREFIX) or name == "MGRL_CONFIG":
            continue
        if name in names:
            key, *others = names[name]
            if others:
                raise ConfigError(f"{name} could mean {', '.join(names[name])}; set it in the file or by --set")
            layer[key] = (text, Origin(name, Path.cwd()))
        elif name.startswith(sections):
            raise unknown_name(f"the environment variable {name} is no setting", name, names)
        else:
            ignored.append(name)
    return layer, tuple(sorted(ignored))


def _gallery_names(keys: Iterable[str]) -> list[str]:
    """The galleries that dotted keys speak of, in order. A name may hold dots itself."""
    return list(dict.fromkeys(key.split(".", 1)[1].rpartition(".")[0] for key in keys if key.startswith("galleries.")))


def _build(layer: Layer, ignored: tuple[str, ...]) -> Loaded:
    settings: list[Setting] = []

    def section(prefix: str, kind: type) -> Any:
        hints = get_type_hints(kind)
        values = {}
        for field in fields(kind):
            key = f"{prefix}.{field.name}"
            if key in layer:
                raw, origin = layer[key]
                values[field.name] = _convert(raw, hints[field.name], key, origin)
                settings.append(Setting(key, values[field.name], origin.name))
            else:
                settings.append(Setting(key, default_of(field), "default"))
        try:
            return kind(**values)
        except ConfigError as error:
            # The address, the threads and so on have flags of their own and need no section to be found.
            raise ConfigError(str(error) if prefix == "server" else f"[{prefix}] {error}") from error

    sections = {name: section(name, kind) for name, kind in SECTIONS.items()}
    galleries = {name: section(f"galleries.{name}", GalleryConfig) for name in _gallery_names(layer)}
    return Loaded(Config(**sections, galleries=galleries), tuple(settings), ignored)


def _convert(raw: Any, hint: Any, key: str, origin: Origin) -> Any:
    """A raw value, text or of TOML's types, as the type of its field."""
    if isinstance(hint, types.UnionType):  # X | None
        hint = next(each for each in get_args(hint) if each is not type(None))
    is_text = isinstance(raw, str)
    try:
        if get_origin(hint) is tuple and (is_text or isinstance(raw, list)):
            items = [part for part in raw.split(",") if part] if is_text else raw
            if all(isinstance(item, str) for item in items):
                return tuple(item.strip() for item in items)
        elif hint is bool and (is_text or isinstance(raw, bool)):
            return _TRUTHS[raw.lower()] if is_text else raw
        elif hint is int and (is_text or type(raw) is int):
            return int(raw)
        elif hint is float and (is_text or type(raw) in (int, float)):
            return float(raw)
        elif hint is Path and isinstance(raw, str | os.PathLike):
            return origin.folder / Path(raw).expanduser()
        elif hint in (str, Secret) and is_text:
            return hint(raw)
    except (KeyError, ValueError):
        pass
    shown = "what was given" if hint is Secret else repr(raw)
    raise ConfigError(f"{origin.name}: {key} must be {_KINDS.get(hint, 'a list of texts')}, got {shown}")


_TRUTHS: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}
_KINDS: Final = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    Path: "a path",
    str: "text",
    Secret: "text",
}
