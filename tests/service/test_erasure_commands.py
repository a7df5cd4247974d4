import json
import threading

from indexer.gallery import Gallery
from indexer.store import StoreWriter
from service.cli import main
from tests.folder_bytes import folder_bytes
from tests.service.conftest import make_gallery


def test_forget_erases_and_says_so(tmp_path, encoder, capsys):
    row = make_gallery(tmp_path / "faces", encoder).rows[3]
    command = ["forget", str(tmp_path / "faces"), "photo0003", "photo0003", "--json", str(tmp_path / "done.json")]
    assert main(command) == 0
    said = "erased 1 of 24 photos from gallery faces: vectors, thumbnails, metadata and names\n"
    assert capsys.readouterr().out == said
    assert json.loads((tmp_path / "done.json").read_text()) == {"erased": ["photo0003"], "photos": 23}
    data = folder_bytes(tmp_path / "faces")
    assert row[0].tobytes() not in data
    assert b"photo0003" not in data
    assert b"photo0004" in data
    assert main(command) == 1
    assert "gallery faces has no photo 'photo0003'" in capsys.readouterr().err


def test_compact_erases_what_was_deleted(tmp_path, encoder, capsys):
    row = make_gallery(tmp_path / "faces", encoder).rows[3]
    assert main(["delete", str(tmp_path / "faces"), "photo0003"]) == 0
    (segment,) = (tmp_path / "faces" / "segments").iterdir()
    assert row[0].tobytes() in segment.read_bytes()
    capsys.readouterr()
    assert main(["compact", str(tmp_path / "faces"), "--json", str(tmp_path / "done.json")]) == 0
    said = "gallery faces: vectors of 1 deleted photos erased, 1 segments are now 1, "
    assert capsys.readouterr().out.startswith(said)
    assert json.loads((tmp_path / "done.json").read_text())["removed"] == 1
    (segment,) = (tmp_path / "faces" / "segments").iterdir()
    assert row[0].tobytes() not in segment.read_bytes()
    assert Gallery.open(tmp_path / "faces").photos == 23


def test_a_second_job_waits_for_the_first_or_says_who_it_is(tmp_path, encoder, capsys):
    make_gallery(tmp_path / "faces", encoder).close()
    with StoreWriter.open(tmp_path / "faces"):
        for command in ("compact", "forget", "delete"):
            ids = [] if command == "compact" else ["photo0001"]
            assert main([command, str(tmp_path / "faces"), *ids]) == 75
            assert "gallery faces is being written by another process (pid " in capsys.readouterr().err
    with StoreWriter.open(tmp_path / "faces") as first:
        second = threading.Thread(target=main, args=(["delete", str(tmp_path / "faces"), "photo0001", "--wait", "60"],))
        second.start()
        second.join(0.3)
        assert second.is_alive()
        first.delete(["photo0002"])
    second.join()
    assert Gallery.open(tmp_path / "faces").photos == 22
