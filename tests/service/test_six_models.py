"""The paper's ensemble of six networks of different depths, as one card served by one worker.

He et al. 2015, section 4.1: two of them of the greatest depth. CIFAR's depths stand here for ImageNet's.
"""

import io
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from models.card import Preprocess
from models.cli import main
from models.views import list_policies
from tests.models.making import random_card, random_network, random_version
from tests.serving import Service, run_service

DEPTHS = (20, 32, 44, 56, 110, 110)
WEIGHTS = (1, 1, 1, 1, 2, 2)
SIDE = 36  # what the card resizes to, so that the view is cut from the pixels themselves
PIXELS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("repository")
    for number, depth in enumerate(DEPTHS):
        random_version(directory, f"member{number}", f"resnet{depth}-cifar", seed=number)
    members = [f"member{number}={weight}" for number, weight in enumerate(WEIGHTS)]
    assert main(["ensemble", *members, "--name", "six", "--to", str(directory)]) == 0
    with run_service(directory, models="six", default_model="six", max_wait_ms=600_000) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    headers = {"request-timeout": "300"}
    with httpx.Client(base_url=service.http, timeout=300, headers=headers) as made:
        yield made


def encode_png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    return file.getvalue()


@torch.inference_mode()
def average_members(preprocess: Preprocess) -> torch.Tensor:
    """The weighted mean of the six networks' logits for the centre crop, in torch: float32 [K]."""
    edge = (SIDE - preprocess.crop_px) // 2
    view = PIXELS[edge:-edge, edge:-edge]
    x = torch.from_numpy(view.transpose(2, 0, 1).copy())[None].float() / 255
    x = (x - torch.tensor(preprocess.mean).view(3, 1, 1)) / torch.tensor(preprocess.std).view(3, 1, 1)
    logits = [
        random_network(f"resnet{depth}-cifar", seed=number)(x)[0] for number, depth in enumerate(DEPTHS)
    ]
    shares = torch.tensor(WEIGHTS, dtype=torch.float32) / sum(WEIGHTS)
    return shares @ torch.stack(logits)


def test_six_depths_are_one_card_in_one_worker(client: httpx.Client) -> None:
    [told] = client.get("/v1/models").json()["models"]
    assert (told["name"], told["state"], told["workers"]) == ("six", "ready", 1)
    assert told["architecture"] == "+".join(f"resnet{depth}-cifar" for depth in DEPTHS)
    assert told["provenance"]["kind"] == "ensemble"


def test_six_depths_answer_with_their_weighted_mean(client: httpx.Client) -> None:
    query = {"logits": "true", "top_k": "10", "tta": "center"}
    answer = client.post("/v1/classify", params=query, content=encode_png()).json()
    expected = average_members(random_card().preprocess)
    assert np.abs(np.array(answer["logits"]) - expected.numpy()).max() < 1e-4
    probabilities = {one["index"]: one["probability"] for one in answer["predictions"]}
    softmax = expected.softmax(0).tolist()
    assert [probabilities[index] for index in range(10)] == pytest.approx(softmax, abs=1e-4)


@pytest.mark.parametrize("tta", list_policies())
def test_six_depths_answer_every_policy_with_a_map(client: httpx.Client, tta: str) -> None:
    query = {"tta": tta, "map": "true"}
    answer = client.post("/v1/classify", params=query, content=encode_png())
    assert answer.status_code == 200, answer.text
    assert np.array(answer.json()["map"]["array"]).shape == (SIDE, SIDE)
