"""Nothing is left behind of a job that is killed: not the processes that it started, either."""

import os
import signal
import subprocess
import sys

import pytest

_INGESTION = """
from indexer.preparing import EncodingProcesses
from tests.conftest import PixelEncoder
with EncodingProcesses(PixelEncoder, 2) as started:
    started._pool.submit(abs, 1).result()
    print("begun", flush=True)
    input()
"""

_POOL = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from indexer.children import end_with_parent
with ProcessPoolExecutor(2, get_context("spawn"), end_with_parent) as pool:
    pool.submit(abs, 1).result()
    print("begun", flush=True)
    input()
"""


@pytest.mark.parametrize("program", [_INGESTION, _POOL])
def test_processes_of_a_pool_end_with_the_one_that_started_them(program: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            process.kill()
            process.communicate(timeout=60)  # to the end of what the others could write to
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
