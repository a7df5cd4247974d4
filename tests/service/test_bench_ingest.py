"""`mgrl bench ingest`: its photos, its ratios, and a run of each of its parts."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from indexer.embeddings_file import EmbeddingsFile
from indexer.framing import FaceFraming
from indexer.metadata import Kind
from service.bench.ingesting import Paints, medians, write_embeddings
from service.cli import main


def test_photos_are_jpegs_and_no_two_alike(tmp_path: Path) -> None:
    paints = Paints.mix(64)
    files = [*paints.write(tmp_path / "a", 90, seed=0), *paints.write(tmp_path / "b", 90, seed=1)]
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in files}) == 180
    with Image.open(files[0]) as picture:
        assert (picture.format, picture.size) == ("JPEG", (64, 64))


def test_ingestion_is_held_against_the_faster_encoder_of_each_round() -> None:
    rounds = [
        {"encoder": 100.0, "encoder_in_batches": 50.0, "ingest": 80.0},
        {"encoder": 40.0, "encoder_in_batches": 50.0, "ingest": 45.0},
        {"encoder": 60.0, "encoder_in_batches": 30.0, "ingest": 60.0},
    ]
    rows, ratio = medians(rounds)
    assert rows == {"encoder": 60.0, "encoder_in_batches": 50.0, "ingest": 60.0}
    assert ratio == pytest.approx(0.9)


def test_embeddings_are_a_file_that_ingestion_takes(tmp_path: Path) -> None:
    given = write_embeddings(tmp_path / "faces.npz", 30, 4)
    file = EmbeddingsFile.open(tmp_path / "faces.npz", {})
    assert (len(file), file.dim, file.kinds) == (30, 4, {"age": Kind.NUMBER, "sex": Kind.STRING})
    (part,) = file.parts(100)
    assert not part.refused
    texts = sum(
        len(photo_id) + len(str(values["sex"])) for photo_id, values in zip(part.photo_ids, part.metadata, strict=True)
    )
    assert given == 30 * 14 * 4 * 4 + 30 * 4 + texts


@pytest.mark.slow
def test_the_command_writes_rows_and_ratios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, page = tmp_path / "ingest.json", tmp_path / "ingest.html"
    options = ["--photos", "6", "--rounds", "1", "--sizes", "64", "40", "--workers", "1", "--embeddings", "40"]
    assert main(["bench", "ingest", *options, "--json", str(file), "--html", str(page)]) == 0
    written, html = json.loads(file.read_text()), page.read_text()
    assert html.count("<rect") == len(written["rows"])
    assert "ingest_cpu a photo_40px" in html
    assert all(name in html for name in written["ratios"])
    rows, ratios = written["rows"], written["ratios"]
    assert rows.keys() >= {"encoder", "encoder_in_batches", "ingest", "ingest_cpu_ms", "ingest_40px"}
    faster = max(rows["encoder"], rows["encoder_in_batches"])
    assert ratios["ingest_over_encoder"] == pytest.approx(rows["ingest"] / faster)
    assert ratios["ingest_over_encoder_in_batches"] == pytest.approx(rows["ingest"] / rows["encoder_in_batches"])
    assert ratios["encoder_over_ingest_cpu"] == pytest.approx(rows["encoder_cpu_ms"] / rows["ingest_cpu_ms"])
    assert ratios["disk_over_vectors_and_metadata"] > 1
    assert 20 < written["embeddings"]["peak_mb"] < 1000
    assert "ingest_over_encoder_40px" in capsys.readouterr().out


@pytest.mark.slow
def test_photos_are_cropped_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    framed: list[str] = []
    frame = FaceFraming.frame
    monkeypatch.setattr(FaceFraming, "frame", lambda self, image: [*frame(self, image), framed.append("one")][:-1])
    options = ["--photos", "6", "--rounds", "1", "--sizes", "64", "--workers", "1", "--crop", "face"]
    assert main(["bench", "ingest", *options, "--json", str(tmp_path / "ingest.json")]) == 0
    assert json.loads((tmp_path / "ingest.json").read_text())["crop"] == "face"
    assert len(framed) == 2 * 6


@pytest.mark.long
@pytest.mark.e2e
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_searches_beside_an_ingestion(tmp_path: Path) -> None:
    file, before = tmp_path / "beside.json", os.sched_getaffinity(0)
    options = ["--rounds", "0", "--while-serving", "--gallery", "40", "--seconds", "0.4"]
    assert main(["bench", "ingest", *options, "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    assert written["ratios"]["p99_while_ingesting"] == pytest.approx(
        written["search_ms"]["ingesting"]["p99"] / written["search_ms"]["idle"]["p99"]
    )
    assert len(written["ingested_per_s"]) == 3
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("options", [["--photos", "0"], ["--rounds", "-1"], ["--sizes", "8"], ["--embeddings", "0"]])
def test_options_out_of_range(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "ingest", *options]) == 1
    assert options[0] in capsys.readouterr().err
