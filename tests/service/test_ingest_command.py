import json
from pathlib import Path

import pytest

from indexer.encoding import OnnxEncoder
from indexer.gallery import Gallery
from service.cli import main
from tests.conftest import PixelEncoder
from tests.indexer.test_ingest import paint


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(OnnxEncoder, "open", lambda *_args, **_options: PixelEncoder())
    folder = tmp_path / "photos"
    for n in range(5):
        paint(folder / f"face{n}.jpg", n)
    return folder


def test_ingest_makes_a_gallery_and_says_what_it_did(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(25):
        (photos / f"text[{n:02}].png").write_bytes(b"no photo")
    summary = tmp_path / "summary.json"
    assert main(["ingest", str(tmp_path / "g"), str(photos), "--batch", "2", "--json", str(summary)]) == 0
    assert Gallery.open(tmp_path / "g").photos == 5
    written = json.loads(summary.read_text())
    assert (written["added"], written["already_there"], len(written["skipped"])) == (5, 0, 25)
    assert written["skipped"][0]["name"] == "photos/text[00].png"
    assert "not a JPEG, PNG or WebP image" in written["skipped"][0]["reason"]
    said = capsys.readouterr().err
    assert "gallery g" in said
    assert "skipped photos/text[00].png: not a JPEG, PNG or WebP image (8 bytes, beginning with b'no photo')" in said
    assert said.count("skipped photos/") == 20
    assert "... and 5 more" in said


def test_running_it_again_is_no_failure(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ingest", str(tmp_path / "g"), str(photos)]
    assert [main(command), main(command)] == [0, 0]
    assert "already there │ 5" in capsys.readouterr().err


def test_nothing_usable_is_a_failure(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.jpg").write_bytes(b"no photo")
    assert main(["ingest", str(tmp_path / "g"), str(bad)]) == 1
    assert "Nothing was usable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["g", "fotos"], "mgrl ingest: no folder or file named 'fotos'; check the spelling of the source"),
        (["photos", "photos"], "mgrl ingest: photos is no gallery and not empty (it holds 'face0.jpg')"),
        (["g", "photos", "--batch", "0"], "mgrl ingest: a batch must hold from 1 to 4096 photos, got 0"),
        (["g", "photos", "--batch", "9" * 20], "mgrl ingest: a batch must hold from 1 to 4096 photos, got 9999999999"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ingest", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_missing_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ingest", str(tmp_path / "g"), str(tmp_path), "--model", str(tmp_path / "gone.onnx")]) == 1
    assert "no model file named gone.onnx" in capsys.readouterr().err


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ingest", "--help"])
    assert "mgrl ingest ./gallery ./photos" in capsys.readouterr().out
