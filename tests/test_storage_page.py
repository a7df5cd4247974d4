"""Every command of docs/storage.md runs here, in the page's order."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from indexer.encoding import DEFAULT_MODEL, OnnxEncoder
from indexer.ingest import ingest
from indexer.store import Store
from service.cli import main
from service.demo.painting import render_photo
from service.demo.sample import person
from tests.conftest import PixelEncoder

PAGE = (Path(__file__).parents[1] / "docs" / "storage.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines() if line]


@pytest.mark.e2e
def test_every_command_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("anna/front", "anna/side", "ben/front", "ben/side", "carl/front")):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        render_photo(person(1, number), 200).save(path)
    ingest(tmp_path / "gallery", [tmp_path / "photos"], PixelEncoder())
    shutil.copy(DEFAULT_MODEL, tmp_path / "mine.onnx")
    assert len(COMMANDS) == 9
    for line in COMMANDS:
        program, *arguments = shlex.split(line)
        assert (program, main(arguments)) == ("mgrl", 0), line
    for gallery, model in (("gallery", OnnxEncoder.open().model_hash), ("restored", PixelEncoder().model_hash)):
        store = Store.open(tmp_path / gallery)
        assert (sorted(dict(store.names())), store.manifest.model_hash) == (["anna/side", "carl/front"], model)
        store.close()
