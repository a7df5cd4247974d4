import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.errors import ImageError
from indexer.photos import read_photo


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, size=(5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height))


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width x height pixels and holds a handful of bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_each_format_is_read(kind: str, options: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "photo"
    path.write_bytes(encoded(picture(), kind, **options))
    found = read_photo(path)
    assert found.mode == "RGB"
    assert np.abs(np.asarray(found, int) - np.asarray(picture(), int)).mean() < 3


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    found = read_photo(encoded(picture(40, 30), "JPEG", exif=exif, quality=95))
    assert found.size == (30, 40)
    turned = np.asarray(picture(40, 30).rotate(-90, expand=True), int)
    assert np.abs(np.asarray(found, int) - turned).mean() < 3


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_malformed_exif_does_not_cost_the_photo() -> None:
    data = encoded(picture(), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff" + bytes(20))
    assert read_photo(data).size == (40, 30)


def test_transparent_pixels_become_white() -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((1, 2), (0, 0, 255, 255))
    found = read_photo(encoded(image, "PNG"))
    assert found.getpixel((0, 0)) == (255, 255, 255)
    assert found.getpixel((1, 2)) == (0, 0, 255)
    grey = Image.new("LA", (2, 2), (0, 0))
    assert read_photo(encoded(grey, "PNG")).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    assert read_photo(encoded(palette, "PNG", transparency=0)).getpixel((0, 0)) == (255, 255, 255)


def test_grey_cmyk_and_16_bit_photos_keep_their_brightness() -> None:
    grey = read_photo(encoded(Image.new("L", (8, 8), 77), "PNG"))
    assert grey.getpixel((0, 0)) == (77, 77, 77)
    deep = Image.fromarray(np.full((8, 8), 200 * 256 + 17, np.uint16))
    assert read_photo(encoded(deep, "PNG")).getpixel((3, 3)) == (200, 200, 200)
    printed = read_photo(encoded(Image.new("RGB", (8, 8), (250, 120, 10)).convert("CMYK"), "JPEG", quality=95))
    assert np.allclose(printed.getpixel((3, 3)), (250, 120, 10), atol=6)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert read_photo(data).getpixel((4, 4)) == (255, 0, 0)


def test_truncated_files_are_refused_at_any_length() -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        data = encoded(picture(), kind)
        for share in (0.02, 0.3, 0.9):
            with pytest.raises(ImageError, match=r"cut short or damaged|not a JPEG, PNG or WebP"):
                read_photo(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"the JPEG image is cut short or damaged \(\d+ bytes\)"):
        read_photo(encoded(picture(), "JPEG")[:-50])


def test_what_is_no_photo_is_refused_with_its_first_bytes() -> None:
    with pytest.raises(ImageError, match=r"not a JPEG, PNG or WebP image \(19 bytes, beginning with b'Dear dia'\)"):
        read_photo(b"Dear diary, today I")
    with pytest.raises(ImageError, match="the file is empty"):
        read_photo(b"")
    with pytest.raises(ImageError, match="not a JPEG, PNG or WebP image"):
        read_photo(encoded(picture(), "BMP"))


def test_a_decompression_bomb_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="the image has 8200x8000 pixels, the limit is 64000000; scale it down"):
        read_photo(png_header(8200, 8000))
    for side in (10_000, 40_000):  # above Pillow's own limit, and above twice that
        with pytest.raises(ImageError, match=f"a photo may have 64000000 pixels: .*{side**2} pixels"):
            read_photo(png_header(side, side))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_that_pillow_only_warns_about_is_refused() -> None:
    with pytest.raises(ImageError, match="the image has 10000x10000 pixels, the limit is 64000000"):
        read_photo(png_header(10_000, 10_000))


def test_a_file_too_long_to_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.png"
    path.write_bytes(bytes(2001))
    with pytest.raises(ImageError, match="the file has 2001 bytes, the limit is 2000"):
        read_photo(path, max_bytes=2000)


def test_a_missing_file_and_a_pipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="the file cannot be read: No such file"):
        read_photo(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        read_photo(tmp_path / "pipe.jpg")
