"""What the kill tests do to a gallery, as a child does it and as the test expects it.

Every step follows from a seed and from what is in the gallery, so that a test that knows how many steps a child had
acknowledged knows what must be there.
"""

import hashlib
import os
import zlib
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.compaction import compact, forget
from indexer.metadata import Kind
from indexer.store import NewPhoto, StoreWriter
from tests.conftest import unit_rows
from tests.crash import Fatal

KINDS = ("ingest", "upsert", "delete", "describe", "compact", "forget")
MODEL = "ab" * 32


@dataclass(frozen=True)
class Step:
    """One change: photos to store, as (id, version), ids to take away, or ids to describe."""

    kind: str
    number: int
    photos: tuple[tuple[str, int], ...] = ()
    ids: tuple[str, ...] = ()


@dataclass
class Expected:
    """What is in the gallery: id -> version in the order of rows, what is known, and what was erased."""

    photos: dict[str, int] = field(default_factory=dict)
    known: dict[str, float] = field(default_factory=dict)
    erased: set[tuple[str, int]] = field(default_factory=set)

    def after(self, step: Step) -> "Expected":
        photos, known, erased = dict(self.photos), dict(self.known), set(self.erased)
        for photo_id in (*(photo_id for photo_id, _ in step.photos), *(step.ids if step.kind != "describe" else ())):
            version = photos.pop(photo_id, None)
            if step.kind in ("delete", "forget"):
                known.pop(photo_id, None)
            if step.kind == "forget":
                assert version is not None
                erased.add((photo_id, version))
        photos.update(step.photos)
        if step.kind == "describe":
            known.update(dict.fromkeys(step.ids, float(step.number)))
        return Expected(photos, known, erased)


def next_step(seed: int, number: int, now: Expected) -> Step:
    """What a child does as its `number`-th step, counted over all children."""
    rng = np.random.default_rng([seed, number])
    chances = [0.3, 0.2, 0.15, 0.1, 0.1, 0.15] if 10 < len(now.photos) < 150 else [0.9, 0.02, 0.02, 0.02, 0.02, 0.02]
    if len(now.photos) >= 150:
        chances = [0.05, 0.1, 0.4, 0.05, 0.2, 0.2]
    kind = str(rng.choice(KINDS, p=chances))
    new = tuple((f"person {number}.{n}.", 0) for n in range(rng.integers(1, 8)))
    if kind == "ingest" or not now.photos:
        return Step("ingest", number, photos=new)
    some = tuple(rng.choice(list(now.photos), min(3, len(now.photos)), replace=False).tolist())
    if kind == "upsert":
        return Step(kind, number, photos=(*((photo_id, number) for photo_id in some), new[0]))
    return Step(kind, number, ids=() if kind == "compact" else some)


def vectors(photo_id: str, version: int) -> npt.NDArray[np.float32]:
    """(14, 16) float32, of this photo and no other."""
    return unit_rows(np.random.default_rng([zlib.crc32(photo_id.encode()), version]), 1)[0]


def thumbnail(photo_id: str, version: int) -> bytes:
    return f"thumbnail of {photo_id}, version {version};".encode() * 40


def do(writer: StoreWriter, step: Step) -> None:
    """Make a step; when this returns it is acknowledged."""
    new = []
    for photo_id, version in step.photos:
        picture = thumbnail(photo_id, version)
        new.append(NewPhoto(photo_id, f"{photo_id}.jpg", picture, hashlib.sha256(picture).digest()))
    rows = np.array([vectors(*photo) for photo in step.photos], np.float32).reshape(-1, 14, 16)
    match step.kind:
        case "ingest":
            writer.append(new, rows)
        case "upsert":
            writer.upsert(new, rows)
        case "delete":
            writer.delete(step.ids)
        case "describe":
            writer.describe({photo_id: {"seen": float(step.number)} for photo_id in step.ids})
        case "compact":
            compact(writer)
        case "forget":
            forget(writer, step.ids)


def child(folder: Path, seed: int, number: int, now: Expected, fatal: int | None, says: Connection) -> None:
    """Change the gallery until killed, saying when each step begins and when it is acknowledged.

    `fatal` makes the process kill itself at so many writes: syncs, renames, removals, statements and commits.
    """
    with StoreWriter.open_or_create(folder, MODEL, 16) as writer:
        writer.declare_fields({"seen": Kind.NUMBER})
        if fatal is not None:
            dying = Fatal(at=fatal)
            os.fsync, os.replace, os.unlink = dying(os.fsync), dying(os.replace), dying(os.unlink)
            dialect = writer.engine.dialect
            dialect.do_commit, dialect.do_execute = dying(dialect.do_commit), dying(dialect.do_execute)
            dialect.do_executemany = dying(dialect.do_executemany)
        says.send(("open", ""))
        while True:
            step = next_step(seed, number, now)
            says.send(("began", step.kind))
            do(writer, step)
            says.send(("done", step.kind))
            now, number = now.after(step), number + 1
