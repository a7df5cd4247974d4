"""The contract: its stubs are those of the committed .proto files, and every field says what it is."""

import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

PROTO = Path(__file__).parents[2] / "proto"
SOURCES = sorted((PROTO / "mgrl" / "v1").glob("*.proto"))


def run(*arguments):
    pytest.importorskip("grpc_tools", reason="the `dev` extra is not installed")
    return subprocess.run([sys.executable, PROTO / "generate.py", *arguments], capture_output=True, text=True)


def test_stubs_are_those_of_the_protos(tmp_path):
    done = run("--out", tmp_path)
    assert done.returncode == 0, done.stderr
    generated = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.py*")}
    stubs = [path for path in (PROTO / "mgrl").rglob("*.py*") if path.suffix != ".pyc"]
    committed = {path.relative_to(PROTO): path.read_text() for path in stubs}
    assert set(generated) == set(committed)
    stale = [str(path) for path in generated if generated[path] != committed[path]]
    assert not stale, "run: python proto/generate.py"


def test_the_contract_passes_buf_lint():
    if not ((Path(sys.executable).parent / "buf").exists() or shutil.which("buf")):
        pytest.skip("buf is not installed (the `dev` extra)")
    done = run("--lint")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_contract_that_breaks_its_clients_is_noticed(tmp_path):
    if not ((Path(sys.executable).parent / "buf").exists() or shutil.which("buf")):
        pytest.skip("buf is not installed (the `dev` extra)")
    shutil.copytree(PROTO, tmp_path / "proto", ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-C", tmp_path]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "as it is"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    lint = [sys.executable, tmp_path / "proto" / "generate.py", "--lint"]
    compare = [sys.executable, tmp_path / "proto" / "generate.py", "--breaking", "HEAD"]
    assert subprocess.run(compare, capture_output=True, check=False).returncode == 0
    search = tmp_path / "proto" / "mgrl" / "v1" / "search.proto"
    search.write_text(search.read_text().replace("optional int32 k = 1;", "optional int32 k = 9;"))
    done = subprocess.run(compare, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "SearchOptions" in done.stdout + done.stderr
    # Lint compares with the contract that was released last.
    assert subprocess.run(lint, capture_output=True, check=False).returncode != 0
    subprocess.run([*lint[:2], "--release"], check=True)
    assert subprocess.run(lint, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_everything_in_the_contract_has_a_comment(source):
    lines = [line.strip() for line in source.read_text().splitlines()]
    for before, line in pairwise(lines):
        declares = line.startswith(("message ", "service ", "rpc ", "oneof ")) or (" = " in line and line.endswith(";"))
        if declares and not line.startswith("//"):
            assert before.startswith("//"), f"{source.name}: no comment above {line}"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_every_call_says_its_status_codes(source):
    comment = []
    for line in source.read_text().splitlines():
        if line.startswith("  rpc "):
            text = " ".join(comment)
            assert "OK:" in text, line
            assert "UNAVAILABLE:" in text, line
        comment = [*comment, line.strip()] if line.startswith("  //") else []
