"""Files that must be refused, cheaply and in our own words, and bombs that must not go off."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from models.decode import (
    BrokenImage,
    DecodeLimits,
    ImageError,
    TooManyBytes,
    TooManyPixels,
    UnsupportedFormat,
    decode_cost_bytes,
    decode_image,
)
from tests.models.decode.pictures import (
    LIMITS,
    encode,
    insert_png_chunks,
    make_picture,
    png_chunk,
    tiff_directory,
)

ALL_FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"hello, I am text", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"%PDF-1.7", b"\0" * 100,
     b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", b"P6 1 1 255 abc",
     b"8BPS\0\x01", b"PK\x03\x04"],
    ids=["nothing", "one byte", "text", "EPS", "PDF", "zeros", "SVG", "HEIC", "PPM", "PSD", "zip"],
)  # fmt: skip
def test_other_formats_are_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="send JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"):
        decode_image(data, LIMITS)


@pytest.mark.parametrize("image_format", ALL_FORMATS)
def test_truncated_file_is_broken_wherever_it_ends(image_format: str) -> None:
    data = encode(make_picture(90, 120), image_format)
    for length in {*range(16, 64, 3), *range(64, len(data) * 9 // 10, max(1, len(data) // 40))}:
        with pytest.raises((BrokenImage, UnsupportedFormat)) as caught:
            decode_image(data[:length], LIMITS)
        assert isinstance(caught.value, BrokenImage) or length < 40, length


@pytest.mark.parametrize("image_format", ALL_FORMATS)
def test_pixel_limit_is_checked_before_decoding(image_format: str) -> None:
    data = encode(Image.new("RGB", (2000, 1500)), image_format)
    tracemalloc.start()
    with pytest.raises(TooManyPixels) as caught:
        decode_image(data, DecodeLimits(max_pixels=2_999_999))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(caught.value) == "image has 3 MP, the limit is 3 MP (SERVE_MAX_PIXELS)"
    assert peak < 1 << 20
    assert decode_image(data, DecodeLimits(max_pixels=3_000_000)).pixels.shape == (1500, 2000, 3)


def test_byte_limit_is_checked_before_the_format() -> None:
    with pytest.raises(
        TooManyBytes, match=r"image has 21.5 MB, the limit is 20 MB \(SERVE_MAX_IMAGE_BYTES\)"
    ):
        decode_image(bytes(21_500_000), LIMITS)


def test_announced_size_alone_is_refused() -> None:
    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IEND", b"")
    with pytest.raises(TooManyPixels, match="40000 MP"):
        decode_image(data, LIMITS)


def test_image_above_pillows_own_limit_is_decoded_when_ours_allows_it() -> None:
    data = encode(Image.new("1", (20_000, 10_000)), "PNG")
    assert decode_image(data, DecodeLimits(max_pixels=200_000_000)).pixels.shape == (10_000, 20_000, 3)


def test_compressed_text_and_profiles_are_never_inflated() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    chunks = [
        png_chunk(b"zTXt", b"Comment\0\0" + bomb),
        png_chunk(b"iTXt", b"Comment\0\x01\0\0\0" + bomb),
        png_chunk(b"iCCP", b"profile\0\0" + bomb),
    ]
    data = insert_png_chunks(encode(make_picture(), "PNG"), *chunks * 20)
    tracemalloc.start()
    decode_image(data, LIMITS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < decode_cost_bytes(data)


def test_ten_thousand_text_chunks_do_not_matter() -> None:
    text = png_chunk(b"tEXt", b"Comment\0hello")
    data = insert_png_chunks(encode(make_picture(), "PNG"), *[text] * 10_000)
    assert decode_image(data, LIMITS).pixels.shape == (40, 60, 3)
    with pytest.raises(BrokenImage, match="chunks"):
        decode_image(insert_png_chunks(data, *[text] * 100_000), LIMITS)


def test_gif_of_a_hundred_thousand_comments_is_refused_or_read_at_once() -> None:
    data = encode(make_picture(), "GIF")
    start = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    comment = b"!\xfe\x01x\0"
    for count in (50_000, 200_000):
        commented = data[:start] + comment * count + data[start:]
        if count < 100_000:
            assert decode_image(commented, LIMITS).pixels.shape == (40, 60, 3)
        else:
            with pytest.raises(BrokenImage, match="blocks"):
                decode_image(commented, LIMITS)


def test_progressive_jpeg_of_a_thousand_scans_is_refused() -> None:
    data = encode(make_picture(), "JPEG", progressive=True)
    last_scan = data.rindex(b"\xff\xda")
    bomb = data[:last_scan] + data[last_scan:-2] * 1000 + data[-2:]
    with pytest.raises(BrokenImage, match="more than 100 scans"):
        decode_image(bomb, LIMITS)


def test_exif_directory_pointing_many_times_at_the_same_bytes_is_harmless() -> None:
    entries = b"".join(struct.pack("<HHII", tag, 7, 60_000, 0) for tag in range(300, 4000))
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 3700) + entries + b"\0" * 4
    data = encode(make_picture(), "JPEG")
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    tracemalloc.start()
    decode_image(data, LIMITS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_tiff_tag_outside_the_file_is_broken() -> None:
    with pytest.raises(BrokenImage, match="tag 273 points outside the file"):
        decode_image(tiff_directory([(256, 3, 1, 5), (257, 3, 1, 5), (273, 4, 1 << 20, 50)]), LIMITS)


def test_tiff_of_a_million_strips_is_refused() -> None:
    data = tiff_directory([(256, 3, 1, 5), (257, 3, 1, 5), (273, 4, 1 << 20, 8)]) + bytes(1 << 22)
    with pytest.raises(UnsupportedFormat, match="1048576 strips"):
        decode_image(data, LIMITS)


def test_run_length_bmp_is_bounded() -> None:
    data = bytearray(encode(Image.new("P", (3000, 2000)), "BMP"))
    data[30:34] = struct.pack("<I", 1)
    with pytest.raises(UnsupportedFormat, match="run-length coded BMP"):
        decode_image(bytes(data), LIMITS)


def test_twelve_bit_jpeg_is_unsupported() -> None:
    data = bytearray(encode(make_picture(), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(UnsupportedFormat, match="12-bit JPEG is not read here"):
        decode_image(bytes(data), LIMITS)


def test_empty_image_is_broken() -> None:
    data = bytearray(encode(make_picture(), "GIF"))
    with pytest.raises(BrokenImage):
        decode_image(bytes(data[:13]) + b";", LIMITS)


def test_a_failed_decode_leaves_nothing_behind() -> None:
    good = encode(make_picture(), "PNG")
    expected = decode_image(good, LIMITS).pixels
    with pytest.raises(BrokenImage):
        decode_image(good[:-40] + bytes(40), LIMITS)
    assert np.array_equal(decode_image(good, LIMITS).pixels, expected)


@pytest.mark.parametrize("image_format", ALL_FORMATS)
def test_message_holds_no_librarys_words(image_format: str) -> None:
    data = encode(make_picture(90, 120), image_format)
    with pytest.raises(ImageError) as caught:
        decode_image(data[: len(data) // 2], LIMITS)
    message = str(caught.value)
    assert message.startswith(image_format.replace("WEBP", "WebP"))
    for foreign in ("0x", "/", "<", "object", "PIL", "lib", "Error", "bytes not processed"):
        assert foreign not in message


@pytest.mark.parametrize("image_format", ALL_FORMATS)
def test_cost_estimate_covers_what_python_allocates(image_format: str) -> None:
    data = encode(make_picture(900, 1200), image_format)
    file = io.BytesIO(data)
    assert Image.open(file).size == (1200, 900)
    tracemalloc.start()
    decode_image(data, LIMITS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < decode_cost_bytes(data)
