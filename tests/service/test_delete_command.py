import json

import pytest

from indexer.gallery import Gallery
from indexer.store import StoreWriter
from service.cli import main
from tests.service.conftest import make_gallery


def test_delete_takes_photos_out_and_says_so(tmp_path, encoder, capsys):
    make_gallery(tmp_path / "faces", encoder).close()
    command = ["delete", str(tmp_path / "faces"), "photo0003", "photo0007", "photo0003"]
    assert main([*command, "--json", str(tmp_path / "done.json")]) == 0
    assert capsys.readouterr().out == "deleted 2 of 24 photos from gallery faces\n"
    assert json.loads((tmp_path / "done.json").read_text()) == {"deleted": ["photo0003", "photo0007"], "photos": 22}
    assert Gallery.open(tmp_path / "faces").photo_ids == tuple(f"photo{n:04d}" for n in range(24) if n not in (3, 7))


def test_what_cannot_be_deleted_changes_nothing(tmp_path, encoder, capsys):
    make_gallery(tmp_path / "faces", encoder).close()
    (tmp_path / "notes").mkdir()
    refused = {
        ("faces", "photo0003", "nobody"): "gallery faces has no photo 'nobody'",
        ("notes", "photo0003"): "notes is no gallery (no gallery.json in it)",
        ("gone", "photo0003"): "gone is no gallery (no gallery.json in it)",
    }
    for (name, *photo_ids), message in refused.items():
        assert main(["delete", str(tmp_path / name), *photo_ids]) == 1
        assert capsys.readouterr().err.startswith(f"mgrl delete: {message}")
    assert not (tmp_path / "gone").exists()
    with StoreWriter.open(tmp_path / "faces"):
        assert main(["delete", str(tmp_path / "faces"), "photo0003"]) == 75
        assert "gallery faces is being written by another process" in capsys.readouterr().err
        for wrong in ("nan", "-1", "soon"):  # the first would wait for ever
            with pytest.raises(SystemExit, match="2"):
                main(["delete", str(tmp_path / "faces"), "photo0003", "--wait", wrong])
    assert Gallery.open(tmp_path / "faces").photos == 24
