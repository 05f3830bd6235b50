"""What a caller may call an image arrives as the same pixels."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from models.decode import DecodeLimits, decode_image
from service.client.images import encode_image

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def decode(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_array_arrives_as_its_pixels() -> None:
    assert np.array_equal(np.asarray(decode(encode_image(PIXELS))), PIXELS)


def test_grey_array_arrives_as_its_pixels() -> None:
    assert np.array_equal(np.asarray(decode(encode_image(PIXELS[:, :, 0]))), PIXELS[:, :, 0])


def test_pillow_image_arrives_as_its_pixels() -> None:
    assert np.array_equal(np.asarray(decode(encode_image(Image.fromarray(PIXELS)))), PIXELS)


def test_grey_array_with_a_channel_arrives_as_its_pixels() -> None:
    assert np.array_equal(np.asarray(decode(encode_image(PIXELS[:, :, :1]))), PIXELS[:, :, 0])


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "RGBX", "RGBa", "PA", "La", "1", "P", "L"])
def test_pillow_image_of_any_mode_is_one_the_server_reads(mode: str) -> None:
    between = {"RGBa": "RGBA", "PA": "P", "La": "LA"}.get(mode)
    colours = Image.fromarray(PIXELS.repeat(2, axis=0))
    image = (
        ImageCms.profileToProfile(
            colours, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
        if mode == "LAB"
        else (colours.convert(between) if between else colours).convert(mode)
    )
    assert image is not None
    found = decode_image(encode_image(image), DecodeLimits()).pixels
    expected = image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode) if mode != "LAB" else "RGB")
    assert np.abs(found.astype(int) - np.asarray(expected.convert("RGB"))).max() <= 1


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_deep_grey_keeps_its_upper_bits(mode: str) -> None:
    values = np.arange(20, dtype=np.uint16).reshape(4, 5) * 3000
    image = Image.fromarray(values.astype(np.int32)).convert(mode)
    found = decode_image(encode_image(image), DecodeLimits()).pixels
    assert np.array_equal(found[..., 0], values >> 8)


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_floats_of_pillow_mean_what_the_server_takes_them_for(white: float) -> None:
    values = np.linspace(0, white, 20, dtype=np.float32).reshape(4, 5)
    found = decode_image(encode_image(Image.fromarray(values)), DecodeLimits()).pixels
    assert np.array_equal(found[..., 0], np.floor(values * (255 / white) + 0.5))


def test_whole_numbers_of_pillow_are_not_taken_for_16_bits() -> None:
    image = Image.fromarray(PIXELS[:, :, 0]).convert("I")
    found = decode_image(encode_image(image), DecodeLimits()).pixels
    assert np.array_equal(found[..., 0], np.rint(PIXELS[:, :, 0]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_opened_image_keeps_the_orientation_of_its_file(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG", exif=exif)
    sent = decode_image(encode_image(decode(file.getvalue())), DecodeLimits())
    assert sent.orientation == orientation
    assert np.array_equal(sent.pixels, decode_image(file.getvalue(), DecodeLimits()).pixels)
    turned = ImageOps.exif_transpose(decode(file.getvalue()))
    assert turned is not None
    for made in (turned, decode(file.getvalue()).convert("RGB")):
        assert np.array_equal(decode_image(encode_image(made), DecodeLimits()).pixels, np.asarray(made))


def test_file_and_bytes_are_sent_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(b"not looked at here")
    assert encode_image(path) == encode_image(str(path)) == encode_image(b"not looked at here")


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(PIXELS.astype(np.float32), id="floats"),
        pytest.param(PIXELS[0, 0], id="a vector"),
        pytest.param(np.zeros((2, 2, 2), np.uint8), id="two channels"),
        pytest.param(np.zeros((0, 5, 3), np.uint8), id="no rows"),
        pytest.param(np.zeros((5, 0), np.uint8), id="no columns"),
        pytest.param(np.zeros((3, 2), bool), id="truth values"),
        pytest.param(PIXELS[None], id="a batch"),
    ],
)
def test_array_that_is_no_image_is_refused(array: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="is no image: give uint8"):
        encode_image(array)


def test_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match="int is no image"):
        encode_image(3)  # type: ignore[arg-type]  # wrong on purpose
