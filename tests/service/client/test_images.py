"""What a caller may call an image arrives as the same pixels."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

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
    ],
)
def test_array_that_is_no_image_is_refused(array: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="is no image: give uint8"):
        encode_image(array)


def test_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match="int is no image"):
        encode_image(3)  # type: ignore[arg-type]  # wrong on purpose
