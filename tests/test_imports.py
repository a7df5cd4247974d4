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
    wrong = {str(path.relative_to(ROOT)): bad for path in files if (bad := imported(path) & FORBIDDEN[package])}
    assert not wrong


def test_the_check_sees_a_wrong_arrow(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text("def late():\n    from training.fit import fit\n")
    assert imported(path) & FORBIDDEN["service"]


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, service.cli; service.cli.main(['--help']); print(*sorted(m.split('.')[0] for m in sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(output.splitlines()[-1].split())
    assert not loaded & {"numpy", "faiss", "torch", "onnxruntime", "grpc", "PIL", "sqlalchemy", "rich"}
