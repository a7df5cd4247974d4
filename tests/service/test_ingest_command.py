import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from indexer.encoding import DEFAULT_MODEL, OnnxEncoder
from indexer.gallery import Gallery
from indexer.ledger import manifest_path
from indexer.metadata import Kind
from indexer.reindex import reindex
from indexer.store import Store, StoreWriter
from service.cli import main
from tests.conftest import PixelEncoder, unit_rows
from tests.indexer.sources.test_shard import archive
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
    assert main(["ingest", str(tmp_path / "g"), str(photos), "--batch", "2", "--json", str(summary)]) == 3
    assert Gallery.open(tmp_path / "g").photos == 5
    written = json.loads(summary.read_text())
    assert (written["status"], written["added"], written["failed"]) == ("some failed", 5, 25)
    assert (written["already_there"], len(written["skipped"])) == (0, 25)
    assert written["skipped"][0]["name"] == "photos/text[00].png"
    assert "not a JPEG, PNG, WebP, GIF, BMP or TIFF image" in written["skipped"][0]["reason"]
    said = capsys.readouterr().err
    assert "gallery g" in said
    assert "skipped photos/text[00].png: not a JPEG, PNG, WebP, GIF, BMP or TIFF image (8 bytes, beginning" in said
    assert said.count("skipped photos/") == 20
    assert "... and 5 more" in said


def test_many_small_files_of_vectors_are_worth_putting_together(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = tmp_path / "g"
    monkeypatch.setattr("service.commands.ingest._MANY_FILES", 3)
    assert main(["ingest", str(gallery), str(photos), "--batch", "2"]) == 0
    assert f"The vectors lie in 3 files; `mgrl compact {gallery}` puts them" in capsys.readouterr().err
    assert main(["compact", str(gallery)]) == 0
    assert main(["ingest", str(gallery), str(photos)]) == 0
    assert "mgrl compact" not in capsys.readouterr().err


def test_a_file_name_cannot_command_the_terminal(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "face\x1bc\r\u202e"
    (photos / f"{evil}.jpg").write_bytes((photos / "face0.jpg").read_bytes())
    (photos / f"{evil}.png").write_bytes(b"no photo")
    gallery = tmp_path / "g\x1b[31m"
    assert main(["ingest", str(gallery), str(photos)]) == 3
    assert main(["ingest", str(gallery), str(tmp_path / evil)]) == 1
    said = capsys.readouterr().err
    assert not [character for character in said if not character.isprintable() and character != "\n"]
    spelled = r"face\x1bc\r\u202e"
    assert f"skipped photos/{spelled}.png: not a JPEG" in said
    assert f"duplicate photos/face0.jpg: the same as {spelled}" in said
    assert r"gallery g\x1b[31m" in said
    assert f"mgrl ingest: no folder or file named '{spelled}'" in said


def test_running_it_again_is_no_failure(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ingest", str(tmp_path / "g"), str(photos)]
    assert [main(command), main(command)] == [0, 0]
    assert "already there │ 5" in capsys.readouterr().err


def test_nothing_usable_is_a_failure(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.jpg").write_bytes(b"no photo")
    assert main(["ingest", str(tmp_path / "g"), str(bad)]) == 4
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
    said = capsys.readouterr().err
    assert "added" in said
    assert "--crop" not in said, "which does not go with embeddings"
    assert Gallery.open(tmp_path / "g").photo_ids == ("anna", "berta")


def test_rows_of_embeddings_that_do_not_hold_are_all_in_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = unit_rows(np.random.default_rng(0), 150)
    rows[1:] *= 2
    np.savez(tmp_path / "faces.npz", photo_id=np.array([f"p{n}" for n in range(150)]), embeddings=rows)
    command = ["ingest", str(tmp_path / "g"), "--embeddings", str(tmp_path / "faces.npz"), "--model-hash", "ab" * 32]
    assert main([*command, "--json", str(tmp_path / "done.json")]) == 3
    assert "... and 129 more; --json FILE lists all" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "done.json").read_text())["skipped"]) == 149


def test_embeddings_wait_for_another_process_that_writes(tmp_path: Path) -> None:
    command = ["ingest", str(tmp_path / "g"), "--embeddings", str(embeddings_file(tmp_path)), "--model-hash", "ab" * 32]
    holder = StoreWriter.open_or_create(tmp_path / "g", "ab" * 32, 16)
    assert main(command) == 75
    threading.Timer(0.5, holder.close).start()
    assert main([*command, "--wait", "forever"]) == 0


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
        (["--embeddings", "f.npz", "--outcomes", "o", "--failed", "f"], "does not go with --failed, --outcomes: there"),
        (
            ["--embeddings", "f.npz", "--duplicates", "keep", "--crop", "none"],
            "not go with --duplicates, --crop: there",
        ),
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


def test_what_failed_is_listed_and_fed_back(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (photos / "face3.jpg").read_bytes()
    (photos / "face3.jpg").write_bytes(whole[:50])
    (photos / "twin.jpg").write_bytes((photos / "face0.jpg").read_bytes())
    failed, summary = tmp_path / "failed.jsonl", tmp_path / "summary.json"
    command = ["ingest", str(tmp_path / "g"), "--json", str(summary), "--failed"]
    outcomes = tmp_path / "outcomes.jsonl"
    assert main([*command, str(failed), str(photos), "--outcomes", str(outcomes)]) == 3
    fates = {row["name"]: row for row in map(json.loads, outcomes.read_text().splitlines())}
    assert fates["photos/face0.jpg"] == {"name": "photos/face0.jpg", "fate": "added", "photo_id": "face0"}
    assert fates["photos/twin.jpg"] == {"name": "photos/twin.jpg", "fate": "duplicate", "of": "face0"}
    assert (len(fates), fates["photos/face3.jpg"]["fate"]) == (6, "skipped")
    written = json.loads(summary.read_text())
    counts = ("added", "failed", "duplicates", "already_there", "replaced")
    assert [written[count] for count in counts] == [4, 1, 1, 0, 0]
    assert written["same"] == [{"name": "photos/twin.jpg", "photo_id": "face0"}]
    assert "duplicate photos/twin.jpg: the same as face0" in capsys.readouterr().err
    assert main([*command, str(failed), str(failed)]) == 1
    assert "failed.jsonl is a SOURCE of this job and cannot be its list; name another file" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "x"), str(photos), "--outcomes", f"{photos}/../x"]) == 1
    assert "--failed and --outcomes are two lists; name a file for each" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "again.jsonl"), str(failed)]) == 4
    (photos / "face3.jpg").write_bytes(whole)
    assert main([*command, str(tmp_path / "again.jsonl"), str(failed)]) == 0
    assert (tmp_path / "again.jsonl").read_text() == ""
    assert Gallery.open(tmp_path / "g").photo("face3").source == "photos/face3.jpg"
    assert main([*command, str(tmp_path / "none.jsonl"), str(tmp_path / "again.jsonl")]) == 0


def test_duplicates_and_fields_are_as_asked(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "p.csv").write_text("path,photo_id,age,note\nphotos/face0.jpg,ann,30,x\nphotos/face0.jpg,bob,31,y\n")
    command = ["ingest", str(tmp_path / "g"), str(tmp_path / "p.csv"), "--fields", "age", "--duplicates"]
    assert [main([*command, policy]) for policy in ("alias", "keep", "skip")] == [0, 0, 0]
    gallery = Gallery.open(tmp_path / "g")
    assert (gallery.photo_ids, gallery.fields) == (("ann",), {"age": Kind.NUMBER})
    assert gallery.photo("bob").metadata == {"age": 30.0}


def test_a_field_that_no_source_has_is_told(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.csv").write_text("path,photo_id,age\nphotos/face0.jpg,ann,30\n")
    command = ["ingest", str(tmp_path / "g"), str(tmp_path / "p.csv"), "--fields"]
    assert main([*command, "age, aeg"]) == 0
    assert "--fields aeg: no photo has it; the gallery's fields are age" in capsys.readouterr().err
    assert main([*command, "age"]) == 0
    assert "--fields" not in capsys.readouterr().err


def test_a_gallery_that_another_process_writes_is_waited_for_or_left(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ingest", str(tmp_path / "g"), str(photos)]
    encoder = PixelEncoder()
    with StoreWriter.open_or_create(tmp_path / "g", encoder.model_hash, encoder.dim):
        assert main(command) == 75
        assert f"is being written by another process (pid {os.getpid()})" in capsys.readouterr().err
        assert main([*command, "--wait", "0.3"]) == 75
    holder = StoreWriter.open_or_create(tmp_path / "g", encoder.model_hash, encoder.dim)
    threading.Timer(0.5, holder.close).start()
    assert main([*command, "--wait", "forever"]) == 0
    assert "Waiting for another process that writes the gallery." in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--wait", "-1"])
    assert "--wait: must be seconds, 0 or more, or `forever`, got '-1'" in capsys.readouterr().err


def test_a_gallery_of_a_second_model_is_waited_for_in_words(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["ingest", str(tmp_path / "g"), str(photos), "--crop", "none"]
    assert main(command) == 0
    new = PixelEncoder(seed=1)
    assert reindex(tmp_path / "g", [photos], new).switched
    monkeypatch.setattr(OnnxEncoder, "open", lambda *_args, **_options: new)
    holder = StoreWriter.open(tmp_path / "g")
    threading.Timer(0.5, holder.close).start()
    assert main([*command, "--wait", "forever"]) == 0
    assert "Waiting for another process that writes the gallery." in capsys.readouterr().err


def test_what_a_scheduler_sends_ends_the_job_as_an_interrupt_does(tmp_path: Path, photos: Path) -> None:
    for n in range(80):
        paint(photos / f"more{n}.jpg", 100 + n)
    code = """
import sys
from indexer.encoding import OnnxEncoder
from service.cli import main
from tests.conftest import PixelEncoder
OnnxEncoder.open = lambda *_, **__: PixelEncoder()
sys.exit(main(["ingest", *sys.argv[1:]]))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "g"), str(photos), "--batch", "1"]
    command += ["--failed", str(tmp_path / "failed.jsonl"), "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as job:
        while not (manifest_path(tmp_path / "g").exists() and Store.open(tmp_path / "g").count()):
            assert job.poll() is None
            time.sleep(0.02)
        job.terminate()
        _, said = job.communicate(timeout=60)
    assert job.returncode == 130, said
    assert "What was counted as added is stored" in said
    stored = Store.open(tmp_path / "g").count()
    assert 0 < stored < 85
    assert (tmp_path / "failed.jsonl").read_text() == ""
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert (done.returncode, Store.open(tmp_path / "g").count()) == (0, 85), done.stderr


def test_an_archive_can_be_piped_in(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = archive({path.name: path.read_bytes() for path in sorted(photos.iterdir())})
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert main(["ingest", str(tmp_path / "g"), "-"]) == 0
    assert Gallery.open(tmp_path / "g").photo("face4").source == "standard input/face4.jpg"
