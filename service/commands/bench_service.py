"""A service under load: people who draw, each on times of their own, at any address or at a service made for it.

The load is open: strokes are due at times set beforehand, about two a second with pauses, whether or not the service
keeps up, and a latency counts from the moment at which its stroke was due. A drawing that is refused in overload comes
back when it was told to. Without --address a `mgrl serve` is started over made-up galleries.

rows: one load each; p50 to p99.9 and max in ms, strokes answered a second, strokes that shared a newer one's ranking
(skipped), drawings refused (shed), errors, and how late this tool itself sent (tool_late_p99; where that is not a few
ms, the tool was the bottleneck). ratios: p50 and p99 of a stroke over gRPC with one session, over the in-process time
of raster, encode and search, timed in turn (a service of our own only).

Needs the extra: pip install 'mgrl[bench]'.

examples:
  mgrl bench service --sessions 10 --seconds 30 --json service.json
  mgrl bench service --find-capacity --target-p99-ms 250 --picture capacity.svg
  mgrl bench service --address search.example:50051 --ca ca.pem --key-file bench.key --sessions 50
  mgrl bench service --photos 10000 --sessions 4 --overload 3
  mgrl bench service --photos 1000 --idle-sessions 2000
"""

import argparse
import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from indexer.console import print_table, progress, write_json
from indexer.errors import ConfigError
from service.commands.credentials import add_credentials, credentials_of

_COLUMNS = ("sessions", "strokes_per_s", "p50", "p90", "p99", "p99.9", "max", "skipped", "shed", "errors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `mgrl bench service`."""
    parser.add_argument("--address", metavar="HOST:PORT", help="a service that runs (default: one is started)")
    parser.add_argument("--purpose", default="", help="of every drawing, where its galleries want to know one")
    parser.add_argument("--metrics", metavar="URL", default="", help="its metrics page, to read its memory")
    parser.add_argument("--photos", type=int, default=100_000, help="in each made-up gallery (default %(default)s)")
    parser.add_argument("--galleries", type=int, default=1, help="made-up galleries (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="keep the made-up galleries there (default: a temporary folder)")
    parser.add_argument(
        "--serve", metavar="OPTION", action="append", default=[], help="one more option of `mgrl serve`, as --serve=-x"
    )
    parser.add_argument("--sessions", type=int, default=10, help="drawings at once (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of every load (default %(default)s)")
    parser.add_argument("--per-s", type=float, default=2.0, help="strokes a second of each (default %(default)s)")
    parser.add_argument(
        "--schedule", choices=("people", "poisson", "fixed"), default="people", help="(default %(default)s)"
    )
    parser.add_argument("--connections", type=int, default=16, help="that the sessions share (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of times and drawings (default %(default)s)")
    parser.add_argument("--while-ingesting", action="store_true", help="photos are added meanwhile, 256 a second")
    parser.add_argument("--find-capacity", action="store_true", help="the most sessions that keep the target")
    parser.add_argument("--target-p99-ms", type=float, default=250.0, help="(default %(default)s)")
    parser.add_argument(
        "--overload", type=float, metavar="TIMES", help="then have so many times --sessions (or the capacity) ask"
    )
    parser.add_argument("--idle-sessions", type=int, metavar="N", help="memory of so many drawings that lie open")
    parser.add_argument("--soak", type=int, metavar="STROKES", help="memory over so many strokes")
    parser.add_argument(
        "--rounds", type=int, default=5, help="drawings for the ratios, 0 for none (default %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="write everything there, too")
    parser.add_argument("--html", type=Path, help="write a page with tables and percentiles over load there, too")
    parser.add_argument("--picture", type=Path, metavar="SVG", help="percentiles over load")
    add_credentials(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    _check(args)
    try:
        import hdrh.histogram  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError("the bench needs hdrhistogram; install it with: pip install 'mgrl[bench]'") from error
    found: dict[str, Any] = {"bench": "service"}
    found |= {
        n: getattr(args, n) for n in ("photos", "galleries", "seconds", "per_s", "schedule", "connections", "seed")
    }
    with _target(args) as target:
        found |= {"photos": target.photos, "galleries": len(target.galleries), "ready_s": target.ready_s}
        if target.ready_s is not None:
            print(f"from start to ready: {target.ready_s:.2f} s, {target.photos} photos")
        found |= _ratios(args, target)
        ingesting = target.ingesting() if args.while_ingesting else nullcontext()
        with ingesting, progress("measuring", None, "") as show:
            found |= asyncio.run(_loads(args, target, lambda notes: show(0, notes=notes)))
    _report(args, found)
    write_json(args.json, found)
    return 0


@contextmanager
def _target(args: argparse.Namespace) -> Iterator[Any]:
    from service.bench.target import make_galleries, own_target, running_target

    if args.address:
        yield running_target(args.address, args.metrics, credentials_of(args))
        return
    with ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(TemporaryDirectory(prefix="mgrl-bench-")))
        made = make_galleries(folder, args.galleries, args.photos)
        # Two thousand that begin at once would be refused, for the service cannot know that nobody will draw.
        unlimited = ["--set", "server.max_load=1e9", "--set", "server.max_wait_s=1e9"] if args.idle_sessions else []
        yield stack.enter_context(own_target(made, args.photos, [*unlimited, *args.serve]))


def _ratios(args: argparse.Namespace, target: Any) -> dict[str, Any]:
    from service.bench.in_process import over_in_process
    from service.bench.people import Drawings

    if target.folder is None or not args.rounds:
        return {}
    compared = over_in_process(target.address, target.folder, Drawings(args.seed), args.rounds)
    return {"one_session": compared["rows"], "ratios": compared["ratios"], "strokes_compared": compared["strokes"]}


async def _loads(args: argparse.Namespace, target: Any, told: Any) -> dict[str, Any]:
    from service.bench.load import Crowd, Load
    from service.bench.measure import find_capacity, memory_of_idle, overload, soak, step
    from service.bench.people import Drawings

    found: dict[str, Any] = {}
    load = Load(args.sessions, args.seconds, args.per_s, args.schedule, args.seed)
    by = credentials_of(args)
    crowd = Crowd(target.address, target.galleries, Drawings(args.seed), args.connections, by, args.purpose)
    carried = args.sessions
    try:
        if args.find_capacity:
            found["rows"], carried = await find_capacity(crowd, load, args.target_p99_ms, told)
            found["capacity_sessions"] = carried
        else:
            found["rows"] = [await step(crowd, load)]
        if args.overload:
            full = Load(max(1, carried), args.seconds, args.per_s, args.schedule, args.seed)
            found["overload"] = await overload(crowd, full, args.overload, args.target_p99_ms)
        if args.idle_sessions:
            found["idle"] = await memory_of_idle(crowd, target, args.idle_sessions)
        if args.soak:
            found["soak"] = await soak(crowd, target, load, args.soak, told)
    finally:
        await crowd.close()
    return found


def _report(args: argparse.Namespace, found: dict[str, Any]) -> None:
    from indexer.page import page, write_page
    from indexer.table import Table
    from service.bench.picture import picture, write_picture

    rows = found["rows"]
    title = f"strokes of {args.schedule}, {found['photos']} photos, ms from the moment they were due"
    print_table(title, _COLUMNS, [[row[name] for name in _COLUMNS] for row in rows])
    for name in ("one_session", "ratios", "overload", "idle", "soak"):
        for key, value in found.get(name, {}).items():
            shown = " ".join(f"{k} {v:.2f}" for k, v in value.items()) if isinstance(value, dict) else f"{value:.2f}"
            print(f"{name}.{key}: {shown}")
    if "capacity_sessions" in found:
        print(f"{found['capacity_sessions']} sessions keep p99 at {args.target_p99_ms:g} ms")
    if args.html:
        values = [[row[name] for name in _COLUMNS] for row in rows]
        caption = "Percentiles over load"
        pictures = [(caption, picture(rows, args.target_p99_ms, title))]
        tables = [Table("service", title, list(_COLUMNS), values, "One load a row.")]
        write_page(args.html, page("mgrl bench service", "A service under open load.", tables, pictures))
    if args.picture:
        write_picture(args.picture, rows, args.target_p99_ms, title)
        print(f"picture: {args.picture}")


def _check(args: argparse.Namespace) -> None:
    least = {"photos": 1, "galleries": 1, "sessions": 1, "connections": 1, "rounds": 0, "seed": 0}
    for name, number in least.items():
        if getattr(args, name) < number:
            raise ConfigError(f"--{name} must be at least {number}, got {getattr(args, name)}")
    for name in ("seconds", "per_s", "target_p99_ms"):
        if not getattr(args, name) > 0:
            raise ConfigError(f"--{name.replace('_', '-')} must be above 0, got {getattr(args, name)}")
    if args.overload is not None and not args.overload > 1:
        raise ConfigError(f"--overload must be above 1, got {args.overload}")
    for name in ("idle_sessions", "soak"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    if args.overload and args.idle_sessions:
        raise ConfigError("--idle-sessions lifts the limits that --overload tests; measure one after the other")
    if not args.address and (args.ca or args.certificate or args.key_file or args.purpose):
        raise ConfigError("keys, certificates and a purpose are for a service that runs; give its --address")
    if args.address and not args.metrics and (args.idle_sessions or args.soak):
        raise ConfigError("memory is read from the service's metrics; give their URL (--metrics)")
    if args.address and args.while_ingesting:
        raise ConfigError("--while-ingesting adds photos to galleries that the bench has made; leave --address out")
