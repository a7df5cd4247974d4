"""What was compiled before is loaded, and where the disk is in the way, functions are compiled all the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="compiling needs the `fast` extra")

MODULE = """
from indexer.compiling import compiled

def _twice(number):
    return 2 * number

twice = compiled(_twice)
"""

USE = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import doubling
if "full" in sys.argv:  # no file may hold a byte
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
print(doubling.twice(21), sum(doubling.twice.stats.cache_hits.values()))
"""


def use(folder: Path, *options: str) -> str:
    """What a new process computes, and how many compiled functions it found."""
    (folder / "doubling.py").exists() or (folder / "doubling.py").write_text(MODULE)
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    command = [sys.executable, "-B", "-c", USE, str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_full_disk_keeps_nothing_and_stops_nobody(tmp_path: Path) -> None:
    assert use(tmp_path, "full") == "42 0"
    assert use(tmp_path) == "42 0"
    assert use(tmp_path) == "42 1"


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_what_was_compiled_and_is_damaged_is_compiled_anew(tmp_path: Path, kind: str) -> None:
    use(tmp_path)
    (file,) = (tmp_path / "__pycache__").glob(f"*.{kind}")
    file.write_bytes(b"")  # as a machine that lost its power may leave it
    assert use(tmp_path) == "42 0"
    assert use(tmp_path) == "42 1"
