import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli import main
from training.holding import held

pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")


@pytest.mark.parametrize(("name", "folder"), [("train", "."), ("report", "cache")])
def test_a_folder_that_another_process_trains_in_is_refused(
    name: str, folder: str, tiny_fs2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run" / folder
    fit, val = tiny_fs2k / "fit.txt", tiny_fs2k / "val.txt"
    splits = ["--fit", str(fit), "--val", str(val)]
    if name == "report":
        splits = ["--splits", str(tiny_fs2k), "--data-sets", "tiny"]
        shutil.copy(fit, tiny_fs2k / "tiny-fit.txt")
        shutil.copy(val, tiny_fs2k / "tiny-val.txt")
    hold = (
        "import pathlib, sys; from training.holding import held\nwith held(pathlib.Path(sys.argv[1])): input(print(1))"
    )
    command = [sys.executable, "-c", hold, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert main([name, "--data", str(tiny_fs2k), *splits, "--out", str(tmp_path / "run")]) == 1
        assert capsys.readouterr().err == (
            f"mgrl {name}: another process (pid {other.pid}) trains in {out}; wait until it has ended, or use another "
            "folder\n"
        )
        other.kill()
    with held(out):  # whatever ended it
        pass
