"""Messages that come late or never end their calls alone; who is only waiting for an answer is not late."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from service.pb import classifier_pb2 as pb
from service.pb import classifier_pb2_grpc as pb_grpc
from service.protocols import rpc
from service.types import ClassifyRequest
from tests.service.protocols.faults import Served, serve_rpc
from tests.service.protocols.telling import count_requests, read_details, wait_for
from tests.service.protocols.test_rpc_limits import PREFACE, SETTINGS, write_frame

HEADERS = 1
ITEM = pb.ClassifyStreamRequest(request=pb.ClassifyRequest(image=b"image"))
SINGLE = ["/resnet.v1.Classifier/Classify", "/inference.GRPCInferenceService/ModelInfer"]
STREAMS = ["/resnet.v1.Classifier/ClassifyStream", "/inference.GRPCInferenceService/ModelStreamInfer"]
OTHERS = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]


@pytest.fixture
def hurried(tmp_path: Path) -> Iterator[Served]:
    with serve_rpc(tmp_path, body_timeout_s=0.5) as served:
        yield served


@pytest.fixture
def wary(tmp_path: Path) -> Iterator[Served]:
    """Patient with the first message, not with the next ones."""
    with serve_rpc(tmp_path, keepalive_timeout_s=1.5) as served:
        yield served


class Silence:
    """Requests that end with nothing more coming, until the test lets go."""

    def __init__(self, *first: bytes) -> None:
        self._first, self._is_over = first, threading.Event()

    def __enter__(self) -> Iterator[bytes]:
        return self._send()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()

    def _send(self) -> Iterator[bytes]:
        yield from self._first
        self._is_over.wait(60)


def stream_raw(served: Served, method: str, requests: Iterator[bytes]) -> tuple[list[bytes], grpc.RpcError]:
    """The answers to a call of bytes, and the error that ended it."""
    answers: list[bytes] = []
    with grpc.insecure_channel(served.address) as channel:
        call: Any = channel.stream_stream(method)
        with pytest.raises(grpc.RpcError) as caught:
            answers.extend(call(requests))
    return answers, caught.value


@pytest.mark.parametrize("method", [*SINGLE, *STREAMS, *OTHERS])
def test_a_call_whose_message_never_comes_is_cut(hurried: Served, method: str) -> None:
    with Silence() as requests:
        answers, error = stream_raw(hurried, method, requests)
    assert not answers
    assert isinstance(error, grpc.Call)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.details() == "no message in 0.5 s"
    assert "RequestInfo" in read_details(error)
    wait_for(lambda: count_requests(hurried, method, "DEADLINE_EXCEEDED") == 1)
    assert hurried.classifier.held_bytes == 0


def test_a_stream_that_falls_silent_is_cut_after_its_answers(wary: Served) -> None:
    with Silence(ITEM.SerializeToString(), ITEM.SerializeToString()) as requests:
        answers, error = stream_raw(wary, STREAMS[0], requests)
    assert [pb.ClassifyStreamResponse.FromString(one).index for one in answers] == [0, 1]
    assert isinstance(error, grpc.Call)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_who_waits_for_an_answer_is_not_silent(wary: Served) -> None:
    async def think(_: ClassifyRequest) -> None:
        await asyncio.sleep(2.5)

    wary.classifier.on_classify = think
    with grpc.insecure_channel(wary.address) as channel:
        answers = list(pb_grpc.ClassifierStub(channel).ClassifyStream(iter([ITEM])))
    assert answers[0].response.predictions


def test_a_call_without_a_message_is_the_callers_mistake(hurried: Served) -> None:
    _, error = stream_raw(hurried, SINGLE[0], iter([]))
    assert isinstance(error, grpc.Call)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_connections_that_stop_within_a_frame_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "PING_S", 1)
    monkeypatch.setattr(rpc, "PING_TIMEOUT_S", 1)
    stopped = {
        "nothing": b"",
        "half a preface": PREFACE[:10],
        "no settings": PREFACE,
        "half the settings": PREFACE + write_frame(SETTINGS)[:5],
        "half the headers": PREFACE + write_frame(SETTINGS) + write_frame(HEADERS, bytes(40))[:20],
    }
    with serve_rpc(tmp_path, header_timeout_s=0.5) as served, ExitStack() as held:
        host, port = served.address.split(":")
        socks = {
            name: held.enter_context(socket.create_connection((host, int(port)), 60)) for name in stopped
        }
        for name, sock in socks.items():
            sock.sendall(stopped[name])
        for sock in socks.values():
            with suppress(ConnectionResetError):
                while sock.recv(1024):  # what the server says first
                    pass


def test_connections_over_the_limit_are_closed(tmp_path: Path) -> None:
    with serve_rpc(tmp_path, max_connections=2, header_timeout_s=60) as served:
        host, port = served.address.split(":")
        held = [socket.create_connection((host, int(port)), 60) for _ in range(2)]
        try:
            assert all(sock.recv(1) for sock in held)
            with socket.create_connection((host, int(port)), 60) as sock, suppress(ConnectionResetError):
                assert sock.recv(1) == b""
        finally:
            for sock in held:
                sock.close()
