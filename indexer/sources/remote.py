"""Files wherever fsspec reaches: object stores, web servers, archives in one of these, or this process's memory.

What cannot be reached is tried again twice, after longer and longer pauses, before it is given up. fsspec comes with
the extra `sources`; what speaks to one kind of store (s3fs, gcsfs) is a package that fsspec asks for by its name.
"""

import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from indexer.errors import ConfigError, DataError, ImageError, PublicError
from indexer.photos import MAX_FILE_BYTES
from indexer.sources.item import Item, as_text, place_id, refuse

T = TypeVar("T")

_URL: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*(://|::)")
_LOCAL: Final = ("file", "local")
_PAUSES_S: Final = (0.5, 2.0)
_SILENT_S: Final = 30.0
"""How long a web server may say nothing."""

_READERS: Final = 8
"""Files on their way at the same time: each waits for its store most of the time."""

_FINAL: Final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, ValueError)
"""What trying again does not change."""


def is_url(text: str) -> bool:
    """Whether a text is a URL of fsspec's, chained ones included, and no path."""
    return _URL.match(text) is not None


def is_web(url: str) -> bool:
    """Whether a web server is to be asked."""
    return url.lower().startswith(("http://", "https://"))


def shown(url: str) -> str:
    """A URL for messages and for the ledger: without scheme, host, password and signature.

    Of a file of this machine it is the name alone, as of one that is named by its path.

    Example:
        >>> shown("https://me:secret@example.org/faces/anna.jpg?signature=x"), shown("tar://a.jpg::s3://bucket/x.tar")
        ('faces/anna.jpg', 'a.jpg')
        >>> shown("file:///home/me/faces/anna.jpg")
        'anna.jpg'
    """
    try:
        parts = urlsplit(url.partition("::")[0])
    except ValueError:
        return "a malformed URL"
    if parts.scheme in _LOCAL:
        return PurePosixPath(parts.path).name
    return parts.path.lstrip("/") or parts.netloc.rpartition("@")[2]


def file_system(url: str) -> tuple[Any, str]:
    """The file system for a URL, and the path in it.

    Raises:
        ConfigError: fsspec, or what it needs for this kind of URL, is not installed.
        DataError: there is no such kind.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ConfigError("URLs need fsspec; install it with: pip install 'mgrl[sources]'") from error
    options: dict[str, Any] = {}
    if is_web(url):
        import aiohttp  # fsspec's own need for these

        # Not a limit on the whole, which a large archive may take hours for.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_SILENT_S, sock_read=_SILENT_S)
        options = {"client_kwargs": {"timeout": timeout}}
    try:
        return cast("tuple[Any, str]", url_to_fs(url, **options))
    except ImportError as error:
        scheme = url.partition(":")[0]
        raise ConfigError(f"{scheme}:// URLs need another package: {error}; install it with pip") from error
    except ValueError as error:
        raise DataError(f"no source is called {shown(url)!r} ({error})") from error


def reach(url: str, act: Callable[[Any, str], T]) -> T:
    """What `act` gives for a file system and a path in it, tried again where that may help.

    Raises:
        DataError: it cannot be done, and why.
        ConfigError: a package is missing.
    """
    for pause_s in (*_PAUSES_S, None):
        try:
            # Here, too, something may be out of reach: an archive is opened to look into it.
            return act(*file_system(url))
        except PublicError:
            raise
        except FileNotFoundError as error:
            raise DataError(f"{shown(url)} is not there") from error
        # Every store has errors of its own, with no base in common.
        except Exception as error:
            if pause_s is None or isinstance(error, _FINAL):
                raise DataError(f"{shown(url)} cannot be read ({_reason(error)})") from error
            time.sleep(pause_s)
    raise AssertionError("the last attempt returns or raises")


def open_url(url: str) -> IO[bytes]:
    """A file to be read from its beginning to its end, once.

    Raises:
        DataError: it cannot be opened.
    """
    return reach(url, _opened)


def copy_url(url: str, copy: IO[bytes]) -> None:
    """Put what is behind a URL into a file of this machine, in place of what is there.

    Raises:
        DataError: it cannot be read.
    """

    def fill(system: Any, path: str) -> None:
        copy.seek(0)
        copy.truncate()
        with _opened(system, path) as file:
            shutil.copyfileobj(file, copy)
        copy.flush()

    reach(url, fill)


def read_url(url: str) -> bytes:
    """The bytes of one file.

    Raises:
        ImageError: it cannot be reached or read, or is too long for a photo.
    """
    try:
        data = reach(url, _read)
    except DataError as error:
        raise ImageError(str(error)) from error
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"the file has more than the {MAX_FILE_BYTES} bytes of the limit")
    return data


def url_item(url: str) -> Item:
    """A file behind a URL as an item; its id is the last part of the path, without suffix."""
    path = PurePosixPath(shown(url))
    return Item(as_text(str(path)), place_id(path.name), partial(read_url, url), locator={"url": url})


def fetched(items: Iterator[Item]) -> Iterator[Item]:
    """The same in the same order, those behind URLs read ahead, several at a time."""
    pool = ThreadPoolExecutor(_READERS, thread_name_prefix="fetch")
    pending: deque[tuple[Item, Future[bytes] | None]] = deque()
    try:
        for item in items:
            is_far = "url" in item.locator and not item.held_bytes
            pending.append((item, pool.submit(item.read) if is_far else None))
            if len(pending) >= _READERS:
                yield _settled(*pending.popleft())
        while pending:
            yield _settled(*pending.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _settled(item: Item, future: Future[bytes] | None) -> Item:
    if future is None:
        return item
    try:
        data = future.result()
    except ImageError as error:
        return replace(item, read=partial(refuse, str(error)))
    return replace(item, read=partial(bytes, data), held_bytes=len(data))


def _opened(system: Any, path: str) -> IO[bytes]:
    # A web server is read as a stream, in one request: it need not know lengths, or how to give a part of a file. The
    # size that is told says no more than that none is to be asked for, where every error would mean "not there".
    options = {"block_size": 0, "size": 1} if "http" in system.protocol or "https" in system.protocol else {}
    return cast("IO[bytes]", system.open(path, "rb", **options))


def _read(system: Any, path: str) -> bytes:
    with _opened(system, path) as file:
        return file.read(MAX_FILE_BYTES + 1)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
