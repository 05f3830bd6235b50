"""The client against a real service, over HTTP and over gRPC."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from service.client import AsyncClient, Client, ConnectionFailed
from service.errors import BadRequest, BrokenImage, UnknownModel
from service.pb import classifier_pb2 as pb
from service.pb import classifier_pb2_grpc as pb_grpc
from service.version import find_version
from tests.serving import PHOTOGRAPHS, ROOT, Service, run_service

CAT = PHOTOGRAPHS / "cat.jpg"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with run_service() as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, service: Service) -> str:
    return service.http if request.param == "http" else f"grpc://{service.grpc}"


def test_every_form_of_an_image_gets_an_answer(url: str) -> None:
    pixels = np.asarray(Image.open(CAT))
    with Client(url) as client:
        content = CAT.read_bytes()
        for image in (
            CAT,
            str(CAT),
            content,
            bytearray(content),
            memoryview(content),
            Image.fromarray(pixels),
            pixels,
        ):
            assert client.classify(image).predictions[0].label == "cat"


def test_both_protocols_give_the_same_scores(service: Service) -> None:
    with Client(service.http) as http, Client(f"grpc://{service.grpc}") as grpc:
        asked = {"tta": "ten_crop", "wants_logits": True, "top_k": 10}
        one, other = http.classify(CAT, **asked), grpc.classify(CAT, **asked)
    assert one.predictions == other.predictions
    assert one.logits == other.logits
    assert one.tta == other.tta


def test_map_arrives_with_its_box(url: str) -> None:
    with Client(url) as client:
        heat = client.classify(CAT, wants_map=True).map
    assert heat is not None
    assert heat.png.startswith(b"\x89PNG")
    assert 0 <= heat.box.left < heat.box.right <= 451


def test_models_are_listed_with_their_policies(url: str) -> None:
    with Client(url) as client:
        (model,) = [model for model in client.list_models() if model.is_default]
    assert model.name == "cifar10"
    assert {"center", "ten_crop", "multi_scale"} <= set(model.policies)


def test_many_images_keep_their_order_and_bad_ones_harm_nobody(url: str) -> None:
    images: list[str | bytes | Path] = [CAT, CAT.read_bytes()[:5000], "no such file", CAT] * 8
    with Client(url, window=4) as client:
        outcomes = list(client.classify_many(images))
    assert [outcome.index for outcome in outcomes] == list(range(32))
    assert all(outcome.classification for outcome in outcomes[0::4] + outcomes[3::4])
    assert all(isinstance(outcome.error, BrokenImage) for outcome in outcomes[1::4])
    assert all(isinstance(outcome.error, BadRequest) for outcome in outcomes[2::4])


def test_images_are_drawn_no_faster_than_answers_come(url: str) -> None:
    drawn = 0

    def draw() -> Iterator[Path]:
        nonlocal drawn
        for _ in range(100):
            drawn += 1
            yield CAT

    with Client(url, window=3) as client:
        outcomes = client.classify_many(draw())
        next(outcomes)
        assert drawn <= 4
        outcomes.close()  # type: ignore[attr-defined]  # an iterator that is a generator


def test_errors_are_those_of_the_service(url: str) -> None:
    with Client(url) as client:
        with pytest.raises(UnknownModel):
            client.classify(CAT, model="nobody")
        with pytest.raises(BadRequest, match="top_k"):
            client.classify(CAT, top_k=11)


def test_misspelt_option_is_told_before_anything_is_sent(url: str) -> None:
    with Client(url) as client, pytest.raises(TypeError, match="topk: not all are options; known are"):
        client.classify(CAT, topk=3)


@pytest.mark.parametrize("request_id", ["a b", "a\nb", "", "x" * 65])
def test_a_request_id_that_no_server_takes_is_told_before_anything_is_sent(url: str, request_id: str) -> None:
    with Client(url) as client, pytest.raises(ValueError, match="request_id"):
        client.classify(CAT, request_id=request_id)


def test_the_client_says_who_it_is() -> None:
    heard: list[bytes] = []

    def hear(listener: socket.socket) -> None:
        with listener.accept()[0] as connection:
            heard.append(connection.recv(1 << 16))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        hearing = threading.Thread(target=hear, args=(listener,))
        hearing.start()
        with Client(f"http://127.0.0.1:{listener.getsockname()[1]}", attempts=1) as client:
            assert not client.is_ready()
        hearing.join()
    assert f"\r\nuser-agent: resnet-serve-client/{find_version()}\r\n".encode() in heard[0].lower()


@pytest.mark.parametrize("ending", ["", "del client", "raise SystemExit(0)", "list(zip(many, range(2)))"])
def test_a_client_that_nobody_closes_lets_the_program_end(url: str, ending: str) -> None:
    lines = [
        "from service.client import Client",
        f"client = Client({url!r})",
        f"print(client.classify({str(CAT)!r}).predictions[0].label)",
        f"many = client.classify_many([{str(CAT)!r}] * 9)",
        ending,
    ]
    command = [sys.executable, "-W", "error", "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cat\n", "")


class _Stopping(pb_grpc.ClassifierServicer):
    """Cancels the first call, as a server does that stops; answers the next."""

    def __init__(self) -> None:
        self.calls = 0

    def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        context.abort(grpc.StatusCode.CANCELLED, "")

    def ClassifyStream(  # noqa: N802
        self, request_iterator: Iterator[pb.ClassifyStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ClassifyStreamResponse]:
        context.abort(grpc.StatusCode.CANCELLED, "")

    def Classify(  # noqa: N802
        self, request: pb.ClassifyRequest, context: grpc.ServicerContext
    ) -> pb.ClassifyResponse:
        self.calls += 1
        if self.calls == 1:
            context.abort(grpc.StatusCode.CANCELLED, "")
        return pb.ClassifyResponse(predictions=[pb.ClassifyResponse.Prediction(label="cat")])


def test_a_call_that_a_stopping_server_cancels_is_sent_again() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    servicer = _Stopping()
    pb_grpc.add_ClassifierServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"grpc://127.0.0.1:{port}") as client:
            assert client.classify(CAT).predictions[0].label == "cat"
            with pytest.raises(ConnectionFailed):
                client.list_models()
    finally:
        server.stop(None).wait()
    assert servicer.calls == 2


def test_a_closed_client_says_so(url: str) -> None:
    client = Client(url)
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="this client is closed"):
        client.is_ready()


@pytest.mark.parametrize("options", [{"top_k": -1}, {"top_k": 10**12}, {"wants_map": True, "map_class": -1}])
def test_an_option_no_server_takes_is_a_bad_request(url: str, options: dict[str, Any]) -> None:
    with Client(url) as client, pytest.raises(BadRequest):
        client.classify(CAT, **options)


def test_server_out_of_reach_is_told_as_such() -> None:
    with Client("http://127.0.0.1:9", attempts=2) as client:
        with pytest.raises(ConnectionFailed):
            client.classify(CAT)
        assert not client.is_ready()


def test_async_client_classifies_side_by_side(url: str) -> None:
    async def ask() -> list[str]:
        async with AsyncClient(url) as client:
            answers = await asyncio.gather(*(client.classify(CAT) for _ in range(8)))
        return [answer.predictions[0].label for answer in answers]

    assert asyncio.run(ask()) == ["cat"] * 8
