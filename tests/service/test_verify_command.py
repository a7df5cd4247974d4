import json

from service.cli import main
from tests.service.conftest import make_gallery


def test_the_exit_status_says_whether_a_gallery_is_whole(tmp_path, encoder, capsys):
    make_gallery(tmp_path / "faces", encoder).close()
    command = ["verify", str(tmp_path / "faces"), "--json", str(tmp_path / "found.json")]
    assert main(command) == 0
    assert capsys.readouterr().out == "gallery faces is whole: 24 photos in 1 segments\n"
    assert json.loads((tmp_path / "found.json").read_text()) == {
        "is_whole": True, "photos": 24, "segments": 1, "faults": [], "repaired": [],
    }  # fmt: skip
    stray = tmp_path / "faces" / "segments" / "000009.vec"
    stray.write_bytes(b"left")
    assert main(command) == 3
    assert "fault: segments/000009.vec is no file of the gallery" in capsys.readouterr().out
    assert main([*command, "--repair"]) == 0
    assert "repaired: segments/000009.vec is no file" in capsys.readouterr().out
    (tmp_path / "faces" / "segments" / "000001.vec").write_bytes(b"damaged")
    assert main([*command, "--repair"]) == 3
    said = capsys.readouterr().out
    assert "000001.vec has 7 bytes" in said
    assert "photo0000, photo0001" in said
    assert "and 14 more (--json FILE lists all)" in said
    assert len(json.loads((tmp_path / "found.json").read_text())["faults"][0]["photo_ids"]) == 24
    assert main(["verify", str(tmp_path)]) == 1
    assert "is no gallery" in capsys.readouterr().err


def test_usage_is_a_table_and_json(tmp_path, encoder, capsys):
    make_gallery(tmp_path / "faces", encoder).close()
    assert main(["delete", str(tmp_path / "faces"), "photo0003"]) == 0
    assert main(["usage", str(tmp_path / "faces"), "--json", str(tmp_path / "used.json")]) == 0
    said = capsys.readouterr().out
    assert "gallery faces: 23 photos, 0 further names, 1 deleted" in said
    assert "`mgrl compact` would give back 0.0 MB" in said
    used = json.loads((tmp_path / "used.json").read_text())
    assert used["deleted_vectors"] == 896
    assert used["vectors"] == (tmp_path / "faces" / "segments" / "000001.vec").stat().st_size - 896 > 23 * 896
    kinds = "vectors", "deleted_vectors", "thumbnails", "metadata", "ledger", "ledger_free", "log", "index", "strays"
    assert used["total"] == sum(used[kind] for kind in kinds)
