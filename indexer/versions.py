"""The versions of a gallery, one for each model: one is the gallery's, another may be in the making beside it.

    gallery.json                what the first version says of itself; or, once another is the gallery's, its name
    versions/MODEL/             a version, and a gallery folder like any other: it can be served by its own path

A version becomes the gallery's by one rename of gallery.json. What it takes the place of stays where it was, for the
services that have it open, until the gallery is compacted.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any, Final

from indexer.errors import GalleryError
from indexer.ledger import (
    FORMAT_VERSION,
    LEDGER,
    Manifest,
    folder_name,
    manifest_path,
    parse_manifest,
    read_manifest,
    refusal,
    replace_file,
)

_FOLDER: Final = "versions"
_NAME: Final = re.compile(rf"{_FOLDER}/[0-9a-f]{{16}}")


def home_of(folder: Path) -> Path:
    """Where the files of a gallery's version are: the folder itself, or the one in it that gallery.json names.

    Raises:
        GalleryError: it names a place outside of the folder.
    """
    home = _pointer(folder).get("home", "")
    if home and not (isinstance(home, str) and _NAME.fullmatch(home)):
        raise GalleryError(f"gallery {folder_name(folder)}: its gallery.json names no version; restore it from a copy")
    return folder / home if home else folder


def version_folder(folder: Path, model_hash: str) -> Path:
    """Where a model's version is made."""
    return folder / _FOLDER / model_hash[:16]


def switch(folder: Path, home: Path) -> None:
    """Let another version be the gallery's, for all who open it from now on; the caller holds the locks of both."""
    old = [*superseded(folder), home_of(folder)]
    _point(folder, home, [version for version in old if version != home])


def keep(folder: Path, version: Path) -> None:
    """Let a version that was taken out of use be worked on again; the caller holds the lock of the one that is."""
    if version in superseded(folder):
        if not manifest_path(version).exists():  # a compaction has begun to remove it
            _erase(folder, version)
        _point(folder, home_of(folder), [other for other in superseded(folder) if other != version])


def superseded(folder: Path) -> list[Path]:
    """Versions that were the gallery's and are not erased yet."""
    return [folder / name if name else folder for name in _pointer(folder).get("superseded", [])]


def manifest_of(folder: Path, version: Path) -> Manifest:
    """What a version of a gallery says of itself, or, of the first, said.

    Raises:
        GalleryError: it cannot be read, or is one of those that older releases took out of use.
    """
    first = _pointer(folder).get("first")
    return read_manifest(version) if version != folder or first is None else parse_manifest(first, folder_name(folder))


def unfinished(folder: Path) -> list[Path]:
    """Versions that are in the making."""
    others = (manifest.parent for manifest in sorted((folder / _FOLDER).glob("*/gallery.json")))
    done = [home_of(folder), *superseded(folder)]
    return [version for version in others if version not in done]


def erase_superseded(folder: Path) -> None:
    """Remove the files of versions that were the gallery's; the caller holds the lock of the one that is.

    Raises:
        GalleryError: the disk refuses; the same again goes on with what is left.
    """
    if not (old := superseded(folder)):
        return
    try:
        for version in old:
            _erase(folder, version)
        _point(folder, home_of(folder), [])
    except OSError as error:
        raise GalleryError(
            f"gallery {folder_name(folder)}: versions that it had before could not be removed "
            f"({refusal(folder, error)}); then run `mgrl compact`"
        ) from error


def _erase(folder: Path, version: Path) -> None:
    """Remove a version's files, those that are there: an earlier attempt may have died anywhere."""
    if version != folder:
        manifest_path(version).unlink(missing_ok=True)  # first: what is no longer whole is no gallery
    own = [folder / "segments", folder / "index", folder / "index.lock", *folder.glob(f"{LEDGER}*")]
    for path in own if version == folder else [version]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _pointer(folder: Path) -> dict[str, Any]:
    """What gallery.json says; nothing where it cannot be read, which `read_manifest` explains."""
    try:
        found = json.loads(manifest_path(folder).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _point(folder: Path, home: Path, old: list[Path]) -> None:
    names = ["" if version == folder else version.relative_to(folder).as_posix() for version in old]
    said = {"format_version": FORMAT_VERSION, "home": home.relative_to(folder).as_posix(), "superseded": names}
    if folder in old:
        said["first"] = _pointer(folder).get("first") or _pointer(folder)
    replace_file(manifest_path(folder), json.dumps(said, indent=2).encode())
