"""Every byte of a gallery's folder, for tests of what must not be in it."""

import subprocess
from pathlib import Path


def folder_bytes(folder: Path) -> bytes:
    """All files one after the other, read by another process.

    A process that opens SQLite's files besides SQLite, and closes them, loses the locks that SQLite holds there.
    """
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return subprocess.run(["cat", *paths], capture_output=True, check=True).stdout if paths else b""
