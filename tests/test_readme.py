"""Every command of the README runs here, in the README's order, and so does its Python."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.sketch import rasterise
from service.demo.painting import render_photo
from service.demo.pencil import draw_strokes
from service.demo.sample import person
from service.demo.subject import staged

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if line]
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
TRAINING = ("episodes", "train", "export", "evaluate", "report", "bench")


def mgrl(line: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run one `mgrl ...` line of the README in a folder."""
    arguments = [sys.executable, "-m", "service.cli", *shlex.split(line)[1:], *more]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def lines(*subcommands: str) -> list[str]:
    return [line for line in COMMANDS if line.startswith("mgrl ") and shlex.split(line)[1] in subcommands]


@contextmanager
def served(line: str, folder: Path, address: str) -> Iterator[None]:
    """The README's `mgrl serve`, ready when it says so."""
    command = [sys.executable, "-m", "service.cli", *shlex.split(line)[1:], "--address", address]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            assert server.stdout is not None
            assert "serving" in server.stdout.readline()
            yield
        finally:
            server.terminate()
            assert server.wait(30) == 0


def test_the_first_screen_is_one_sentence_one_command_one_result() -> None:
    title, sentence, command, result = README.split("\n\n")[:4]
    assert title == "# mgrl"
    assert sentence.count(".") == 1
    assert command == "```sh\nmake demo\n```"
    assert result.startswith("```text\n")


def test_every_command_is_of_a_kind_that_is_tested() -> None:
    makes = [line for line in COMMANDS if line.startswith("make ")]
    installs = [line for line in COMMANDS if line.startswith("python3 -m pip install ")]
    ours = lines("ingest", "serve", "query", *TRAINING)
    assert sorted(makes + installs + ours) == sorted(COMMANDS)
    assert set(makes) == {"make demo", "make lint", "make test"}
    # .ci/run is nothing but lint and test, so both are run by what decides whether a change lands.
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-2:] == ["make lint", "make test"]


@pytest.mark.e2e
def test_serving_commands_and_python(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(12):
        render_photo(person(1, number), 200).save(tmp_path / "photos" / f"person{number:02d}.png")
    strokes = draw_strokes(person(1, 4), np.random.default_rng(0))
    staged(strokes, 5).save(tmp_path / "drawing.json")
    Image.fromarray(255 - rasterise(strokes, 384)).save(tmp_path / "sketch.png")
    (ingest,), (serve,), (picture, live) = lines("ingest"), lines("serve"), lines("query")
    done = mgrl(ingest, tmp_path)
    assert done.returncode == 0, done.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with served(serve, tmp_path, address):
        for line in (picture, live):
            done = mgrl(line, tmp_path, "--address", address)
            assert done.returncode == 0, done.stderr
            assert "person" in done.stdout
            assert "not an identification" in done.stdout + done.stderr
        (snippet,) = SNIPPETS
        assert len(snippet.splitlines()) <= 20
        code = snippet.replace("127.0.0.1:50051", address)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert [line.split(" strokes:")[0] for line in done.stdout.splitlines()[:3]] == ["1", "2", "3"]
        assert "is a lead" in done.stdout


@pytest.mark.e2e
@pytest.mark.slow
def test_training_commands(tmp_path: Path, tiny_fs2k: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")
    from safetensors.torch import save_file
    from torchvision.models import inception_v3

    data = tmp_path / "fs2k"
    shutil.copytree(tiny_fs2k, data)
    (data / "splits").mkdir()
    for dataset in ("dataset1", "dataset2"):
        for split in ("fit", "val"):
            shutil.copy(data / f"{split}.txt", data / "splits" / f"{dataset}-{split}.txt")
    for ours, theirs in (("photos", "photo/photo1"), ("sketches", "sketch/sketch1")):
        shutil.copytree(data / theirs, tmp_path / "faces" / ours)
    for path in (tmp_path / "faces").rglob("*.jpg"):
        path.rename(path.with_stem(path.stem.replace("image", "person").replace("sketch", "person")))
    torch.manual_seed(0)
    network = inception_v3(weights=None, init_weights=False, aux_logits=False)
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("fc.")}
    save_file(state, tmp_path / "inception_v3.safetensors")
    order = [line for line in COMMANDS if line in lines(*TRAINING)]
    # The README shows its results before it shows how to train, and both use the shipped model or one made here.
    for line in order:
        more = {
            "train": ("--epochs", "1", "--stem-epochs", "0", "--align-rounds", "1"),
            "report": ("--systems", "single-pass", "--seeds", "1", "--stages", "6", "--model-stages", "8"),
            "bench": ("--rounds", "1"),
        }
        done = mgrl(line, tmp_path, *more.get(shlex.split(line)[1], ()))
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (tmp_path / "mine.onnx").is_file()
    assert (tmp_path / "faces.onnx").is_file()
    assert (tmp_path / "dataset2.json").is_file()
    assert '"stroke_over_released_encode"' in (tmp_path / "stroke.json").read_text()


@pytest.mark.e2e
@pytest.mark.slow
def test_make_demo_on_a_fresh_checkout(tmp_path: Path) -> None:
    """Own environment, base install only, a picture at the end; then the README's `pip install .` into it."""
    checkout = tmp_path / "mgrl"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout: what a newcomer clones is not known")
    for name in tracked.stdout.decode().rstrip("\0").split("\0"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    run = {"cwd": checkout, "env": environment, "capture_output": True, "text": True, "timeout": 400, "check": False}
    started = time.monotonic()
    done = subprocess.run(["make", "demo", f"PYTHON={sys.executable}"], **run)  # type: ignore[call-overload]
    print(f"make demo with installation: {time.monotonic() - started:.0f} s")
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"rank \d+ of 300 at the end", done.stdout)
    with Image.open(checkout / "demo" / "demo.png") as picture:
        assert picture.width > 800
    site = next((checkout / ".venv" / "base").glob("lib/python*/site-packages"))
    megabytes = sum(path.lstat().st_size for path in site.rglob("*")) / 1e6
    print(f"base install: {megabytes:.0f} MB")
    assert megabytes < 500
    assert not (site / "torch").exists()
    python = checkout / ".venv" / "base" / "bin" / "python"
    assert "python3 -m pip install ." in COMMANDS
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", "."], **run)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr[-2000:]
    # From the installed package, not from the checkout: stubs, model and page are in the wheel.
    code = "import mgrl.v1.search_pb2, indexer.encoding as e; print(e.__file__); e.OnnxEncoder.open()"
    code += "; import pathlib, service.web; page = pathlib.Path(service.web.__file__).parent / 'page'"
    code += "; assert {'index.html', 'style.css', 'app.js'} <= {file.name for file in page.iterdir()}"
    # And galleries that the extra `fast` would scan are searched without it.
    code += "; import numpy, indexer.granular as g; rows = numpy.ones((10_000, 14, 2), 'f')"
    code += "; g.GranularIndex.build(rows).search(rows[0], numpy.ones(14, bool), 3)"
    run["cwd"] = tmp_path
    done = subprocess.run([python, "-c", code], **run)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr[-2000:]
    assert "site-packages" in done.stdout


def test_the_train_extra_can_be_resolved() -> None:
    assert 'python3 -m pip install ".[train]"' in COMMANDS
    pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", ".[train]"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
