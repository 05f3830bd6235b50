"""Every format, orientation and kind of pixel comes out as the right upright 8-bit RGB."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from models.decode import FORMATS, decode_image, peek_size, read_header
from models.decode.orientation import turn_back, turn_upright
from tests.models.decode.pictures import (
    LIMITS,
    encode,
    insert_png_chunks,
    largest_difference,
    make_picture,
    orient,
    png_chunk,
    rgb,
    tiff_directory,
)

ORIENTED_FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"]
ALL_FORMATS = [*ORIENTED_FORMATS, "GIF", "BMP"]


def test_every_accepted_format_is_tested_here() -> None:
    assert sorted(entry.name.upper() for entry in FORMATS) == sorted(ALL_FORMATS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ORIENTED_FORMATS)
def test_orientation_is_undone_as_pillow_does(image_format: str, orientation: int) -> None:
    data = encode(make_picture(), image_format, exif=orient(orientation))
    expected = rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    decoded = decode_image(data, LIMITS)
    assert decoded.orientation == orientation
    assert largest_difference(decoded.pixels, expected) == 0
    assert peek_size(data) == (decoded.format, *expected.shape[:2])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_back_undoes_turning_upright(orientation: int) -> None:
    stored = rgb(make_picture())
    assert np.array_equal(turn_back(turn_upright(stored, orientation), orientation), stored)


@pytest.mark.parametrize("image_format", ALL_FORMATS)
def test_pixels_equal_pillows(image_format: str) -> None:
    data = encode(make_picture(), image_format)
    decoded = decode_image(data, LIMITS)
    assert largest_difference(decoded.pixels, rgb(Image.open(io.BytesIO(data)))) == 0
    assert decoded.pixels.flags.c_contiguous
    assert decoded.format.upper() == image_format


@pytest.mark.parametrize("subsampling", [0, 1, 2], ids=["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("is_progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("size", [(1, 1), (33, 31), (8, 200)], ids=str)
def test_jpeg_variants_equal_pillows(subsampling: int, is_progressive: bool, size: tuple[int, int]) -> None:
    data = encode(make_picture(*size), "JPEG", subsampling=subsampling, progressive=is_progressive)
    expected = rgb(Image.open(io.BytesIO(data)))
    assert largest_difference(decode_image(data, LIMITS).pixels, expected) <= 1


def test_jpeg_with_blemishes_is_decoded_all_the_same() -> None:
    data = encode(make_picture(), "JPEG")
    blemished = data[:20] + b"\x00\x01\x02" + data[20:]  # junk between two segments: libjpeg warns
    assert np.array_equal(decode_image(blemished, LIMITS).pixels, decode_image(data, LIMITS).pixels)


def test_jpeg_followed_by_another_file_is_decoded() -> None:
    data = encode(make_picture(), "JPEG")
    followed = data + b"\0\0ftypmp42" + b"\xff\xda" * 500  # a phone's moving picture
    assert np.array_equal(decode_image(followed, LIMITS).pixels, decode_image(data, LIMITS).pixels)


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
def test_cmyk_is_converted(image_format: str) -> None:
    picture = make_picture()
    data = encode(picture.convert("CMYK"), image_format)
    difference = decode_image(data, LIMITS).pixels.astype(int) - rgb(picture)
    assert np.abs(difference).mean() < 5  # JPEG's own loss; inverted inks would differ by 100


def test_grey_jpeg_has_three_equal_channels() -> None:
    pixels = decode_image(encode(make_picture().convert("L"), "JPEG"), LIMITS).pixels
    assert pixels.shape == (40, 60, 3)
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_high_byte(image_format: str) -> None:
    deep = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60) * 27
    pixels = decode_image(encode(Image.fromarray(deep), image_format), LIMITS).pixels
    assert np.array_equal(pixels[..., 0], deep >> 8)


def test_sixteen_bit_rgb_png_keeps_its_high_byte() -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (5, 7, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, body) for kind, body in chunks)
    assert np.array_equal(decode_image(data, LIMITS).pixels, (deep >> 8).astype(np.uint8))


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0, 1e9], ids=lambda top: f"white is {top:g}")
def test_float_tiff_is_scaled_to_its_white(top: float) -> None:
    values = np.linspace(0, top, 40 * 60, dtype=np.float32).reshape(40, 60)
    pixels = decode_image(encode(Image.fromarray(values), "TIFF"), LIMITS).pixels
    assert largest_difference(pixels[..., 0], np.rint(values / top * 255).astype(np.uint8)) <= 1


def test_nan_and_negative_floats_are_black() -> None:
    values = np.array([[np.nan, -5.0, np.inf, 1.0]], dtype=np.float32)
    pixels = decode_image(encode(Image.fromarray(values), "TIFF"), LIMITS).pixels
    assert pixels[0, :, 0].tolist() == [0, 0, 0, 255]


@pytest.mark.parametrize(
    ("mode", "image_format"),
    [("1", "PNG"), ("1", "TIFF"), ("1", "BMP"), ("L", "PNG"), ("P", "PNG"), ("P", "GIF"), ("P", "BMP"),
     ("LA", "PNG"), ("PA", "TIFF"), ("I", "TIFF")],
)  # fmt: skip
def test_mode_equals_pillows_conversion(mode: str, image_format: str) -> None:
    picture = make_picture().convert("RGBA" if mode == "PA" else "L" if mode == "I" else "RGB").convert(mode)
    pixels = decode_image(encode(picture, image_format), LIMITS).pixels
    assert largest_difference(pixels, rgb(picture)) == 0


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_other_colour_spaces_come_back_close(mode: str) -> None:
    data = encode(make_picture().convert(mode), "TIFF")
    assert np.abs(decode_image(data, LIMITS).pixels.astype(int) - rgb(make_picture())).mean() < 3


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_alpha_is_composed_over_white(image_format: str) -> None:
    picture = make_picture()
    alpha = Image.fromarray(np.repeat(np.array([0, 255, 128], np.uint8), 20)[None].repeat(40, axis=0))
    picture.putalpha(alpha)
    finest: dict[str, dict[str, Any]] = {
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    pixels = decode_image(encode(picture, image_format, **finest.get(image_format, {})), LIMITS).pixels
    weight = np.asarray(alpha)[..., None] / 255
    expected = np.rint(rgb(make_picture()) * weight + 255 * (1 - weight)).astype(np.uint8)
    assert (pixels[:, :20] == 255).all()
    assert largest_difference(pixels, expected) <= (6 if image_format == "AVIF" else 1)


def test_transparent_palette_entry_is_white() -> None:
    picture = make_picture().convert("P")
    index = picture.getpixel((0, 0))
    for image_format in ("GIF", "PNG"):
        data = encode(picture, image_format, transparency=index)
        assert (decode_image(data, LIMITS).pixels[0, 0] == 255).all()


def test_transparent_colour_of_rgb_png_is_white() -> None:
    picture = make_picture()
    data = encode(picture, "PNG", transparency=picture.getpixel((0, 0)))
    pixels = decode_image(data, LIMITS).pixels
    assert (pixels[0, 0] == 255).all()
    assert np.array_equal(pixels[-1, -1], rgb(picture)[-1, -1])


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_animation_gives_its_first_frame(image_format: str) -> None:
    first, second = make_picture(seed=1), make_picture(seed=2)
    animated = encode(first, image_format, save_all=True, append_images=[second])
    pixels = decode_image(animated, LIMITS).pixels.astype(int)
    assert np.abs(pixels - rgb(first)).mean() < 12 < np.abs(pixels - rgb(second)).mean()


def test_exif_chunk_behind_the_pixels_of_a_png_counts() -> None:
    plain = encode(make_picture(), "PNG")
    exif = png_chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
    data = insert_png_chunks(plain, exif, at=len(plain) - 12)
    assert read_header(data).orientation == 6
    assert decode_image(data, LIMITS).pixels.shape == (60, 40, 3)


def test_damaged_exif_costs_the_orientation_only() -> None:
    data = encode(make_picture(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert decode_image(data, LIMITS).orientation == 1


def test_deep_grey_tiff_whose_zero_is_white_is_inverted() -> None:
    values = np.array([[0, 65535]], "<u2").tobytes()
    entries = [(256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 0),
               (273, 4, 1, 122), (277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, 4)]  # fmt: skip
    data = tiff_directory(entries)
    assert len(data) == 122
    assert decode_image(data + values, LIMITS).pixels[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize(
    ("compression", "is_big"),
    [("raw", False), ("raw", True), ("tiff_lzw", False), ("tiff_adobe_deflate", False), ("packbits", False),
     ("jpeg", False)],
)  # fmt: skip
def test_tiff_variants_equal_pillows(compression: str, is_big: bool) -> None:
    data = encode(make_picture(), "TIFF", compression=compression, big_tiff=is_big)
    assert data[:4] == (b"II+\0" if is_big else b"II*\0")
    expected = rgb(Image.open(io.BytesIO(data)))
    assert largest_difference(decode_image(data, LIMITS).pixels, expected) == 0
