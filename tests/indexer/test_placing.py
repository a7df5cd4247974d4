"""What becomes of photos under ids of their callers, and under two names, in jobs that run again."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from indexer.errors import ImageError
from indexer.ingest import ingest
from indexer.ingest_report import IngestReport
from indexer.metadata import Kind
from indexer.photos import read_bytes
from indexer.placing import Duplicates, Fate, Outcome
from indexer.sources.item import Item, Survey
from indexer.store import Store
from tests.conftest import PixelEncoder
from tests.indexer.test_ingest import paint

Row = tuple[str, str, int | None]
"""An id, a file, and an age: 0 says nothing of it, None takes it away."""


@dataclass
class Given:
    """Files under ids of their caller, and what is known about them."""

    folder: Path
    rows: list[Row]
    name: str = "given"

    def survey(self, fields: Mapping[str, Kind]) -> Survey:
        return Survey(len(self.rows), {"age": Kind.NUMBER})

    def items(self, fields: MutableMapping[str, Kind]) -> Iterator[Item]:
        for photo_id, file, age in self.rows:
            yield Item(
                f"given {file}",
                photo_id,
                partial(read_bytes, self.folder / file),
                has_own_id=True,
                metadata={"age": age if age is None else float(age)} if age != 0 else {},
            )


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    for n in range(6):
        paint(tmp_path / "faces" / f"{n}.png", n)
    return tmp_path / "faces"


class Job:
    """The same gallery again and again."""

    def __init__(self, folder: Path) -> None:
        self.gallery, self.faces = folder / "g", folder / "faces"
        self.fates: list[tuple[str, str, str]] = []

    def run(self, *rows: Row, duplicates: Duplicates = Duplicates.SKIP, batch: int = 4) -> IngestReport:
        self.fates = []

        def note(outcome: Outcome) -> None:
            self.fates.append((outcome.item.photo_id, outcome.fate.value, outcome.of))
            if outcome.fate is not Fate.SKIPPED:  # durable, as it says
                assert Store.open(self.gallery).photo(outcome.photo_id or outcome.of)

        source = Given(self.faces, list(rows))
        return ingest(self.gallery, [source], PixelEncoder(), batch=batch, duplicates=duplicates, on_outcome=note)

    def ids(self) -> list[str]:
        return [photo_id for photo_id in Store.open(self.gallery).snapshot().contents.photo_ids if photo_id]

    def names(self) -> dict[str, str]:
        """Every name with the file that has its content."""
        files = {hashlib.sha256(path.read_bytes()).digest(): path.name for path in self.faces.iterdir()}
        return {photo_id: files[content] for photo_id, content in Store.open(self.gallery).names()}

    def age(self, photo_id: str) -> object:
        return Store.open(self.gallery).photo(photo_id).metadata.get("age")


def test_another_content_under_an_own_id_takes_its_place(tmp_path: Path, faces: Path) -> None:
    job = Job(tmp_path)
    job.run(("a", "0.png", 30), ("b", "1.png", 0))
    report = job.run(("a", "2.png", 0), ("b", "1.png", 0), ("c", "3.png", 0))
    assert (report.added, report.replaced, report.already_there) == (1, 1, 1)
    assert job.fates == [("b", "already there", ""), ("a", "replaced", ""), ("c", "added", "")]
    assert job.ids() == ["b", "a", "c"]
    assert (Store.open(job.gallery).photo("a").source, job.age("a")) == ("given 2.png", 30.0)
    # What was replaced is gone, and may come back under its id or another.
    report = job.run(("d", "0.png", 0), ("a", "2.png", 0))
    assert (report.added, report.already_there) == (1, 1)


def test_a_value_that_is_taken_away_is_gone_from_a_photo_that_is_replaced_at_once(tmp_path: Path, faces: Path) -> None:
    job = Job(tmp_path)
    job.run(("a", "0.png", 30))
    report = job.run(("a", "1.png", None))
    assert (report.replaced, report.described, job.age("a")) == (1, 0, None)


def test_the_metadata_file_has_the_last_word_in_every_run(tmp_path: Path, faces: Path) -> None:
    (tmp_path / "people.jsonl").write_text('{"photo_id": "a", "age": 31}')
    for _ in range(2):
        source = Given(faces, [("a", "0.png", 30)])
        ingest(tmp_path / "g", [source], PixelEncoder(), metadata=tmp_path / "people.jsonl")
        assert Job(tmp_path).age("a") == 31.0


def test_changed_metadata_is_written_and_unchanged_is_not(tmp_path: Path, faces: Path) -> None:
    job = Job(tmp_path)
    rows = [("a", "0.png", 30), ("b", "1.png", 40), ("c", "2.png", 0)]
    assert job.run(*rows).described == 2
    version = Store.open(job.gallery).version()
    report = job.run(*rows)
    assert (report.described, report.already_there, Store.open(job.gallery).version()) == (0, 3, version)
    report = job.run(("a", "0.png", 31), *rows[1:])
    assert (report.described, report.already_there, job.age("a"), job.age("b")) == (1, 3, 31.0, 40.0)


def test_an_id_that_a_job_gives_to_two_photos_is_the_first_ones(tmp_path: Path, faces: Path) -> None:
    job = Job(tmp_path)
    for _ in range(2):
        report = job.run(("a", "0.png", 0), ("a", "1.png", 0), ("a", "0.png", 0))
        assert report.skipped == (("given 1.png", "another photo of this job has the id 'a'; an id may be given once"),)
        assert (report.failed, Store.open(job.gallery).photo("a").source) == (1, "given 0.png")


@pytest.mark.parametrize("batch", [1, 4])
def test_an_id_that_was_made_for_a_photo_of_a_job_is_not_given_to_another(
    tmp_path: Path, faces: Path, batch: int
) -> None:
    paint(tmp_path / "folder" / "a.png", 6)
    (tmp_path / "people.csv").write_text("path,photo_id\nfaces/0.png,a\nfaces/1.png,b\n")
    for added in (2, 0):
        report = ingest(tmp_path / "g", [tmp_path / "folder", tmp_path / "people.csv"], PixelEncoder(), batch=batch)
        assert (report.added, report.replaced, report.failed) == (added, 0, 1)
        assert report.skipped == (("faces/0.png", "another photo of this job has the id 'a'; an id may be given once"),)
        assert Store.open(tmp_path / "g").photo("a").source == "folder/a.png"


def test_duplicates_are_skipped_and_named(tmp_path: Path, faces: Path) -> None:
    shutil.copy(faces / "0.png", faces / "copy.png")
    job = Job(tmp_path)
    for _ in range(2):
        report = job.run(("a", "0.png", 30), ("b", "1.png", 0), ("twin", "copy.png", 50))
        assert (report.duplicates, report.same) == (1, (("given copy.png", "a"),))
    assert (job.ids(), job.age("a")) == (["a", "b"], 30.0)


def test_duplicates_become_aliases_that_know_nothing_of_their_own(tmp_path: Path, faces: Path) -> None:
    shutil.copy(faces / "0.png", faces / "copy.png")
    job = Job(tmp_path)
    rows = [("a", "0.png", 30), ("twin", "copy.png", 50), ("b", "1.png", 0)]
    report = job.run(*rows, duplicates=Duplicates.ALIAS)
    assert (report.added, report.duplicates) == (2, 1)
    assert job.fates == [("a", "added", ""), ("b", "added", ""), ("twin", "aliased", "a")]
    for _ in range(2):
        report = job.run(*rows, duplicates=Duplicates.ALIAS)
        assert (report.already_there, report.duplicates, report.described) == (3, 0, 0)
    assert (job.ids(), job.age("twin"), dict(Store.open(job.gallery).names()).keys()) == (
        ["a", "b"],
        30.0,
        {"a", "twin", "b"},
    )
    # An alias that gets a content of its own is a photo from then on.
    report = job.run(("twin", "2.png", 50), duplicates=Duplicates.ALIAS)
    assert (report.replaced, job.ids(), job.age("a"), job.age("twin")) == (1, ["a", "b", "twin"], 30.0, 50.0)


def test_several_aliases_of_a_stored_photo_may_come_in_one_batch(tmp_path: Path, faces: Path) -> None:
    job = Job(tmp_path)
    job.run(("a", "0.png", 30))
    rows: list[Row] = [("second", "0.png", 0), ("third", "0.png", 0)]
    assert job.run(*rows, duplicates=Duplicates.ALIAS).duplicates == 2
    assert (job.ids(), job.names()) == (["a"], dict.fromkeys(("a", "second", "third"), "0.png"))


@pytest.mark.parametrize("batch", [1, 4])
def test_an_alias_keeps_its_content_where_the_job_replaces_its_photo(tmp_path: Path, faces: Path, batch: int) -> None:
    job = Job(tmp_path)
    job.run(("a", "0.png", 0), ("b", "1.png", 0), ("c", "1.png", 0), duplicates=Duplicates.ALIAS)
    # The alias before and after its photo gets another content, and another alias of the new one.
    rows: list[Row] = [("d", "0.png", 0), ("a", "2.png", 0), ("b", "3.png", 0), ("e", "1.png", 0)]
    rows += [("f", "2.png", 0), ("g", "0.png", 0)]
    report = job.run(*rows, duplicates=Duplicates.ALIAS, batch=batch)
    assert (report.added, report.replaced, report.duplicates) == (0, 2, 4)
    after = {"a": "2.png", "b": "3.png", "c": "1.png", "d": "0.png", "e": "1.png", "f": "2.png", "g": "0.png"}
    assert job.names() == after
    assert job.run(*rows, duplicates=Duplicates.ALIAS).already_there == 6


def test_duplicates_that_are_kept_are_photos_and_stay_so(tmp_path: Path, faces: Path) -> None:
    shutil.copy(faces / "0.png", faces / "copy.png")
    job = Job(tmp_path)
    rows = [("a", "0.png", 30), ("twin", "copy.png", 50), ("b", "1.png", 0)]
    report = job.run(*rows, duplicates=Duplicates.KEEP, batch=1)
    assert (report.added, job.ids(), job.age("twin")) == (3, ["a", "twin", "b"], 50.0)
    # Whatever the policy is later: each is there under its name.
    for policy in Duplicates:
        report = job.run(*rows, duplicates=policy)
        assert (report.already_there, report.duplicates, job.ids()) == (3, 0, ["a", "twin", "b"])


def test_an_own_id_that_now_names_a_content_that_is_there_is_believed(tmp_path: Path, faces: Path) -> None:
    job = Job(tmp_path)
    job.run(("a", "0.png", 0), ("b", "1.png", 0))
    report = job.run(("a", "1.png", 0), ("b", "1.png", 0))
    assert (report.replaced, report.already_there, job.ids()) == (1, 1, ["b", "a"])
    assert Store.open(job.gallery).photo("a").source == "given 1.png"


@pytest.mark.parametrize("policy", Duplicates)
def test_copies_in_folders_settle_in_the_first_run(tmp_path: Path, policy: Duplicates) -> None:
    """Ids that had to grow, copies of photos whose id had: a second run finds all of them, and changes nothing."""
    for n, name in enumerate(("one/a.png", "one/a.jpg", "two/a.png", "deep/two/a.png")):
        paint(tmp_path / name, n)
    shutil.copy(tmp_path / "deep/two/a.png", tmp_path / "two" / "b.png")
    sources = [tmp_path / "one", tmp_path / "two", tmp_path / "deep" / "two"]
    first = ingest(tmp_path / "g", sources, PixelEncoder(), batch=2, duplicates=policy)
    names, version = dict(Store.open(tmp_path / "g").names()), Store.open(tmp_path / "g").version()
    again = ingest(tmp_path / "g", sources, PixelEncoder(), batch=2, duplicates=policy)
    assert first.usable == again.usable == 5
    assert again.added + again.replaced == 0
    assert again.duplicates == (1 if policy is Duplicates.SKIP else 0)
    assert (dict(Store.open(tmp_path / "g").names()), Store.open(tmp_path / "g").version()) == (names, version)


def test_an_item_that_cannot_be_read_is_skipped_with_its_reason(tmp_path: Path, faces: Path) -> None:
    job = Job(tmp_path)
    report = job.run(("a", "gone.png", 0), ("b", "1.png", 0))
    assert report.skipped == (("given gone.png", "the file cannot be read: No such file or directory"),)
    with pytest.raises(ImageError, match="No such file"):
        read_bytes(faces / "gone.png")
