"""A model card: tables that are computed, put into a template whose other words are written by hand.

A template is Markdown with placeholders: $name, $regions, $dim, $facts, $training, $accuracy, $robustness, $groups and
$calibration. `card.md` beside a model is its own template; `card.md` beside this file serves every other one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any, Final

import onnx

from indexer.encoding import OnnxEncoder
from indexer.errors import DataError
from indexer.regions import REGIONS
from indexer.table import Table
from training.data import split_hash
from training.episodes import ink_shares
from training.frozen import People
from training.metrics import METRICS, bootstrap, found_by_ink, score, stage_weights
from training.report.groups import group_table, read_attributes
from training.report.study import DataSet, Result
from training.report.tables import HEADINGS, PROBE_SETS_SAY, robustness

GENERAL_TEMPLATE: Final = Path(__file__).parent / "card.md"


def find_template(model: Path) -> Path:
    """The template of a model: its own where there is one."""
    own = model.with_name("card.md")
    return own if own.is_file() else GENERAL_TEMPLATE


def fill(template: Path, values: Mapping[str, str]) -> str:
    """The template with its placeholders filled.

    Raises:
        DataError: it cannot be read, or holds a placeholder that there is no value for.
    """
    try:
        return Template(template.read_text(encoding="utf-8")).substitute(values)
    except OSError as error:
        raise DataError(f"the template {template} cannot be read: {error.strerror}") from error
    except (KeyError, ValueError) as error:
        known = ", ".join(f"${name}" for name in values)
        raise DataError(f"the template {template} may hold {known}, and a dollar sign as $$; found {error}") from error


def card_values(
    model: Path, data_sets: Sequence[DataSet], results: Sequence[Result], record: Mapping[str, Any] | None
) -> dict[str, str]:
    """What the placeholders stand for.

    Args:
        model: the ONNX file.
        data_sets: that it was ranked on.
        results: of `run_model`, all of this model.
        record: run.json of its training, if it is at hand.
    """
    encoder = OnnxEncoder.open(model)
    aligned = [result for result in results if result.probe_set == "aligned"]
    longest = {result.data_set: result for result in sorted(aligned, key=lambda result: result.stages)}
    ranked = {
        name: (result.embedded.ranks(), result.embedded.names[: result.drawings]) for name, result in longest.items()
    }
    attributes = read_attributes(data_sets[0].val.data)
    return {
        "name": model.name,
        "regions": str(REGIONS),
        "dim": str(encoder.dim),
        "facts": _facts(model, encoder, data_sets),
        "training": _training(record),
        "accuracy": _section(_accuracy(results)),
        "robustness": _section(replace(robustness(results), remark=PROBE_SETS_SAY)),
        "groups": _section(group_table(ranked, attributes)),
        "calibration": _section(_calibration(data_sets, list(longest.values()))),
    }


def read_record(path: Path) -> dict[str, Any]:
    """The run.json of `mgrl train`.

    Raises:
        DataError: it is none.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        _training(record)  # told now, not after the measuring
        return dict(record)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not the run.json of `mgrl train`: {error}") from error


def _facts(model: Path, encoder: OnnxEncoder, data_sets: Sequence[DataSet]) -> str:
    graph = onnx.load(model).graph
    numbers = sum(int(onnx.numpy_helper.to_array(each).size) for each in graph.initializer)
    side = encoder.size_px
    facts = [
        ("SHA-256", f"`{encoder.model_hash}`"),
        ("Size", f"{model.stat().st_size / 2**20:.1f} MiB, {numbers / 1e6:.2f} million numbers"),
        ("Input `photos`", f"(n, {side}, {side}, 3) uint8 RGB; n may be 0"),
        ("Input `sketches`", f"(m, {side}, {side}) uint8, ink bright on 0; m may be 0"),
        ("Output `embeddings`", f"(n + m, {REGIONS}, {encoder.dim}) float32, unit rows in region-id order"),
    ]
    for data_set in data_sets:
        for part, people in (("fit", data_set.fit), ("val", data_set.val)):
            names = people.names
            found = f"{len(names)} people, sha256 of the names `{split_hash(names)}`"
            facts.append((f"{data_set.name}, `{part}`", found))
    return "\n".join(["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in facts)])


def _training(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "No record of its training was at hand when this card was written."
    settings = ", ".join(f"{key} {value}" for key, value in _flat(record["config"]))
    versions = ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())
    splits = [
        f"{part} {split['split']}: {split['pairs']} pairs, sha256 of the names `{split['sha256']}`"
        for part, listed in record.get("data", {}).items()
        for split in listed
    ]
    lines = [f"Settings: {settings}.", *splits, f"Versions: {versions}."]
    if record["validations"]:
        # Of its epoch are the weights that `mgrl train` keeps, and the first of several is the one kept.
        best = max(record["validations"], key=lambda validation: float(validation["m_at_b"]))
        plain = ", ".join(f"{key} {_number(value)}" for key, value in best.items() if not isinstance(value, dict))
        lines.append(f"{len(record['validations'])} validations, the best one: {plain}.")
    return "\n".join(f"- {line}" for line in lines)


def _flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings in settings, one level deep, by their own names."""
    flat: list[tuple[str, str]] = []
    for key, value in values.items():
        flat += _flat(value) if isinstance(value, dict) else [(key, str(value))]
    return flat


def _number(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _accuracy(results: Sequence[Result]) -> Table:
    rows: list[list[object]] = []
    for result in results:
        for photos in (len(result.embedded.gallery), result.drawings):
            ranks = result.embedded.ranks(photos=photos)
            scores = score(ranks, photos)
            low, high = bootstrap(ranks, photos)["m_at_b"]
            cells = [result.data_set, result.probe_set, result.drawings, result.stages, photos]
            rows.append([*cells, *(getattr(scores, name) for name in METRICS), f"{low:.1f} to {high:.1f}"])
    stages = sorted({result.stages for result in results}, reverse=True)
    best = " and ".join(f"{100 * stage_weights(t).mean():.2f} at T = {t}" for t in stages)
    return Table(
        "accuracy",
        "On all sets",
        ["data set", "set", "drawings", "T", "photos", *HEADINGS.values(), "m@B 95 %"],
        rows,
        "Percent. Drawings of the `val` people among all `val` and `fit` photos, then among those of `val` alone."
        f" The best possible w@mA and w@mB are {best}; values of different T do not compare. If `val` chose the epoch,"
        " its figures flatter slightly.",
    )


def _calibration(data_sets: Sequence[DataSet], results: Sequence[Result]) -> Table:
    rows: list[list[object]] = []
    for result in results:
        val = next(data_set.val for data_set in data_sets if data_set.name == result.data_set)
        people = People(val.data, val.names, val.episodes, result.stages)
        drawings = people.draw()
        found = found_by_ink(result.embedded.ranks(), ink_shares([drawings[name] for name in val.names]))
        photos = len(result.embedded.gallery)
        columns = zip(found["ink"], found["top_1"], found["top_5"], found["top_10"], strict=True)
        rows += [[result.data_set, photos, f"{ink:.0f} %", *found_at] for ink, *found_at in columns]
    return Table(
        "calibration",
        "How often the target is found, by share of the ink",
        ["data set", "photos", "ink drawn", "top 1", "top 5", "top 10"],
        rows,
        "Percent of the drawings, at the first stage that has so much of the finished drawing's ink.",
    )


def _section(table: Table) -> str:
    """The table without its heading: the template has its own."""
    return table.markdown().split("\n\n", 1)[1].rstrip("\n")
