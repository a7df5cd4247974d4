"""The commands of docs/operation.md are run, and what it says of settings is what they are."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from service.auth.keys import load_keys
from service.bench.target import make_galleries
from service.cli import main
from service.config import ServerConfig
from service.health import health_name

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operation.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
SMALL = ["--photos", "150", "--sessions", "1", "--seconds", "0.6", "--rounds", "1"]


def test_every_command_is_run_below():
    assert {" ".join(command.split()[:3]) for command in COMMANDS} == {"mgrl serve ./gallery", "mgrl bench service"}


@pytest.mark.e2e
@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("mgrl serve")])
def test_a_service_is_started_as_the_page_says(tmp_path, command):
    make_galleries(tmp_path, 1, 150)[0].rename(tmp_path / "gallery")
    line = [sys.executable, "-m", "service.cli", *shlex.split(command)[1:], "--address", "127.0.0.1:0"]
    if "--metrics-address" in line:
        line += ["--metrics-address", "127.0.0.1:0"]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout.readline().startswith("serving ")
        finally:
            process.terminate()
        assert process.wait(30) == 0


@pytest.mark.e2e
@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("mgrl bench")])
def test_a_service_is_measured_as_the_page_says(tmp_path, monkeypatch, service, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("service.bench.measure._IDLE_FOR_S", 0.2)
    line = [word.replace("127.0.0.1:50051", service.address).replace("2000", "8") for word in shlex.split(command)]
    if "--find-capacity" in line:
        line += ["--target-p99-ms", "0.01"]
    assert main([*line[1:], *SMALL]) == 0
    assert {path.name for path in tmp_path.glob("service.*")} == {word for word in line if word.startswith("service.")}


def test_a_key_is_made_as_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (line,) = re.findall(r"`mgrl (keys add .*)`", PAGE)
    assert main(line.split()) == 0
    assert [key.roles for key in load_keys(tmp_path / "keys" / "keys.json")] == [("search",)]


def test_the_defaults_are_those_of_the_settings():
    config = ServerConfig()
    for key, said in re.findall(r"`(max_load|max_wait_s|max_drawings|grace_s)` \(([\d.]+)", PAGE):
        assert float(said) == getattr(config, key)
    assert "`gallery/NAME`" in PAGE
    assert health_name("NAME") == "gallery/NAME"
