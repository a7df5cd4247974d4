"""What a report is about: its data sets, one result each, and finished models on every data set and probe set.

The systems that are trained for it are in `training.report.jobs`.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from indexer.encoding import OnnxEncoder
from indexer.errors import DataError
from training.data import find_pair, read_split
from training.evaluate import Embedded, Protocol, embed_drawings, encode_gallery
from training.frozen import People
from training.variants import PROBE_SETS

_CODE: Final = 1
"""Raised whenever embeddings of the same images by the same model would differ."""

Say = Callable[[str], None]
"""Called with what is being done."""


@dataclass(frozen=True)
class DataSet:
    """One data set of a report.

    Args:
        name: such as dataset1.
        fit: people to train on; their photos are distractors in evaluation.
        val: people whose drawings are probes.
    """

    name: str
    fit: People
    val: People


@dataclass(frozen=True)
class Result:
    """One system on one data set with one seed and one probe set.

    Args:
        system: name, as in `SYSTEMS`, or "model" for a finished one.
        title: for tables.
        trunk: "frozen", "fine-tuned" or "random".
        dim: numbers in a region's embedding.
        data_set: name of the data set that was ranked.
        seed: of the training.
        probe_set: how the drawings were disturbed; "cross": trained on the other data set.
        embedded: what the system said.
    """

    system: str
    title: str
    trunk: str
    dim: int
    data_set: str
    seed: int
    probe_set: str
    embedded: Embedded

    @property
    def stages(self) -> int:
        """T."""
        return int(self.embedded.probes.shape[1])

    @property
    def drawings(self) -> int:
        """Probes; so many photos of the gallery are their own."""
        return len(self.embedded.probes)


def find_data_sets(data: Path, splits: Path, names: Sequence[str], episodes: Path, stages: int) -> list[DataSet]:
    """The data sets whose splits `NAME-fit.txt` and `NAME-val.txt` lie in a folder, every file of them checked.

    Raises:
        DataError: a name is a path, a split or an image is missing, fewer than two people to train on, or people in
            both splits.
    """
    # A report's files go by these names.
    if paths := [name for name in names if name != Path(name).name]:
        raise DataError(f"a data set must be a name such as dataset1, got {paths[0]}; name its folder with --splits")
    found = []
    problems = []
    for name in names:
        fit, val = (tuple(read_split(splits / f"{name}-{part}.txt")) for part in ("fit", "val"))
        if len(fit) < 2:
            raise DataError(f"training needs at least 2 people, {fit[0]} is alone in {name}-fit.txt; add to it")
        if both := set(fit) & set(val):
            raise DataError(f"{len(both)} people of {name} are trained and tested on, such as {min(both)}")
        for person in (*fit, *val):
            try:
                find_pair(data, person)
            except DataError as error:
                problems.append(str(error))
        found.append(DataSet(name, People(data, fit, episodes, stages), People(data, val, episodes, stages)))
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(f"{problems[0]}{more}; complete the folder or correct the split")
    return found


def draw_all(data_sets: Sequence[DataSet], say: Say) -> None:
    """Make every drawing now: a sketch that cannot be drawn is named before an hour of features, not after.

    Raises:
        DataError: a sketch is unreadable or has too little ink, or the disk.
    """
    for data_set in data_sets:
        say(f"drawings of {data_set.name}, {data_set.fit.stages} stages")
        for people in (data_set.fit, data_set.val):
            people.draw()


def model_sets(model_stages: int, stages: int) -> list[tuple[str, int]]:
    """The (probe set, T) that a finished model is ranked on: aligned at its own T, and every set at that of systems."""
    return list(dict.fromkeys([("aligned", model_stages), *((name, stages) for name in PROBE_SETS)]))


def run_model(
    encoder: OnnxEncoder,
    title: str,
    data_sets: Sequence[DataSet],
    probe_sets: Iterable[tuple[str, int]],
    cache: Path,
    say: Say,
) -> Iterator[Result]:
    """A finished model on every data set and (probe set, T)."""
    for data_set in data_sets:
        names = (*data_set.val.names, *data_set.fit.names)
        gallery = None
        for probe_set, stages in probe_sets:
            key = f"{_CODE}/{encoder.model_hash}/{data_set.val.key}/{data_set.fit.key}/{probe_set}/{stages}"
            path = cache / "embedded" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
            embedded = _read(path, names)
            if embedded is None:
                say(f"{title} on {data_set.name}, {probe_set}, T = {stages}")
                gallery = encode_gallery(data_set.val.data, names, encoder) if gallery is None else gallery
                people = People(data_set.val.data, data_set.val.names, data_set.val.episodes, stages)
                probes, ink = embed_drawings(people.draw(), encoder, Protocol(stages, probe_set))
                embedded = Embedded(probes, ink, gallery, names)
                _keep(path, embedded)
            yield Result("model", title, "fine-tuned", encoder.dim, data_set.name, 0, probe_set, embedded)


def _keep(path: Path, embedded: Embedded) -> None:
    scratch = path.with_suffix(".tmp.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(scratch, probes=embedded.probes, ink=embedded.ink, gallery=embedded.gallery)
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise DataError(
            f"embeddings cannot be kept in {path.parent}: {error.strerror}; "
            "free some space there or name another folder"
        ) from error


def _read(path: Path, names: tuple[str, ...]) -> Embedded | None:
    """What an earlier call kept; None where there is none, or only a torn file."""
    try:
        with path.open("rb") as file, np.load(file) as kept:
            return Embedded(kept["probes"], kept["ink"], kept["gallery"], names)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
