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
total = np.arange(64, dtype=np.float32)
least = kernels.finish(total, np.float32(-2), np.uint64(2**64 - 2))
print(total[0], least, kernels.finish.stats.cache_path is None)
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
    assert use(folder, HOME=str(tmp_path)) == ["inf", "3.0", "False"]
    assert list((folder / "__pycache__").glob("kernels._finish-*.nbi"))


@pytest.mark.slow
def test_an_installation_that_cannot_be_written_still_runs(tmp_path: Path) -> None:
    folder = installed(tmp_path / "installed")
    # A file where numba wants to make a folder: what a read-only disk does, also to root.
    (folder / "__pycache__").write_text("")
    home = tmp_path / "home"
    home.write_text("")
    assert use(folder, HOME=str(home), XDG_CACHE_HOME=str(home)) == ["inf", "3.0", "True"]


OTHER = """
import platform, sys
import llvmlite.binding, numba
sys.path[:0] = sys.argv[1:]
import numpy as np
from indexer import quantised
EDIT
import kernels
assert EXPECT
rng = np.random.default_rng(0)
gallery = quantised.QuantisedGallery(np.zeros((14, 20), np.float32))
gallery.write(0, rng.normal(size=(200, 14, 20)).astype(np.float32))
ours = quantised.scan_blocks
for queries in (1, 3):
    query = gallery.prepared(rng.normal(size=(queries, 14, 20)).astype(np.float32), np.ones((queries, 14), np.float32))
    bounds = []
    for quantised.scan_blocks in (ours, kernels.scan_blocks):
        bounds.append(gallery.bounds(query, np.arange(4)))
    np.testing.assert_allclose(*bounds, rtol=2e-3)
whole = rng.integers(-kernels.MOST, kernels.MOST + 1, 16)
whole[:8] = kernels.MOST, -kernels.MOST, kernels.MOST, -kernels.MOST, 0, 31, 32, -33
codes = rng.choice([0, 1, 128, 254, 255], 1024).astype(np.uint8)
dots = np.arange(64, dtype=np.int32)
expected = dots + np.einsum("qij,qj->i", codes.reshape(4, 64, 4).astype(int), whole.reshape(4, 4))
numba.njit(lambda codes, probe, dots: kernels.dot(codes, 0, probe, 0, dots))(codes, kernels.packed(whole), dots)
np.testing.assert_array_equal(dots, expected)
print("same")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "expect"),
    [
        ("", "kernels.SIMD or platform.machine() != 'x86_64'"),
        ('platform.machine = lambda: "riscv64"', "not kernels.SIMD and not kernels.VNNI"),
        ('llvmlite.binding.get_host_cpu_features = lambda: {"avx2": True}', "not kernels.VNNI"),
    ],
)
def test_processors_without_the_instructions_find_the_same(tmp_path: Path, edit: str, expect: str) -> None:
    folder, tree = installed(tmp_path / "installed"), Path(kernels.__file__).parents[1]
    program = OTHER.replace("EDIT", edit).replace("EXPECT", expect)
    command = [sys.executable, "-B", "-c", program, str(folder), str(tree)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["same"]
