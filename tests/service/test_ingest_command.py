import json
from pathlib import Path

import numpy as np
import pytest

from indexer.encoding import DEFAULT_MODEL, OnnxEncoder
from indexer.gallery import Gallery
from service.cli import main
from tests.conftest import PixelEncoder, unit_rows
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
    assert "not a JPEG, PNG, WebP, GIF, BMP or TIFF image" in written["skipped"][0]["reason"]
    said = capsys.readouterr().err
    assert "gallery g" in said
    assert "skipped photos/text[00].png: not a JPEG, PNG, WebP, GIF, BMP or TIFF image (8 bytes, beginning" in said
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


def embeddings_file(folder: Path) -> Path:
    path = folder / "faces.npz"
    np.savez(path, photo_id=np.array(["anna", "berta"]), embeddings=unit_rows(np.random.default_rng(0), 2))
    return path


def test_embeddings_go_straight_into_a_gallery(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = tmp_path / "summary.json"
    command = ["ingest", str(tmp_path / "g"), "--embeddings", str(embeddings_file(tmp_path)), "--json", str(summary)]
    assert main([*command, "--model-hash", "AB" * 32]) == 0
    assert json.loads(summary.read_text())["added"] == 2
    assert "added" in capsys.readouterr().err
    assert Gallery.open(tmp_path / "g").photo_ids == ("anna", "berta")


def test_a_model_names_the_hash(tmp_path: Path) -> None:
    command = ["ingest", str(tmp_path / "g"), "--embeddings", str(embeddings_file(tmp_path))]
    assert main([*command, "--model", str(DEFAULT_MODEL)]) == 0
    assert Gallery.open(tmp_path / "g").model_hash == OnnxEncoder.open().model_hash


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--embeddings", "faces.npz"], "either --model FILE or --model-hash SHA256"),
        (["--embeddings", "faces.npz", "--model-hash", "ab" * 32, "--model", "x.onnx"], "either --model FILE"),
        (["--embeddings", "faces.npz", "--model-hash", "abc"], "64 hexadecimal digits, got 'abc'"),
        (["photos", "--embeddings", "faces.npz"], "takes the place of SOURCE"),
        (["--embeddings", "faces.npz", "--model", "x.onnx"], "no model file named x.onnx"),
        ([], "name a SOURCE of photos, or --embeddings FILE"),
    ],
)
def test_what_does_not_go_with_embeddings(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    embeddings_file(tmp_path)
    assert main(["ingest", "g", *options]) == 1
    assert message in capsys.readouterr().err
    assert not Path("g").exists()
