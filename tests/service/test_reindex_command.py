import json

import numpy as np
from PIL import Image

from indexer.encoding import DEFAULT_MODEL, OnnxEncoder
from indexer.ingest import ingest
from indexer.store import Store
from service.cli import main
from tests.conftest import PixelEncoder


def test_reindex_says_what_is_missing_and_when_it_switched(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 255, (50, 50, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"face{number}.png")
    ingest(tmp_path / "faces", [tmp_path / "photos"], PixelEncoder())
    (tmp_path / "photos" / "face1.png").rename(tmp_path / "late.png")
    model = OnnxEncoder.open().model_hash
    command = ["reindex", "--model", str(DEFAULT_MODEL), str(tmp_path / "faces"), str(tmp_path / "photos")]
    assert main([*command, "--json", str(tmp_path / "done.json")]) == 3
    said = capsys.readouterr().out
    assert "1 photos of gallery faces are in none of the sources: face1\n" in said
    assert "nothing was switched; name the sources that have them and run it again, or --leave-out" in said
    assert json.loads((tmp_path / "done.json").read_text())["lacks"] == ["face1"]
    assert main([*command, str(tmp_path / "late.png")]) == 0
    said = f"gallery faces is of model {model[:12]} now: 3 photos, 1 encoded in this run\n"
    assert capsys.readouterr().out == said
    assert Store.open(tmp_path / "faces").manifest.model_hash == model
    assert main(command) == 0
    assert f"gallery faces is of model {model[:12]} already" in capsys.readouterr().out
