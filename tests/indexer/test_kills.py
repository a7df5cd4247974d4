"""Children that change a gallery are killed (SIGKILL) at random moments, again and again, on one gallery.

After each: what was acknowledged is there, in order and whole; what was being done was done or was not; what was erased
is in no byte of the folder; and a gallery that is open all the while, as a service's is, finds the same: a large one,
whose segments are mapped where numba is installed.
"""

import multiprocessing
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from indexer.gallery import Gallery
from indexer.regions import REGIONS
from indexer.store import Store, StoreWriter
from tests.folder_bytes import folder_bytes
from tests.indexer.killing import MODEL, Expected, child, next_step, thumbnail, vectors

EVERY = np.ones(REGIONS, bool)


def run_and_kill(context, folder, seed, number, now, rng) -> tuple[int, str]:
    """How many steps a child had acknowledged when it was killed, and what it was doing then."""
    hears, says = context.Pipe(duplex=False)
    fatal = int(rng.integers(1, 120)) if rng.random() < 0.5 else None
    process = context.Process(target=child, args=(folder, seed, number, now, fatal, says))
    process.start()
    says.close()
    assert hears.poll(60), "the child does not start"
    assert hears.recv()[0] == "open"
    if fatal is None:
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
    process.join(60)
    assert process.exitcode == -9, process.exitcode
    heard = []
    try:
        while True:
            heard.append(hears.recv())
    except EOFError:
        hears.close()
    done = sum(what == "done" for what, _ in heard)
    return done, heard[-1][1] if heard and heard[-1][0] == "began" else "between"


def what_is_there(folder: Path, writer: Store) -> tuple[dict[str, int], dict[str, float]]:
    """The gallery's photos by version, in order, and what is known; every vector and thumbnail is looked at."""
    contents, segments = writer.snapshot()
    rows = np.concatenate([np.empty((0, REGIONS, 16), np.float32), *segments])
    photos, known = {}, {}
    for photo_id, row in zip(contents.photo_ids, rows, strict=True):
        if photo_id:
            assert photo_id not in photos, "twice"
            photo = writer.photo(photo_id)
            photos[photo_id] = int(photo.thumbnail.decode().split("version ")[1].split(";")[0])
            assert photo.thumbnail == thumbnail(photo_id, photos[photo_id])
            np.testing.assert_array_equal(row, vectors(photo_id, photos[photo_id]))
            known.update(dict.fromkeys([photo_id] if photo.metadata else [], photo.metadata.get("seen")))
    return photos, known


def assert_erased(folder: Path, now: Expected) -> None:
    data = folder_bytes(folder)
    for photo_id, version in now.erased:
        assert vectors(photo_id, version)[0].tobytes() not in data
        assert photo_id.encode() not in data


def kill_again_and_again(folder: Path, times: int, seed: int) -> tuple[Counter[str], float]:
    """Which steps were killed how often, and how many seconds the slowest reopening took."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.indexer.killing"])
    rng = np.random.default_rng(seed)
    now, number, killed, slowest_s = Expected(), 0, Counter(), 0.0
    StoreWriter.open_or_create(folder, MODEL, 16).close()
    served = Gallery.open(folder)
    for _ in range(times):
        done, doing = run_and_kill(context, folder, seed, number, now, rng)
        for _ in range(done):
            now, number = now.after(next_step(seed, number, now)), number + 1
        maybe = now.after(next_step(seed, number, now))
        assert_erased(folder, now)
        started = time.monotonic()
        with StoreWriter.open(folder) as writer:
            writer.snapshot()
            slowest_s = max(slowest_s, time.monotonic() - started)
            there = what_is_there(folder, writer)
        expected = [(list(state.photos.items()), state.known) for state in (now, maybe)]
        assert (list(there[0].items()), there[1]) in expected
        if (list(there[0].items()), there[1]) != expected[0]:
            # Done, and not acknowledged. Of an erasure that is the deletion; the erasure itself was not acknowledged.
            now, number = Expected(maybe.photos, maybe.known, now.erased), number + 1
        served = served.reopened()
        assert list(served.photo_ids) == list(now.photos)
        if now.photos:
            photo_id = list(now.photos)[number % len(now.photos)]
            (best,) = served.search(vectors(photo_id, now.photos[photo_id]), EVERY, 1).hits
            assert (best.photo_id, best.distance < 1e-3) == (photo_id, True)
        killed[doing] += 1
    served.close()
    return killed, slowest_s


def test_twenty_kills_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.gallery_index.FUSED_FROM", 1)
    killed, slowest_s = kill_again_and_again(tmp_path / "g", 20, seed=5)
    print(f"killed during {dict(killed)}; slowest reopening {slowest_s * 1e3:.0f} ms")
    assert len(killed) >= 3


@pytest.mark.long
def test_two_hundred_kills_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.gallery_index.FUSED_FROM", 1)
    killed, slowest_s = kill_again_and_again(tmp_path / "g", 200, seed=6)
    print(f"killed during {dict(killed)}; slowest reopening {slowest_s * 1e3:.0f} ms")
    assert {"ingest", "upsert", "delete", "compact", "forget"} <= killed.keys()
    # The promise of the storage, a hundred times what it takes: no measurement of this machine.
    assert slowest_s < 5
