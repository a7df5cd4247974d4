"""The source that a text on a command line means.

-                          standard input: a list of paths or URLs, or a tar archive
a folder                   the photos in it and in the folders below
.tar, .tar.gz, ...         a tar archive or WebDataset shard, as a stream
.csv, .jsonl, .parquet     a manifest
a path with * ? [ ] or     all that it matches, in order of names; each is one of the above, or a photo whatever
  {0001..0042} {a,b}       its suffix
any other file             a photo, whatever its suffix
s3://..., https://...      the same behind a URL that fsspec reaches
"""

import glob
import re
import sys
from collections.abc import Sequence, Set
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, Final

from indexer.errors import DataError
from indexer.sources.bucket import Bucket, Urls, full_url
from indexer.sources.folder import Files, Folder
from indexer.sources.item import Several, Source, as_text
from indexer.sources.listed import Stream
from indexer.sources.manifest import Manifest
from indexer.sources.remote import is_url, is_web, reach, shown
from indexer.sources.shard import SHARD_SUFFIXES, open_shard
from indexer.table_file import format_of

STANDARD_INPUT: Final = "-"

_BRACES: Final = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_MOST: Final = 1_000_000
"""Names that braces may stand for."""


def open_source(spelled: str, chosen: Set[str] | None = None) -> Source:
    """The source that is meant. Nothing is read from it yet.

    Args:
        spelled: what was typed.
        chosen: the metadata fields to take, None for all.

    Raises:
        DataError: there is no such thing.
        ConfigError: what it needs is not installed.
    """
    if spelled == STANDARD_INPUT:
        return Stream(sys.stdin.buffer, chosen)
    if is_url(spelled):
        return _several(spelled, chosen) or _behind_url(spelled, chosen)
    if not spelled:
        raise DataError("a source has no name; `.` is the folder that you are in")  # and is not what a script forgot
    path = Path(spelled)
    if path.is_dir():
        return Folder(path)
    if path.exists() or path.is_symlink():
        return _special(spelled, path.name, chosen) or Files(as_text(path.name), [(path, PurePosixPath(path.name))])
    found = _several(spelled, chosen) or (_matching(path, chosen) if glob.has_magic(spelled) else None)
    if found is None:
        raise DataError(f"no folder or file named {as_text(path.name)!r}; check the spelling of the source")
    return found


def open_sources(spelled: Sequence[Path | str | Source], chosen: Set[str] | None = None) -> Several:
    """All of a job's sources as one, in order; those that are sources already stay as they are. See `open_source`."""
    opened = [open_source(str(one), chosen) if isinstance(one, Path | str) else one for one in spelled]
    return Several("sources", opened)


def expand_braces(spelled: str) -> list[str]:
    """The texts that braces stand for, as a shell would write them out.

    Raises:
        DataError: more than a million.

    Example:
        >>> expand_braces("{a,b}/{08..10}.tar")
        ['a/08.tar', 'a/09.tar', 'a/10.tar', 'b/08.tar', 'b/09.tar', 'b/10.tar']
        >>> expand_braces("{10..8}.tar")
        ['10.tar', '9.tar', '8.tar']
    """
    found = _BRACES.search(spelled)
    if found is None:
        return [spelled]
    first, last, listed = found.groups()
    if listed is None:
        if abs(int(last) - int(first)) >= _MOST:
            raise DataError(f"{found[0]} stands for more than {_MOST} names")
        step = 1 if int(first) <= int(last) else -1
        is_padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
        width = max(len(first), len(last)) if is_padded else 1
        choices = [str(number).zfill(width) for number in range(int(first), int(last) + step, step)]
    else:
        choices = listed.split(",")
    ends = expand_braces(spelled[found.end() :])
    if len(choices) * len(ends) > _MOST:
        raise DataError(f"braces may stand for {_MOST} names, these stand for {len(choices) * len(ends)}")
    return [spelled[: found.start()] + choice + end for choice in choices for end in ends]


def _several(spelled: str, chosen: Set[str] | None) -> Source | None:
    names = expand_braces(spelled)
    if names == [spelled]:
        return None
    return Several(as_text(PurePosixPath(shown(spelled)).name), [open_source(name, chosen) for name in names])


def _special(spelled: str, name: str, chosen: Set[str] | None) -> Source | None:
    """A file that holds more than one photo, by its suffix; None for any other."""
    if format_of(name):
        return Manifest(spelled, chosen)
    return open_shard(spelled, chosen) if name.lower().endswith(SHARD_SUFFIXES) else None


def _matching(pattern: Path, chosen: Set[str] | None) -> Source:
    """The files that a pattern matches; folders are passed over."""
    fixed = 0
    while fixed < len(pattern.parts) and not glob.has_magic(pattern.parts[fixed]):
        fixed += 1
    base = Path(*pattern.parts[:fixed])
    paths = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True)) if not Path(name).is_dir()]
    if not paths:
        raise DataError(f"no file matches {as_text(pattern.name)!r}; a folder is named without * and ?")
    sources: list[Source] = []
    for special, some in groupby(paths, lambda path: _special(str(path), path.name, chosen)):
        if special is None:
            sources.append(Files(as_text(base.name), [(path, PurePosixPath(path.relative_to(base))) for path in some]))
        else:
            sources.append(special)
    return Several(as_text(pattern.name), sources)


def _behind_url(url: str, chosen: Set[str] | None) -> Source:
    name = PurePosixPath(shown(url)).name
    magic = "*[" if is_web(url) else "*?["  # a question mark begins the query of a web address
    if any(character in url for character in magic):
        return _matching_urls(url, chosen)
    if special := _special(url, name, chosen):
        return special
    if not is_web(url) and reach(url, lambda system, path: system.info(path)["type"] == "directory"):
        return Bucket(url)
    return Urls(as_text(name), [(url, PurePosixPath(name))])


def _matching_urls(url: str, chosen: Set[str] | None) -> Source:
    def matches(system: Any, path: str) -> list[tuple[str, PurePosixPath]]:
        fixed = re.split(r"[*?\[]", path, maxsplit=1)[0].rpartition("/")[0]
        found = sorted(name for name in system.glob(path) if not system.isdir(name))
        return [(full_url(system, name, url), PurePosixPath(name[len(fixed) :].lstrip("/"))) for name in found]

    found = reach(url, matches)
    if not found:
        raise DataError(f"nothing matches {shown(url)!r}")
    sources: list[Source] = []
    for special, some in groupby(found, lambda one: _special(one[0], one[1].name, chosen)):
        sources.append(special or Urls(as_text(PurePosixPath(shown(url)).name), list(some)))
    return Several(as_text(PurePosixPath(shown(url)).name), sources)
