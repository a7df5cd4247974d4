"""Who decodes and encodes in `mgrl ingest`: threads on a few cores, processes on more."""

import argparse
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import ConfigError
from indexer.preparing import Encoding, EncodingProcesses
from service.cli import main
from service.commands import workers
from tests.indexer.test_ingest import contents, paint


def chosen(*options: str) -> Encoding | EncodingProcesses:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--gallery", type=Path, default=Path("none yet"))
    workers.add_arguments(parser)
    with workers.workers(parser.parse_args(["--device", "cpu", "--crop", "none", *options])) as (_, preparer):
        assert isinstance(preparer, Encoding | EncodingProcesses)
        return preparer


@pytest.mark.parametrize(
    ("cores", "options", "kind", "threads"),
    [
        (1, (), Encoding, 1),
        (4, (), Encoding, 4),
        (5, (), EncodingProcesses, 10),
        (8, ("--workers", "2"), Encoding, 2),
        (2, ("--workers", "6"), EncodingProcesses, 12),
        (8, ("--no-processes",), Encoding, 8),
        (2, ("--processes",), EncodingProcesses, 4),
    ],
)
def test_more_than_four_cores_get_a_process_each(
    cores: int, options: tuple[str, ...], kind: type, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.encoding.default_threads", lambda: cores)
    found = chosen(*options)
    assert (type(found), found.threads) == (kind, threads)


@pytest.mark.parametrize("count", ["0", "257"])
def test_how_many_is_limited(count: str) -> None:
    with pytest.raises(ConfigError, match=rf"--workers must be from 1 to 256, got {count}"):
        chosen("--workers", count)


@pytest.mark.slow
def test_processes_store_what_threads_store(tmp_path: Path) -> None:
    for n in range(6):
        paint(tmp_path / "photos" / f"face{n}.jpg", n)
    for name in ("threads", "processes"):
        kind = "--processes" if name == "processes" else "--no-processes"
        options = [kind, "--workers", "2", "--crop", "none"]
        assert main(["ingest", str(tmp_path / name), str(tmp_path / "photos"), *options]) == 0
    ours, theirs = contents(tmp_path / "threads"), contents(tmp_path / "processes")
    assert ours[0] == theirs[0]
    np.testing.assert_array_equal(ours[1], theirs[1])
