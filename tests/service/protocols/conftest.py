"""A gRPC server in front of a classifier that can be made to fail, and a channel to it."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from service.pb import classifier_pb2_grpc as pb_grpc
from tests.service.protocols.faults import Served, serve_rpc


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve_rpc(tmp_path, max_image_bytes=100_000) as served:
        yield served


@pytest.fixture
def channel(served: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served.address) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> pb_grpc.ClassifierStub:
    return pb_grpc.ClassifierStub(channel)
