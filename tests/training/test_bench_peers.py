import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.exact import exact_search
from indexer.face_like import FaceLike
from indexer.fusion import region_distances, region_weights
from indexer.regions import REGIONS
from service.cli import main
from training.bench_peers import PeerBench
from training.peers import LIST_LENGTH, PEERS, Peer, Search

FULL_SCANS = ("mgrl", "numpy", "duckdb", "pgvector")


def missing(peer: str) -> str:
    """The first of a peer's packages that is not installed."""
    for package in PEERS[peer].packages:
        try:
            version(package)
        except PackageNotFoundError:
            return package
    return ""


def opened_if_installed(peer: str) -> Peer:
    if package := missing(peer):
        pytest.skip(f"{package} is not installed; pip install 'mgrl[peers]'")
    return PEERS[peer]


@pytest.mark.filterwarnings("default")  # the peers' own deprecations are not ours
@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("inked", [3, REGIONS])
def test_a_peer_ranks_by_its_formula_what_its_lists_hold(name: str, inked: int, tmp_path: Path) -> None:
    """Lists of a hundred miss nothing in a gallery of sixty, so every peer must rank it as its formula says."""
    peer, source, ink = opened_if_installed(name), FaceLike(16), np.arange(REGIONS) < inked
    photos = source.photos(60)
    assert len(photos) < LIST_LENGTH
    with peer.open(photos, tmp_path, 2) as search:
        for probe in source.sketches(photos[:3]):
            distances = region_distances(probe, photos)
            # Milvus weighs the arc tangent of the squared distance; all others add up Eq. (3).
            total = (np.arctan(distances**2) if name == "milvus" else distances) @ region_weights(ink)
            assert list(search(probe, ink, 10)) == np.argsort(total)[:10].tolist()


def bench_with(monkeypatch: pytest.MonkeyPatch, **peers: Peer) -> PeerBench:
    for name, peer in peers.items():
        monkeypatch.setitem(PEERS, name, peer)  # type: ignore[arg-type]
    return PeerBench.build(photos=200, queries=3, threads=1)


def test_the_share_counts_the_true_hits_among_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def seven_of_ten(photos: Any, folder: Path, threads: int) -> Iterator[Search]:
        wrong = [-1, -2, -3]
        yield lambda probe, ink, k: [*exact_search(photos, probe, ink, 7)[0].tolist(), *wrong]

    (row,) = bench_with(monkeypatch, partly=Peer(("numpy",), seven_of_ten)).rows(["partly"], rounds=4)
    assert row.share == 0.7
    assert row.versions == f"numpy {np.__version__}"
    assert row.over_ours == pytest.approx(row.ms / row.ours_ms)  # type: ignore[operator]


def test_a_peer_that_is_missing_or_fails_has_a_row_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    @contextmanager
    def breaks(photos: Any, folder: Path, threads: int) -> Iterator[Search]:
        def search(*_: object) -> list[int]:
            raise OSError("the server\nis gone")

        try:
            yield search
        finally:
            closed.append(folder)

    bench = bench_with(monkeypatch, absent=Peer(("no-such-package",), breaks), broken=Peer(("numpy",), breaks))
    absent, broken, ours = bench.rows(["absent", "broken", "mgrl"], rounds=1)
    assert absent.failure == "no-such-package is not installed; pip install 'mgrl[peers]'"
    assert broken.failure == "OSError: the server is gone"
    assert (broken.ms, broken.share, broken.over_ours) == (None, None, None)
    assert ours.failure == ""
    assert ours.share == 1.0
    assert [folder.exists() for folder in closed] == [False]


def test_the_command_writes_rows_and_ratios_and_leaves_no_data_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = [name for name in FULL_SCANS[:3] if not missing(name)]
    options = ["--photos", "500", "--rounds", "2", "--threads", "1", "--peers", *names]
    assert main(["bench", "peers", *options, "--json", str(tmp_path / "peers.json")]) == 0
    written = json.loads((tmp_path / "peers.json").read_text())
    assert [row["peer"] for row in written["rows"]] == names
    assert [row["share"] for row in written["rows"]] == [1.0] * len(names)
    assert written["ratios"]["mgrl_over_mgrl"] == 1.0
    assert written["ratios"]["numpy_over_mgrl"] > 0
    assert f"numpy: numpy {np.__version__}" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["peers.json"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--photos", "9"), "--photos must be at least 10"),
        (("--rounds", "0"), "--rounds must be at least 1, got 0"),
        (("--threads", "0"), "--threads at least 1, got 100000 and 0"),
        (("--peers", "oracle"), "--peers knows mgrl, numpy, duckdb, pgvector, qdrant, milvus, got oracle"),
    ],
)
def test_options_out_of_range_are_named(
    options: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "peers", *options]) == 1
    assert message in capsys.readouterr().err
