"""Sessions that share scans: each gets what it would have got alone."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from indexer.errors import QueryError
from indexer.face_like import FaceLike
from indexer.filters import Equals
from indexer.fusion import EQUAL_WEIGHTS
from indexer.gallery import Gallery
from indexer.metadata import Kind
from indexer.modes import Budget
from indexer.sketch import read_raster
from indexer.store import StoreWriter
from service.answers import SearchOptions
from service.client import Client
from service.engine import Engine, Query, SharedRuns
from tests.conftest import PixelEncoder, unit_rows
from tests.service.conftest import ids, line, make_gallery, png, serving

PHOTOS = 12_000


class Gate:
    """A run that waits to be let through, and remembers what ran together."""

    def __init__(self):
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches = []

    def __call__(self, jobs):
        self.batches.append(list(jobs))
        self.entered.release()
        assert self.open.wait(5)
        if "bad" in jobs:
            raise QueryError("a bad job")
        return [f"{job} done" for job in jobs]


@contextmanager
def waiting(runs: SharedRuns, gate: Gate, jobs: list[tuple[str, str]]) -> Iterator[list]:
    """The futures of a first job that runs behind the closed gate, and of the jobs that queue up meanwhile."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(runs.do, *jobs[0])]
        assert gate.entered.acquire(timeout=5)
        for count, job in enumerate(jobs[1:], start=1):
            futures.append(pool.submit(runs.do, *job))
            until = time.monotonic() + 5
            while sum(map(len, runs._waiting.values())) < count:
                assert time.monotonic() < until
                time.sleep(0.001)
        yield futures


def shared(gate: Gate, most: int = 3) -> SharedRuns:
    return SharedRuns(gate, threading.BoundedSemaphore(1), most)


def test_a_job_alone_runs_at_once_and_alone():
    gate = Gate()
    gate.open.set()
    runs = shared(gate)
    assert [runs.do("kind", job)[0] for job in "abc"] == ["a done", "b done", "c done"]
    assert gate.batches == [["a"], ["b"], ["c"]]
    assert not runs._waiting


def test_what_waits_meanwhile_runs_together_kind_by_kind():
    gate = Gate()
    runs = shared(gate)
    jobs = [("x", "a"), ("x", "b"), ("y", "c"), ("x", "d"), ("y", "e"), ("x", "f"), ("x", "g")]
    with waiting(runs, gate, jobs) as futures:
        gate.open.set()
        assert [future.result(5)[0] for future in futures] == [f"{job} done" for _, job in jobs]
    assert gate.batches[0] == ["a"]
    assert sorted(gate.batches[1:]) == [["b", "d", "f"], ["c", "e"], ["g"]]
    assert not runs._waiting


def test_a_bad_job_fails_alone():
    gate = Gate()
    with waiting(shared(gate), gate, [("x", "a"), ("x", "b"), ("x", "bad"), ("x", "c")]) as futures:
        gate.open.set()
        with pytest.raises(QueryError, match="a bad job"):
            futures[2].result(5)
        assert [futures[n].result(5)[0] for n in (0, 1, 3)] == ["a done", "b done", "c done"]


class GatedBatches(PixelEncoder):
    """Waits to be let through, and remembers how many sketches came together."""

    def __init__(self):
        super().__init__()
        self.gate = Gate()

    def encode_sketches(self, canvases):
        self.gate([None] * len(canvases))
        return super().encode_sketches(canvases)


@pytest.mark.parametrize(("batches", "together"), [(True, [1, 3]), (False, [1, 1, 1, 1])])
def test_sketches_that_wait_are_encoded_together_where_that_is_asked_for(batches, together):
    encoder, rng = GatedBatches(), np.random.default_rng(2)
    engine = Engine(encoder, threads=1, batches=batches)
    canvases = rng.integers(0, 256, (4, encoder.size_px, encoder.size_px), np.uint8)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(engine.encode, encoder, canvases[0])]
        assert encoder.gate.entered.acquire(timeout=5)
        futures += [pool.submit(engine.encode, encoder, canvas) for canvas in canvases[1:]]
        if batches:
            until = time.monotonic() + 5
            while sum(map(len, engine._encodings._waiting.values())) < 3:
                assert time.monotonic() < until
                time.sleep(0.001)
        encoder.gate.open.set()
        found = [future.result(5)[0] for future in futures]
    assert [len(batch) for batch in encoder.gate.batches] == together
    np.testing.assert_allclose(found, PixelEncoder().encode_sketches(canvases), atol=1e-6)


def test_drawings_of_a_service_that_batches_are_answered_as_by_one_that_does_not(gallery, encoder):
    answers = []
    for batches in (False, True):
        with (
            serving([gallery], encoder, batches=batches) as running,
            Client(running.address) as client,
            client.draw() as drawing,
        ):
            answers += [drawing.strokes([line(y0=place)]) for place in (0.2, 0.6)]
    for alone, together in zip(answers[:2], answers[2:], strict=True):
        assert ids(alone) == ids(together)
        np.testing.assert_allclose(*([hit.distance for hit in each.hits] for each in (alone, together)), rtol=1e-5)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    pytest.importorskip("numba", reason="scans are shared where the `fast` extra compiles them")
    folder = tmp_path_factory.mktemp("galleries") / "many"
    make_gallery(folder, PixelEncoder(), rows=FaceLike(16, seed=5).photos(PHOTOS)).close()
    with StoreWriter.open(folder) as writer:
        writer.declare_fields({"group": Kind.NUMBER})
        writer.describe({f"photo{n:04d}": {"group": float(n % 3)} for n in range(PHOTOS)})
        writer.delete(["photo0005", "photo0006"])
    gallery = Gallery.open(folder)
    assert gallery.shares_scans
    yield gallery
    gallery.close()


@pytest.mark.parametrize("filter", [None, Equals("group", 1.0)])
def test_a_batch_is_what_its_queries_are_alone(large, filter):
    rng = np.random.default_rng(3)
    probes, inks = unit_rows(rng, 5), rng.random((5, 14)) < 0.4
    inks[:, 0] = True
    weights = [EQUAL_WEIGHTS, {1: 2.0, 2: 0.5, 3: 0.0}, {1: 0.1, 2: 1.0, 3: 1.0}, EQUAL_WEIGHTS, EQUAL_WEIGHTS]
    batch = large.search_batch(probes, inks, 9, weights, filter)
    for probe, ink, each, ranking in zip(probes, inks, weights, batch, strict=True):
        alone = large.search(probe, ink, 9, each, filter=filter)
        assert [hit.photo_id for hit in ranking.hits] == [hit.photo_id for hit in alone.hits]
        assert [hit.distance for hit in ranking.hits] == [hit.distance for hit in alone.hits]
        assert (ranking.gallery_photos, ranking.exact) == (alone.gallery_photos, True)
    with pytest.raises(QueryError, match="no ink yet"):
        large.search_batch(probes, inks & False, 9, weights, filter)


class GatedGallery:
    """Holds the first scan back, and counts what later ones took in."""

    def __init__(self, gallery, monkeypatch):
        self.gate, self.entered, self.sizes = threading.Event(), threading.Event(), []
        scan = gallery.search_batch

        def gated(probes, *arguments):
            self.sizes.append(len(probes))
            self.entered.set()
            assert self.gate.wait(10)
            return scan(probes, *arguments)

        monkeypatch.setattr(gallery, "search_batch", gated)


def test_clients_that_wait_together_share_a_scan_and_get_their_own_answers(large, monkeypatch):
    sketches = [[line(0.1, y, 0.9, 1 - y)] for y in np.linspace(0.1, 0.9, 12)]
    options = [{}, {"weights": {1: 0.0, 2: 1.0, 3: 1.0}}, {"filter": Equals("group", 2.0)}, {"k": 3}]
    asked = [(sketch, options[number % 4]) for number, sketch in enumerate(sketches)]
    with serving([large], PixelEncoder(), threads=20) as running, Client(running.address) as client:
        alone = [client.search(strokes=strokes, **more) for strokes, more in asked]
        gated = GatedGallery(large, monkeypatch)
        with ThreadPoolExecutor(len(asked)) as pool:
            first = pool.submit(client.search, strokes=asked[0][0], **asked[0][1])
            assert gated.entered.wait(5)
            futures = [pool.submit(client.search, strokes=strokes, **more) for strokes, more in asked[1:]]
            runs = running.server._sketches._engine._scans
            until = time.monotonic() + 10
            # Three kinds, by k and filter: what does not wait is in the first scan of its kind, at the gate.
            while sum(map(len, runs._waiting.values())) + sum(gated.sizes) < len(asked):
                assert time.monotonic() < until
                time.sleep(0.005)
            gated.gate.set()
            together = [first.result(10), *(future.result(10) for future in futures)]
    for one, other in zip(alone, together, strict=True):
        assert ids(one) == ids(other)
        assert [hit.distance for hit in one.hits] == [hit.distance for hit in other.hits]
        assert (one.gallery_photos, one.exact) == (other.gallery_photos, other.exact)
    assert sum(gated.sizes) == len(asked)
    assert len(gated.sizes) <= 6, "two scans a kind: one begun without company, one for all that came meanwhile"


def test_drawings_of_many_clients_are_answered_as_if_each_were_alone(large):
    def draw(client, seed):
        rng = np.random.default_rng(seed)
        found = []
        with client.draw(k=5) as drawing:
            for _ in range(6):
                x0, y0, x1, y1 = rng.uniform(0.1, 0.9, size=4)
                found.append(ids(drawing.strokes([line(x0, y0, x1, y1)])))
        return found

    with serving([large], PixelEncoder(), threads=2) as running, Client(running.address) as client:
        alone = [draw(client, seed) for seed in range(6)]
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(lambda seed: draw(client, seed), range(6))) == alone


def test_only_exact_searches_of_large_galleries_are_shared(large, tmp_path, monkeypatch):
    engine = Engine(PixelEncoder(), threads=1)
    shared: list[object] = []
    monkeypatch.setattr(engine._scans, "do", lambda kind, query: shared.append(kind))
    probe, ink = unit_rows(np.random.default_rng(0), 1)[0], np.ones(14, bool)
    small = make_gallery(tmp_path / "few", PixelEncoder())
    for gallery, options in ((large, SearchOptions(mode=Budget(5))), (small, SearchOptions())):
        ranking, took_ms = engine.search(Query(gallery, probe, ink, options))
        assert len(ranking.hits) == 10
        assert took_ms > 0
    assert not shared
    engine.search(Query(large, probe, ink, SearchOptions(k=4)))
    assert shared == [(large, 4, None)]
    small.close()


def test_no_more_pictures_are_decoded_at_once_than_there_are_threads(tmp_path, monkeypatch):
    gallery, running_now, most = make_gallery(tmp_path / "few", PixelEncoder()), [], []

    def counting(*arguments):
        running_now.append(1)
        most.append(len(running_now))
        time.sleep(0.02)
        running_now.pop()
        return read_raster(*arguments)

    monkeypatch.setattr("service.retrieval.read_raster", counting)
    with (
        serving([gallery], PixelEncoder(), threads=2) as running,
        Client(running.address) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        assert all(answer.hits for answer in pool.map(lambda _: client.search(raster=png()), range(16)))
    assert max(most) <= 2
    assert len(most) == 16
    gallery.close()
