"""The Python of docs/drawing.md runs against a real service."""

import re
from pathlib import Path

import pytest

from tests.conftest import PixelEncoder
from tests.service.conftest import make_gallery, serving

PAGE = (Path(__file__).parents[1] / "docs" / "drawing.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_python_of_the_page_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = PixelEncoder()
    gallery = make_gallery(tmp_path / "faces", encoder)
    (snippet,) = SNIPPETS
    with serving([gallery], encoder) as running:
        exec(snippet.replace("127.0.0.1:50051", running.address), {})
    gallery.close()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "[0, 2, 3] are on the canvas, the next stroke is 4"
    assert re.fullmatch(r"photo\d+ because of regions \[[\d ]+\] of [\d.]+", said[1])
    assert said[2] == "too early to tell"
