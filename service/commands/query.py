"""Search a running service with a sketch: a picture (PNG, JPEG, WebP) or a drawing (JSON with strokes).

Example:
    mgrl query sketch.png
    mgrl query drawing.json --live -k 5
    mgrl query sketch.png --recall 0.99        most of the true ranking, sooner, from a service with --approximate
    mgrl query sketch.png --where sex=female --where "age>=30" --where marks:scar
    mgrl query sketch.png --budget-ms 5        what can be found in 5 ms
    mgrl query sketch.png --gallery staff --weights 1 1 0.5 --save-thumbnails ./found --json found.json

A drawing is {"strokes": [{"points": [[x, y], ...], "width": 0.008}, ...]} with x to the right and y down, 0 to 1.
--where leaves out photos by what `mgrl ingest --metadata` stored. Given several times, all must hold:
  FIELD=VALUE,...   has this value, or one of several      FIELD!=VALUE,...  has none of them
  FIELD>=VALUE      number or date, at least               FIELD<=VALUE      at most
  FIELD:TAG         tags hold this one                     FIELD!:TAG        they do not
  photo_id=ID,...   these photos
Values are numbers, true or false, dates (2024-02-29), or text; text in double quotes is always text (badge="007").

A result is a lead, not an identification.
"""

import argparse
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from indexer.console import printable, write_json
from indexer.episode import Episode
from indexer.errors import ConfigError, QueryError, SketchError
from indexer.modes import EXACT, Approximate, Budget, Mode
from indexer.regions import GRANULARITIES
from service.answers import DEFAULT_K, Answer, CanvasState, RankedPhoto
from service.client import Client
from service.commands.credentials import add_credentials, credentials_of
from service.config import DEFAULT_ADDRESS, split_address
from service.where import filter_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mgrl query`."""
    parser.add_argument("sketch", metavar="SKETCH", type=Path, help="a picture, or a drawing (.json)")
    parser.add_argument("--address", default=DEFAULT_ADDRESS, help="HOST:PORT of the service (default: %(default)s)")
    parser.add_argument("--gallery", default="", help="which one (default: the only one that is served)")
    add_credentials(parser)
    parser.add_argument("--purpose", default="", help="what the search is for; some galleries require it")
    parser.add_argument("-k", type=int, default=DEFAULT_K, help="photos to return (default: %(default)s)")
    parser.add_argument(
        "--weights", metavar=("A", "B", "G"), type=float, nargs=3, default=(1.0, 1.0, 1.0),
        help="of the whole face, the 2x2 and the 3x3 regions (default: 1 1 1)",
    )  # fmt: skip
    parser.add_argument(
        "--where", metavar="CONDITION", action="append", default=[], help="only these photos take part, see above"
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--recall", metavar="SHARE", type=float, help="of the true ranking that is enough, 0 to 1 (default: exact)"
    )
    mode.add_argument("--budget-ms", metavar="MS", type=float, help="for the search, instead of an exact one")
    parser.add_argument("--live", action="store_true", help="send a drawing stroke by stroke, print after each")
    parser.add_argument("--save-thumbnails", metavar="DIR", type=Path, help="write the photos' thumbnails there")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="write the answers there, after each stroke if --live"
    )


def run(arguments: argparse.Namespace) -> int:
    """Search and print."""
    split_address(arguments.address)
    episode, picture = _read_sketch(arguments.sketch)
    options: dict[str, Any] = {
        "k": arguments.k,
        "weights": dict(zip(GRANULARITIES, arguments.weights, strict=True)),
        "include_thumbnails": arguments.save_thumbnails is not None,
        "mode": _mode(arguments),
        "filter": filter_of(arguments.where),
        "purpose": arguments.purpose,
    }
    answers = []
    with Client(arguments.address, credentials=credentials_of(arguments)) as client:
        if not arguments.live:
            strokes = None if episode is None else episode.strokes
            answer = client.search(arguments.gallery, strokes=strokes, raster=picture, **options)
            answers = [replace(answer, state=CanvasState(strokes=len(strokes or ())))]  # a search tells none
        elif episode is None:
            raise QueryError("--live needs a drawing with strokes (.json); a picture is searched at once, without it")
        else:
            for answer in _drawn_live(client, arguments.gallery, episode, options):
                print(_line(answer, len(episode.strokes)), flush=True)
                answers.append(answer)
    print("\n".join(_table(answers[-1])))
    write_json(arguments.json, {"answers": [_as_json(answer) for answer in answers]})
    try:
        if arguments.save_thumbnails:
            _save_thumbnails(arguments.save_thumbnails, answers[-1])
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename}: {error.strerror}") from error
    return 0


def _mode(arguments: argparse.Namespace) -> Mode:
    if arguments.recall is not None:
        return Approximate(arguments.recall)
    return EXACT if arguments.budget_ms is None else Budget(arguments.budget_ms)


def _read_sketch(path: Path) -> tuple[Episode | None, bytes | None]:
    if path.suffix.lower() == ".json":
        return Episode.load(path), None
    try:
        return None, path.read_bytes()
    except OSError as error:
        raise SketchError(f"cannot read the sketch {path}: {error.strerror}") from error


def _drawn_live(client: Client, gallery: str, episode: Episode, options: dict[str, Any]) -> Iterator[Answer]:
    with client.draw(gallery, **options) as drawing:
        for stroke in episode.strokes:
            yield drawing.strokes([stroke])


def _line(answer: Answer, strokes: int) -> str:
    head = f"stroke {answer.strokes:>{len(str(strokes))}}/{strokes}"
    if answer.no_ink:
        return f"{head}  no ink yet"
    if not answer.hits:
        return f"{head}  no photo passes"
    return f"{head}  " + "  ".join(printable(hit.photo_id) + _moved(hit) for hit in answer.hits[:5])


def _table(answer: Answer) -> list[str]:
    if answer.no_ink:
        return ["no ink yet: nothing in the sketch is dark enough, or light enough, against its paper"]
    if not answer.hits:
        return ["no photo passes the filter (--where)"]
    names = [printable(hit.photo_id) for hit in answer.hits]
    width = max(len("photo"), *map(len, names))
    lines = [f"{'rank':>4}  {'photo':<{width}}  {'distance':>8}  {'1x1':>6}  {'2x2':>6}  {'3x3':>6}"]
    for name, hit in zip(names, answer.hits, strict=True):
        parts = "  ".join(f"{hit.granularity_distances[granularity]:6.3f}" for granularity in GRANULARITIES)
        lines.append(f"{hit.rank:>4}  {name:<{width}}  {hit.distance:8.4f}  {parts}")
    spent = answer.timings
    lines.append(
        f"{answer.gallery_photos} photos ranked {_how(answer)}: raster "
        f"{spent.raster_ms:.1f} ms, encode {spent.encode_ms:.1f} ms, search {spent.search_ms:.1f} ms"
    )
    lines.append("a lead, not an identification")
    return lines


def _how(answer: Answer) -> str:
    if answer.exact:
        return "exactly"
    return f"approximately (none that was left out is closer than {answer.unseen_from:.3f})"


def _moved(hit: RankedPhoto) -> str:
    if hit.is_new:
        return " (new)"
    return f" ({hit.rank_change:+d})" if hit.rank_change else ""


def _as_json(answer: Answer) -> dict[str, Any]:
    return {
        "no_ink": answer.no_ink,
        "strokes": answer.strokes,
        "gallery_photos": answer.gallery_photos,
        "exact": answer.exact,
        "unseen_from": answer.unseen_from if math.isfinite(answer.unseen_from) else None,
        "inked_regions": np.flatnonzero(answer.ink).tolist(),
        "timings_ms": {
            "raster": answer.timings.raster_ms,
            "encode": answer.timings.encode_ms,
            "search": answer.timings.search_ms,
        },
        "hits": [
            {
                "photo_id": hit.photo_id,
                "rank": hit.rank,
                "distance": hit.distance,
                "granularity_distances": [hit.granularity_distances[granularity] for granularity in GRANULARITIES],
                "region_distances": hit.region_distances.tolist(),
                "rank_change": hit.rank_change,
                "is_new": hit.is_new,
            }
            for hit in answer.hits
        ],
    }


def _save_thumbnails(folder: Path, answer: Answer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for hit in answer.hits:
        # The rank keeps names apart that differ only in what is replaced.
        name = re.sub(r"[^\w.-]+", "_", hit.photo_id)[-80:]
        if hit.thumbnail:  # empty for photos that were ingested as embeddings
            (folder / f"{hit.rank:03d}-{name}.jpg").write_bytes(hit.thumbnail)
