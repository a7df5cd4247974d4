import argparse
import io
import re
from contextlib import closing, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.encoding import DEFAULT_MODEL
from indexer.episode import Episode
from indexer.errors import ConfigError, SketchError, UnknownPhotoError
from indexer.gallery import Gallery
from indexer.sketch import rasterise
from service.cli import main
from service.client import Client
from service.commands import demo
from service.demo.painting import render_photo
from service.demo.pencil import draw_strokes
from service.demo.replay import replay, serving
from service.demo.sample import person
from service.demo.subject import pencil_picture, photo_of_sketch, sketch_of_photo, staged
from tests.conftest import PixelEncoder
from tests.service.conftest import line


def run(*options, encoder=None) -> str:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert demo.run_with(encoder or PixelEncoder(), parser.parse_args([str(option) for option in options])) == 0
    return printed.getvalue()


def rows(printed) -> list[tuple[int, int, int]]:
    """(strokes drawn, strokes of the drawing, rank) of each answer."""
    found = re.findall(r"^ *(\d+)/(\d+) +(\d+)  ", printed, re.MULTILINE)
    return [(int(drawn), int(strokes), int(rank)) for drawn, strokes, rank in found]


def photos_in(folder) -> int:
    with closing(Gallery.open(folder)) as gallery:
        return gallery.photos


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """photo/photo1/image000N.jpg and sketch/sketch1/sketch000N.jpg of six people, as FS2K lays them out."""
    folder = tmp_path_factory.mktemp("people")
    for name in ("photo/photo1", "sketch/sketch1"):
        (folder / name).mkdir(parents=True)
    for number in range(1, 7):
        render_photo(person(9, number), 200).save(folder / f"photo/photo1/image{number:04d}.jpg")
        strokes = draw_strokes(person(9, number), np.random.default_rng(number))
        sketch = Image.fromarray(255 - rasterise(strokes, 384))
        sketch.save(folder / f"sketch/sketch1/sketch{number:04d}.jpg")
    return folder


def test_the_demo_paints_ingests_serves_draws_and_leaves_a_picture(tmp_path):
    folder = tmp_path / "demo"
    printed = run("--count", 8, "--stages", 6, "--seed", 3, "--folder", folder)
    answers = rows(printed)
    assert len(answers) == 6
    assert answers[-1][0] == answers[-1][1]
    assert all(1 <= rank <= 8 for _, _, rank in answers)
    assert f"rank {answers[-1][2]} of 8 at the end" in printed
    assert "a lead, not an identification" in printed
    for command in ("serve", "query", "ingest"):
        assert f"mgrl {command} " in printed
    assert photos_in(folder / "gallery") == 8
    assert Episode.load(folder / "drawing.json").stages == 6
    with Image.open(folder / "demo.png") as figure, Image.open(folder / "sketch.png") as sketch:
        assert figure.width > 800
        assert np.asarray(sketch).min() < 50


def test_the_printed_rank_is_the_place_where_the_target_is_marked(tmp_path):
    printed = run("--count", 5, "--stages", 4, "--folder", tmp_path / "demo")
    target = re.search(r"drawing (person\d+)", printed)[1]
    for number, text in enumerate(re.findall(r"^ *\d+/\d+ +\d+  (.*)$", printed, re.MULTILINE)):
        names = re.findall(r"([ >])(person\d+) \d", text)
        assert [name for mark, name in names if mark == ">"] == [target]
        assert [name for _, name in names].index(target) + 1 == rows(printed)[number][2]


def test_a_second_run_paints_and_encodes_nothing_and_says_the_same(tmp_path):
    options = ("--count", 5, "--stages", 3, "--folder", tmp_path / "demo")
    first, second = run(*options), run(*options)
    assert "(5 new in" in first
    assert "(0 new in" in second
    assert rows(first) == rows(second)


def test_two_demos_never_share_a_folder(tmp_path):
    run("--count", 4, "--stages", 2, "--folder", tmp_path / "demo")
    with pytest.raises(ConfigError, match="holds 4 made-up people of seed 2, this demo is of 5 made-up"):
        run("--count", 5, "--folder", tmp_path / "demo")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        run("--count", 5, "--folder", tmp_path / "other")


def test_a_sketch_draws_the_photo_of_its_number(tmp_path, pictures):
    sketch = pictures / "sketch/sketch1/sketch0004.jpg"
    printed = run("--photos", pictures / "photo", "--sketch", sketch, "--stages", 5, "--folder", tmp_path / "demo")
    assert "drawing photo1/image0004 (the sketch sketch0004.jpg" in printed
    assert len(rows(printed)) == 5


def test_a_drawing_in_json_can_be_the_sketch(tmp_path, pictures):
    staged([line(), line(y0=0.6, y1=0.7), line(x1=0.4)], stages=9).save(tmp_path / "mine.json")
    options = ("--photos", pictures / "photo", "--sketch", tmp_path / "mine.json", "--target", "photo1/image0002")
    printed = run(*options, "--folder", tmp_path / "demo")
    assert [row[:2] for row in rows(printed)] == [(1, 3), (2, 3), (3, 3)]


def test_a_folder_in_fs2ks_layout_brings_its_sketches(tmp_path, pictures):
    printed = run("--photos", pictures, "--stages", 3, "--seed", 1, "--folder", tmp_path / "demo")
    number = re.search(r"drawing photo1/image(\d+)", printed)[1]
    assert f"the sketch sketch{number}.jpg" in printed
    assert photos_in(tmp_path / "demo" / "gallery") == 6


def test_without_a_sketch_a_photo_is_traced_and_that_is_said(tmp_path, pictures):
    printed = run("--photos", pictures / "photo", "--stages", 3, "--folder", tmp_path / "demo")
    assert "traced from the photo itself, so easier than any real sketch" in printed


def test_an_unknown_target_is_told_what_ids_look_like(tmp_path, pictures):
    with pytest.raises(UnknownPhotoError, match="ids look like photo1/image0001"):
        run("--photos", pictures / "photo", "--target", "nobody", "--folder", tmp_path / "demo")


def test_a_sketch_that_is_no_picture_is_refused(tmp_path, pictures):
    (tmp_path / "sketch0001.png").write_bytes(b"not a picture")
    with pytest.raises(SketchError, match=r"the sketch sketch0001\.png: not a JPEG, PNG, WebP, GIF, BMP or TIFF"):
        run("--photos", pictures / "photo", "--sketch", tmp_path / "sketch0001.png", "--folder", tmp_path / "demo")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "1"], "--count must be from 2 to 9999, got 1"),
        (["--stages", "0"], "--stages must be at least 1, got 0"),
        (["--seed", "-1"], "--seed must be 0 or more, got -1"),
        (["--sketch", "a.png"], "--sketch and --target need --photos"),
        (["--photos", "nowhere"], "nowhere is none"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_any_work(tmp_path, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        run(*options, "--folder", tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_the_results_of_a_demo_are_no_photos_of_the_next_one(pictures, monkeypatch):
    monkeypatch.chdir(pictures / "photo")
    with pytest.raises(ConfigError, match="the results must lie outside of the photos, demo does not"):
        run("--photos", ".", "--stages", 2, "--folder", "demo")
    assert not Path("demo").exists()


def test_a_sketch_that_fits_no_photo_or_several_asks_for_the_target():
    with pytest.raises(ConfigError, match="say which one it shows with --target"):
        photo_of_sketch(Path("sketches/anna.png"), ["ben", "image0001"])
    with pytest.raises(ConfigError, match="fits several photos"):
        photo_of_sketch(Path("mine/sketch0001.png"), ["photo1/image0001", "photo2/image0001"])
    assert photo_of_sketch(Path("sketches/anna.png"), ["ben", "Anna"]) == "Anna"
    assert photo_of_sketch(Path("s7.png"), ["image0007", "image0070"]) == "image0007"


def test_the_sketch_of_a_photo_is_found_by_its_numbers(pictures):
    found = sketch_of_photo("photo1/image0003", pictures / "sketch")
    assert found == pictures / "sketch/sketch1/sketch0003.jpg"
    assert sketch_of_photo("photo2/image0003", pictures / "sketch") is None
    assert sketch_of_photo("anna", pictures / "nowhere") is None


def test_stages_are_as_many_as_asked_for_or_as_strokes_show():
    strokes = [line(y0=y, y1=y) for y in (0.2, 0.4, 0.4, 0.6)]
    assert staged(strokes, 2).stages == 2
    # The third stroke lies on the second: it makes no stage of its own.
    assert staged(strokes, 70).stages == 3


def test_a_pencil_picture_has_lines_at_edges_and_hatching_in_the_dark():
    photo = Image.new("RGB", (300, 300), (200, 190, 180))
    photo.paste((20, 20, 20), (0, 0, 150, 300))
    pixels = np.asarray(pencil_picture(photo)) < 128
    assert not pixels[:, 210:].any()
    assert 0.1 < pixels[:, :170].mean() < 0.6


def test_the_rank_is_known_beyond_what_an_answer_may_hold(tmp_path, monkeypatch):
    monkeypatch.setattr("service.demo.replay.MAX_K", 2)
    folder = tmp_path / "demo"
    run("--count", 7, "--stages", 2, "--folder", folder)
    encoder, episode = PixelEncoder(), Episode.load(folder / "drawing.json")
    ranks = {}
    with (
        closing(Gallery.open(folder / "gallery")) as gallery,
        serving(gallery, encoder) as address,
        Client(address) as client,
    ):
        for photo_id in gallery.photo_ids:
            *_, last = replay(client, gallery, encoder, episode, photo_id)
            assert len(last.answer.hits) == 2
            ranks[photo_id] = last.rank
    assert sorted(ranks.values()) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.skipif(not DEFAULT_MODEL.is_file(), reason="the default model is not in this checkout")
def test_the_command_line_finds_the_face_with_the_default_model(tmp_path, capsys):
    assert main(["demo", "--count", "30", "--stages", "12", "--folder", str(tmp_path / "demo")]) == 0
    assert rows(capsys.readouterr().out)[-1][2] <= 3


def test_the_command_line_reports_a_bad_option_without_a_traceback(tmp_path, capsys):
    assert main(["demo", "--count", "0", "--folder", str(tmp_path / "demo")]) == 1
    assert "mgrl demo: " in capsys.readouterr().err
