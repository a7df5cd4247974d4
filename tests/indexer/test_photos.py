import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from indexer.errors import ImageError
from indexer.photos import WEB_FORMATS, comes_smaller, read_photo
from tests.indexer.broken_images import encoded, scan_bomb, tiff
from tests.indexer.broken_images import png as png_header


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, size=(5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("MPO", {"quality": 95}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_each_format_is_read(kind: str, options: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "photo"
    path.write_bytes(encoded(picture(), kind, **options))
    found = read_photo(path)
    assert found.mode == "RGB"
    assert np.abs(np.asarray(found, int) - np.asarray(picture(), int)).mean() < (6 if kind == "GIF" else 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_flag_says(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(), kind, exif=exif, **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(np.asarray(read_photo(data)), np.asarray(expected))


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


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG", "TIFF", "MPO"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.allclose(read_photo(data).getpixel((4, 4)), (255, 0, 0), atol=3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_a_photo_of_more_than_12_million_pixels_is_halved_in_any_mode(mode: str) -> None:
    half = np.kron(np.uint8([[40, 200], [120, 90]]), np.ones((1500, 2250), np.uint8))
    image = Image.fromarray(half).resize((4500, 3000), Image.Resampling.NEAREST)
    image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    found = read_photo(encoded(image, kind, **({"compress_level": 1} if kind == "PNG" else {})))
    assert (found.size, found.mode) == ((2250, 1500), "RGB")
    corners = [found.getpixel(at)[0] for at in ((9, 9), (2240, 9), (9, 1490), (2240, 1490))]
    if mode != "1":
        assert np.allclose(corners, (40, 200, 120, 90), atol=3)


def test_a_large_jpeg_is_halved_while_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(4500, 3000), "JPEG")
    monkeypatch.setattr(Image.Image, "reduce", lambda *_: pytest.fail("decoded in full"))
    assert read_photo(data).size == (2250, 1500)


def test_a_jpeg_comes_smaller_where_few_pixels_are_enough() -> None:
    data = encoded(picture(1000, 900), "JPEG")
    assert [read_photo(data, least_px=least).size for least in (1000, 451, 450, 300, 112, 10)] == [
        (1000, 900), (1000, 900), (500, 450), (500, 450), (125, 113), (125, 113),
    ]  # fmt: skip
    assert [comes_smaller(data, least) for least in (451, 450)] == [False, True]
    whole = np.asarray(read_photo(data).reduce(2), float)
    assert np.abs(np.asarray(read_photo(data, least_px=450), float) - whole).max() < 8
    lossless = encoded(picture(1000, 900), "PNG")
    assert read_photo(lossless, least_px=10).size == (1000, 900)
    assert not comes_smaller(lossless, 10)


def test_a_photo_that_comes_smaller_is_turned_too() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = encoded(picture(400, 300), "JPEG", exif=exif)
    assert read_photo(data, least_px=100).size == (150, 200)


def test_truncated_files_are_refused_at_any_length() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        data = encoded(picture(), kind)
        for share in (0.02, 0.3, 0.9):
            with pytest.raises(ImageError, match=r"cut short or damaged|not a JPEG, PNG, WebP, GIF, BMP or TIFF"):
                read_photo(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"the JPEG image is cut short or damaged \(\d+ bytes\)"):
        read_photo(encoded(picture(), "JPEG")[:-50])


def test_what_is_no_photo_is_refused_with_its_first_bytes() -> None:
    kinds = "not a JPEG, PNG, WebP, GIF, BMP or TIFF image"
    with pytest.raises(ImageError, match=rf"{kinds} \(19 bytes, beginning with b'Dear dia'\)"):
        read_photo(b"Dear diary, today I")
    with pytest.raises(ImageError, match="the file is empty"):
        read_photo(b"")
    with pytest.raises(ImageError, match=kinds):
        read_photo(encoded(picture(), "PPM"))
    with pytest.raises(ImageError, match=r"not a JPEG, PNG or WebP image \(\d+ bytes, beginning with b'GIF8"):
        read_photo(encoded(picture(), "GIF"), formats=WEB_FORMATS)


def test_a_decompression_bomb_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="the PNG image has 8200x8000 pixels, the limit is 64000000; scale it down"):
        read_photo(png_header(8200, 8000))
    for side in (10_000, 40_000):  # above Pillow's own limit, and above twice that
        with pytest.raises(ImageError, match=f"a photo may have 64000000 pixels: .*{side**2} pixels"):
            read_photo(png_header(side, side))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_that_pillow_only_warns_about_is_refused() -> None:
    with pytest.raises(ImageError, match="the PNG image has 10000x10000 pixels, the limit is 64000000"):
        read_photo(png_header(10_000, 10_000))


def test_what_costs_more_than_it_shows_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = scan_bomb(2000, 1500, 400)
    wide = encoded(Image.new("L", (9, 3001)), "PNG")
    webp = encoded(Image.new("L", (4000, 3001)), "WEBP", method=0)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"the JPEG image has 4\d\d scans of 2000x1500 pixels; save it again"):
        read_photo(bomb)
    with pytest.raises(ImageError, match="the TIFF image has tiles of 60000x60000 pixels, the limit is 24000000"):
        read_photo(tiff(64, 64, tile=(60_000, 60_000)))
    with pytest.raises(ImageError, match="the PNG image has 5000x5000 pixels, the limit is 24000000"):
        read_photo(png_header(5000, 5000))
    with pytest.raises(ImageError, match="the WEBP image has 4000x3001 pixels, the limit is 12000000"):
        read_photo(webp)
    with pytest.raises(ImageError, match="the image may have 3000 px a side, got 9x3001"):
        read_photo(wide, max_side_px=3000)


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ImageError, match="the image holds floating-point numbers; save it with 8 or 16 bits"):
        read_photo(encoded(Image.new("F", (8, 8), 0.5), "TIFF"))


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
