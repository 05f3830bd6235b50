"""Other servers' clients, unmodified, against the real service; each is a process of its own."""

import base64
import importlib.util
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from models.views import list_policies
from service.pb import classifier_pb2 as pb
from service.pb import classifier_pb2_grpc as pb_grpc
from service.pb import open_inference_pb2 as oip
from service.pb import open_inference_pb2_grpc as oip_grpc
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


POLICIES = sorted(list_policies())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("tta", POLICIES)
def test_every_protocol_gives_the_same_scores(service: Service, tta: str, precision: str) -> None:
    cat = CAT.read_bytes()
    told = service.post_image(cat, f"?top_k=10&logits=true&tta={tta}&precision={precision}")
    expected = [(one["index"], one["label"], one["probability"]) for one in told["predictions"]]
    by_class = [probability for _, _, probability in sorted(expected)]
    asked = {"tta": tta, "precision": precision}
    with grpc.insecure_channel(service.grpc) as channel:
        stub = pb_grpc.ClassifierStub(channel)
        request = pb.ClassifyRequest(image=cat, top_k=10, logits=True, tta=tta, precision=precision)
        unary = stub.Classify(request)
        [streamed] = stub.ClassifyStream(iter([pb.ClassifyStreamRequest(request=request)]))
        inferred = oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(make_infer(cat, asked))
    for answer in (unary, streamed.response):
        assert [(one.index, one.label, one.probability) for one in answer.predictions] == expected
        assert list(answer.logits) == told["logits"]
        assert answer.model.digest == told["model"]["digest"]
        assert (answer.tta.used, answer.tta.views) == (tta, told["tta"]["views"])
    assert inferred.raw_output_contents[0] == struct.pack("<10f", *by_class)
    tensor = {"name": "IMAGE", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(cat).decode()]}
    body = {"inputs": [tensor], "parameters": asked}
    answer = httpx.post(f"{service.http}/v2/models/cifar10/infer", json=body, timeout=60).json()
    assert answer["outputs"][0]["data"] == by_class


def make_infer(image: bytes, parameters: dict[str, str]) -> oip.ModelInferRequest:
    tensor = oip.ModelInferRequest.InferInputTensor(name="IMAGE", datatype="BYTES", shape=[1])
    request = oip.ModelInferRequest(model_name="cifar10", inputs=[tensor])
    request.raw_input_contents.append(struct.pack("<I", len(image)) + image)
    for name, value in parameters.items():
        request.parameters[name].string_param = value
    return request


def test_older_protocols_give_the_same_scores(service: Service) -> None:
    cat = CAT.read_bytes()
    found = service.post_image(cat, "?top_k=10")["predictions"]
    answer = httpx.post(f"{service.http}/predictions/cifar10", content=cat, timeout=60).json()
    assert answer == {one["label"]: one["probability"] for one in found[:5]}
    body = {"instances": [{"b64": base64.b64encode(cat).decode()}]}
    [told] = httpx.post(f"{service.http}/v1/models/cifar10:predict", json=body, timeout=60).json()[
        "predictions"
    ]
    by_class = {one["index"]: one["probability"] for one in found}
    assert dict(enumerate(told["probabilities"])) == by_class
    assert (told["classes"], told["label"]) == (found[0]["index"], found[0]["label"])
