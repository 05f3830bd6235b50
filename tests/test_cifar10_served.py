"""All 10,000 CIFAR-10 test images through the running service give the error that the card claims.

`make test-cifar10 CIFAR10=folder` runs it on a folder that holds the official binary or Python layout.
"""

import asyncio
import io
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.repository import ModelRepository
from service.client import AsyncClient
from tests.serving import ROOT, run_service
from training.data.cifar10 import load_cifar10

FOLDER = os.environ.get("CIFAR10", "")
APART = 2  # images: a grey level of a decoder may turn over what hangs in the balance

pytestmark = pytest.mark.skipif(not FOLDER, reason="needs CIFAR-10: make test-cifar10 CIFAR10=folder")


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


async def ask_for_classes(url: str, images: NDArray[np.uint8]) -> list[int]:
    async with AsyncClient(url, window=16, timeout_s=60) as client:
        outcomes = client.classify_many((encode_png(image) for image in images), top_k=1)
        return [one.classification.predictions[0].index async for one in outcomes if one.classification]


@pytest.mark.timeout(1800)
def test_ten_thousand_pngs_give_the_cards_error() -> None:
    _, test = load_cifar10(Path(FOLDER))
    card = ModelRepository([ROOT / "models" / "zoo"]).find("cifar10").card
    (claimed,) = [one for one in card.metrics if one.tta == card.default_tta and one.precision == "fp32"]
    assert claimed.images == len(test) == 10_000
    with run_service(log_level="info") as service:
        classes = asyncio.run(ask_for_classes(service.http, test.images))
    wrong = int(np.sum(np.asarray(classes) != test.targets))
    print(f"{wrong} of {len(classes)} wrong, the card claims {claimed.top1_error} %")
    assert len(classes) == 10_000
    assert abs(wrong - claimed.top1_error * 100) <= APART + 0.5
