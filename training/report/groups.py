"""Accuracy by group of people: who is found less often, and where the drawings are too few to say."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from indexer.errors import DataError
from indexer.table import Table

ATTRIBUTES: Final[Mapping[str, Mapping[int, str]]] = {
    "gender": {0: "male", 1: "female"},
    "hair": {0: "with hair", 1: "without hair"},
    "hair_color": {0: "brown hair", 1: "black hair", 2: "red hair", 3: "no hair colour", 4: "golden hair"},
    "earring": {0: "with earring", 1: "without earring"},
    "smile": {0: "smiling", 1: "not smiling"},
    "frontal_face": {0: "frontal, within 30 degrees", 1: "turned further"},
    "style": {0: "sketch style 0", 1: "sketch style 1", 2: "sketch style 2"},
}
"""Attribute of FS2K's annotations -> its values. Glasses and age are not annotated there."""

ANNOTATIONS: Final = "anno_train.json"
ENOUGH: Final = 20
"""Drawings that a group and all others must each have before they are compared."""

Floats = npt.NDArray[np.float64]


def read_attributes(data: Path) -> dict[str, Mapping[str, int]]:
    """Name, such as photo1/image0001 -> its attributes.

    Raises:
        DataError: there are no annotations, or they are malformed.
    """
    path = data / ANNOTATIONS
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {entry["image_name"]: {key: int(entry[key]) for key in ATTRIBUTES if key in entry} for entry in entries}
    except OSError as error:
        raise DataError(f"groups need FS2K's annotations, {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} must be a list of objects with image_name, as FS2K's is") from error


def group_table(
    ranked: Mapping[str, tuple[npt.NDArray[np.int64], Sequence[str]]], attributes: Mapping[str, Mapping[str, int]]
) -> Table:
    """One row a data set, attribute and value.

    Args:
        ranked: data set -> (drawings, stages) ranks, and the names of the drawings.
        attributes: of `read_attributes`.
    """
    rows: list[list[object]] = []
    for data_set, (ranks, names) in ranked.items():
        inverse, found = 100 * (1 / ranks).mean(axis=1), ranks[:, -1] <= 5
        for attribute, labels in ATTRIBUTES.items():
            values = np.array([attributes.get(name, {}).get(attribute, -1) for name in names])
            for value in sorted(set(values.tolist())):
                label = labels.get(value, f"{attribute} not annotated")
                rows.append([data_set, label, *_row(inverse, found, values == value)])
    return Table(
        "groups",
        "Accuracy by group",
        ["data set", "group", "drawings", "m@B", "m@B 95 %", "A@5", "A@5 95 %", "m@B against all others", "remark"],
        rows,
        f"Intervals: m@B bootstrap over drawings, A@5 Wilson's. Groups of fewer than {ENOUGH} drawings, or with fewer"
        " others, are counted and not compared. Of this many comparisons one in twenty leaves 0 out by chance alone."
        " The annotations are FS2K's and know neither glasses nor age; its skin colour is a measured chroma without"
        " lightness and says nothing about groups.",
    )


def _row(inverse: Floats, found: npt.NDArray[np.bool_], members: npt.NDArray[np.bool_]) -> list[Any]:
    own, others = inverse[members], inverse[~members]
    count, hits = len(own), int(found[members].sum())
    between = "{:.1f} to {:.1f}".format
    cells = [
        count,
        float(own.mean()),
        between(*mean_interval(own)),
        100 * hits / count,
        between(*wilson_interval(hits, count)),
    ]
    if count < ENOUGH or len(others) < ENOUGH:
        return [*cells, "", "too few to say anything" if len(others) else "there are no others"]
    low, high = difference_interval(own, others)
    remark = "lower than the others" if high < 0 else "higher than the others" if low > 0 else "no difference seen"
    return [*cells, f"{own.mean() - others.mean():+.1f} ({low:+.1f} to {high:+.1f})", remark]


def mean_interval(values: Floats, draws: int = 2000) -> tuple[float, float]:
    """95 % percentile bootstrap of a mean."""
    low, high = np.quantile(_means(values, np.random.default_rng(0), draws), [0.025, 0.975])
    return float(low), float(high)


def difference_interval(own: Floats, others: Floats, draws: int = 2000) -> tuple[float, float]:
    """95 % percentile bootstrap of the difference of two means, each drawn anew."""
    rng = np.random.default_rng(0)
    low, high = np.quantile(_means(own, rng, draws) - _means(others, rng, draws), [0.025, 0.975])
    return float(low), float(high)


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share, in percent; sound for few drawings and at 0 and 100 %.

    Source: Wilson, 1927.
    """
    z = 1.959964
    centre = (hits + z * z / 2) / (count + z * z)
    half = z * np.sqrt(hits * (count - hits) / count + z * z / 4) / (count + z * z)
    return 100 * float(centre - half), 100 * float(centre + half)


def _means(values: Floats, rng: np.random.Generator, draws: int) -> Floats:
    return np.asarray(values[rng.integers(len(values), size=(draws, len(values)))].mean(axis=1), np.float64)
