"""The golden self-test: an engine must repeat, for the card's stored views, the logits torch gave.

Run at every load, before a version is served; the stored logits come from torch on weights.safetensors at
export, never from the engine under test. Imports no torch.
"""

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.card import GoldenImage, ModelCard
from models.engines.base import Engine

MAX_GOLDEN_SIDE = 1024


class SelfTestFailed(ValueError):
    """An engine computes something else than the card says; the message gives the largest difference."""


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What a passed self-test measured; `difference` is the largest of the images' (see run_selftest)."""

    images: int
    difference: float


def run_selftest(card: ModelCard, engine: Engine, precision: str = "fp32") -> SelfTest:
    """Compare `engine` with every golden image of `card`; raises SelfTestFailed.

    The difference of each image, max |engine - torch| / max(1, max |torch|), must stay within the card's
    tolerance for `precision`.
    """
    if not card.golden:
        raise SelfTestFailed(f"{card.name}@{card.version} has no golden image")
    if precision not in card.tolerance:
        raise SelfTestFailed(f"{card.name}@{card.version} states no tolerance for {precision}")
    worst = max(measure_difference(golden, engine) for golden in card.golden)
    if not worst <= card.tolerance[precision]:  # NaN fails too
        raise SelfTestFailed(
            f"{card.name}@{card.version} at {precision}: logits differ from the golden ones by {worst:.3g}, "
            f"the card allows {card.tolerance[precision]:.3g}"
        )
    return SelfTest(len(card.golden), worst)


def measure_difference(golden: GoldenImage, engine: Engine) -> float:
    """How far `engine` is from torch on one golden image; see run_selftest."""
    expected = np.asarray(golden.logits, np.float32)
    logits = engine.infer(decode_golden(golden)[None]).logits[0]
    if logits.shape != expected.shape:
        raise SelfTestFailed(f"the engine gives {logits.shape[0]} logits, the card has {expected.shape[0]}")
    return float(np.abs(logits - expected).max() / max(1.0, np.abs(expected).max()))


def decode_golden(golden: GoldenImage) -> NDArray[np.uint8]:
    """The stored view, uint8 [H, W, 3]; raises SelfTestFailed if it is not a small RGB PNG."""
    try:
        data = base64.b64decode(golden.png, validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.mode != "RGB" or max(image.size) > MAX_GOLDEN_SIDE:
                raise SelfTestFailed(f"a golden image is {image.mode} of {image.size}, expected a small RGB")
            return np.array(image)
    except (ValueError, OSError, SyntaxError) as err:
        raise SelfTestFailed("a golden image is not a PNG") from err


def encode_golden(view: NDArray[np.uint8], logits: NDArray[np.float32]) -> GoldenImage:
    """Store a view uint8 [H, W, 3] and the logits float32 [K] that torch gave for it."""
    data = io.BytesIO()
    Image.fromarray(view).save(data, "PNG", optimize=True)
    return GoldenImage(base64.b64encode(data.getvalue()).decode(), tuple(float(logit) for logit in logits))
