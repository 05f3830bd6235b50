"""View policies, merge rules and maps as callers meet them: the whole service, real networks and clients."""

import base64
import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.decode import turn_back
from models.ensemble import write_ensemble
from models.views import list_policies
from service.pb import classifier_pb2 as pb
from service.pb.classifier_pb2_grpc import ClassifierStub
from tests.models.making import random_version
from tests.serving import PHOTOGRAPHS, START_S, Service, run_service

URL = "/v1/classify"
CAT = (PHOTOGRAPHS / "cat.jpg").read_bytes()
PATIENCE = {"request-timeout": "300"}  # adaptive looks again on the slowest machine
SHARES = (0.75, 0.25)
CLASSES = 10
MAX_WAIT_MS = 400


def encode_png(pixels: NDArray[np.uint8], orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    return file.getvalue()


def photograph(height: int, width: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(CAT)) as image:
        return np.asarray(image.convert("RGB").resize((width, height)))


IMAGES = [CAT, *(encode_png(photograph(*size)) for size in ((1, 1), (33, 31)))]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("repository")
    members = [
        random_version(directory, "shallow", "resnet20-cifar"),
        random_version(directory, "deep", "resnet32-cifar"),
    ]
    write_ensemble(directory, "pair", members, (3.0, 1.0))
    return directory


def wait_for_models(service: Service, count: int) -> None:
    deadline = time.monotonic() + START_S
    while len(service.get_json("/v1/models")["models"]) < count:
        assert time.monotonic() < deadline, "a model did not come up"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def service(repository: Path) -> Iterator[Service]:
    """Everything is accepted, however long it waits."""
    with run_service(repository, default_model="shallow", max_wait_ms=600_000) as running:
        wait_for_models(running, 3)
        yield running


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.http, timeout=300, headers=PATIENCE) as made:
        yield made


def ask(client: httpx.Client, image: bytes, **query: str) -> Any:
    response = client.post(URL, params=query, content=image)
    assert response.status_code == 200, response.text
    return response.json()


def read_probabilities(answer: Any) -> NDArray[np.float64]:
    found = np.zeros(CLASSES)
    for one in answer["predictions"]:
        found[one["index"]] = one["probability"]
    return found


def test_mixed_load_of_all_policies_gives_each_request_the_bits_it_gets_alone(client: httpx.Client) -> None:
    asked = [
        (image, {"tta": tta, "model": model, "logits": "true", "top_k": str(CLASSES)})
        for model, image, tta in product(("shallow", "pair"), IMAGES, list_policies())
    ]

    def read(number: int) -> tuple[object, ...]:
        image, query = asked[number % len(asked)]
        answer = ask(client, image, **query)
        return answer["logits"], answer["predictions"], answer["tta"]

    alone = [read(number) for number in range(len(asked))]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(read, range(2 * len(asked))))
    assert together == alone * 2


@pytest.mark.parametrize("merge", ["logits", "probabilities"])
@pytest.mark.parametrize("tta", ["center", "ten_crop", "dense", "multi_scale"])
def test_ensemble_averages_its_members_under_either_rule(client: httpx.Client, tta: str, merge: str) -> None:
    query = {"tta": tta, "merge": merge, "logits": "true", "top_k": str(CLASSES)}
    shallow, deep, pair = (ask(client, CAT, model=model, **query) for model in ("shallow", "deep", "pair"))
    logits = sum(share * np.array(one["logits"]) for share, one in zip(SHARES, (shallow, deep), strict=True))
    np.testing.assert_allclose(pair["logits"], logits, atol=1e-5)
    if merge == "logits":
        powers = np.exp(logits - np.max(logits))
        expected = powers / powers.sum()
    else:
        expected = SHARES[0] * read_probabilities(shallow) + SHARES[1] * read_probabilities(deep)
    np.testing.assert_allclose(read_probabilities(pair), expected, atol=1e-5)


@pytest.mark.parametrize("model", ["shallow", "pair"])
@pytest.mark.parametrize("tta", list_policies())
def test_every_policy_draws_a_map_of_a_network_and_of_an_ensemble(
    client: httpx.Client, tta: str, model: str
) -> None:
    plain = ask(client, CAT, model=model, tta=tta, logits="true")
    answer = ask(client, CAT, model=model, tta=tta, logits="true", map="true")
    assert (answer["logits"], answer["predictions"]) == (plain["logits"], plain["predictions"])
    assert "map" not in plain
    drawn = answer["map"]
    array = np.array(drawn["array"])
    assert drawn["class"] == answer["predictions"][0]["index"]
    assert array.shape == (75, 112)  # 300 x 451, the longer side at most 112
    assert (array.min(), array.max()) == (0, 1)
    box = drawn["box"]
    assert 0 <= box["left"] < box["right"] <= 451
    assert 0 <= box["top"] < box["bottom"] <= 300
    overlay = Image.open(io.BytesIO(base64.b64decode(drawn["png"])))
    assert (overlay.format, overlay.size) == ("PNG", (451, 300))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_map_lies_on_the_pixels_that_were_sent(client: httpx.Client, orientation: int) -> None:
    """The same upright picture, stored turned: the same scores, and a map turned as the file is."""
    upright = photograph(60, 90)
    plain = ask(client, encode_png(upright), map="true", logits="true", **{"class": "3"})
    stored = np.ascontiguousarray(turn_back(upright, orientation))
    turned = ask(client, encode_png(stored, orientation), map="true", logits="true", **{"class": "3"})
    assert turned["logits"] == plain["logits"]
    array = np.array(turned["map"]["array"])
    assert array.shape == stored.shape[:2]
    assert np.array_equal(array, turn_back(np.array(plain["map"]["array"]), orientation))
    box = turned["map"]["box"]
    hot = array[box["top"] : box["bottom"], box["left"] : box["right"]]
    assert hot.max() == 1
    overlay = Image.open(io.BytesIO(base64.b64decode(turned["map"]["png"])))
    assert (overlay.size[::-1], overlay.getexif().get(0x0112, 1)) == (stored.shape[:2], orientation)


BAD = {
    "no policy": ({"tta": ""}, "tta"),
    "unknown policy": ({"tta": "centre"}, "tta"),
    "a module that is none": ({"tta": "merging"}, "tta"),
    "scale out of range": ({"tta": "multi_scale", "scales": "225"}, "scales"),
    "scale no number": ({"tta": "multi_scale", "scales": "nan"}, "scales"),
    "scale beyond all": ({"tta": "multi_scale", "scales": "1e9"}, "scales"),
    "too many scales": ({"tta": "multi_scale", "scales": ",".join(["224"] * 100)}, "scales"),
    "scales of another policy": ({"tta": "center", "scales": "256"}, "scales"),
    "scales of the default": ({"scales": "256"}, "scales"),
    "more than the classes": ({"top_k": "11"}, "top_k"),
    "no classes": ({"top_k": "0"}, "top_k"),
    "class below": ({"map": "true", "class": "-1"}, "class"),
    "class above": ({"map": "true", "class": "10"}, "class"),
    "class far above": ({"map": "true", "class": "999999"}, "class"),
    "class without map": ({"class": "3"}, "class"),
    "merge": ({"merge": "median"}, "merge"),
    "pool": ({"pool": "max"}, "pool"),
    "no int8": ({"precision": "int8"}, "precision"),
}


@pytest.mark.parametrize("model", ["shallow", "pair"])
@pytest.mark.parametrize(("query", "field"), BAD.values(), ids=BAD)
def test_bad_option_is_a_400_that_names_it(
    client: httpx.Client, query: dict[str, str], field: str, model: str
) -> None:
    response = client.post(URL, params={"model": model, **query}, content=CAT)
    told = response.json()
    assert (response.status_code, told["type"], told["field"]) == (400, "bad-request", field)
    form = client.post(URL, data={"model": model, **query}, files={"img": CAT})
    assert (form.status_code, form.json()["field"]) == (400, field)


@pytest.mark.parametrize("query", ["tta=center&tta=mirror", "map=true&map=true"])
def test_option_given_twice_is_refused(client: httpx.Client, query: str) -> None:
    assert client.post(f"{URL}?{query}", content=CAT).status_code == 400
    once, _, name = query.partition("&")
    form = client.post(f"{URL}?{once}", data={name.partition("=")[0]: "mirror"}, files={"img": CAT})
    assert form.status_code == 400


@pytest.mark.parametrize("tta", list_policies())
def test_image_of_one_by_five_thousand_is_scored_or_refused_by_name(client: httpx.Client, tta: str) -> None:
    response = client.post(URL, params={"tta": tta, "map": "true"}, content=encode_png(photograph(1, 5000)))
    if tta in ("dense", "multi_scale"):
        assert (response.status_code, response.json()["type"]) == (413, "too-large")
        assert "SERVE_MAX_VIEW_PIXELS" in response.json()["detail"]
    else:
        assert response.status_code == 200, response.text
        assert np.array(response.json()["map"]["array"]).shape == (1, 112)


RPC_BAD: dict[str, dict[str, Any]] = {
    "unknown policy": {"tta": "centre"},
    "scale out of range": {"tta": "multi_scale", "scales": [225]},
    "scale beyond all": {"tta": "multi_scale", "scales": [4_000_000_000]},
    "scales of another policy": {"tta": "mirror", "scales": [224]},
    "more than the classes": {"top_k": 11},
    "no classes": {"top_k": 0},
    "class above": {"map": True, "class": 10},
    "class without map": {"class": 3},
    "merge": {"merge": "median"},
    "pool": {"pool": "max"},
}


@pytest.mark.parametrize("options", RPC_BAD.values(), ids=RPC_BAD)
def test_bad_option_is_an_invalid_argument(service: Service, options: dict[str, Any]) -> None:
    with grpc.insecure_channel(service.grpc) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            ClassifierStub(channel).Classify(pb.ClassifyRequest(image=CAT, **options), timeout=60)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        answer = ClassifierStub(channel).Classify(
            pb.ClassifyRequest(image=CAT, model="pair", tta="dense", map=True), timeout=300
        )
    assert answer.map.png.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "parameters",
    [
        {"tta": "centre"},
        {"tta": "multi_scale", "scales": "225"},
        {"tta": "multi_scale", "scales": "nan"},
        {"tta": "center", "scales": "224"},
        {"scales": 1e300},
        {"merge": "median"},
        {"pool": ["window"]},
        {"map": True},
    ],
    ids=str,
)
def test_bad_parameter_of_the_open_inference_protocol_is_a_400(
    client: httpx.Client, parameters: dict[str, Any]
) -> None:
    image = {"name": "IMAGE", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(CAT).decode()]}
    response = client.post("/v2/models/pair/infer", json={"inputs": [image], "parameters": parameters})
    assert response.status_code == 400
    assert response.json()["error"]


def test_under_real_pressure_policies_step_down_before_anything_is_refused() -> None:
    with (
        run_service(degrade="true", max_wait_ms=MAX_WAIT_MS) as service,
        httpx.Client(base_url=service.http, timeout=300, headers=PATIENCE) as client,
        ThreadPoolExecutor(32) as pool,
    ):
        calm = ask(client, CAT, tta="ten_crop")["tta"]
        assert calm == {"asked": "ten_crop", "used": "ten_crop", "views": 10}
        cost_ms = service.get_json("/v1/models/cifar10")["tta"]["cost_ms"]

        def press(_: int) -> Any:
            response = client.post(URL, params={"tta": "multi_scale"}, content=CAT)
            assert response.status_code in (200, 503), response.text
            return response.json()["tta"] if response.status_code == 200 else None

        answered = [calm]
        deadline = time.monotonic() + START_S
        while not any(one["asked"] != one["used"] for one in answered):
            assert time.monotonic() < deadline, "nothing was made cheaper"
            answered += [one for one in pool.map(press, range(64)) if one is not None]
        cheaper = [one for one in answered if one["asked"] != one["used"]]
        assert {one["asked"] for one in cheaper} == {"multi_scale"}
        assert all(cost_ms[one["used"]] < cost_ms["multi_scale"] for one in cheaper)
        counted = [
            float(line.rpartition(" ")[2])
            for line in client.get("/metrics").text.splitlines()
            if line.startswith("resnet_degraded_total{")
        ]
    assert sum(counted) >= len(cheaper) > 0
