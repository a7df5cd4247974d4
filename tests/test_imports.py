"""The tree is the architecture: imports point `training -> indexer <- service` and nowhere else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "indexer": {"service", "training", "mgrl", "grpc", "torch", "torchvision"},
    "service": {"training", "torch", "torchvision"},
    "training": {"service", "mgrl", "grpc"},
}

ON_A_GPU = {
    "indexer/device_rows.py": {"torch"},
    "indexer/device_scan.py": {"torch"},
    "indexer/device_kernel.py": {"torch"},
}
"""The one exception: what scans a gallery on GPUs. It is imported only when a device other than the CPU is asked for,
and the base install lacks torch: see `test_without_torch_everything_else_can_be_imported`."""


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    names = {str(path.relative_to(ROOT)): imported(path) & FORBIDDEN[package] for path in files}
    wrong = {path: bad for path, found in names.items() if (bad := found - ON_A_GPU.get(path, set()))}
    assert not wrong


def test_without_torch_everything_else_can_be_imported() -> None:
    """And a large gallery can be opened and searched: torch is never so much as looked at on the CPU."""
    modules = [path.stem for path in (ROOT / "indexer").glob("*.py") if f"indexer/{path.name}" not in ON_A_GPU]
    assert len(modules) > 20
    code = f"""
import importlib, sys
sys.modules["torch"] = sys.modules["triton"] = None
for name in {sorted(modules)}:
    importlib.import_module("indexer." + name)
import numpy as np
from indexer.granular import GranularIndex
rows = np.ones((20_000, 14, 2), np.float32)
print(GranularIndex.build(rows).search(rows[0], np.ones(14, bool), 3)[0])
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert output.stdout == "[0 1 2]\n", output.stderr


def test_the_check_sees_a_wrong_arrow(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text("def late():\n    from training.fit import fit\n")
    assert imported(path) & FORBIDDEN["service"]


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, service.cli; service.cli.main(['--help']); print(*sorted(m.split('.')[0] for m in sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(output.splitlines()[-1].split())
    assert not loaded & {"numpy", "faiss", "torch", "onnxruntime", "grpc", "PIL", "sqlalchemy", "rich"}
