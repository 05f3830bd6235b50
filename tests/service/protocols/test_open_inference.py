"""/v2 and the orphans' routes over plain HTTP: the corners that the judges' clients do not reach."""

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from service.errors import BadRequest
from service.messages import RefusedModel
from service.protocols.open_inference import describe_tta
from service.protocols.open_inference_tensors import make_classification, make_probs, split_raw
from service.types import Prediction, TtaUse
from tests.service.frontends import RunningFrontend, run_frontend, wait_for

INFER = "/v2/models/cifar10/infer"
PROBS = [0.7, 0.2, 0.1]
LIMIT = 50_000
OVERHEAD = 65_536
SHARED_MEMORY = {"parameters": {"shared_memory_region": "mine", "shared_memory_byte_size": 40}}


@pytest.fixture(scope="module")
def frontend() -> Iterator[RunningFrontend]:
    with run_frontend(max_image_bytes=str(LIMIT), log_level="error") as frontend:
        frontend.refused.append(RefusedModel("cifar10", 2, "NaN in conv1.weight"))
        frontend.add_worker(1)
        wait_for(lambda: httpx.get(f"{frontend.url}/readyz").status_code == 200)
        yield frontend


@pytest.fixture(scope="module")
def client(frontend: RunningFrontend) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=frontend.url, timeout=30) as client:
        yield client


def make_json(images: list[bytes], shape: list[int], **more: Any) -> dict[str, Any]:
    data = [base64.b64encode(image).decode() for image in images]
    return {"inputs": [{"name": "IMAGE", "datatype": "BYTES", "shape": shape, "data": data}], **more}


def read_probs(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    data: list[Any] = answer.json()["outputs"][0]["data"]
    return data


def test_health_has_json_bodies(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/cifar10/ready").json() == {"name": "cifar10", "ready": True}


def test_a_server_without_workers_is_alive_and_not_ready() -> None:
    with run_frontend(log_level="error") as frontend:
        assert httpx.get(f"{frontend.url}/v2/health/live").json() == {"live": True}
        answer = httpx.get(f"{frontend.url}/v2/health/ready")
        assert (answer.status_code, answer.json()) == (503, {"ready": False})


def test_the_index_tells_of_refused_versions_and_can_leave_them_out(client: httpx.Client) -> None:
    refused = {"name": "cifar10", "version": "2", "state": "UNAVAILABLE", "reason": "NaN in conv1.weight"}
    served = {"name": "cifar10", "version": "1", "state": "READY", "reason": ""}
    for body in (b"", b"{}", b"null", b'{"ready": null}'):
        assert client.post("/v2/repository/index", content=body).json() == [served, refused]
    for headers in ({}, {"Content-Type": "application/x-www-form-urlencoded"}):  # as `curl -d` sends it
        answer = client.post("/v2/repository/index", content=b'{"ready": true}', headers=headers)
        assert answer.json() == [served]


@pytest.mark.parametrize("body", [b"[]", b'{"ready": "yes"}', b"{", b"\xff", b"[" * 4_000])
def test_a_wrong_index_request_is_told_what_is_wrong(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/v2/repository/index", content=body)
    assert answer.status_code == 400
    assert "not an index request" in answer.json()["error"]


def test_fields_that_may_be_left_out_may_be_null(client: httpx.Client) -> None:
    body = make_json([b"image"], [1], id=None, parameters={"tta": None}, outputs=None)
    body["inputs"][0]["parameters"] = None
    assert read_probs(client.post(INFER, json=body)) == pytest.approx(PROBS)
    body["parameters"], body["outputs"] = None, [{"name": "PROBS", "parameters": None}]
    assert read_probs(client.post(INFER, json=body)) == pytest.approx(PROBS)


@pytest.mark.parametrize(
    ("size", "raw"),
    [
        (0, b""),
        (1, b""),
        (9, b"\5\0\0\0image!"),
        (-9, b"\5\0\0\0image"),
        ("9", b"\5\0\0\0image"),
        (True, b"x"),
    ],
)
def test_a_binary_size_that_lies_is_refused(client: httpx.Client, size: Any, raw: bytes) -> None:
    tensor = {"name": "IMAGE", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
    header = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(header))}
    answer = client.post(INFER, content=header + raw, headers=headers)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


@pytest.mark.parametrize("length", ["-1", "x", "", "1e3", "+5", "99999999", "99999999999", "5"])
def test_a_header_length_that_lies_is_refused(client: httpx.Client, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length}
    answer = client.post(INFER, json=make_json([b"image"], [1]), headers=headers)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


def test_a_deadline_that_has_passed_is_told_as_such(client: httpx.Client, frontend: RunningFrontend) -> None:
    received = len(frontend.workers[1].received)
    answer = client.post(INFER, json=make_json([b"image"], [1], parameters={"timeout": 1}))
    assert (answer.status_code, list(answer.json())) == (504, ["error"])
    assert len(frontend.workers[1].received) == received


@pytest.mark.parametrize("shape", [[1], [1, 1]], ids=["flat", "with a column"])
def test_base64_in_json(client: httpx.Client, shape: list[int]) -> None:
    answer = client.post(INFER, json=make_json([b"image"], shape, id="seven"))
    assert read_probs(answer) == pytest.approx(PROBS)
    assert (answer.json()["id"], answer.json()["model_version"]) == ("seven", "1")


def test_an_answer_tells_the_view_policy_that_was_used(client: httpx.Client) -> None:
    told = client.post(INFER, json=make_json([b"image"] * 2, [2])).json()["parameters"]
    assert told == {"tta_asked": "center", "tta_used": "center", "tta_views": 2}
    uses = [TtaUse("ten_crop", "ten_crop", 10), TtaUse("ten_crop", "mirror", 2)]
    expected = {"tta_asked": "ten_crop", "tta_used": "ten_crop,mirror", "tta_views": 12}
    assert describe_tta(uses) == expected


def test_a_bare_image_with_header_length_zero(client: httpx.Client, frontend: RunningFrontend) -> None:
    answer = client.post(INFER, content=b"image", headers={"Inference-Header-Content-Length": "0"})
    size = int(answer.headers["Inference-Header-Content-Length"])
    output = json.loads(answer.content[:size])["outputs"][0]
    assert output["parameters"] == {"binary_data_size": 12}
    assert np.frombuffer(answer.content[size:], "<f4") == pytest.approx(PROBS)
    assert frontend.workers[1].received[-1][1] == b"image"


def test_binary_tensors_both_ways(client: httpx.Client, frontend: RunningFrontend) -> None:
    raw = b"".join(struct.pack("<I", len(image)) + image for image in (b"one", b"\xfftwo"))
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": "IMAGE",
                    "datatype": "BYTES",
                    "shape": [2],
                    "parameters": {"binary_data_size": len(raw)},
                }
            ],
            "outputs": [{"name": "PROBS", "parameters": {"binary_data": True, "classification": 2}}],
        }
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(header))}
    answer = client.post(INFER, content=header + raw, headers=headers)
    size = int(answer.headers["Inference-Header-Content-Length"])
    assert json.loads(answer.content[:size])["outputs"][0]["shape"] == [2, 2]
    texts = split_raw("BYTES", (4,), answer.content[size:])
    assert texts == [b"0.700000:0:cat", b"0.200000:1:dog"] * 2
    assert {image for _, image in frontend.workers[1].received[-2:]} == {b"one", b"\xfftwo"}


def test_padded_rows_in_json(client: httpx.Client, frontend: RunningFrontend) -> None:
    rows = [[1, 2, 3, 0], [4, 5, 0, 0]]
    body = {"inputs": [{"name": "IMAGE", "datatype": "UINT8", "shape": [2, 4], "data": rows}]}
    assert read_probs(client.post(INFER, json=body)) == pytest.approx(PROBS * 2)
    assert {image for _, image in frontend.workers[1].received[-2:]} == {bytes(row) for row in rows}


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data, wbits=-15)),
    ],
    ids=["gzip", "deflate", "deflate without header"],
)
def test_compressed_bodies(client: httpx.Client, encoding: str, compress: Any) -> None:
    body = compress(json.dumps(make_json([b"image"], [1])).encode())
    assert read_probs(client.post(INFER, content=body, headers={"Content-Encoding": encoding}))


def test_the_limit_holds_after_inflation(client: httpx.Client) -> None:
    body = gzip.compress(bytes(500_000_000 // 100))
    assert len(body) < LIMIT
    answer = client.post(
        INFER, content=body, headers={"Content-Encoding": "gzip", "Inference-Header-Content-Length": "0"}
    )
    assert answer.status_code == 413
    assert "inflated" in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"{", 400, "not an inference request"),
        (b"[" * 100_000, 400, "not an inference request"),
        (make_json([b"image"], [2]), 400, "shape"),
        (make_json([b"image"], [0]), 400, "shape"),
        (make_json([b"image"], [1, 2]), 400, "shape"),
        (make_json([b"image"], [-1]), 400, "shape"),
        (make_json([b"image"], [10**30]), 400, "limit is 256"),
        (make_json([b"image"], [1.5]), 400, "shape"),  # type: ignore[list-item]  # that is the mistake
        (make_json([b"image"] * 300, [300]), 400, "limit is 256"),
        (make_json([b""], [1]), 400, "empty"),
        (make_json([bytes(LIMIT + 1)], [1]), 413, "SERVE_MAX_IMAGE_BYTES"),
        (make_json([b"image"], [1], parameters={"frobnicate": 1}), 400, "frobnicate"),
        (make_json([b"image"], [1], parameters={"timeout": "soon"}), 400, "timeout"),
        (make_json([b"image"], [1], parameters={"priority": "first"}), 400, "priority"),
        (make_json([b"image"], [1], parameters={"priority": -1}), 400, "priority"),
        (make_json([b"image"], [1], parameters={"binary_data_output": "yes"}), 400, "binary_data_output"),
        (make_json([b"image"], [1], parameters={"top_k": 1}), 400, "top_k"),
        (make_json([b"image"], [1], outputs=[{"name": "FEATURES"}]), 400, "FEATURES"),
        (make_json([b"image"], [1], outputs=[{"name": "PROBS"}] * 2), 400, "2 times"),
        (make_json([b"image"], [1], outputs=[SHARED_MEMORY | {"name": "PROBS"}]), 400, "shared memory"),
        ({"inputs": [SHARED_MEMORY | make_json([], [1])["inputs"][0]]}, 400, "shared memory"),
        (
            {"inputs": [{"name": "IMAGE", "datatype": "UINT8", "shape": [2, 2], "data": [[1], [2, 3, 4]]}]},
            400,
            "rows",
        ),
        ({"inputs": []}, 400, "0 inputs"),
        ({"inputs": [{"name": "X", "datatype": "BYTES", "shape": [1], "data": ["YQ=="]}]}, 400, "'X'"),
        ({"inputs": [{"name": "IMAGE", "datatype": "FP32", "shape": [1], "data": [1.5]}]}, 400, "FP32"),
        ({"inputs": [{"name": "IMAGE", "datatype": "BYTES", "shape": [1], "data": ["?"]}]}, 400, "base64"),
        ({"inputs": [{"name": "IMAGE", "datatype": "UINT8", "shape": [1, 1], "data": [256]}]}, 400, "0..255"),
        ({"inputs": [{"name": "IMAGE", "datatype": "BYTES", "shape": [1]}]}, 400, "array"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    client: httpx.Client, body: bytes | dict[str, Any], status: int, word: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post(INFER, content=content)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert word in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/cifar10/versions/2", 404),
        ("GET", "/v2/models/cifar10/versions/x/config", 404),
        ("DELETE", "/v2/models/cifar10", 405),
        ("POST", "/v2/models/nobody/infer", 404),
        ("POST", "/v1/models/nobody:predict", 404),
    ],
)
def test_errors_have_the_protocols_form(client: httpx.Client, method: str, path: str, status: int) -> None:
    body = json.dumps(make_json([b"image"], [1]) | {"instances": [{"b64": "YQ=="}]}).encode()
    answer = client.request(method, path, content=body if method == "POST" else None)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]


def test_statistics_count_images(client: httpx.Client) -> None:
    before = client.get("/v2/models/cifar10/stats").json()["model_stats"][0]
    client.post(INFER, json=make_json([b"image"] * 3, [3]))
    after = client.get("/v2/models/cifar10/versions/1/stats").json()["model_stats"][0]
    assert after["inference_count"] == before["inference_count"] + 3
    assert after["last_inference"] > 1_600_000_000_000
    stages = after["inference_stats"]
    assert stages["success"]["count"] == after["inference_count"]
    assert stages["compute_infer"]["ns"] > 0


def test_statistics_count_failures_and_how_long_they_took(client: httpx.Client) -> None:
    def read() -> dict[str, int]:
        [told] = client.get("/v2/models/cifar10/stats").json()["model_stats"]
        found: dict[str, int] = told["inference_stats"]["fail"]
        return found

    before = read()
    body = make_json([b"image"], [1], parameters={"precision": "int8"})  # which is not served
    assert client.post(INFER, json=body).status_code == 400
    after = read()
    assert after["count"] == before["count"] + 1
    assert after["ns"] > before["ns"]


def test_requests_are_counted_with_their_model(client: httpx.Client) -> None:
    client.post(INFER, json=make_json([b"image"], [1]))
    line = 'resnet_requests_total{code="200",model="cifar10",protocol="http",route="/v2/models/{name}/infer"}'
    wait_for(lambda: line in client.get("/metrics").text)


def test_probabilities_are_in_the_order_of_the_classes() -> None:
    found = (Prediction(2, "ship", 0.75), Prediction(0, "a:b", 0.25))
    assert make_probs([found, found], 3).to_bytes() == np.array([[0.25, 0, 0.75]] * 2, "<f4").tobytes()
    assert list(make_classification([found], 2).values) == ["0.750000:2:ship", "0.250000:0:a:b"]


@pytest.mark.parametrize("raw", [b"\1\0\0", b"\5\0\0\0abc", b"\1\0\0\0a" * 3, b""])
def test_a_cut_off_tensor_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        split_raw("BYTES", (2,), raw)


# Routes of servers that are no longer maintained


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(
    "path", ["/predictions/cifar10", "/predictions/cifar10/1", "/predictions/cifar10/1.0"]
)
def test_torchserves_clients_get_labels(client: httpx.Client, method: str, path: str) -> None:
    assert client.request(method, path, content=b"image").json() == pytest.approx(
        {"cat": 0.7, "dog": 0.2, "ship": 0.1}
    )


@pytest.mark.parametrize("path", ["/predictions/cifar10", "/v1/models/cifar10:predict"])
def test_their_clients_may_ask_for_a_view_policy(
    client: httpx.Client, frontend: RunningFrontend, path: str
) -> None:
    body = json.dumps({"instances": ["aW1hZ2U="]}).encode()
    answer = client.post(f"{path}?tta=mirror&priority=bulk&customHeader=x", content=body)
    assert answer.status_code == 200
    options = frontend.workers[1].received[-1][0].options
    assert (options.tta, options.priority) == ("mirror", "bulk")
    assert client.post(f"{path}?merge=median", content=body).status_code == 400
    assert client.post(f"{path}?tta=mirror&tta=center", content=body).status_code == 400


def test_torchserves_form(client: httpx.Client, frontend: RunningFrontend) -> None:
    answer = client.post("/predictions/cifar10", files={"data": ("cat.jpg", b"image")})
    assert list(answer.json()) == ["cat", "dog", "ship"]
    assert frontend.workers[1].received[-1][1] == b"image"


def test_torchserves_errors(client: httpx.Client) -> None:
    answer = client.post("/predictions/nobody", content=b"image")
    assert (answer.status_code, answer.json()["code"], answer.json()["type"]) == (
        404,
        404,
        "ModelNotFoundException",
    )
    assert "nobody" in answer.json()["message"]


@pytest.mark.parametrize(
    "instance",
    [{"b64": "aW1hZ2U="}, {"image_bytes": {"b64": "aW1hZ2U="}}, {"data": "aW1hZ2U="}],
    ids=["bare", "named", "KServe's TorchServe"],
)
def test_predict_takes_every_spelling(client: httpx.Client, frontend: RunningFrontend, instance: Any) -> None:
    answer = client.post("/v1/models/cifar10:predict", json={"instances": [instance, instance]})
    expected = {"classes": 0, "label": "cat", "probabilities": pytest.approx(PROBS)}
    assert answer.json() == {"predictions": [expected] * 2}
    assert frontend.workers[1].received[-1][1] == b"image"


@pytest.mark.parametrize(
    "body", [{}, {"instances": []}, {"instances": [{"b64": "?"}]}, {"instances": [[1, 2]]}, [1]]
)
def test_a_wrong_predict_is_refused(client: httpx.Client, body: Any) -> None:
    answer = client.post("/v1/models/cifar10/versions/1:predict", json=body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
