"""Damaged files are decoded or refused in our own words: no other exception, no crash, no strange array."""

import numpy as np
import pytest
from numpy.typing import NDArray

from models.decode import DecodeLimits, ImageError, decode_cost_bytes, decode_image
from tests.hostile.mutations import make_seeds, mutate

SEEDS = make_seeds()
LIMITS = DecodeLimits(max_pixels=4_000_000)
VERSIONS = 120


@pytest.mark.parametrize("name", SEEDS)
def test_good_file_is_decoded(name: str) -> None:
    height, width = decode_image(SEEDS[name], LIMITS).pixels.shape[:2]
    assert {height, width} in ({96, 64}, {300, 451})


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_file_is_decoded_or_refused(name: str) -> None:
    outcomes = [try_decoding(damaged) for damaged in mutate(SEEDS[name], VERSIONS, seed=7)]
    refusals = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert refusals
    assert all(message.isascii() and len(message) < 200 for message in refusals)
    for pixels in (outcome for outcome in outcomes if not isinstance(outcome, str)):
        assert pixels.dtype == np.uint8
        assert pixels.shape[2:] == (3,)


def try_decoding(damaged: bytes) -> NDArray[np.uint8] | str:
    """The pixels, or why there are none; anything but an ImageError fails the test."""
    try:
        pixels = decode_image(damaged, LIMITS).pixels
    except ImageError as err:
        return str(err)
    assert decode_cost_bytes(damaged) >= pixels.nbytes
    return pixels
