"""Ingestion against the encoder alone, in one run: decoding, hashing, thumbnails and writing cost the difference.

Made-up JPEG photos are painted into a temporary folder and ingested, in turn with the encoder over decoded pixels:
one by one on each core, as ingestion does it, and in batches shared by all cores. rows: photos a second, and the
milliseconds of a core that a photo takes, medians of the rounds. ratios.ingest_over_encoder compares photos a second
with those of the faster encoder, ratios.ingest_over_encoder_in_batches with those of the other, and
ratios.encoder_over_ingest_cpu the milliseconds. Of several --sizes all but the first add their size to these names.

--while-serving also measures the milliseconds of a search while `mgrl ingest` runs at full speed into the gallery that
is searched: `mgrl serve` and whoever asks it have one core, the ingestion has another, in turn with nothing ingested.
ratios.p99_while_ingesting.

--embeddings also ingests so many made-up embeddings from an .npz in a process of its own: its peak memory, and the
gallery's bytes over those of vectors, ids and metadata.

examples:
  mgrl bench ingest --json ingest.json --html ingest.html
  mgrl bench ingest --sizes 256 1000 --rounds 9
  mgrl bench ingest --crop face
  mgrl bench ingest --rounds 0 --while-serving --gallery 20000
  mgrl bench ingest --rounds 0 --embeddings 1000000
"""

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from indexer.console import print_table, progress, write_json
from indexer.errors import ConfigError
from service.commands.framing import CROPS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `mgrl bench ingest`."""
    parser.add_argument("--photos", type=int, default=512, help="of one round (default %(default)s)")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[256], metavar="PX", help="sides of the photos (default: 256)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count, 0 for none (default %(default)s)")
    parser.add_argument("--workers", type=int, help="photos at once (default: one a core)")
    parser.add_argument("--processes", action="store_true", help="workers are processes, not threads")
    parser.add_argument("--batch", type=int, default=64, help="photos of a commit (default %(default)s)")
    parser.add_argument(
        "--crop", choices=CROPS, default="none", help="crop the photos as `mgrl ingest` does (default none)"
    )
    parser.add_argument("--while-serving", action="store_true", help="measure searches beside an ingestion, too")
    parser.add_argument(
        "--gallery", type=int, default=10_000, help="photos in the served gallery (default %(default)s)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=8.0,
        help="of searches in each of 3 turns, idle and beside (default %(default)s)",
    )
    parser.add_argument("--embeddings", type=int, metavar="N", help="ingest so many embeddings, too")
    parser.add_argument("--html", type=Path, help="write a page with tables, percentiles and bars in ms there, too")
    parser.add_argument("--json", type=Path, help="write rows and ratios there, too")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from indexer.bars import write_times
    from indexer.encoding import default_threads

    workers = default_threads() if args.workers is None else args.workers
    _check(args, workers)
    found: dict[str, Any] = {"bench": "ingest", "photos": args.photos, "rounds": args.rounds, "workers": workers}
    found |= {"batch": args.batch, "processes": args.processes, "crop": args.crop, "rows": {}, "ratios": {}}
    times: dict[str, list[float]] = {}
    if args.rounds:
        for size_px in args.sizes:
            times |= _rates(args, size_px, workers, found)
    if args.while_serving:
        times |= _beside(args, found)
    if args.embeddings:
        _embeddings(args, found)
    print_table("ratios", ["ratio", ""], [[name, ratio] for name, ratio in found["ratios"].items()])
    write_times(args.html, f"ingest, {args.photos} photos a round, {workers} workers", times, found["ratios"])
    write_json(args.json, found)
    return 0


def _rates(args: argparse.Namespace, size_px: int, workers: int, found: dict[str, Any]) -> dict[str, list[float]]:
    """Fill in the photos a second; the milliseconds a photo of every round."""
    from service.bench.ingesting import Rates, medians

    with TemporaryDirectory(prefix="mgrl-bench-") as folder, progress("timing", args.rounds, "rounds") as show:
        rates = Rates(Path(folder), size_px, args.photos, workers, args.batch, args.processes, args.crop)
        rounds = rates.rounds(args.rounds, show)
    rows, ratio = medians(rounds)
    kind = "processes" if args.processes else "threads"
    title = f"{args.photos} photos of {size_px} px, {workers} {kind}, median of {args.rounds} rounds"
    print_table(title, ["row", "photos/s or ms"], [[name, rate] for name, rate in rows.items()])
    suffix = "" if size_px == args.sizes[0] else f"_{size_px}px"
    found["rows"] |= {f"{name}{suffix}": rate for name, rate in rows.items()}
    found["ratios"][f"ingest_over_encoder{suffix}"] = ratio
    found["ratios"][f"ingest_over_encoder_in_batches{suffix}"] = rows["ingest"] / rows["encoder_in_batches"]
    if not args.processes:
        found["ratios"][f"encoder_over_ingest_cpu{suffix}"] = rows["encoder_cpu_ms"] / rows["ingest_cpu_ms"]
    spent = {name: [r[name] if name.endswith("_ms") else 1000 / r[name] for r in rounds] for name in rows}
    return {f"{name.removesuffix('_ms')} a photo{suffix}": each for name, each in spent.items()}


def _beside(args: argparse.Namespace, found: dict[str, Any]) -> dict[str, list[float]]:
    """Fill in the searches' percentiles; their milliseconds."""
    from service.bench import ingesting
    from service.bench.people import Drawings
    from service.bench.target import make_galleries, own_target

    ours, other = ingesting.require_two_cores()
    before = os.sched_getaffinity(0)
    drawings, paints = Drawings(0), ingesting.Paints.mix(256)
    spent: dict[str, list[float]] = {"idle": [], "ingesting": []}
    rates = []
    with TemporaryDirectory(prefix="mgrl-bench-") as folder:
        served = make_galleries(Path(folder), 1, args.gallery)
        try:
            os.sched_setaffinity(0, {ours})
            with own_target(served, args.gallery) as target:
                for turn in range(3):
                    # More than a core encodes in that time, so that the job does not end before.
                    photos = Path(folder) / f"photos{turn}"
                    paints.write(photos, int(130 * args.seconds) + 200, seed=turn + 1)
                    spent["idle"] += ingesting.idle_search_ms(target, drawings, args.seconds)
                    beside, rate = ingesting.search_ms_while_ingesting(target, drawings, photos, other, args.seconds)
                    spent["ingesting"] += beside
                    rates.append(rate)
        finally:
            os.sched_setaffinity(0, before)
    rows = {
        name: {f"p{share}": ingesting.percentile(times, share) for share in (50, 99)} for name, times in spent.items()
    }
    title = f"a search of {args.gallery} photos, one core; {min(rates):.0f} to {max(rates):.0f} photos/s on another"
    cells = [[name, len(spent[name]), row["p50"], row["p99"]] for name, row in rows.items()]
    print_table(title, ["ms", "searches", "p50", "p99"], cells)
    found["search_ms"], found["ingested_per_s"] = rows, rates
    for share in ("p50", "p99"):
        found["ratios"][f"{share}_while_ingesting"] = rows["ingesting"][share] / rows["idle"][share]
    return {f"search, {name}": each for name, each in spent.items()}


def _embeddings(args: argparse.Namespace, found: dict[str, Any]) -> None:
    from service.bench.ingesting import embeddings_cost

    with TemporaryDirectory(prefix="mgrl-bench-") as folder:
        cost = embeddings_cost(Path(folder), args.embeddings, 16)
    print_table(f"{args.embeddings} embeddings of 14 x 16 from an .npz", ["", ""], [[k, v] for k, v in cost.items()])
    found["embeddings"] = cost | {"photos": args.embeddings}
    found["ratios"]["disk_over_vectors_and_metadata"] = cost["over_vectors_and_metadata"]


def _check(args: argparse.Namespace, workers: int) -> None:
    embeddings = 1 if args.embeddings is None else args.embeddings
    least = {"photos": args.photos, "batch": args.batch, "workers": workers, "gallery": args.gallery}
    for name, number in (least | {"embeddings": embeddings}).items():
        if number < 1:
            raise ConfigError(f"--{name} must be at least 1, got {number}")
    if args.rounds < 0 or not args.seconds > 0 or min(args.sizes) < 16:
        raise ConfigError("--rounds must be at least 0, --seconds above 0 and --sizes at least 16")
