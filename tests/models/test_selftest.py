"""The golden self-test passes on what was exported and fails on anything else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.card import GoldenImage
from models.engines.onnx import OnnxEngine
from models.selftest import SelfTestFailed, decode_golden, encode_golden, run_selftest
from tests.models.making import random_version


def test_selftest_passes_and_covers_other_sizes(tmp_path: Path) -> None:
    version = random_version(tmp_path)
    result = run_selftest(version.card, OnnxEngine(version))
    assert result.images == len(version.card.golden)
    assert result.difference < 1e-5
    shapes = {decode_golden(golden).shape[:2] for golden in version.card.golden}
    assert (32, 32) in shapes
    assert any(height != width for height, width in shapes)


def test_selftest_fails_on_the_weights_of_another_seed(tmp_path: Path) -> None:
    version, other = random_version(tmp_path, seed=0), random_version(tmp_path, seed=1)
    with pytest.raises(SelfTestFailed, match="logits differ"):
        run_selftest(version.card, OnnxEngine(other))


def test_selftest_needs_a_stated_tolerance(tmp_path: Path) -> None:
    version = random_version(tmp_path)
    with pytest.raises(SelfTestFailed, match="no tolerance for tf32"):
        run_selftest(version.card, OnnxEngine(version), "tf32")


def test_golden_images_keep_their_pixels() -> None:
    view = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_golden(encode_golden(view, np.zeros(2, np.float32))), view)


@pytest.mark.parametrize("png", ["", "no base64!", "R0lGODlhAQABAAAAACw="], ids=["empty", "text", "gif"])
def test_golden_image_that_is_no_png_is_refused(tmp_path: Path, png: str) -> None:
    version = random_version(tmp_path)
    card = replace(version.card, golden=(GoldenImage(png, version.card.golden[0].logits),))
    with pytest.raises(SelfTestFailed, match="not a PNG"):
        run_selftest(card, OnnxEngine(version))
