"""Every command of docs/ingestion.md runs here, in the page's order."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from indexer.sources.spelled import open_source
from indexer.store import Store
from service.demo.painting import render_photo
from service.demo.sample import person
from tests.conftest import unit_rows
from tests.indexer.sources.test_shard import archive

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "ingestion.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines() if line]
(EXAMPLE,) = re.findall(r"```text\n(path,.*?)```", PAGE, re.DOTALL)


@pytest.mark.e2e
def test_every_command_of_the_page_runs(tmp_path: Path) -> None:
    for number, name in enumerate(("photos/a.jpg", "photos/b/c.jpg", "faces/anna.jpg", "faces/ben.jpg")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        render_photo(person(1, number), 120).save(tmp_path / name)
    ben = (tmp_path / "faces" / "ben.jpg").read_bytes()
    (tmp_path / "faces" / "ben.jpg").write_bytes(ben[:500])
    (tmp_path / "people.csv").write_text(EXAMPLE)
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        render_photo(person(1, 10 + shard), 120).save(tmp_path / "one.png")
        members = {f"{shard}.png": (tmp_path / "one.png").read_bytes(), f"{shard}.json": b'{"age": 40, "sex": "male"}'}
        (tmp_path / "shards" / f"{shard}.tar").write_bytes(archive(members))
    np.savez(tmp_path / "faces.npz", photo_id=np.array(["x"]), embeddings=unit_rows(np.random.default_rng(0), 1))
    tested = 0
    for line in COMMANDS:
        if "pip install" in line or "s3://" in line:  # of a bucket is tests/indexer/sources/test_remote.py
            continue
        if "failed.jsonl" in line and "--failed" not in line:
            (tmp_path / "faces" / "ben.jpg").write_bytes(ben)
        command = line.replace("mgrl ", f"{shlex.quote(sys.executable)} -m service.cli ")
        environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == (3 if "--failed" in line else 0), f"{line}\n{done.stderr}"
        tested += 1
    assert tested == 6
    assert Store.open(tmp_path / "other").count() == 1
    store = Store.open(tmp_path / "gallery")
    assert sorted(dict(store.names())) == ["0", "0031", "0032", "1", "a", "b/c"]
    assert store.photo("0031").metadata["marks"] == ("mole", "scar")
    assert (store.photo("0032").metadata, store.photo("1").metadata) == (
        {"age": 51.0},
        {"age": 40.0, "sex": "male"},
    )
    assert json.loads((tmp_path / "failed.jsonl").read_text())["photo_id"] == "0032"


def test_the_pages_table_of_sources_is_what_they_are_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    suffixes = re.findall(r"`(\.[a-z0-9.]+)`", PAGE.split("## Manifests")[0])
    assert len(suffixes) == 8
    for suffix in suffixes:
        Path(f"x{suffix}").touch()
        kind = "Manifest" if suffix in (".csv", ".jsonl", ".parquet") else "Shard"
        assert type(open_source(f"x{suffix}")).__name__ == kind
