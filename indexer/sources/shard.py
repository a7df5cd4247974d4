"""Photos in tar archives, read as a stream from beginning to end: plain ones and WebDataset shards, compressed or not.

The files of one photo lie one after the other and share their name up to the first dot: `0001.jpg`, `0001.json`. The
JSON is the photo's metadata, a field a key, spelled as in a table (`seen:date`); texts are strings unless their key or
the gallery says otherwise. Its `photo_id`, if any, is the photo's own. Nothing is extracted, and links are passed over.

An archive that is cut short or damaged gives the photos before that place, and then one that cannot be read: the
archive itself, so that it is listed with what failed.
"""

import bz2
import gzip
import json
import lzma
import tarfile
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Set
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, cast

from indexer.embeddings_file import check_id
from indexer.errors import DataError
from indexer.metadata import ID_COLUMN, MAX_FIELDS, Kind, Value, check_field
from indexer.metadata_cells import kind_of, stated_kind, typed
from indexer.photos import MAX_FILE_BYTES, SUFFIXES
from indexer.sources.item import Item, Survey, as_text, place_id, refuse
from indexer.sources.remote import is_url, open_url, shown

SHARD_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
COMPRESSED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
"""How gzip, bzip2 and xz begin."""

ARCHIVE: Final = "#archive"
"""Under this a locator says where an archive is, path or URL."""

_SIDECAR: Final = ".json"
_MAX_SIDECAR: Final = 1 << 20
_MAX_TOGETHER: Final = 16
_MAX_NAME: Final = 4096
_MAX_HEADER: Final = 1 << 20


@dataclass(frozen=True)
class Shard:
    """A tar archive.

    Args:
        name: its own name.
        open: opens it, to be read once.
        locator: where it is, for the list of what failed.
        chosen: the fields to take, None for all.
    """

    name: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    locator: Mapping[str, str]
    chosen: Set[str] | None = None

    def survey(self, fields: Mapping[str, Kind]) -> Survey:
        """Nothing is known before it is read."""
        return Survey(None)

    def items(self, fields: MutableMapping[str, Kind]) -> Iterator[Item]:
        """The photos, see `Source`. Each holds its bytes."""
        sidecars = _Sidecars(fields, self.chosen)
        members = 0
        try:
            with ExitStack() as opened:
                file = _decompressed(opened.enter_context(self.open()), opened)
                archive = opened.enter_context(tarfile.open(fileobj=file, mode="r|", tarinfo=_Member))
                for group in self._groups(archive):
                    members += len(group.photos)
                    yield from sidecars.describe(group)
        # Decompressors and stores raise almost anything: zlib.error, EOFError, LZMAError, errors of a network.
        except Exception as error:
            reason = f"the archive {self.name} cannot be read beyond {members} photos: {error}"
            yield Item(self.name, self.name, partial(refuse, reason), locator=self.locator)

    def _groups(self, archive: tarfile.TarFile) -> Iterator["_Group"]:
        """Files that lie one after the other and share their name up to the first dot."""
        group = _Group("")
        try:
            while (member := archive.next()) is not None:
                cast("Any", archive).members.clear()  # otherwise it remembers all of them
                suffix = PurePosixPath(member.name).suffix.lower()
                if not member.isreg() or suffix not in (*SUFFIXES, _SIDECAR):
                    continue
                if _key(member.name) != group.key or group.is_full:
                    yield group
                    group = _Group(_key(member.name))
                if suffix != _SIDECAR:
                    group.photos.append(self._item(archive, member))
                elif member.name == group.key + _SIDECAR:
                    group.sidecar = _data(archive, member) if member.size <= _MAX_SIDECAR else b"too long"
        except Exception:
            yield group  # its photos are whole
            raise
        yield group

    def _item(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Item:
        place = PurePosixPath(as_text(member.name[:_MAX_NAME]).lstrip("/"))
        item = Item(f"{self.name}/{place}", place_id(str(place)), bytes, locator=self._member(member))
        if member.size > MAX_FILE_BYTES or len(member.name) > _MAX_NAME:
            limits = f"the limits are {MAX_FILE_BYTES} and {_MAX_NAME}"
            reason = f"the file has {member.size} bytes and a name of {len(member.name)} characters, {limits}"
            return replace(item, read=partial(refuse, reason))
        data = _data(archive, member)
        return replace(item, read=partial(bytes, data), held_bytes=len(data) or 1)

    def _member(self, member: tarfile.TarInfo) -> dict[str, str]:
        """A member as a URL that fsspec can read, so that it can be tried again alone."""
        place = self.locator.get(ARCHIVE)
        if place is None:
            return {}
        return {"url": f"tar://{member.name}::{place if is_url(place) else f'file://{place}'}"}


def open_shard(place: str, chosen: Set[str] | None = None) -> Shard:
    """The archive at a path or a URL; it is opened when it is read."""
    if is_url(place):
        return Shard(PurePosixPath(shown(place)).name, partial(open_url, place), {ARCHIVE: place}, chosen)
    path = Path(place).absolute()
    return Shard(as_text(path.name), partial(_open_file, path), {ARCHIVE: str(path)}, chosen)


def _open_file(path: Path) -> IO[bytes]:
    return path.open("rb")


@dataclass
class _Group:
    """The photos of one name, and the JSON beside them. Some are given out early, so that no name can fill memory."""

    key: str
    photos: list[Item] = field(default_factory=list)
    sidecar: bytes | None = None

    @property
    def is_full(self) -> bool:
        held = sum(item.held_bytes for item in self.photos)
        return len(self.photos) >= _MAX_TOGETHER or held >= MAX_FILE_BYTES


class _Sidecars:
    """Metadata that lies beside photos. A field has the kind of its first value."""

    def __init__(self, kinds: MutableMapping[str, Kind], chosen: Set[str] | None) -> None:
        self._kinds = kinds
        self._chosen = chosen

    def describe(self, group: _Group) -> Iterator[Item]:
        """The photos of a group with their metadata; where that does not hold, they cannot be read."""
        if group.sidecar is None:
            yield from group.photos
            return
        try:
            cells = _json_object(group.sidecar)
            photo_id = cells.pop(ID_COLUMN, None)
            if photo_id is not None:
                check_id(photo_id)
            metadata = self._values(cells)
        except DataError as error:
            reason = f"its metadata in {PurePosixPath(group.key).name}{_SIDECAR} does not hold: {error}"
            for item in group.photos:
                yield replace(item, read=partial(refuse, reason), held_bytes=0)
            return
        kinds = {name: self._kinds[name] for name in metadata}
        for item in group.photos:
            described = replace(item, metadata=metadata, kinds=kinds)
            yield replace(described, photo_id=photo_id, has_own_id=True) if photo_id else described

    def _values(self, cells: Mapping[str, Any]) -> dict[str, Value | None]:
        values: dict[str, Value | None] = {}
        kinds: dict[str, Kind] = {}
        for column, cell in cells.items():
            name = column.partition(":")[0]
            if self._chosen is not None and name not in self._chosen:
                continue
            kind = self._kinds.get(check_field(name)) or stated_kind(column)
            if kind is None and cell is None:
                continue  # no kind can be told from it, and no value is taken away by it
            kind = kind or kind_of(cell)
            try:
                values[name] = typed(kind, cell, has_types=True)
            except DataError as error:
                raise DataError(f"field {name}: {error}") from error
            kinds[name] = kind
        if len(self._kinds.keys() | kinds) > MAX_FIELDS:
            raise DataError(f"a gallery may have {MAX_FIELDS} metadata fields; choose some with --fields")
        self._kinds.update(kinds)  # now that all of it holds: what is refused says nothing about the others
        return values


class _Member(tarfile.TarInfo):
    """A header. tarfile takes a damaged or a missing one for the archive's end; here only its end mark is one."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        found = super().frombuf(buf, encoding, errors)
        if found.type in (b"x", b"g", b"X", b"L", b"K") and found.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {found.size} bytes")  # it would be read whole
        return found

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error}; it is cut short or damaged") from error


class After:
    """A stream of which the beginning was read already."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int = -1) -> bytes:
        head, self._head = (self._head, b"") if size < 0 else (self._head[:size], self._head[size:])
        return head + self._rest.read(size if size < 0 else size - len(head))


def _decompressed(file: IO[bytes], opened: ExitStack) -> IO[bytes]:
    """The archive's own bytes, however it is compressed; its name may say something else."""
    head = file.read(8)
    whole = cast("IO[bytes]", After(head, file))
    openers: tuple[Callable[[IO[bytes]], Any], ...] = (gzip.open, bz2.open, lzma.open)
    for magic, decompress in zip(COMPRESSED, openers, strict=True):
        if head.startswith(magic):
            return cast("IO[bytes]", opened.enter_context(decompress(whole)))
    return whole


def _key(name: str) -> str:
    """What files of one photo share: the path up to the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"


def _data(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, "only regular files are asked for"
    return file.read()


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        cells = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"it is no JSON object ({error})") from error
    if not isinstance(cells, dict):
        raise DataError(f"it must be a JSON object, got {str(cells)[:80]!r}")
    return cells
