"""The `mgrl` command: a table of subcommands, each loaded only when it is called.

Importing faiss or torch takes seconds; `mgrl --help` must not. The training subcommands are named here by module
path and loaded on call, so nothing of `service` imports `training`.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from indexer.console import check_writable, printable
from indexer.errors import GalleryHeldError, PublicError

COMMANDS: Final = {
    "demo": ("service.commands.demo", "watch a drawing find its face, on synthetic portraits or on your photos"),
    "ingest": ("service.commands.ingest", "encode photos of folders, archives, manifests and buckets into a gallery"),
    "delete": ("service.commands.delete", "delete photos from a gallery"),
    "forget": ("service.commands.forget", "delete photos and erase every trace of them at once"),
    "compact": ("service.commands.compact", "erase what was deleted, and tidy the files, while the gallery is served"),
    "reindex": ("service.commands.reindex", "encode a gallery's photos with another model, and switch to it"),
    "verify": ("service.commands.verify", "check every checksum and count of a gallery, and repair it"),
    "backup": ("service.commands.backup", "copy a gallery while it is served, verified"),
    "restore": ("service.commands.restore", "copy a backup back"),
    "usage": ("service.commands.usage", "what a gallery takes of its disk"),
    "sketchpad": ("service.commands.sketchpad", "draw in the browser (needs the `web` extra)"),
    "serve": ("service.commands.serve", "answer sketches over gRPC"),
    "config": ("service.commands.config", "check or show the settings of a service"),
    "retention": ("service.commands.retention", "forget the photos of a gallery that are too old"),
    "audit": ("service.commands.audit", "check or show the audit log of a service"),
    "keys": ("service.commands.keys", "make, list and revoke the API keys of a service"),
    "query": ("service.commands.query", "search a running service from the terminal"),
    "episodes": ("training.commands.episodes", "turn finished sketches into drawings, stroke by stroke"),
    "train": ("training.commands.train", "train the encoder (needs the `train` extra)"),
    "export": ("training.commands.export", "write a trained encoder as ONNX (needs the `train` extra)"),
    "evaluate": ("training.commands.evaluate", "m@A, m@B, w@mA, w@mB and A@k on a folder in FS2K's layout"),
    "report": ("training.commands.report", "reproduce the paper's tables and figures (needs the `train` extra)"),
    "card": ("training.commands.card", "write a model card: accuracy by set and group (needs the `train` extra)"),
    "bench": (
        "training.commands.bench",
        "time a stroke against the released MGRL encode, or a search against others",
    ),
    "bench ingest": ("service.commands.bench_ingest", "time ingestion against the encoder alone"),
    "bench service": ("service.commands.bench_service", "put a service under the load of people who draw"),
}
"""Name, of one word or two -> module with `add_arguments(parser)` and `run(args)`, and one line of help.

A module may have `parse(parser, arguments)`, too, where argparse's own way does not do.
"""

_EXTRAS: Final = {
    **dict.fromkeys(("torch", "torchvision", "safetensors", "onnx", "matplotlib"), "train"),
    **dict.fromkeys(("starlette", "uvicorn", "websockets"), "web"),
}
"""Module that the base install lacks -> extra that brings it."""

_RESULTS: Final = ("json", "html", "picture", "failed", "outcomes")
"""Options that name files to write: looked at before the work, which may take hours."""

_HELD: Final = 75
"""EX_TEMPFAIL of sysexits.h, which schedulers take for "try again"."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Returns:
        Exit status: 0 done, 1 the input was refused (the message says why), 2 wrong usage, 75 another process writes
        the gallery (the same may succeed later), 130 interrupted. A command may have more.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    name, *rest = arguments
    if rest and f"{name} {rest[0]}" in COMMANDS:
        name, rest = f"{name} {rest[0]}", rest[1:]
    if name == "--version":
        from importlib.metadata import version

        print(f"mgrl {version('mgrl')}")
        return 0
    if name not in COMMANDS:
        print(f"mgrl: no subcommand {name!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        command = importlib.import_module(COMMANDS[name][0])
        parser = argparse.ArgumentParser(
            f"mgrl {name}", description=command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_arguments(parser)
        parse = getattr(command, "parse", argparse.ArgumentParser.parse_args)
        parsed = parse(parser, rest)
        for result in filter(None, (getattr(parsed, option, None) for option in _RESULTS)):
            check_writable(result)
        status: int = command.run(parsed)
        sys.stdout.flush()
        return status
    except PublicError as error:
        _complain(name, error)
        return _HELD if isinstance(error, GalleryHeldError) else 1
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        _complain(name, f"needs {error.name}; install it with: pip install 'mgrl[{extra}]'")
        return 1
    except BrokenPipeError:
        # What reads our output is gone; the last flush at exit must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a folder that may not be written: the machine's, not a fault of ours
        where = f"{error.filename}: " if error.filename else ""
        _complain(name, f"{where}{error.strerror or error}")
        return 1
    except MemoryError as error:
        _complain(name, f"not enough memory: {error}")
        return 1
    except KeyboardInterrupt:
        _complain(name, "interrupted")
        return 130


def _complain(name: str, what: object) -> None:
    # It may hold the names of files.
    print(printable(f"mgrl {name}: {what}"), file=sys.stderr)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {help_line}" for name, (_, help_line) in COMMANDS.items())
    return f"""usage: mgrl COMMAND ...

Finds a face photo while its sketch is still being drawn. A result is a lead, never an identification.

{lines}

Start here:
  mgrl demo                                     a drawing against a synthetic gallery, nothing downloaded
  mgrl ingest ./gallery ./photos                encode a folder of photos
  mgrl serve ./gallery                          answer strokes on 127.0.0.1:50051
  mgrl sketchpad ./gallery                      draw in the browser
  mgrl query sketch.png                         search it with a picture of a sketch

`mgrl COMMAND --help` shows the options of each, with examples."""


if __name__ == "__main__":
    sys.exit(main())
