"""Every command and every settings file of docs/security.md and docs/configuration.md works as it is printed."""

import re
import shlex
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from service.settings import load_settings
from tests.conftest import PixelEncoder
from tests.service.conftest import make_gallery, png
from tests.service.test_serve_command import SERVE

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("security", "configuration")}


def blocks(page, kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGES[page], re.DOTALL)


def mgrl(line, folder):
    arguments = [sys.executable, "-m", "service.cli", *shlex.split(line.split(" > ")[0])[1:]]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    if " > " in line:
        (folder / line.split(" > ")[1]).write_text(done.stdout)
    return done.stdout


@pytest.fixture
def folder(tmp_path):
    make_gallery(tmp_path / "gallery", PixelEncoder()).close()
    (tmp_path / "sketch.png").write_bytes(png())
    (tmp_path / "mgrl.toml").write_text(blocks("security", "toml")[0])
    return tmp_path


@pytest.mark.e2e
def test_the_commands_of_the_security_page(folder):
    session, retention = (block.splitlines() for block in blocks("security", "sh"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    keys, serve, query, verify, show, revoke = session
    assert mgrl(keys, folder).startswith("mgrl_")
    command = [*shlex.split(serve.removesuffix("&"))[2:], "--address", address]
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, *command], cwd=folder, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert "serving 1 gallery" in server.stdout.readline()
            assert "a lead, not an identification" in mgrl(f"{query} --address {address}", folder)
            assert mgrl(verify, folder).startswith("good: 2 records")
            (shown,) = [row for row in mgrl(show, folder).splitlines() if "case 12" in row]
            assert re.search(r"Search +desk +gallery +case 12 +10", shown)
            mgrl(revoke, folder)
        finally:
            server.terminate()
            assert server.wait(30) == 0
    for line in retention:
        assert "older than 365 days" in mgrl(line, folder)


def test_the_commands_of_the_configuration_page(folder):
    (lines,) = (block.splitlines() for block in blocks("configuration", "sh"))
    schema, check, show = (mgrl(line, folder) for line in lines)
    assert "[audit]" in schema
    assert check.splitlines()[-1].startswith("good: 7 of ")
    assert tomllib.loads(show)["server"]["threads"] == 4


def test_the_settings_that_the_pages_and_the_deployment_print_are_known(tmp_path):
    printed = [*blocks("security", "toml"), *blocks("configuration", "toml")]
    for text in (*printed, (ROOT / "deploy" / "mgrl.toml").read_text()):
        (tmp_path / "mgrl.toml").write_text(text)
        config = load_settings(tmp_path / "mgrl.toml", {}, {}).config
        assert config.galleries or config.created.folder
