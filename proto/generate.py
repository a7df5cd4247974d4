"""Writes the Python stubs beside the .proto files, or lints the contract; needs the `dev` extra, no network.

After editing a .proto file: `python proto/generate.py`. Elsewhere, to compare: `--out DIR`. `--lint` runs buf's lint
and asks whether clients of the contract that was released last, kept in `released.binpb`, still understand this one.
After a release, or to break with clients on purpose: `--release`. To compare with any git revision: `--breaking main`.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import google.rpc
import grpc_tools

HERE = Path(__file__).resolve().parent
RELEASED = HERE / "released.binpb"
IMPORTS = (Path(google.rpc.__path__[0]).parents[1], Path(grpc_tools.__path__[0]) / "_proto")
"""Where others' .proto files are found: googleapis-common-protos, and protobuf's own."""


def generate(out: Path) -> None:
    """Messages, gRPC stubs and their types for mypy, under `out`/mgrl/v1."""
    sources = _sources()
    _protoc(sources, f"--python_out={out}", f"--mypy_out=quiet:{out}")
    services = [source for source in sources if re.search(r"^service ", (HERE / source).read_text("utf-8"), re.M)]
    _protoc(services, f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}")
    # Regular packages: as a namespace package `mgrl` could be shadowed by any folder of that name.
    for package in (out / "mgrl", out / "mgrl" / "v1"):
        (package / "__init__.py").touch()


def lint() -> int:
    """Exit status of `buf lint`, and of `buf breaking` against the released contract."""
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "mgrl.binpb"
        # One image that holds every import.
        _protoc(_sources(), f"--descriptor_set_out={image}", "--include_imports", "--include_source_info")
        return _buf("lint", image) or _buf("breaking", image, "--against", RELEASED)


def release() -> None:
    """Keep the contract as it is now; what `lint` compares with from then on."""
    _protoc(_sources(), f"--descriptor_set_out={RELEASED}", "--include_imports")


def breaking(revision: str) -> int:
    """Exit status of `buf breaking` against the contract of a git revision."""
    with tempfile.TemporaryDirectory() as scratch:
        tar = subprocess.run(["git", "archive", revision], cwd=HERE, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", scratch], input=tar, check=True)
        images = []
        for name, root in (("new", HERE), ("old", Path(scratch))):
            images.append(Path(scratch) / f"{name}.binpb")
            _protoc(_sources(root), f"--descriptor_set_out={images[-1]}", "--include_imports", root=root)
        new, old = images
        return _buf("breaking", new, "--against", old)


def _buf(*arguments: str | Path) -> int:
    command = ["buf", *arguments, "--config", HERE / "buf.yaml"]
    return subprocess.run(command, env=_env(), check=False).returncode


def _sources(root: Path = HERE) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.glob("mgrl/**/*.proto"))


def _protoc(sources: list[str], *outputs: str, root: Path = HERE) -> None:
    includes = [f"-I{path}" for path in (root, *IMPORTS)]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *includes, *outputs, *sources], env=_env(), check=True)


def _env() -> dict[str, str]:
    # The plugins and buf lie beside the interpreter, whether or not its environment is activated.
    return {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


def main() -> int:
    """Generate or lint, as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="root folder of the stubs (default: beside the protos)")
    parser.add_argument("--lint", action="store_true", help="lint instead of generating")
    parser.add_argument("--release", action="store_true", help="keep the contract as what later ones must not break")
    parser.add_argument("--breaking", metavar="REVISION", help="compare with that git revision instead of generating")
    arguments = parser.parse_args()
    if arguments.breaking:
        return breaking(arguments.breaking)
    if arguments.lint:
        return lint()
    if arguments.release:
        release()
    else:
        generate(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
