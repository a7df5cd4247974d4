"""ONNX Runtime reports nothing, and a folder of its own in the user's home would be the first sign that it does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPORTING = {"CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS"}
"""Variables that keep the wheel's telemetry off by themselves."""


def run(code: str, home: Path) -> list[str]:
    """The files that a child leaves in its home."""
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in REPORTING and not name.startswith("XDG_")}
    subprocess.run([sys.executable, "-c", code], env=kept | {"HOME": str(home)}, check=True, timeout=120)
    return [path.name for path in home.rglob("*") if path.is_file()]


def test_encoder_leaves_nothing_in_the_users_home(tmp_path):
    assert run("from indexer.encoding import OnnxEncoder; OnnxEncoder.open()", tmp_path / "ours") == []


def test_the_wheel_alone_would(tmp_path):
    if "deviceid" not in run("import onnxruntime", tmp_path / "theirs"):
        pytest.skip("this build of ONNX Runtime has no telemetry: the test above shows nothing here")


def test_nothing_imports_onnx_runtime_past_the_switch():
    root = Path(__file__).parents[2]
    importing = [
        path.relative_to(root).as_posix()
        for package in ("indexer", "service", "training")
        for path in (root / package).rglob("*.py")
        if "import onnxruntime" in path.read_text().replace("from indexer.runtime import onnxruntime", "")
    ]
    assert importing == ["indexer/runtime.py"]
