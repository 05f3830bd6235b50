"""Other servers' clients, unmodified, against the real service; each is a process of its own."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from service.pb import classifier_pb2 as pb
from service.pb import classifier_pb2_grpc as pb_grpc
from tests.serving import PHOTOGRAPHS, ROOT, Service, run_service

JUDGES = Path(__file__).parent / "judges"
CAT = PHOTOGRAPHS / "cat.jpg"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with run_service(jobs_dir=tmp_path_factory.mktemp("jobs")) as running:
        yield running


@pytest.mark.parametrize("client", ["tritonclient", "kserve"])
def test_another_servers_client_is_served(service: Service, client: str) -> None:
    if importlib.util.find_spec(client) is None:
        pytest.skip(f"{client} is not installed")
    photograph = sorted((PHOTOGRAPHS / "photos").glob("*.jpg"))[0]
    arguments = [service.http.removeprefix("http://"), service.grpc, str(CAT), str(photograph)]
    done = subprocess.run(
        [sys.executable, str(JUDGES / f"{client}_judge.py"), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_every_protocol_gives_the_same_scores(service: Service) -> None:
    cat = CAT.read_bytes()
    told = service.post_image(cat, "?top_k=10&logits=true")
    with grpc.insecure_channel(service.grpc) as channel:
        stub = pb_grpc.ClassifierStub(channel)
        request = pb.ClassifyRequest(image=cat, top_k=10, logits=True)
        unary = stub.Classify(request)
        [streamed] = stub.ClassifyStream(iter([pb.ClassifyStreamRequest(request=request)]))
    expected = [(one["index"], one["label"], one["probability"]) for one in told["predictions"]]
    for answer in (unary, streamed.response):
        assert [(one.index, one.label, one.probability) for one in answer.predictions] == expected
        assert list(answer.logits) == told["logits"]
        assert answer.model.digest == told["model"]["digest"]
