import json
import re

from service.cli import main
from tests.service.conftest import make_gallery


def test_backup_and_restore_say_what_they_did(tmp_path, encoder, capsys):
    make_gallery(tmp_path / "faces", encoder).close()
    done = tmp_path / "done.json"
    assert main(["backup", str(tmp_path / "faces"), str(tmp_path / "monday"), "--json", str(done)]) == 0
    said = capsys.readouterr().out
    assert re.match(r"copied gallery faces to monday: 24 photos in 1 segments, 0\.\d MB written, verified\n", said)
    assert json.loads(done.read_text())["photos"] == 24
    assert main(["restore", str(tmp_path / "monday"), str(tmp_path / "faces")]) == 1
    assert "faces is a gallery already; name a new folder, or move it away" in capsys.readouterr().err
    (tmp_path / "faces").rename(tmp_path / "damaged")
    assert main(["restore", str(tmp_path / "monday"), str(tmp_path / "faces")]) == 0
    assert capsys.readouterr().out.startswith("restored gallery faces from monday: 24 photos in 1 segments")
    assert main(["verify", str(tmp_path / "faces")]) == 0
