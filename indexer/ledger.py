"""The files of a gallery folder: its manifest, its ledger, and how a file is replaced for good.

`indexer.store` reads and appends; this module says what the files are, `indexer.tables` what is in the ledger.
"""

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

import sqlalchemy as sa

from indexer import tables
from indexer.errors import ConfigError, GalleryError, ModelMismatchError

Faces = Literal["largest", "all", "reject-many"]

FORMAT_VERSION: Final = 5
"""See `indexer.tables.layout`. Older ones are read as they are; the first writer brings them to this one."""
LEDGER: Final = "ledger.sqlite"
_READER_S: Final = 30.0
"""How long a reader's transaction is waited for; ours take milliseconds, of a million photos a few seconds."""


@dataclass(frozen=True)
class Framing:
    """How photos are cropped before they are encoded, see `indexer.framing`.

    Args:
        crop: "none", or how: "face" or "stray".
        faces: what becomes of several faces in a photo that is cropped: "largest", "all" or "reject-many".
    """

    crop: str
    faces: Faces = "largest"


@dataclass(frozen=True)
class Manifest:
    """What gallery.json says.

    Args:
        format_version: layout of the folder; this code reads `FORMAT_VERSION`.
        model_hash: names the encoder that made every embedding of the gallery.
        dim: numbers per region.
        created: UTC, ISO 8601.
        framing: how its photos are cropped; None until somebody says it.
    """

    format_version: int
    model_hash: str
    dim: int
    created: str
    framing: Framing | None = None


def folder_name(folder: Path) -> str:
    """The last part of a path, also for "."; messages may go over the wire and hold no more of it."""
    return folder.resolve().name


def replace_file(path: Path, data: bytes | memoryview, mode: int | None = None) -> None:
    """Write a file that survives a crash: the old bytes or the new, never a mixture.

    Args:
        path: the file.
        data: what it shall hold.
        mode: its permissions; the usual ones if None.

    Raises:
        OSError: the disk refuses; what was written is taken away again.
    """
    scratch = path.with_name(path.name + ".tmp")
    try:
        with scratch.open("wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)  # without this the rename itself can be lost


def fsync_folder(folder: Path) -> None:
    """Make renames and removals in a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refusal(folder: Path, error: OSError | sqlite3.Error | sa.exc.DBAPIError, needs: int = 0) -> str:
    """Why a folder could not be written; where its disk is full, also what `needs` bytes are against what is free."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    reason = getattr(cause, "strerror", None) or str(cause)
    if not is_disk_full(error):
        return reason
    if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHMSIZE:
        reason = os.strerror(errno.ENOSPC)  # SQLite calls it an I/O error, as if the disk were broken
    with suppress(OSError):
        free = shutil.disk_usage(folder).free
        needed = f"this needs {megabytes(needs)} and " if needs else ""
        reason += f"; {needed}{megabytes(free)} are free"
    return f"{reason}; what was acknowledged is safe, free some and run it again"


def is_disk_full(error: BaseException | None) -> bool:
    """Whether this is what a full disk, or a used-up quota, makes of a write."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    is_full = getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    # The second: there is no room for the file in which SQLite's processes find each other, not even to read.
    return is_full or getattr(cause, "sqlite_errorcode", None) in (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_SHMSIZE,
    )


def megabytes(count: int) -> str:
    """Bytes for a reader."""
    return f"{count / 1e6:.1f} MB"


def manifest_path(folder: Path) -> Path:
    """Where a gallery says that it is one."""
    return folder / "gallery.json"


def read_manifest(folder: Path) -> Manifest:
    """What a gallery says about itself.

    Raises:
        GalleryError: no gallery there, a damaged one, or one of another format.
    """
    name = folder_name(folder)
    try:
        raw = json.loads(manifest_path(folder).read_bytes())
        version = raw["format_version"]
    except (FileNotFoundError, NotADirectoryError) as error:
        has_begun = (folder / LEDGER).exists()
        way_out = "run what began it again: `mgrl restore`, `mgrl backup` or" if has_begun else "make one with"
        raise GalleryError(f"{name} is no gallery (no gallery.json in it); {way_out} `mgrl ingest`") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GalleryError(f"gallery {name}: its gallery.json cannot be read; restore it from a copy") from error
    if version not in range(1, FORMAT_VERSION + 1):
        raise GalleryError(
            f"gallery {name} has format {version}, this version of mgrl reads formats 1 to {FORMAT_VERSION}; "
            "use the version that wrote it or ingest the photos anew"
        )
    if not (folder / LEDGER).is_file():
        raise GalleryError(f"gallery {name}: its {LEDGER} is missing; restore it from a copy")
    return parse_manifest(raw, name)


def parse_manifest(raw: Mapping[str, Any], gallery: str) -> Manifest:
    """What a gallery.json says.

    Raises:
        GalleryError: something is missing.
    """
    try:
        framing = Framing(**raw["framing"]) if raw.get("framing") else None
        return Manifest(
            int(raw["format_version"]), str(raw["model_hash"]), int(raw["dim"]), str(raw["created"]), framing
        )
    except (KeyError, TypeError, ValueError) as error:
        raise GalleryError(f"gallery {gallery}: its gallery.json lacks {error}; restore it from a copy") from error


def check_model(name: str, manifest: Manifest, model_hash: str, dim: int) -> None:
    """Refuse an encoder that did not make this gallery's embeddings: its distances would mean nothing.

    Raises:
        ModelMismatchError: another hash or dim.
    """
    if (manifest.model_hash, manifest.dim) != (model_hash, dim):
        raise ModelMismatchError(
            f"gallery {name} was made by model {manifest.model_hash[:12]} (dim {manifest.dim}), this model is "
            f"{model_hash[:12]} (dim {dim}); change the gallery's model (`mgrl reindex`), or use the model that made "
            "it (--model FILE)"
        )


def create(folder: Path, model_hash: str, dim: int) -> None:
    """Make an empty gallery in a folder; the caller holds its lock. Unless gallery.json is there, none was made.

    Raises:
        GalleryError: the disk refuses, or photos are there whose gallery.json is lost.
    """
    try:
        _create(folder, model_hash, dim)
    except (OSError, sa.exc.DBAPIError) as error:
        raise GalleryError(f"gallery {folder_name(folder)} could not be made ({refusal(folder, error)})") from error


def _create(folder: Path, model_hash: str, dim: int) -> None:
    (folder / "segments").mkdir(exist_ok=True)
    engine = open_engine(folder, creates=True)
    try:
        # An earlier attempt may have died anywhere before gallery.json; nothing in its ledger was acknowledged.
        with engine.begin() as connection:
            _refuse_photos(connection, folder_name(folder))
            tables.METADATA.drop_all(connection)
            tables.create_tables(connection)
    finally:
        engine.dispose()
    fsync_folder(folder)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = Manifest(FORMAT_VERSION, model_hash, dim, created)
    write_manifest(folder, manifest)
    fsync_folder(folder.resolve().parent)


def _refuse_photos(connection: sa.Connection, name: str) -> None:
    """Whoever makes a gallery gives it gallery.json before the first photo, so photos without one are somebody's."""
    if not sa.inspect(connection).has_table(tables.PHOTOS.name):
        return
    if photos := connection.execute(sa.select(sa.func.count()).select_from(tables.PHOTOS)).scalar_one():
        raise GalleryError(
            f"{name} has a ledger with {photos} photos and no gallery.json; finish the copy that was begun (`mgrl "
            "backup`, `mgrl restore`), put gallery.json back from a copy, or name another folder"
        )


def keep_framing(folder: Path, manifest: Manifest, framing: Framing) -> Manifest:
    """Let a gallery say how its photos are cropped; the caller holds its lock.

    Raises:
        ConfigError: it says otherwise already.
        GalleryError: the disk refuses.
    """
    check_framing(folder_name(folder), manifest, framing)
    if manifest.framing is not None:
        return manifest
    said = replace(manifest, framing=framing)
    try:
        write_manifest(folder, said)
    except OSError as error:
        raise GalleryError(
            f"gallery {folder_name(folder)}: its framing could not be stored ({refusal(folder, error)})"
        ) from error
    return said


def check_framing(name: str, manifest: Manifest, framing: Framing) -> None:
    """Refuse to crop photos otherwise than the gallery's are.

    Raises:
        ConfigError: so.
    """
    known = manifest.framing
    if known is not None and known.crop != framing.crop:
        raise ConfigError(
            f"the photos of gallery {name} are taken with --crop {known.crop}, and others taken with --crop "
            f"{framing.crop} could not be compared with them; leave the option out, or take another gallery"
        )


def upgrade(folder: Path, manifest: Manifest) -> Manifest:
    """Bring a gallery of an older format to this one; the caller holds its lock. Its photos stay as they are.

    Raises:
        GalleryError: the disk refuses, or the ledger is damaged; the gallery stays as it was.
    """
    if manifest.format_version == FORMAT_VERSION:
        return manifest
    # What refers to a table must not go with it when the table is replaced.
    engine = open_engine(folder, enforces_keys=False)
    try:
        with engine.begin() as connection:
            tables.upgrade_tables(connection)
    except sa.exc.DBAPIError as error:
        raise GalleryError(
            f"gallery {folder_name(folder)} has format {manifest.format_version} and could not be brought to format "
            f"{FORMAT_VERSION} ({error.orig}); it is as it was"
        ) from error
    finally:
        engine.dispose()
    upgraded = replace(manifest, format_version=FORMAT_VERSION)
    write_manifest(folder, upgraded)
    return upgraded


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Let a folder say of itself that it is this gallery."""
    replace_file(manifest_path(folder), json.dumps(asdict(manifest), indent=2).encode())


def file_of(folder: Path) -> tuple[int, int] | None:
    """Which file a folder's ledger is, whatever it is called or holds; None where there is none."""
    try:
        found = (folder / LEDGER).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def empty_log(engine: sa.Engine, wait_s: float = 0.5) -> bool:
    """Bring the write-ahead log into the ledger and cut it off: until then, both hold what was overwritten.

    A reader in the middle of its transaction puts that off to a later change, or to when the last reader has closed.

    Returns:
        False where a reader was in the way for `wait_s` seconds.
    """
    with _outside_transactions(engine) as cursor:
        cursor.execute(f"PRAGMA busy_timeout={round(wait_s * 1000)}")
        with suppress(sqlite3.OperationalError):
            is_busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not is_busy
    return False


def write_anew(engine: sa.Engine, folder: Path) -> None:
    """Copy the ledger into itself and empty its log: nothing that was ever deleted is left in a corner of either.

    Raises:
        GalleryError: the disk refuses, or a reader stays in the way; the ledger is right, but may hold such remains.
    """
    remains = f"gallery {folder_name(folder)} is changed, but its ledger may still hold remains of what was deleted"
    with _outside_transactions(engine) as cursor:
        try:
            cursor.execute("VACUUM")
        except sqlite3.Error as error:
            needs = 2 * (folder / LEDGER).stat().st_size
            raise GalleryError(f"{remains} ({refusal(folder, error, needs)}); then run `mgrl compact`") from error
    if not empty_log(engine, _READER_S):
        raise GalleryError(
            f"{remains}: a reader has been busy for {_READER_S:.0f} s; run `mgrl compact` when it has ended"
        )


@contextmanager
def _outside_transactions(engine: sa.Engine) -> Iterator[sqlite3.Cursor]:
    connection = engine.raw_connection()
    connection.detach()  # what is set here is for nobody else
    try:
        yield connection.cursor()  # type: ignore[misc]  # SQLAlchemy's name for the driver's cursor
    finally:
        connection.close()


def open_engine(folder: Path, *, creates: bool = False, enforces_keys: bool = True) -> sa.Engine:
    """The ledger's SQLite file: write-ahead log, so that readers never wait, and a sync at every commit.

    In a folder that may not be written it is read as it is, and taken not to change while it is open.
    """
    path = (folder.resolve() / LEDGER).as_posix()
    query = {"mode": "rwc" if creates else "rw", "uri": "true"}
    if not os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        has_log = folder.joinpath(f"{LEDGER}-wal").exists()
        # Without a log SQLite would still make the files that go with one.
        query |= {"mode": "ro"} | ({} if has_log else {"immutable": "1"})
    url = sa.URL.create("sqlite", database=f"file:{quote(os.fsencode(path))}", query=query)
    engine = sa.create_engine(url, json_serializer=partial(json.dumps, separators=(",", ":")))

    @sa.event.listens_for(engine, "connect")
    def _settle(connection: Any, _: Any) -> None:
        # The driver must not begin transactions on its own: it would leave SELECTs out of them.
        connection.isolation_level = None
        if creates:
            # Rows are as long as their thumbnails, 2 to 3 KB: pages of 4 KB hold one each and leave a third empty.
            connection.execute("PRAGMA page_size=8192")
        connection.execute("PRAGMA journal_mode=WAL")
        # In WAL mode only FULL syncs the log at every commit; NORMAL may lose the last ones to a power cut.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA foreign_keys={'ON' if enforces_keys else 'OFF'}")
        # What is deleted is overwritten: thumbnails and metadata of people must not lie about in free pages.
        connection.execute("PRAGMA secure_delete=ON")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine
