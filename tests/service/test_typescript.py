"""The TypeScript example is installed, generated, type-checked and run against a real server."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from indexer.episode import Episode
from service.client import Client
from tests.service.conftest import line

ROOT = Path(__file__).parents[2]
EXAMPLE = Path("docs/examples/typescript")


def npm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["npm", *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Path:
    """The example in a checkout of its own, installed and typed from the contract."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    checkout = tmp_path_factory.mktemp("checkout")
    ours = shutil.ignore_patterns("node_modules", "generated", "__pycache__")
    for part in ("proto", EXAMPLE):
        shutil.copytree(ROOT / part, checkout / part, ignore=ours)
    folder = checkout / EXAMPLE
    installed = npm(folder, "install", "--no-audit", "--no-fund", "--no-package-lock")
    if installed.returncode:
        pytest.skip(f"npm cannot install the example's packages: {installed.stderr.strip()[-200:]}")
    generated = npm(folder, "run", "-s", "generate")
    assert generated.returncode == 0, generated.stderr
    return folder


@pytest.mark.e2e
@pytest.mark.slow
def test_it_fits_the_contract(example: Path) -> None:
    checked = npm(example, "run", "-s", "check")
    assert checked.returncode == 0, checked.stdout


@pytest.mark.e2e
@pytest.mark.slow
def test_it_draws_as_the_python_client_does(example: Path, service, tmp_path: Path) -> None:
    strokes = [line(y0=0.2 + step / 10, y1=0.3 + step / 10, width=0.2) for step in range(3)]
    strokes.append(line(0.5, 0.1, 0.5, 0.9, width=0.2, pressure=np.linspace(0, 1, 8, dtype=np.float32).round(3)))
    Episode(tuple(strokes), (1, 2, 3, 4)).save(tmp_path / "drawing.json")
    ran = npm(example, "run", "-s", "draw", "--", service.address, str(tmp_path / "drawing.json"))
    assert ran.returncode == 0, ran.stderr
    with Client(service.address) as client, client.draw(k=5) as drawing:
        answers = [drawing.strokes([stroke]) for stroke in strokes]
    expected = [
        f"{number} " + "  ".join(f"{hit.photo_id} {hit.distance:.3f}" for hit in answer.hits)
        for number, answer in enumerate(answers, start=1)
    ]
    assert ran.stdout.splitlines() == [*expected, "A ranking is a lead, not an identification."]


@pytest.mark.e2e
@pytest.mark.slow
def test_it_says_what_the_service_refuses(example: Path, service, tmp_path: Path) -> None:
    drawing = {"strokes": [{"points": [[0.1, 0.1], [0.9, 7.0]]}]}
    (tmp_path / "drawing.json").write_text(json.dumps(drawing))
    ran = npm(example, "run", "-s", "draw", "--", service.address, str(tmp_path / "drawing.json"))
    assert ran.returncode == 1
    assert "the drawing failed: " in ran.stderr
    assert "0 to 1" in ran.stderr
