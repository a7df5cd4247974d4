"""A user's own pairs: found, split, checked; each mistake is named before training starts."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from indexer.errors import DataError
from service.cli import main
from training.data import find_pair
from training.pairs import find_pairs, split_people


@pytest.fixture
def faces(tiny_fs2k: Path, tmp_path: Path) -> Path:
    """The six people of `tiny_fs2k` as photos/person1.jpg and sketches/person1.png."""
    root = tmp_path / "faces"
    for folder in ("photos", "sketches"):
        (root / folder).mkdir(parents=True)
    for number in range(1, 7):
        shutil.copy(tiny_fs2k / "photo" / "photo1" / f"image{number:04d}.jpg", root / "photos" / f"person{number}.jpg")
        with Image.open(tiny_fs2k / "sketch" / "sketch1" / f"sketch{number:04d}.jpg") as sketch:
            sketch.save(root / "sketches" / f"person{number}.png")
    return root


def test_pictures_in_folders_below_are_told_from_pairs(faces: Path) -> None:
    _folder_below(faces)
    found = find_pairs(faces)
    assert len(found.names["photos"]) == 5
    assert [Path(path).relative_to(faces).parts[:2] for path in found.below] == [("photos", "old"), ("sketches", "old")]


def test_both_layouts_are_found(faces: Path, tiny_fs2k: Path) -> None:
    assert find_pairs(faces).names == {"photos": [f"photos/person{number}" for number in range(1, 7)]}
    assert find_pair(faces, "photos/person2").sketch == faces / "sketches" / "person2.png"
    assert find_pairs(tiny_fs2k).names == {"photo1": [f"photo1/image{number:04d}" for number in range(1, 7)]}


def test_suffixes_are_found_however_they_are_spelled(faces: Path) -> None:
    (faces / "photos" / "person2.jpg").rename(faces / "photos" / "person2.Jpg")
    (faces / "sketches" / "person2.png").rename(faces / "sketches" / "person2.pNG")
    assert "photos/person2" in find_pairs(faces).names["photos"]
    pair = find_pair(faces, "photos/person2")
    assert (pair.photo.suffix, pair.sketch.suffix) == (".Jpg", ".pNG")


def test_who_is_trained_on_stays_so_when_others_are_added() -> None:
    names = [f"photos/{number}" for number in range(12)]
    fit, _ = split_people(names[:6])
    for count in range(7, 13):
        more, _ = split_people(names[:count])
        assert set(fit) <= set(more)
        fit = more


def test_a_person_stays_in_their_split_when_others_are_added() -> None:
    names = [f"photos/{number}" for number in range(400)]
    fit, val = split_people(names)
    assert sorted([*fit, *val]) == sorted(names)
    assert 20 < len(val) < 60
    more_fit, more_val = split_people([*names, *(f"photos/new{number}" for number in range(100))])
    assert set(fit) <= set(more_fit)
    assert set(val) <= set(more_val)
    assert [len(part) for part in split_people(names[:5])] == [2, 3]


def test_the_readme_alone_trains_on_own_pairs(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")
    monkeypatch.chdir(tmp_path)
    (faces / "photos" / "alone.jpg").write_bytes((faces / "photos" / "person1.jpg").read_bytes())
    arguments = ["train", "--data", "faces", "--stages", "5", "--epochs", "1", "--stem-epochs", "0"]
    arguments += ["--align-epochs", "0"]
    assert main(arguments) == 1
    assert "1 photos have no sketch: photos/alone; add what is missing" in capsys.readouterr().err
    assert main([*arguments, "--skip-unpaired"]) == 0
    said = capsys.readouterr().err
    assert "left out: 1 photos, 0 sketches" in said
    assert "photos: 3 people to train on, 3 to select on (runs/faces/splits)" in said
    split = Path("runs/faces/splits/photos-val.txt").read_text().splitlines()
    assert len(split) == 3
    assert set(split) < {f"photos/person{number}" for number in range(1, 7)}
    assert Path("runs/faces/best.pt").is_file()
    # More pairs are other people: the run's own are not written over, and go on being named.
    for folder, suffix in (("photos", "jpg"), ("sketches", "png")):
        shutil.copy(faces / folder / f"person1.{suffix}", faces / folder / f"person7.{suffix}")
    assert main([*arguments, "--skip-unpaired"]) == 1
    assert "runs/faces holds a run on other people than there are now in photos" in capsys.readouterr().err
    assert Path("runs/faces/splits/photos-val.txt").read_text().splitlines() == split
    own = ["--fit", "runs/faces/splits/photos-fit.txt", "--val", "runs/faces/splits/photos-val.txt"]
    assert main([*arguments, *own]) == 0


def _unpaired_sketch(root: Path) -> None:
    (root / "photos" / "person3.jpg").unlink()


def _folder_below(root: Path) -> None:
    for kind in ("photos", "sketches"):
        (root / kind / "old").mkdir()
        (root / kind / ".hidden").mkdir()
        picture = next((root / kind).glob("person3.*"))
        shutil.copy(picture, root / kind / ".hidden")
        picture.rename(root / kind / "old" / picture.name)


def _unreadable(root: Path) -> None:
    (root / "photos" / "person3.jpg").write_bytes(b"\xff\xd8\xff torn")


def _white(root: Path) -> None:
    for number in (2, 4):
        Image.new("L", (250, 250), 255).save(root / "sketches" / f"person{number}.png")


def _one_identity(root: Path) -> None:
    for path in [*root.rglob("person*")]:
        if path.stem != "person1":
            path.unlink()


def _two_photos(root: Path) -> None:
    shutil.copy(root / "photos" / "person1.jpg", root / "photos" / "person1.png")


def _other_names(root: Path) -> None:
    for path in [*(root / "photos").iterdir()]:
        path.rename(path.with_name(f"photo-{path.name}"))


def _no_folders(root: Path) -> None:
    shutil.rmtree(root / "photos")


def _copies(root: Path) -> None:
    for path in [*root.rglob("person*")]:
        shutil.copy(path, path.with_stem(f"{path.stem} (copy)"))


def _comment_as_folder(root: Path) -> None:
    for kind in ("photo", "sketch"):
        (root / kind).mkdir()
        plural = "photos" if kind == "photo" else "sketches"
        (root / plural).rename(root / kind / "#1")


def _strange_name(root: Path) -> None:
    (root / "photos" / "person1.jpg").rename(root / "photos" / "person\n1.jpg")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_unpaired_sketch, "1 sketches have no photo: sketches/person3; add what is missing"),
        (_folder_below, "sketches/old/person3.png; add what is missing, move up what lies below, or leave them out"),
        (_unreadable, "1 pictures cannot be read: "),
        (_white, "2 sketches show no line (of one colour all over, or too pale): "),
        (_one_identity, "training needs at least 5 pairs of different people in a folder of photos, got 1"),
        (_two_photos, "have one name; a person has one photo and one sketch, rename one"),
        (_other_names, "has no pair: 6 photos and 6 sketches, none of one name (photos/photo-person1"),
        (_no_folders, "has no folder of photos; it must hold photos/NAME.jpg with sketches/NAME.png, or"),
        (_copies, " photos to select on are trained on, too, under another name, such as photos/person"),
        (_comment_as_folder, "photo/#1/person1.jpg' cannot stand in a split file; rename it to plain letters"),
        (_strange_name, "cannot stand in a split file; rename it to plain letters"),
    ],
)
def test_what_is_wrong_with_the_pairs_is_said_before_training(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: object, message: str
) -> None:
    pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")
    assert callable(spoil)
    spoil(faces)
    assert main(["train", "--data", str(faces), "--out", str(tmp_path / "run")]) == 1
    found = capsys.readouterr().err.splitlines()[-1]
    assert found.startswith("mgrl train: ")
    assert message in found
    assert not (tmp_path / "run" / "episodes").exists()


def test_a_split_that_names_missing_pictures_is_refused_before_training(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")
    (tmp_path / "fit.txt").write_text("photos/person1\nphotos/person2\nphotos/bob\nphotos/eve\n")
    (tmp_path / "val.txt").write_text("photos/person3\n")
    splits = ["--fit", str(tmp_path / "fit.txt"), "--val", str(tmp_path / "val.txt")]
    assert main(["train", "--data", str(faces), *splits, "--out", str(tmp_path / "run")]) == 1
    found = capsys.readouterr().err
    assert "has no photos/bob" in found
    assert "(and 1 more names of this split)" in found
    assert main(["train", "--data", str(faces), *splits[:2]]) == 1
    assert "--fit and --val come together" in capsys.readouterr().err


def test_too_many_low_hashes_leave_people_to_train_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.pairs._share", lambda name: 0.0)
    fit, val = split_people([f"photos/{number}" for number in range(20)])
    assert (len(fit), len(val)) == (10, 10)
    with pytest.raises(DataError, match="got 4"):
        split_people(["a/1", "a/2", "a/3", "a/4"])
