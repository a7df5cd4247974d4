"""What a report trains and ranks: one job a system, seed, dimension and kind of drawing."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from training.evaluate import Embedded
from training.frozen import People
from training.report.study import DataSet, Result, Say
from training.systems import SYSTEMS
from training.variants import PROBE_SETS

DIMS: Final = (8, 16, 32, 64)
BY_DIM: Final = ("b4-as-released", "mgrl-corrected", "single-pass")
CROSSED: Final = ("mgrl-corrected", "single-pass")
QUICK: Final = ("single-pass",)
"""Systems whose features cost so little that they are ranked at the finished model's T and on every probe set."""


class Trainer(Protocol):
    """Trains a system on some people, or finds it trained, and embeds others with it."""

    @property
    def trunk(self) -> str:
        """What happens to the layers below the heads: "frozen", "fine-tuned", or "random" and frozen."""

    def embed(
        self,
        name: str,
        fit: People,
        val: People,
        distractors: People,
        seed: int,
        dim: int = 16,
        probe_set: str = "aligned",
    ) -> Embedded:
        """As `training.workshop.Workshop.embed`."""


@dataclass(frozen=True)
class Job:
    """One system, trained once and ranked once.

    Args:
        system: one of `SYSTEMS`.
        data_set: whose drawings are ranked.
        fit_on: data set to train on; another than `data_set` makes the probe set "cross".
        seed: of the training.
        dim: numbers in a region's embedding.
        probe_set: how the drawings are disturbed.
        stages: T of the drawings.
    """

    system: str
    data_set: DataSet
    fit_on: DataSet
    seed: int
    dim: int
    probe_set: str
    stages: int


def main_jobs(data_sets: Sequence[DataSet], systems: Sequence[str], seeds: int, model_stages: int) -> Iterator[Job]:
    """Table 1 and the robustness table: all systems and seeds at 16-d, then the disturbed and the crossed drawings."""
    for data_set in data_sets:
        own = data_set.fit.stages
        for name in systems:
            for stages in dict.fromkeys((model_stages, own) if name in QUICK else (own,)):
                for seed in range(seeds):
                    yield Job(name, data_set, data_set, seed, 16, "aligned", stages)
    for data_set in data_sets:
        for name in systems:
            disturbed = [probe_set for probe_set in PROBE_SETS if probe_set != "aligned"]
            for probe_set in disturbed if name in QUICK else ():
                yield Job(name, data_set, data_set, 0, 16, probe_set, data_set.fit.stages)
            for other in data_sets if name in CROSSED else ():
                # Splits may share people, as those of a cross-validation do: who was trained on says nothing here.
                if other != data_set and not {*other.fit.names} & {*data_set.val.names}:
                    yield Job(name, data_set, other, 0, 16, "aligned", data_set.fit.stages)


def dim_jobs(data_sets: Sequence[DataSet], systems: Iterable[str], seeds: int) -> Iterator[Job]:
    """Table 2: some systems and all seeds at several dimensions."""
    for data_set in data_sets:
        for name in systems:
            for dim in DIMS if name in BY_DIM else ():
                for seed in range(seeds):
                    yield Job(name, data_set, data_set, seed, dim, "aligned", data_set.fit.stages)


def run_jobs(trainer: Trainer, jobs: Iterable[Job], say: Say) -> Iterator[Result]:
    """The results of all jobs, in order."""
    for job in jobs:
        crossed = job.fit_on != job.data_set
        probe_set = "cross" if crossed else job.probe_set
        origin = f", trained on {job.fit_on.name}" if crossed else ""
        say(f"{job.system} on {job.data_set.name}{origin}, {job.dim}-d, {probe_set}, T = {job.stages}, seed {job.seed}")
        val = replace(job.data_set.val, stages=job.stages)
        embedded = trainer.embed(job.system, job.fit_on.fit, val, job.data_set.fit, job.seed, job.dim, job.probe_set)
        title = SYSTEMS[job.system].title
        yield Result(job.system, title, trainer.trunk, job.dim, job.data_set.name, job.seed, probe_set, embedded)
