"""Rank drawings against a gallery of photos and print the paper's metrics.

Every photo of the split is a target: its sketch becomes a drawing of T stages, and at each stage the photo is ranked
among all photos of the split (and of --gallery). Encoder, fusion and rasteriser are the service's own.

examples:
  mgrl evaluate --data fs2k --split fs2k/splits/dataset2-val.txt --json result.json
  mgrl evaluate --data fs2k --split val.txt --gallery fit.txt --set aligned moved --stages 20 --html result.html
  mgrl evaluate --data fs2k --split val.txt --gallery fit.txt --groups
  mgrl evaluate --data fs2k --split val.txt --drawings saved/*.json --stages 20
  mgrl evaluate --data fs2k --split val.txt --model runs/mine/model.onnx --stages 20
  mgrl evaluate --data fs2k --split val.txt --gallery fit.txt --photos padded --crop face
"""

import argparse
import importlib
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.device import DEVICES, choose_device
from indexer.episode import DEFAULT_STAGES
from indexer.regions import GRANULARITIES
from training.variants import PROBE_SETS

PHOTOS = ("unchanged", "padded", "noisy")
CROPS = ("none", "face", "stray")

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from indexer.encoding import RegionEncoder
    from indexer.episode import Episode
    from indexer.framing import FaceFraming
    from training.data import Pair
    from training.evaluate import Embedded, Protocol
    from training.metrics import Scores
    from training.photo_sets import Place

    Rows = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `mgrl evaluate`."""
    parser.add_argument("--data", type=Path, required=True, help="folder of photos/ and sketches/, or in FS2K's layout")
    parser.add_argument("--split", type=Path, required=True, help="file with one name a line, such as photo1/image0001")
    parser.add_argument("--stages", type=int, default=DEFAULT_STAGES, help="stages of a drawing (default %(default)s)")
    parser.add_argument(
        "--gallery", type=Path, nargs="*", default=[], help="split files whose photos are ranked, too, as distractors"
    )
    parser.add_argument(
        "--photos",
        choices=PHOTOS,
        default="unchanged",
        help="lay the gallery's photos somewhere on a larger picture of one colour, or of noise (default unchanged)",
    )
    parser.add_argument(
        "--crop", choices=CROPS, default="none", help="crop the gallery's photos as `mgrl ingest` does (default none)"
    )
    parser.add_argument(
        "--centred", action="store_true", help="move each drawing so that its face lies in the middle of the canvas"
    )
    parser.add_argument("--model", type=Path, help="ONNX file of `mgrl export` (default: the model that is shipped)")
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where to encode (default: a GPU if there is one)"
    )
    parser.add_argument(
        "--set",
        dest="probe_sets",
        nargs="+",
        default=["aligned"],
        choices=tuple(PROBE_SETS),
        help="how the drawings are disturbed; several may be named (default aligned: not at all)",
    )
    parser.add_argument(
        "--weights",
        type=float,
        nargs=3,
        default=(1.0, 1.0, 1.0),
        metavar=("ALPHA", "BETA", "GAMMA"),
        help="weights of the 1x1, 2x2 and 3x3 distances (default 1 1 1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="decides drawing order and disturbance (default 0)")
    parser.add_argument(
        "--frames", type=Path, help="folder of drawings as frames, sketch0001_1.png ... as FS2K-SDE's, in place of ours"
    )
    parser.add_argument(
        "--drawings", metavar="FILE", type=Path, nargs="+", help="drawings saved by the sketchpad, in place of ours"
    )
    parser.add_argument(
        "--groups", action="store_true", help="also by sex, hair, earring, ... as DATA/anno_train.json says"
    )
    parser.add_argument("--html", type=Path, help="write a page with tables and curves there, too (train extra)")
    parser.add_argument("--episodes", type=Path, help="folder that keeps the drawings for the next time")
    parser.add_argument("--json", type=Path, help="write the result there, too")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    from indexer.console import print_table, progress, write_json
    from indexer.encoding import DEFAULT_MODEL, OnnxEncoder
    from indexer.errors import ConfigError
    from training.cases import read_cases
    from training.data import find_pair, find_photo, read_split, split_hash
    from training.evaluate import Embedded, Protocol, encode_gallery
    from training.photo_sets import PhotoReader

    weights = dict(zip(GRANULARITIES, args.weights, strict=True))
    protocols = [Protocol(args.stages, name, args.seed, weights) for name in dict.fromkeys(args.probe_sets)]
    if args.frames and args.drawings:
        raise ConfigError("--frames and --drawings both say what was drawn; name one of them")
    if args.drawings and args.centred:
        raise ConfigError("--centred moves drawings by their sketches, and saved drawings have none; leave it out")
    if args.frames and args.probe_sets != ["aligned"]:
        raise ConfigError("frames are pictures and cannot be disturbed as drawings are; leave out --set")
    if args.frames and args.centred:
        raise ConfigError("frames are pictures and cannot be moved as drawings are; leave out --centred")
    encoder = OnnxEncoder.open(args.model or DEFAULT_MODEL, device=choose_device(args.device))
    split = read_split(args.split)
    cases = read_cases(args.drawings, split, args.stages) if args.drawings else None
    names = split if cases is None else list(cases)
    gallery_names = list(dict.fromkeys([*names, *split, *(name for file in args.gallery for name in read_split(file))]))
    for name in gallery_names:
        find_photo(args.data, name)  # told now, not after the drawings
    pairs = [find_pair(args.data, name) for name in names] if cases is None else []
    by_group = _grouping(args.data) if args.groups else None
    write_page = _page_writer() if args.html else None
    reader = PhotoReader(args.data, args.photos, args.seed, _framing(args.crop, encoder))
    with progress("gallery", len(gallery_names)) as update:  # first: a photo that cannot be read is told in seconds
        gallery = encode_gallery(args.data, gallery_names, encoder, update, reader)
    if cases is not None:
        drawn = _embedded(cases, encoder, protocols)
    else:
        drawn = _frames(args, pairs, encoder) if args.frames else _drawings(args, pairs, encoder, protocols)
    found = {name: Embedded(*rows, gallery, tuple(gallery_names)) for name, rows in drawn.items()}
    sets = {name: _measure(embedded, weights, len(split)) for name, embedded in found.items()}
    for name, (scores, alone, values) in sets.items():
        stages = found[name].probes.shape[1]
        columns, rows = _summary(scores, alone, values["intervals"], len(split), len(gallery_names))
        print_table(f"{len(names)} drawings, {stages} stages, {name}", columns, rows)
        print_table(f"by share of the drawing, {name}", *_curve(scores))
    _, _, first = next(iter(sets.values()))
    groups = by_group({name: (each.ranks(weights), names) for name, each in found.items()}) if by_group else {}
    write_json(args.json, {
        **first,
        "probes": len(names), "gallery": len(gallery_names),
        "set": next(iter(sets)), "seed": args.seed, "weights": list(args.weights),
        "photos": args.photos, "crop": args.crop, "centred": args.centred,
        "cropped": reader.cropped, "without_face": reader.without_face,
        "model": encoder.model_hash, "split_hash": split_hash(names), "gallery_hash": split_hash(gallery_names),
        **groups,
        "sets": {name: values for name, (_, _, values) in sets.items()},
    })  # fmt: skip
    if write_page:
        write_page(args.html, f"{args.split.stem}, model {encoder.model_hash[:12]}", found, sets, weights, len(split))
    return 0


def _grouping(data: Path) -> "Callable[[Mapping[str, tuple[npt.NDArray[np.int64], Sequence[str]]]], dict[str, Any]]":
    """Prints the table by group and gives it as JSON values; made first, so that missing annotations are told first."""
    from indexer.console import print_table
    from training.report.groups import group_table, read_attributes

    attributes = read_attributes(data)

    def by_group(ranked: "Mapping[str, tuple[npt.NDArray[np.int64], Sequence[str]]]") -> dict[str, Any]:
        table = group_table(ranked, attributes)
        print_table(table.title, table.columns, table.rows)
        return {"groups": [dict(zip(table.columns, row, strict=True)) for row in table.rows]}

    return by_group


def _page_writer() -> "Callable[..., None]":
    """What writes the page; made first, so that a missing package is told first."""
    importlib.import_module("training.report.figures")
    return _write_page


def _framing(crop: str, encoder: "RegionEncoder") -> "FaceFraming | None":
    from indexer.faces import FaceDetector
    from indexer.framing import FaceFraming

    return None if crop == "none" else FaceFraming(FaceDetector.open(), encoder.size_px, crop=crop)


def _places(pairs: "Sequence[Pair]") -> "dict[str, Place]":
    """Where the drawing of each pair belongs so that its face is in the middle."""
    from indexer.faces import FaceDetector
    from training.data import open_image
    from training.photo_sets import centre

    detector = FaceDetector.open()
    found = {pair.name: centre(open_image(pair.photo), detector) for pair in pairs}
    return {name: place for name, place in found.items() if place}


def _drawings(
    args: argparse.Namespace, pairs: "Sequence[Pair]", encoder: "RegionEncoder", protocols: "Sequence[Protocol]"
) -> "dict[str, Rows]":
    from indexer.console import progress
    from training.episodes import make_episodes

    places = _places(pairs) if args.centred else None
    with tempfile.TemporaryDirectory() as scratch, progress("drawings", len(pairs), "sketches") as update:
        episodes = make_episodes(pairs, args.episodes or Path(scratch), args.stages, args.seed, on_progress=update)
    return _embedded(episodes, encoder, protocols, places)


def _embedded(
    episodes: "Mapping[str, Episode]",
    encoder: "RegionEncoder",
    protocols: "Sequence[Protocol]",
    places: "Mapping[str, Place] | None" = None,
) -> "dict[str, Rows]":
    from indexer.console import progress
    from training.evaluate import embed_drawings

    drawn = {}
    for protocol in protocols:
        with progress(f"encoding {protocol.probe_set}", len(episodes), "drawings") as update:
            drawn[protocol.probe_set] = embed_drawings(episodes, encoder, protocol, update, places)
    return drawn


def _frames(args: argparse.Namespace, pairs: "Sequence[Pair]", encoder: "RegionEncoder") -> "dict[str, Rows]":
    import numpy as np

    from indexer.console import progress
    from indexer.errors import DataError
    from training.episodes import list_frames, read_frames
    from training.evaluate import embed_canvases

    frames = list_frames(args.frames)
    if twice := [stem for stem, count in Counter(pair.sketch.stem for pair in pairs).items() if count > 1]:
        raise DataError(
            f"several sketches of the split are named {twice[0]}, and frames are found by that name alone; evaluate "
            "one data set at a time"
        )
    if missing := [pair.sketch.stem for pair in pairs if pair.sketch.stem not in frames]:
        raise DataError(f"{args.frames} has no frames of {len(missing)} sketches of the split, such as {missing[0]}")
    lengths = {len(frames[pair.sketch.stem]): pair.sketch.stem for pair in pairs}
    if len(lengths) > 1:
        (few, one), *_, (many, other) = sorted(lengths.items())
        raise DataError(f"all drawings must have equally many frames, {one} has {few} and {other} has {many}")
    probes, inks = [], []
    with progress("encoding frames", len(pairs), "drawings") as update:
        for number, pair in enumerate(pairs):
            rows, ink = embed_canvases(read_frames(frames[pair.sketch.stem], encoder.size_px), encoder)
            probes.append(rows)
            inks.append(ink)
            update(number + 1)
    return {"frames": (np.stack(probes), np.stack(inks))}


def _measure(embedded: "Embedded", weights: Mapping[int, float], own: int) -> "tuple[Scores, Scores, dict[str, Any]]":
    """Scores among all photos and among the `own` ones of the split alone, and all figures as JSON values."""
    from training.metrics import METRICS, bootstrap, found_by_share, score

    photos = len(embedded.gallery)
    ranks = embedded.ranks(weights)
    scores, alone = score(ranks, photos), score(embedded.ranks(weights, own), own)
    curve = zip(scores.m_at_a_per_stage, scores.m_at_b_per_stage, strict=True)
    return scores, alone, {
        **{name: getattr(scores, name) for name in (*METRICS, "ceiling")},
        "stages": ranks.shape[1],
        "intervals": bootstrap(ranks, photos),
        "split_alone": {name: getattr(alone, name) for name in METRICS},
        "found_by_share": found_by_share(ranks),
        "per_stage": [{"stage": number + 1, "m_at_a": a, "m_at_b": b} for number, (a, b) in enumerate(curve)],
    }  # fmt: skip


def _summary(
    scores: "Scores", alone: "Scores", intervals: Mapping[str, tuple[float, float]], own: int, photos: int
) -> tuple[list[str], list[list[object]]]:
    from training.metrics import METRICS

    def row(label: str, of: "Scores") -> list[object]:
        return [label, *(getattr(of, name) for name in METRICS)]

    rows = [row(f"among {photos}", scores)]
    rows.append(["95 % interval", *("{:.1f}-{:.1f}".format(*intervals[name]) for name in METRICS)])
    if photos > own:
        rows.append(row(f"among {own}", alone))
    ceilings = [100.0, 100.0, scores.ceiling, scores.ceiling, 100.0, 100.0, 100.0]
    return ["photos", "m@A", "m@B", "w@mA", "w@mB", "A@1", "A@5", "A@10"], [*rows, ["best possible", *ceilings]]


def _curve(scores: "Scores") -> tuple[list[str], list[list[object]]]:
    """Ten stages at most: 10 %, 20 %, ... of the drawing."""
    stages = len(scores.m_at_b_per_stage)
    shown = sorted({max(1, round(stages * tenth / 10)) for tenth in range(1, 11)})
    rows: list[list[object]] = [
        [f"stage {stage}", scores.m_at_a_per_stage[stage - 1], scores.m_at_b_per_stage[stage - 1]] for stage in shown
    ]
    return ["stage", "rank percentile", "1 / rank"], rows


def _write_page(
    path: Path,
    title: str,
    found: "Mapping[str, Embedded]",
    sets: "Mapping[str, tuple[Scores, Scores, dict[str, Any]]]",
    weights: Mapping[int, float],
    own: int,
) -> None:
    from indexer.page import page, write_page
    from indexer.table import Table
    from training.report.figures import calibration, rank_distribution, rank_strips, stage_curves, worst_cases
    from training.report.study import Result
    from training.report.tables import worst_table

    split = title.partition(",")[0]
    results = [Result("model", "model", "fine-tuned", 0, split, 0, name, embedded) for name, embedded in found.items()]
    tables, pictures = [], [("The target along the drawing", stage_curves(results, weights))]
    for result in results:
        name, embedded = result.probe_set, result.embedded
        scores, alone, values = sets[name]
        columns, rows = _summary(scores, alone, values["intervals"], own, len(embedded.gallery))
        tables.append(
            Table(name, f"{len(embedded.probes)} drawings, {name}", columns, rows, "In per cent; m@A and m@B of ranks.")
        )
        tables.append(Table(f"{name}-share", f"By share of the drawing, {name}", *_curve(scores), "In per cent."))
        tables.append(worst_table(result, weights))
        pictures += [
            (f"{name}: how often the target is found", calibration(result, weights)),
            (f"{name}: ranks of the target", rank_distribution(result, weights)),
            (f"{name}: the rank along some drawings", rank_strips(result, weights)),
            (f"{name}: the rank along the worst drawings", worst_cases(result, weights)),
        ]
    write_page(path, page(title, "Ranks of the target along its drawing.", tables, pictures))
