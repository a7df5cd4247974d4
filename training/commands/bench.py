"""Time what a newcomer would doubt, each in one run against something known.

`mgrl bench stroke`: one stroke, in process, against the released MGRL encode.
`mgrl bench search`: exact search of a large gallery against reading its vectors once, and against FAISS alone.
`mgrl bench peers`: the same ten photos asked of vector databases and of SQL.
`mgrl bench ingest`: ingestion against the encoder alone; its options are its own, `mgrl bench ingest --help`.
`mgrl bench service`: a service under load; its options are its own, `mgrl bench service --help`.

examples:
  mgrl bench stroke --photos 100000 --rounds 20 --json stroke.json
  mgrl bench search --photos 1000000 --json search.json
  mgrl bench search --photos 10000000 --no-lists --device cuda
  mgrl bench peers --photos 100000 --peers mgrl duckdb pgvector --json peers.json
"""

import argparse
from pathlib import Path

_STROKE = """One stroke as the service handles it, in process, against the released MGRL encode.

It draws one more stroke on a half finished canvas, encodes it and searches a gallery. The released encode is the
paper's network (whole image at 299 px and thirteen crops at 170 px through Inception-V3) in PyTorch eager mode: it
needs the `train` extra. Its speed does not depend on its weights; --weights only loads real ones.
"""

_SEARCH = """Exact top 10 of a large gallery, in turn with what to hold it against.

`read` adds up all float32 vectors once on the same threads: what any search that looks at them must take.
`14_lists` is one FAISS flat list of 100 per inked region, fused; `concatenated` is FAISS's inner product over all
regions' rows in a row, the best thousand refined; neither is exact. `approximate` asks for a recall of 0.99 and
`budget_2ms` for what two milliseconds find. The vectors lie as embeddings of faces do (indexer/face_like.py); their
statistics are printed. Needs the `fast` extra.

rows: milliseconds of a search with 14 and with --inked regions inked, alone, filtered to 1 % of the photos, and of
a whole batch of --batch searches. recalls: share of the true ten of each row that is not exact.

--larger times exact and approximate search of so many photos in turn with those of --photos, both over files in the
temporary folder (ten million take 9 GB there). --open makes a gallery folder and times opening it (5 GB for a
million). --check compares so many random queries with brute force, over galleries of 1 to 100,000 photos.
"""

_PEERS = """Top 10 under Eq. (3) with all regions inked, asked of others, each as well as it can be asked to.

How says training/peers.py. Each is timed in turn with ours; `share` is how many of the true top ten (brute force in
float64) it returns. The vectors lie as embeddings of faces do. A peer that is not installed, or fails, has a row that
says why; the extra `peers` installs all of them. Their data lies in a temporary folder and is removed, their servers
are stopped.
"""

_RECALL = 0.99
_BRUTE_FORCED = 2
_CHECKED_PHOTOS = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `mgrl bench`."""
    benches = parser.add_subparsers(dest="bench", required=True, metavar="BENCH")
    stroke = benches.add_parser(
        "stroke",
        description=_STROKE,
        help="one stroke against the released MGRL encode",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stroke.add_argument("--photos", type=int, default=10_000, help="photos in the gallery (default %(default)s)")
    stroke.add_argument("--model", type=Path, help="ONNX file of `mgrl export` (default: the model that is shipped)")
    stroke.add_argument("--weights", type=Path, help="Inception-V3 as safetensors for the released network")
    search = benches.add_parser(
        "search",
        description=_SEARCH,
        help="exact search against reading the vectors once",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    search.add_argument("--photos", type=int, default=1_000_000, help="photos in the gallery (default %(default)s)")
    search.add_argument("--dim", type=int, default=16, help="numbers per region (default %(default)s)")
    search.add_argument("--inked", type=int, default=5, help="inked regions of the second rows (default %(default)s)")
    search.add_argument("--batch", type=int, default=32, help="queries that share a scan (default %(default)s)")
    search.add_argument("--threads", type=int, help="threads of search and baselines (default: all cores)")
    search.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where to search (default %(default)s)"
    )
    search.add_argument(
        "--check", type=int, default=100, help="random queries to compare with brute force (default %(default)s)"
    )
    search.add_argument("--larger", type=int, metavar="PHOTOS", help="a second, larger size, to see how time grows")
    search.add_argument("--open", action="store_true", help="time the opening of a gallery folder, too")
    search.add_argument(
        "--no-lists", action="store_true", help="leave the FAISS lists out; they hold the vectors again"
    )
    peers = benches.add_parser(
        "peers",
        description=_PEERS,
        help="the same job on vector databases and in SQL",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    peers.add_argument("--photos", type=int, default=100_000, help="photos in the gallery (default %(default)s)")
    peers.add_argument("--peers", nargs="+", metavar="PEER", help="which of them (default: all)")
    peers.add_argument(
        "--threads", type=int, help="threads of ours and of each peer that can be told (default: all cores)"
    )
    for bench in (stroke, search, peers):
        bench.add_argument("--rounds", type=int, default=15, help="rounds that count (default %(default)s)")
        bench.add_argument("--html", type=Path, help="write a page with tables, percentiles and bars there, too")
        bench.add_argument("--json", type=Path, help="write rows (ms) and ratios there, too")


def run(args: argparse.Namespace) -> int:
    """Run the bench and print rows and ratios."""
    status: int = {"stroke": _stroke, "search": _search, "peers": _peers}[args.bench](args)
    return status


def _stroke(args: argparse.Namespace) -> int:
    from indexer.bars import write_times
    from indexer.console import print_table, write_json
    from indexer.encoding import DEFAULT_MODEL, OnnxEncoder
    from training.bench import StrokePath, medians, released_encode, times_in_turn

    _require_positive(args, "photos", "rounds")
    path = StrokePath(OnnxEncoder.open(args.model or DEFAULT_MODEL), args.photos)
    times = times_in_turn(
        {
            "raster": path.raster,
            "encode": path.encode,
            "search": path.search,
            "stroke": path.whole,
            "released_encode": released_encode(args.weights),
        },
        args.rounds,
    )
    rows = medians(times)
    ratios = {"stroke_over_released_encode": rows["stroke"] / rows["released_encode"]}
    title = f"one stroke, {args.photos} photos, median of {args.rounds} rounds"
    print_table(title, ["step", "ms"], [[name, ms] for name, ms in rows.items()])
    write_times(args.html, title, times, ratios)
    print(f"stroke / released encode: 1/{1 / ratios['stroke_over_released_encode']:.1f}")
    write_json(
        args.json, {"bench": "stroke", "photos": args.photos, "rounds": args.rounds, "rows": rows, "ratios": ratios}
    )
    return 0


def _search(args: argparse.Namespace) -> int:
    from indexer.bars import write_times
    from indexer.console import print_table, write_json
    from indexer.encoding import default_threads
    from indexer.errors import ConfigError
    from indexer.regions import REGIONS
    from training.bench import medians, times_in_turn
    from training.bench_scale import compare_sizes, growth, opening_s, short
    from training.bench_search import SearchBench, ratios
    from training.exactness import differences

    threads = default_threads() if args.threads is None else args.threads
    _require_positive(args, "photos", "rounds", "batch")
    if args.check < 0:
        raise ConfigError(f"--check must be at least 0, got {args.check}")
    if args.larger is not None and args.larger <= args.photos:
        raise ConfigError(f"--larger must be more than --photos, got {args.larger} and {args.photos}")
    if threads < 1 or args.dim < 2 or not 1 <= args.inked <= REGIONS:
        raise ConfigError(
            f"--threads must be at least 1, --dim at least 2 and --inked 1 to {REGIONS}, "
            f"got {threads}, {args.dim} and {args.inked}"
        )
    bench = SearchBench.build(args.photos, args.dim, args.inked, args.batch, threads, args.device)
    times = times_in_turn(bench.jobs(with_lists=not args.no_lists), args.rounds)
    rows = medians(times)
    held, recalls = ratios(rows, args.inked, args.batch), bench.recalls(with_lists=not args.no_lists)
    wrong = bench.differences(_BRUTE_FORCED) + differences(args.check, min(args.photos, _CHECKED_PHOTOS))
    statistics = bench.statistics
    del bench  # the vectors, four times
    sizes: dict[int, dict[str, float]] = {}
    if args.larger is not None:
        sizes = compare_sizes([args.photos, args.larger], args.dim, args.rounds, _RECALL)
        held |= growth(sizes)
    if args.open:
        held[f"open_{short(args.photos)}_s"] = opening_s(args.photos, args.dim)
    where = f"{threads} threads" if args.device == "cpu" else args.device
    title = f"top 10 of {args.photos} photos, dim {args.dim}, {where}, median of {args.rounds} rounds"
    print_table(title, ["row", "ms", "recall"], [[name, ms, recalls.get(name, "")] for name, ms in rows.items()])
    if sizes:
        columns = ["exact", "approximate", "recall", "bytes_a_photo"]
        print_table("sizes", ["photos", *columns], [[n, *(of[name] for name in columns)] for n, of in sizes.items()])
    write_times(args.html, title, times, held)
    print_table("ratios", ["ratio", ""], [[name, ratio] for name, ratio in held.items()])
    print(f"{wrong} searches of {args.check} and {2 * _BRUTE_FORCED} differ from brute force")
    print(f"median distances: {statistics}")
    settings = {name: getattr(args, name) for name in ("photos", "dim", "inked", "batch", "rounds", "device", "check")}
    write_json(
        args.json,
        {"bench": "search", **settings, "threads": threads, "rows": rows, "ratios": held, "recalls": recalls}
        | {"sizes": sizes, "differences_from_brute_force": wrong, "statistics": statistics},
    )
    return 0


def _peers(args: argparse.Namespace) -> int:
    from indexer.bars import write_times
    from indexer.console import print_table, progress, write_json
    from indexer.encoding import default_threads
    from indexer.errors import ConfigError
    from training.bench_peers import K, PeerBench
    from training.peers import PEERS

    threads = default_threads() if args.threads is None else args.threads
    names = list(dict.fromkeys(args.peers or PEERS))
    if unknown := [name for name in names if name not in PEERS]:
        raise ConfigError(f"--peers knows {', '.join(PEERS)}, got {', '.join(unknown)}")
    _require_positive(args, "photos", "rounds")
    if args.photos < K or threads < 1:
        raise ConfigError(f"--photos must be at least {K} and --threads at least 1, got {args.photos} and {threads}")
    bench, rows = PeerBench.build(args.photos, args.rounds + 1, threads), []
    with progress("timing", len(names), "peers") as show:
        for row in bench.rows(names, args.rounds):
            rows.append(row)
            show(len(rows), notes=row.peer)
    title = f"top {K} of {args.photos} photos, {threads} threads, median of {args.rounds} rounds"
    cells = [["" if cell is None else cell for cell in (r.peer, r.ms, r.over_ours, r.share, r.load_s)] for r in rows]
    print_table(title, ["peer", "ms", "over ours", "share of the true", "load s"], cells)
    write_times(
        args.html,
        title,
        {row.peer: [row.ms] for row in rows if row.ms is not None},
        {f"{row.peer} over ours": row.over_ours for row in rows if row.over_ours is not None},
    )
    for row in rows:
        print(f"{row.peer}: {row.failure or row.versions}")
    write_json(
        args.json,
        {"bench": "peers", "photos": args.photos, "rounds": args.rounds, "threads": threads}
        | {"rows": [row.as_json() for row in rows]}
        | {"ratios": {f"{row.peer}_over_mgrl": row.over_ours for row in rows if row.over_ours is not None}},
    )
    return 0


def _require_positive(args: argparse.Namespace, *names: str) -> None:
    from indexer.errors import ConfigError

    if wrong := [name for name in names if getattr(args, name) < 1]:
        raise ConfigError(f"--{wrong[0]} must be at least 1, got {getattr(args, wrong[0])}")
