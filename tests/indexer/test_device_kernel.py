"""The Triton kernel without a GPU: interpreted on the CPU, and compiled for an H100 without being run."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'mgrl[train]' or 'mgrl[gpu]'")
triton = pytest.importorskip("triton", reason="needs Triton, which torch brings along on Linux")

from indexer.device_rows import Asked, DeviceRows, add_up  # noqa: E402
from indexer.regions import REGIONS  # noqa: E402

PRECISIONS = {"float16": "*fp16", "int8": "*i8"}

INTERPRETED = """
import numpy as np, torch
from indexer.device_kernel import add_up_fused
from indexer.device_rows import Asked, DeviceRows, add_up
from indexer.regions import REGIONS

rng = np.random.default_rng(0)
for photos, dim, precision, queries in (
    (1000, 16, "float16", 1), (1000, 16, "int8", 3), (700, 17, "float16", 3), (33, 5, "int8", 1), (1, 1, "float16", 2),
):
    rows = rng.normal(size=(photos, REGIONS, dim)).astype(np.float32)
    held = DeviceRows(torch.device("cpu"), precision, rows.mean(axis=0), 1024)
    held.append(rows)
    (chunk,) = held._chunks
    asked = Asked([0, 3, 13], torch.tensor([0, 3, 13], dtype=torch.int32), torch.randn(queries, REGIONS, dim),
        torch.rand(queries, REGIONS))
    asked.shares[0, 3] = 0
    taking = rng.random(photos) < 0.5
    for bits in (None, torch.from_numpy(np.packbits(taking, bitorder="little"))):
        plain, fused = torch.full((2, queries, photos), torch.nan)
        for function, out in ((add_up, plain), (add_up_fused, fused)):
            function(chunk, asked, bits, out)
        torch.testing.assert_close(fused, plain, rtol=2e-6, atol=0)
        there = torch.isfinite(fused).all(dim=0).numpy()
        assert (there == (True if bits is None else taking)).all()
print("same")
"""


SEARCHED = """
import numpy as np
from indexer import device_rows
from indexer.device_kernel import add_up_fused
from indexer.exact import exact_search
from indexer.granular import GranularIndex
from indexer.regions import REGIONS

calls = []
def counted(*arguments):
    calls.append(len(arguments[-1]))
    add_up_fused(*arguments)
device_rows._add_up_on = lambda device: counted

rng = np.random.default_rng(1)
rows = (rng.normal(size=(1, REGIONS, 16)) + 0.3 * rng.normal(size=(600, REGIONS, 16))).astype(np.float32)
rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
rows[50:60] = rows[40]
index = GranularIndex.build(rows, fused_from=1, shards=["cpu", "cpu"])
calls.clear()
inks, allowed = rng.random((9, REGIONS)) < 0.6, rng.random(600) < 0.5
for some in (None, allowed):
    there = np.arange(600) if some is None else np.flatnonzero(some)
    found = index.search_batch(rows[37:46], inks, 12, None, some)
    for probe, ink, (ids, distances) in zip(rows[37:46], inks, found, strict=True):
        expected, exactly = exact_search(rows[there], probe, ink, 12)
        assert (ids == there[expected]).all() and (distances == exactly).all()
assert calls == [9, 9], calls
print("same")
"""


@pytest.mark.parametrize("script", [INTERPRETED, SEARCHED], ids=["as plain torch", "a search as brute force"])
def test_the_kernel_adds_up_right(script: str) -> None:
    """In a process of its own: Triton decides when it is imported whether it interprets."""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "same\n", done.stderr


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("queries", [1, 5, 32])
@pytest.mark.parametrize("filtered", [False, True])
def test_the_kernel_compiles_for_an_h100(precision: str, queries: int, filtered: bool) -> None:
    """To machine code that reads eight or sixteen bytes at a time and keeps everything in registers."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from indexer.device_kernel import _add_up, tile

    numbers = dict.fromkeys(("count", "queries", "photos", "room", "out_stride"), "i32")
    pointers = {"codes": PRECISIONS[precision], "scales": "*fp16", "regions": "*i32", "bits": "*u8"}
    pointers |= dict.fromkeys(("probes", "shares", "out"), "*fp32")
    known = tile(16, queries) | {"scaled": precision == "int8", "filtered": filtered}
    names = _add_up.arg_names
    types = pointers | numbers | dict.fromkeys(known, "constexpr")
    source = ASTSource(
        fn=_add_up,
        signature={name: types[name] for name in names},
        constexprs={(names.index(name),): value for name, value in known.items()},
        # What Triton sees when it is called: torch's memory, and chunks of whole sixteens.
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in (*pointers, "room")},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert re.search(r"ld\.global\.v[24]\.b32", compiled.asm["ptx"])
    assert "sqrt" in compiled.asm["ptx"]
    assert not re.search(r"\.local", compiled.asm["ptx"])
    assert len(compiled.asm["cubin"]) > 1000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs torch with CUDA and a GPU")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_on_a_gpu_the_kernel_does_what_plain_torch_does(precision: str) -> None:
    from indexer.device_kernel import add_up_fused

    rng, device = np.random.default_rng(1), torch.device("cuda:0")
    rows = rng.normal(size=(5000, REGIONS, 16)).astype(np.float32)
    held = DeviceRows(device, precision, rows.mean(axis=0), 8192)
    held.append(rows)
    (chunk,) = held._chunks
    bits = torch.from_numpy(np.packbits(rng.random(5000) < 0.5, bitorder="little")).to(device)
    for queries in (1, 5, 32):  # each with another of the kernels that are compiled
        ids = torch.tensor([0, 3, 13], dtype=torch.int32, device=device)
        probes = torch.randn(queries, REGIONS, 16, device=device)
        asked = Asked([0, 3, 13], ids, probes, torch.rand(queries, REGIONS, device=device))
        plain, fused = torch.empty((2, queries, 5000), device=device)
        for function, out in ((add_up, plain), (add_up_fused, fused)):
            function(chunk, asked, bits, out)
        torch.testing.assert_close(fused, plain, rtol=2e-6, atol=0)
