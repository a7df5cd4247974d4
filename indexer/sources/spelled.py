"""The source that a text on a command line means."""

from pathlib import Path, PurePosixPath

from indexer.errors import DataError
from indexer.sources.folder import Files, Folder
from indexer.sources.item import Source, as_text


def open_source(spelled: str) -> Source:
    """A folder, or a file.

    Raises:
        DataError: there is no such thing.
    """
    path = Path(spelled)
    if path.is_dir():
        return Folder(path)
    if path.exists():
        return Files(as_text(path.name), [(path, PurePosixPath(path.name))])
    raise DataError(f"no folder or file named {as_text(path.name)!r}; check the spelling of the source")
