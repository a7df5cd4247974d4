"""What drawings take that nobody draws at."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from mgrl.v1 import search_pb2, search_pb2_grpc
from service.convert import stroke_to_wire
from tests.service.conftest import line, make_gallery

ROOT = Path(__file__).parents[2]
SESSIONS, WARMING, A_CONNECTION = 2_000, 50, 100
MOST_BYTES = 64 * 1024

SERVER = """
import signal, sys
from pathlib import Path
from indexer.gallery import Gallery
from service import patience, session
from tests.conftest import PixelEncoder
from tests.service.conftest import serving
session._REST_S, patience._LOOK_EVERY_S = 0.05, 0.5
with serving([Gallery.open(Path(sys.argv[1]))], PixelEncoder(), max_load=1e9, max_wait_s=1e9) as running:
    print(running.address, flush=True)
    signal.pause()
"""


async def draw(channel):
    """A drawing of one stroke, left open."""
    call = search_pb2_grpc.SketchSearchServiceStub(channel).Draw()
    stroke = search_pb2.DrawStrokes(strokes=[stroke_to_wire(line())])
    for request in (
        search_pb2.DrawRequest(sequence=1, begin=search_pb2.DrawBegin()),
        search_pb2.DrawRequest(sequence=2, strokes=stroke),
    ):
        await call.write(request)
        assert (await call.read()).HasField("result")
    return call


def resident_bytes(pid):
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(row.split()[1]) for row in rollup if row.startswith("Rss:")) * 1024


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="no /proc/PID/smaps_rollup here")
def test_two_thousand_idle_drawings_take_64_kib_each(tmp_path, encoder):
    make_gallery(tmp_path / "faces", encoder).close()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto")])}
    command = [sys.executable, "-c", SERVER, str(tmp_path / "faces")]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    async def grow(address):
        options = (("grpc.use_local_subchannel_pool", 1),)
        channels = [grpc.aio.insecure_channel(address, options) for _ in range(SESSIONS // A_CONNECTION)]
        calls = [await draw(channels[0]) for _ in range(WARMING)]
        await asyncio.sleep(4)  # they come to rest, and their memory goes back to the system
        before = resident_bytes(server.pid)
        calls += [await draw(channels[number // A_CONNECTION]) for number in range(SESSIONS)]
        await asyncio.sleep(4)  # they come to rest, and their memory goes back to the system
        after = resident_bytes(server.pid)
        assert len(calls) == SESSIONS + WARMING
        for channel in channels:
            await channel.close(None)
        return (after - before) / SESSIONS

    try:
        each = asyncio.run(grow(server.stdout.readline().strip()))
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    assert each < MOST_BYTES, f"{each / 1024:.1f} KiB each"
