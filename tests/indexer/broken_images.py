"""Thousands of broken and hostile images, the same for the same seed, and the child process that they are given to."""

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

CHILD = """
import json, struct, sys, time, warnings
warnings.simplefilter("ignore")
from indexer.errors import ImageError
from indexer.photos import read_photo
read = sys.stdin.buffer.read
while header := read(4):
    data = read(struct.unpack(">I", header)[0])
    started, result = time.process_time(), "RGB"
    try:
        result = read_photo(data).mode
    except ImageError as error:
        result = str(error)
    peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(json.dumps([result, time.process_time() - started, int(peak[0].split()[1]) << 10]), flush=True)
"""

_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


class Decoder:
    """A process of its own that decodes what it is given, so that what kills it is seen and not suffered."""

    def __enter__(self) -> "Decoder":
        self._child = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    def read(self, data: bytes) -> tuple[str, float, int]:
        """("RGB" or the reason, CPU seconds, peak memory of the process so far in bytes).

        Raises:
            EOFError: the process died.
        """
        assert self._child.stdin
        assert self._child.stdout
        try:
            self._child.stdin.write(struct.pack(">I", len(data)) + data)
            self._child.stdin.flush()
        except BrokenPipeError as error:
            raise EOFError(f"the decoder died: {self._child.wait()}") from error
        if not (line := self._child.stdout.readline()):
            raise EOFError(f"the decoder died: {self._child.wait()}")
        result, seconds, peak = json.loads(line)
        return result, seconds, peak


def broken_images(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(what it is, bytes): the hostile ones that are made by hand, then whole images broken at random."""
    hostile = hostile_images()
    yield from hostile.items()
    whole = whole_images()
    names = sorted(whole)
    for number in range(count - len(hostile)):
        rng = np.random.default_rng((seed, number))
        name = names[number % len(names)]
        data = bytearray(whole[name])
        for _ in range(int(rng.integers(1, 4))):
            breaking = _BREAKINGS[int(rng.integers(len(_BREAKINGS)))]
            data = breaking(data, whole[names[int(rng.integers(len(names)))]], rng)
        yield f"{name} {number}", bytes(data)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    # Copies: Pillow keeps a JPEG's settings with the image that it saved, and a TIFF trips over them.
    options |= {name: [each.copy() for each in options[name]] for name in ("append_images",) if name in options}
    image.copy().save(file, kind, **options)
    return file.getvalue()


@cache
def whole_images() -> dict[str, bytes]:
    """Small images of every format and mode that is read."""
    small = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    rgb = Image.fromarray(small).resize((96, 72), Image.Resampling.BICUBIC)
    rgba = rgb.copy()
    rgba.putalpha(Image.linear_gradient("L").resize(rgb.size))
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x8769] = 6, "a face", {0x9286: b"comment" * 9}
    frames = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    return {
        "jpeg": encoded(rgb, "JPEG"),
        "jpeg exif": encoded(rgb, "JPEG", exif=exif, icc_profile=bytes(300)),
        "jpeg progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg grey": encoded(rgb.convert("L"), "JPEG"),
        "jpeg cmyk": encoded(rgb.convert("CMYK"), "JPEG"),
        "mpo": encoded(rgb, "MPO", **frames),
        "png": encoded(rgb, "PNG"),
        "png alpha": encoded(rgba, "PNG", exif=exif),
        "png palette": encoded(rgb.quantize(32), "PNG", transparency=3),
        "png 16 bit": encoded(deep, "PNG"),
        "png 1 bit": encoded(rgb.convert("1"), "PNG"),
        "png moving": encoded(rgb, "PNG", **frames),
        "webp": encoded(rgb, "WEBP", exif=exif),
        "webp lossless": encoded(rgba, "WEBP", lossless=True),
        "webp moving": encoded(rgb, "WEBP", **frames),
        "gif": encoded(rgb.quantize(64), "GIF"),
        "gif moving": encoded(rgb, "GIF", **frames),
        "bmp": encoded(rgb, "BMP"),
        "bmp palette": encoded(rgb.quantize(16), "BMP"),
        "tiff": encoded(rgb, "TIFF"),
        "tiff lzw": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "tiff deflate": encoded(rgba, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": encoded(rgb, "TIFF", compression="jpeg"),
        "tiff fax": encoded(rgb.convert("1"), "TIFF", compression="group4"),
        "tiff 16 bit": encoded(deep, "TIFF", compression="packbits"),
        "tiff cmyk": encoded(rgb.convert("CMYK"), "TIFF"),
        "tiff pages": encoded(rgb, "TIFF", **frames),
    }


@cache
def hostile_images() -> dict[str, bytes]:
    """Images made to cost far more than they weigh, and what only looks like one."""
    flat = Image.new("RGBA", (6000, 4000))
    return {
        "nothing": b"",
        "a byte": b"\xff",
        "text": b"Dear diary, today I",
        **{f"the first bytes of a {kind}": magic for kind, magic in _FIRST_BYTES.items()},
        "png that claims 2^31 px": png(2**31 - 1, 2**31 - 1),
        "png that claims no px": png(0, 0),
        "png over the limit": png(8200, 8000),
        "png of 24 M transparent px": encoded(flat, "PNG", compress_level=1),
        "png of 24 M px of 16 bits": png(6000, 4000, bytes((6000 * 2 + 1) * 4000), depth=16, colour=0),
        "png with a text bomb": png(8, 8, chunks=[(b"zTXt", b"x\0\0" + zlib.compress(bytes(90_000_000), 1))]),
        "png with a profile bomb": png(8, 8, chunks=[(b"iCCP", b"x\0\0" + zlib.compress(bytes(90_000_000), 1))]),
        "png of a hundred thousand chunks": png(8, 8, chunks=[(b"teXt", b"a\0b")] * 100_000),
        "jpeg of 20,000 scans": scan_bomb(4000, 3000, 20_000),
        "jpeg of 63 M px": encoded(Image.new("L", (9000, 7000)), "JPEG"),
        "jpeg, progressive, of 23 M px": encoded(
            Image.new("RGB", (5600, 4200)), "JPEG", progressive=True, subsampling=0
        ),
        "webp of 12 M px": encoded(flat.crop((0, 0, 4000, 3000)), "WEBP", lossless=True, method=0),
        "webp over the limit": encoded(Image.new("1", (16_000, 1000)).convert("RGB"), "WEBP", method=0),
        "gif of a huge canvas": _gif(65_535, 65_535),
        "gif of a large canvas": _gif(4800, 4800),
        "tiff of one huge tile": tiff(64, 64, tile=(60_000, 60_000)),
        "tiff that is its own next page": tiff(8, 8, next_at=8),
        "tiff that claims a million samples": tiff(8, 8, samples=60_000),
        "bmp that claims 2^31 px": b"BM" + struct.pack("<IHHIIiiHH24x", 99, 0, 0, 54, 40, 2**31 - 1, -1, 1, 24),
        "bmp of 23 M px": encoded(Image.new("P", (5600, 4200)), "BMP"),
        "exif of random bytes": _with_exif(np.random.default_rng(1).bytes(900)),
        "exif that points at itself": _with_exif(b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIII", 0x8769, 4, 1, 8, 8)),
        "exif that claims gigabytes": _with_exif(b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIQ", 0x112, 3, 2**31, 8)),
    }  # fmt: skip


def png(
    width: int,
    height: int,
    pixels: bytes = bytes(100),
    *,
    depth: int = 8,
    colour: int = 2,
    chunks: list[tuple[bytes, bytes]] | None = None,
) -> bytes:
    """A PNG that claims width x height px and holds what it is given."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    middle = b"".join(chunk(*each) for each in chunks or [])
    return b"\x89PNG\r\n\x1a\n" + header + middle + chunk(b"IDAT", zlib.compress(pixels, 1)) + chunk(b"IEND", b"")


def scan_bomb(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan, a few hundred bytes of nothing, comes again and again."""
    data = encoded(Image.new("L", (width, height)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def tiff(width: int, height: int, *, tile: tuple[int, int] | None = None, next_at: int = 0, samples: int = 1) -> bytes:
    """A little-endian grey TIFF, of one deflated tile or one strip."""
    tags = [(256, width), (257, height), (258, 8), (259, 8 if tile else 1), (262, 1), (277, samples)]
    tags += [(322, tile[0]), (323, tile[1]), (324, 300), (325, 40)] if tile else [(273, 300), (278, height), (279, 64)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags))
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", next_at)
    return (b"II*\0\x08\0\0\0" + directory).ljust(300, b"\0") + zlib.compress(bytes(30_000)).ljust(64, b"\0")


def _gif(width: int, height: int) -> bytes:
    frame = encoded(Image.new("P", (8, 8)), "GIF")
    return frame[:6] + struct.pack("<HH", width, height) + frame[10:]


def _with_exif(exif: bytes) -> bytes:
    return encoded(Image.new("RGB", (24, 16), "white"), "JPEG", exif=b"Exif\0\0" + exif)


_FIRST_BYTES = {
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "webp": b"RIFF\xff\xff\xff\xffWEBPVP8X",
    "gif": b"GIF89a\xff\xff\xff\xff\xff",
    "tiff": b"MM\0*\xff\xff\xff\xff",
    "big tiff": b"II+\0\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
    "bmp": b"BM\xff\xff\xff\xff\0\0\0\0\x36\0\0\0",
}

Breaking = Callable[[bytearray, bytes, np.random.Generator], bytearray]


def _cut(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    return data[: int(rng.integers(len(data) + 1))]


def _flip(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    for at in rng.integers(len(data), size=int(rng.integers(1, 30))) if data else ():
        data[at] ^= 1 << int(rng.integers(8))
    return data


def _flip_header(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    for at in rng.integers(min(len(data), 120), size=int(rng.integers(1, 6))) if data else ():
        data[at] = int(rng.integers(256))
    return data


def _number(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    """A length, a size or an offset that is absurd."""
    value, width = _INTERESTING[int(rng.integers(len(_INTERESTING)))], int(rng.choice([1, 2, 4]))
    at = int(rng.integers(min(len(data), 400) + 1))
    order = "little" if rng.integers(2) else "big"
    data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, order)  # type: ignore[arg-type]
    return data


def _fill(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    start, stop = sorted(rng.integers(len(data) + 1, size=2).tolist())
    filler = rng.bytes(stop - start) if rng.integers(2) else bytes([int(rng.choice([0, 255]))]) * (stop - start)
    data[start:stop] = filler
    return data


def _drop(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    start = int(rng.integers(len(data) + 1))
    del data[start : start + int(rng.integers(1, 200))]
    return data


def _repeat(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    start, stop = sorted(rng.integers(len(data) + 1, size=2).tolist())
    data[stop:stop] = data[start:stop] * int(rng.integers(1, 20))
    return data


def _splice(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    return data[: int(rng.integers(len(data) + 1))] + other[int(rng.integers(len(other))) :]


_BREAKINGS: tuple[Breaking, ...] = (_cut, _flip, _flip_header, _number, _number, _fill, _drop, _repeat, _splice)
