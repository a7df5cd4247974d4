"""The versions of a gallery: in use, in the making, taken out of use."""

import json
from pathlib import Path

from indexer import versions
from indexer.compaction import compact
from indexer.ledger import manifest_path
from indexer.reindex import reindex
from indexer.store import StoreWriter
from indexer.version_list import State, list_versions
from tests.conftest import PixelEncoder
from tests.indexer.test_reindex import NEW, OLD, folder, photos

__all__ = ["folder", "photos"]  # fixtures

THIRD = PixelEncoder(dim=16, size_px=96, seed=3)


def listed(folder: Path) -> list[tuple[str, str, int, int]]:
    return [
        (version.state, version.manifest.model_hash, version.manifest.dim, version.photos)
        for version in list_versions(folder)
    ]


def test_every_version_is_listed_with_what_it_holds(folder: Path, photos: Path) -> None:
    assert listed(folder) == [(State.CURRENT, OLD.model_hash, 16, 9)]
    created = list_versions(folder)[0].manifest.created
    reindex(folder, [photos], NEW)
    assert listed(folder) == [(State.CURRENT, NEW.model_hash, 8, 9), (State.SUPERSEDED, OLD.model_hash, 16, 9)]
    assert list_versions(folder)[1].manifest.created == created
    (photos / "face1.png").unlink()
    reindex(folder, [photos], THIRD)
    current, unfinished, superseded = list_versions(folder)
    assert (unfinished.state, unfinished.manifest.model_hash, unfinished.photos) == (
        State.UNFINISHED,
        THIRD.model_hash,
        8,
    )
    for version, dim in ((current, 8), (unfinished, 16), (superseded, 16)):
        assert version.bytes > version.photos * 14 * dim * 4
    reindex(folder, [photos], THIRD, leaves_out=True)
    assert [(state, model) for state, model, _, _ in listed(folder)] == [
        (State.CURRENT, THIRD.model_hash),
        (State.SUPERSEDED, OLD.model_hash),
        (State.SUPERSEDED, NEW.model_hash),
    ]
    with StoreWriter.open(folder) as writer:
        compact(writer)
    assert listed(folder) == [(State.CURRENT, THIRD.model_hash, 16, 8)]


def test_one_without_a_record_is_left_out(folder: Path, photos: Path) -> None:
    reindex(folder, [photos], NEW)
    pointer = json.loads(manifest_path(folder).read_bytes())
    assert versions.superseded(folder) == [folder]
    del pointer["first"]
    manifest_path(folder).write_text(json.dumps(pointer))
    assert listed(folder) == [(State.CURRENT, NEW.model_hash, 8, 9)]
