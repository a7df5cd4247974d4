"""Runs what a report needs: systems on frozen features, and finished models, on every data set and probe set."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.encoding import OnnxEncoder
from indexer.errors import DataError
from training.data import find_pair, read_split
from training.evaluate import Embedded, Protocol, embed_drawings, encode_gallery
from training.frozen import People
from training.systems import SYSTEMS, Workshop

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
        trunk: "frozen" or "fine-tuned".
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
        DataError: a split or an image is missing, or people are in both splits.
    """
    found = []
    problems = []
    for name in names:
        fit, val = (tuple(read_split(splits / f"{name}-{part}.txt")) for part in ("fit", "val"))
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


def run_systems(
    workshop: Workshop, data_sets: Sequence[DataSet], systems: Iterable[str], seeds: int, say: Say
) -> Iterator[Result]:
    """Every system with every seed on every data set, aligned drawings, 16-d."""
    for data_set in data_sets:
        for name in systems:
            for seed in range(seeds):
                say(f"{name} on {data_set.name}, seed {seed}")
                embedded = workshop.embed(name, data_set.fit, data_set.val, data_set.fit, seed)
                yield Result(name, SYSTEMS[name].title, "frozen", 16, data_set.name, seed, "aligned", embedded)


def run_dims(
    workshop: Workshop, data_sets: Sequence[DataSet], systems: Iterable[str], dims: Sequence[int], say: Say
) -> Iterator[Result]:
    """Some systems at several dimensions, one seed: the paper's Table 2."""
    for data_set in data_sets:
        for name in systems:
            for dim in dims:
                say(f"{name}, {dim}-d, on {data_set.name}")
                embedded = workshop.embed(name, data_set.fit, data_set.val, data_set.fit, 0, dim)
                yield Result(name, SYSTEMS[name].title, "frozen", dim, data_set.name, 0, "aligned", embedded)


def run_cross(workshop: Workshop, data_sets: Sequence[DataSet], systems: Iterable[str], say: Say) -> Iterator[Result]:
    """Some systems trained on one data set and ranked on another."""
    for name in systems:
        for data_set in data_sets:
            for other in data_sets:
                if other.name != data_set.name:
                    say(f"{name}, trained on {other.name}, on {data_set.name}")
                    embedded = workshop.embed(name, other.fit, data_set.val, data_set.fit, 0)
                    yield Result(name, SYSTEMS[name].title, "frozen", 16, data_set.name, 0, "cross", embedded)


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
            key = f"{encoder.model_hash}/{data_set.val.key}/{data_set.fit.key}/{probe_set}/{stages}"
            path = cache / "embedded" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
            embedded = _read(path, names)
            if embedded is None:
                say(f"{title} on {data_set.name}, {probe_set}, T = {stages}")
                gallery = encode_gallery(data_set.val.data, names, encoder) if gallery is None else gallery
                people = People(data_set.val.data, data_set.val.names, data_set.val.episodes, stages)
                probes, ink = embed_drawings(people.draw(), encoder, Protocol(stages, probe_set))
                embedded = Embedded(probes, ink, gallery, names)
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez(path.with_suffix(".tmp.npz"), probes=probes, ink=ink, gallery=gallery)
                path.with_suffix(".tmp.npz").replace(path)
            yield Result("model", title, "fine-tuned", encoder.dim, data_set.name, 0, probe_set, embedded)


def _read(path: Path, names: tuple[str, ...]) -> Embedded | None:
    try:
        with np.load(path) as kept:
            return Embedded(kept["probes"], kept["ink"], kept["gallery"], names)
    except (OSError, ValueError, KeyError, EOFError):
        return None
