"""Every command of docs/framing.md runs here, in the page's order."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from indexer.encoding import OnnxEncoder
from indexer.store import Store
from service.cli import main
from service.demo.painting import render_photo
from service.demo.portraits import Portrait
from tests.conftest import PixelEncoder

PAGE = (Path(__file__).parents[1] / "docs" / "framing.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines() if line]


def test_every_command_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(OnnxEncoder, "open", lambda *_args, **_options: PixelEncoder())
    Path("photos").mkdir()
    render_photo(Portrait.random(1), 250).save("photos/anna.png")
    pair = Image.new("RGB", (640, 480), "gray")
    pair.paste(render_photo(Portrait.random(3), 300), (20, 150))
    pair.paste(render_photo(Portrait.random(4), 200), (380, 30))
    pair.save("photos/pair.png")
    assert len(COMMANDS) == 5
    statuses = {}
    for line in COMMANDS:
        program, *arguments = shlex.split(line)
        assert program == "mgrl"
        statuses[arguments[1]] = main(arguments)
    assert statuses == {"./gallery": 0, "./groups": 0, "./strict": 3, "./loose": 0, "./whole": 0}  # one was refused
    stored = {name: sorted(name for name, _ in Store.open(Path(name)).names()) for name in statuses}
    assert stored["./groups"] == ["anna", "pair#1", "pair#2"]
    assert stored["./strict"] == ["anna"]
    assert stored["./gallery"] == stored["./loose"] == stored["./whole"] == ["anna", "pair"]
