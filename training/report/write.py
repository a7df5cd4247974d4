"""Writes the report's folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from indexer.page import page
from training.metrics import METRICS, bootstrap, found_by_share
from training.report.figures import calibration, curves, rank_distribution, rank_strips, weight_sweep, worst_cases
from training.report.study import Result
from training.report.tables import robustness, scores_of, table_1, table_2

INTRO = (
    "Every system was trained on the fit photos and drawings and ranked on the val drawings, all in one run. Rows with "
    "a frozen trunk train heads alone; the fine-tuned model was trained end to end before. A rank is an order of "
    "resemblance: a lead, never an identification."
)


def write_report(
    folder: Path, results: Sequence[Result], by_dim: Sequence[Result], manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Tables as Markdown and CSV, figures as SVG, one page, the manifest; and all figures as JSON values.

    Args:
        folder: made if it is not there.
        results: of 16-d systems and the finished model.
        by_dim: of systems at several dimensions, or none.
        manifest: what was run on what.

    Returns:
        What result.json holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = [table_1(results, alone=False), table_1(results, alone=True), robustness(results)]
    if by_dim:
        tables.insert(2, table_2(by_dim))
    else:  # one that is there is of other systems, seeds or data than the manifest will say
        for suffix in ("md", "csv"):
            (folder / f"table2.{suffix}").unlink(missing_ok=True)
    pictures, sweeps = _pictures(results)
    for table in tables:
        (folder / f"{table.name}.md").write_text(table.markdown(), encoding="utf-8")
        (folder / f"{table.name}.csv").write_text(table.csv(), encoding="utf-8")
    for name, _, svg in pictures:
        (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    shown = [(caption, svg) for _, caption, svg in pictures]
    (folder / "index.html").write_text(page("MGRL, evaluated", INTRO, tables, shown), encoding="utf-8")
    content = {
        "manifest": dict(manifest),
        "results": [_values(result) for result in (*results, *by_dim)],
        "sweeps": sweeps,
    }
    (folder / "result.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return content


def _pictures(results: Sequence[Result]) -> tuple[list[tuple[str, str, str]], dict[str, Any]]:
    pictures, sweeps = [], {}
    for data_set in dict.fromkeys(result.data_set for result in results):
        caption = f"Figure 4, {data_set}: performance by share of the sketch"
        pictures.append((f"figure4-{data_set}", caption, curves(results, data_set)))
        # The finished model comes first; where it was left out, the first system stands in.
        first = next(result for result in results if result.data_set == data_set and result.probe_set == "aligned")
        svg, sweeps[data_set] = weight_sweep(first)
        pictures.append((f"figure5-{data_set}", f"Figure 5, {data_set}: the weights of Eq. (3)", svg))
        pictures.append((f"calibration-{data_set}", f"{data_set}: how often the target is found", calibration(first)))
        pictures.append((f"ranks-{data_set}", f"{data_set}: ranks of the target", rank_distribution(first)))
        pictures.append((f"worst-{data_set}", f"{data_set}: the rank along the worst drawings", worst_cases(first)))
        pictures.append((f"strips-{data_set}", f"{data_set}: the rank along some drawings", rank_strips(first)))
    return pictures, sweeps


def _values(result: Result) -> dict[str, Any]:
    ranks, photos = result.embedded.ranks(), len(result.embedded.gallery)
    scores, alone = asdict(scores_of(result)), asdict(scores_of(result, alone=True))
    return {
        "system": result.system, "title": result.title, "trunk": result.trunk, "dim": result.dim,
        "data_set": result.data_set, "seed": result.seed, "set": result.probe_set, "stages": result.stages,
        "drawings": result.drawings, "gallery": photos, "seconds": round(result.embedded.seconds, 1),
        **{name: scores[name] for name in METRICS},
        "val_alone": {name: alone[name] for name in METRICS},
        "ceiling": scores["ceiling"], "intervals": bootstrap(ranks, photos),
        "found_by_share": found_by_share(ranks),
    }  # fmt: skip
