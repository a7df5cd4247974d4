import subprocess
import sys
from pathlib import Path

import pytest

from service.cli import main
from training.holding import held

pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")


def test_a_folder_that_another_process_trains_in_is_refused(
    tiny_fs2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, splits = tmp_path / "run", ["--fit", str(tiny_fs2k / "fit.txt"), "--val", str(tiny_fs2k / "val.txt")]
    hold = (
        "import pathlib, sys; from training.holding import held\nwith held(pathlib.Path(sys.argv[1])): input(print(1))"
    )
    command = [sys.executable, "-c", hold, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert main(["train", "--data", str(tiny_fs2k), *splits, "--out", str(out)]) == 1
        assert capsys.readouterr().err == (
            f"mgrl train: another process (pid {other.pid}) trains in {out}; wait until it has ended, or use another "
            "folder\n"
        )
        other.kill()
    with held(out):  # whatever ended it
        pass
