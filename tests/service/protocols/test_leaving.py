"""A caller who leaves costs no more work, whatever was called: the worker is told at once."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest

from service.pb import classifier_pb2 as pb
from service.pb import classifier_pb2_grpc as pb_grpc
from service.pb import open_inference_pb2 as oip
from service.pb import open_inference_pb2_grpc as oip_grpc
from tests.service.frontends import RunningFrontend, run_frontend, wait_for

IMAGES = 3
TENSOR = {"name": "IMAGE", "datatype": "BYTES", "shape": [IMAGES], "data": ["aW1hZ2U="] * IMAGES}
BODIES: dict[str, Any] = {
    "/v2/models/cifar10/infer": {"inputs": [TENSOR]},
    "/v1/models/cifar10:predict": {"instances": [{"b64": "aW1hZ2U="}] * IMAGES},
    "/predictions/cifar10": "image",
    "/v1/batch": "\n".join(['{"b64": "aW1hZ2U="}'] * IMAGES),
}


@pytest.fixture(scope="module")
def frontend() -> Iterator[RunningFrontend]:
    with run_frontend(log_level="error") as frontend:
        frontend.add_worker(1, lambda message, payload: [])
        wait_for(lambda: httpx.get(f"{frontend.url}/readyz").status_code == 200)
        yield frontend


def check_cancelled(frontend: RunningFrontend, received: int, images: int) -> None:
    worker = frontend.workers[1]
    asked = {message.id for message, _ in worker.received[received:]}
    assert len(asked) == images
    wait_for(lambda: asked <= set(worker.cancelled))
    wait_for(lambda: httpx.get(f"{frontend.url}/v1/status").json()["inflight_bytes"] == 0)


@pytest.mark.parametrize("path", BODIES)
def test_leaving_over_http(frontend: RunningFrontend, path: str) -> None:
    given = BODIES[path]
    body = (given if isinstance(given, str) else json.dumps(given)).encode()
    kind = "application/x-ndjson" if path == "/v1/batch" else "application/octet-stream"
    received = len(frontend.workers[1].received)
    images = 1 if path == "/predictions/cifar10" else IMAGES
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", frontend.http_port), 10) as sock:
        sock.sendall(head.encode() + body)
        wait_for(lambda: len(frontend.workers[1].received) == received + images)
    check_cancelled(frontend, received, images)


def ask_one(channel: grpc.Channel) -> Any:
    return pb_grpc.ClassifierStub(channel).Classify.future(pb.ClassifyRequest(image=b"image"))


def ask_many(channel: grpc.Channel) -> Any:
    items = [pb.ClassifyStreamRequest(request=pb.ClassifyRequest(image=b"image"))] * IMAGES
    return pb_grpc.ClassifierStub(channel).ClassifyStream(iter(items))


def make_infer(images: int) -> oip.ModelInferRequest:
    contents = oip.InferTensorContents(bytes_contents=[b"image"] * images)
    tensor = oip.ModelInferRequest.InferInputTensor(
        name="IMAGE", datatype="BYTES", shape=[images], contents=contents
    )
    return oip.ModelInferRequest(model_name="cifar10", inputs=[tensor])


def infer(channel: grpc.Channel) -> Any:
    return oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer.future(make_infer(IMAGES))


def infer_many(channel: grpc.Channel) -> Any:
    return oip_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([make_infer(1)] * IMAGES))


@pytest.mark.parametrize(
    ("ask", "images"), [(ask_one, 1), (ask_many, IMAGES), (infer, IMAGES), (infer_many, IMAGES)]
)
def test_leaving_over_grpc(frontend: RunningFrontend, ask: Any, images: int) -> None:
    received = len(frontend.workers[1].received)
    with grpc.insecure_channel(f"127.0.0.1:{frontend.grpc_port}") as channel:
        call = ask(channel)
        wait_for(lambda: len(frontend.workers[1].received) == received + images)
        call.cancel()
    check_cancelled(frontend, received, images)
