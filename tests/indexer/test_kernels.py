import os
import subprocess
import sys
from pathlib import Path

import pytest

from indexer import kernels

USE = """
import sys
sys.path.insert(0, sys.argv[1])
import kernels, numpy as np
dots = np.empty(64, np.float32)
kernels.dot(np.ones(8 * 64, np.int8), np.ones(8, np.float32), dots)
print(dots[0], dots[63], kernels.dot.stats.cache_path is None)
"""


def use(folder: Path, **environment: str) -> list[str]:
    """Run the kernel from a copy of its module, in a process of its own."""
    ours = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "HOME")}
    command = [sys.executable, "-B", "-c", USE, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=ours | environment).stdout.split()


def installed(folder: Path) -> Path:
    folder.mkdir()
    (folder / "kernels.py").write_bytes(Path(kernels.__file__).read_bytes())
    return folder


@pytest.mark.slow
def test_what_one_process_compiles_the_next_one_loads(tmp_path: Path) -> None:
    folder = installed(tmp_path / "installed")
    assert use(folder, HOME=str(tmp_path)) == ["8.0", "8.0", "False"]
    assert list((folder / "__pycache__").glob("kernels._dot-*.nbi"))


@pytest.mark.slow
def test_an_installation_that_cannot_be_written_still_runs(tmp_path: Path) -> None:
    folder = installed(tmp_path / "installed")
    # A file where numba wants to make a folder: what a read-only disk does, also to root.
    (folder / "__pycache__").write_text("")
    home = tmp_path / "home"
    home.write_text("")
    assert use(folder, HOME=str(home), XDG_CACHE_HOME=str(home)) == ["8.0", "8.0", "True"]
