"""A frontend that asks for keys, over HTTP and gRPC: who is let in, who is not, and what each is told."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import httpx
import jsonschema
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from service.__main__ import main
from service.access.keys import SCOPES, Scope, find_id, write_keys
from service.client import Client
from service.errors import Forbidden, Unauthenticated
from service.pb import classifier_pb2 as pb
from service.pb import classifier_pb2_grpc as pb_grpc
from service.pb import open_inference_pb2 as oip
from service.pb import open_inference_pb2_grpc as oip_grpc
from service.protocols.rest.access import find_need
from tests.service.access.trials import Guarded, KeyFile, bearer, run_guarded
from tests.service.frontends import wait_for
from tests.serving import run_service

CALLS = ("Classify", "ClassifyStream", "ListModels", "ModelInfer", "ModelStreamInfer", "ServerMetadata")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("keys")
    with run_guarded(folder, jobs_dir=str(folder / "jobs")) as running:
        yield running


@pytest.fixture(scope="module")
def client(guarded: Guarded) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.frontend.url, timeout=20) as made:
        yield made


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    told: dict[str, Any] = client.get("/openapi.json").json()
    return told


@pytest.fixture
def channel(guarded: Guarded) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{guarded.frontend.grpc_port}") as made:
        grpc.channel_ready_future(made).result(20)
        yield made


def list_operations(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Every (path, method) of the document, with names filled in."""
    return [(path, method) for path, routes in document["paths"].items() for method in routes]


def ask(client: httpx.Client, path: str, method: str, **request: Any) -> httpx.Response:
    """A request to a route's template; with a body where one is expected."""
    filled = path.replace("{name}", "cifar10").replace("{version}", "1").replace("{id}", "none")
    content = b"x" if method in ("post", "put") else None
    return client.request(method, filled, content=content, **request)


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer x"}, {"x-api-key": "rs_a_b"}, {"authorization": "Basic eDp5"}],
    ids=["no key", "no key's form", "unknown key", "a password"],
)
def test_every_route_but_the_public_ones_needs_a_key(
    client: httpx.Client, document: dict[str, Any], headers: dict[str, str]
) -> None:
    public = []
    for path, method in list_operations(document):
        answer = ask(client, path, method, headers=headers)
        if find_need(path) is None:
            public.append(path)
            assert answer.status_code not in (401, 403), path
            continue
        assert (answer.status_code, answer.headers["www-authenticate"][:6]) == (401, "Bearer"), path
        check_promise(document, path, method, answer)
    assert sorted(public) == ["/livez", "/readyz", "/v2/health/live", "/v2/health/ready"]


@pytest.mark.parametrize("scope", SCOPES)
def test_every_route_asks_for_its_scope(
    guarded: Guarded, client: httpx.Client, document: dict[str, Any], scope: Scope
) -> None:
    for path, method in list_operations(document):
        need = find_need(path)
        answer = ask(client, path, method, headers=bearer(guarded.keys[scope]))
        is_allowed = need in (None, "any", scope) or scope == "admin"
        assert (answer.status_code == 403) != is_allowed, (path, answer.text)
        assert answer.status_code != 401
        if answer.status_code == 403:
            check_promise(document, path, method, answer)


def check_promise(document: dict[str, Any], path: str, method: str, answer: httpx.Response) -> None:
    """The answer is one that the document promises, down to its schema."""
    promised = document["paths"][path][method]["responses"][str(answer.status_code)]["content"]
    schema = promised[answer.headers["content-type"]]["schema"] | {"components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer.json())


def test_no_route_that_takes_images_is_open_to_any_key(document: dict[str, Any]) -> None:
    takers = {path for path, method in list_operations(document) if method in ("post", "put", "delete")}
    needs = {path: find_need(path) for path in takers if path != "/v2/repository/index"}
    assert set(needs.values()) == {"classify", "batch"}, needs


def test_the_document_tells_which_routes_need_a_key(client: httpx.Client, document: dict[str, Any]) -> None:
    assert set(document["components"]["securitySchemes"]) == {"bearer", "apiKey"}
    for path, method in list_operations(document):
        assert ("security" in document["paths"][path][method]) == (find_need(path) is not None)


@pytest.mark.parametrize("path", ["/", "/docs", "/web/page.js", "/openapi.json"])
def test_pages_are_public(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1/classify/", "//v1/classify", "/v1/batch/../status", "/web"]
)
def test_what_nobody_serves_is_no_way_in(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 401


def test_either_header_carries_the_key(guarded: Guarded, client: httpx.Client) -> None:
    key = guarded.keys["classify"]
    for headers in (bearer(key), {"x-api-key": key}):
        assert client.post("/v1/classify", content=b"x", headers=headers).status_code == 200


def test_a_refused_body_is_not_waited_for(guarded: Guarded) -> None:
    with socket.create_connection(("127.0.0.1", guarded.frontend.http_port), 20) as sock:
        head = (
            b"POST /v1/classify HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 100000\r\n\r\n"
        )
        sock.sendall(head)
        assert sock.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_keys_come_and_go_while_it_serves(guarded: Guarded, client: httpx.Client) -> None:
    key = guarded.file.add("classify")

    def ask_status() -> int:
        return client.post("/v1/classify", content=b"x", headers=bearer(key)).status_code

    wait_for(lambda: ask_status() == 200, 30.0)
    whole = guarded.file.path.read_bytes()
    guarded.file.path.write_bytes(b"{broken")
    metrics = bearer(guarded.keys["metrics"])
    wait_for(lambda: "resnet_api_keys_stale 1.0" in client.get("/metrics", headers=metrics).text, 30.0)
    assert ask_status() == 200
    guarded.file.path.write_bytes(whole)
    wait_for(lambda: "resnet_api_keys_stale 0.0" in client.get("/metrics", headers=metrics).text, 30.0)
    guarded.file.path.unlink()
    guarded.file.add("classify")  # the file is written anew with the other keys
    guarded.file.keys.pop(str(find_id(key)))
    write_keys(guarded.file.path, guarded.file.keys)
    wait_for(lambda: ask_status() == 401, 30.0)


def test_a_batch_is_its_callers_own(guarded: Guarded, client: httpx.Client) -> None:
    def submit(key: str) -> httpx.Response:
        headers = {**bearer(key), "prefer": "respond-async", "idempotency-key": "one"}
        return client.post("/v1/batch", files={"img": b"x"}, headers=headers)

    other = guarded.file.add("batch")
    wait_for(lambda: client.get("/v1/status", headers=bearer(other)).status_code == 200, 30.0)
    mine = submit(guarded.keys["batch"])
    assert mine.status_code == 202
    assert submit(guarded.keys["batch"]).json()["id"] == mine.json()["id"]
    assert submit(other).json()["id"] != mine.json()["id"]  # the same Idempotency-Key, another caller
    location = mine.headers["location"]
    for path in (location, f"{location}/results"):
        assert client.get(path, headers=bearer(other)).status_code == 404
    assert client.delete(location, headers=bearer(other)).status_code == 404
    assert client.get(location, headers=bearer(guarded.keys["batch"])).status_code == 200


def call(channel: grpc.Channel, name: str, key: str | None) -> grpc.StatusCode:
    """The code with which a method ends."""
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    resnet, inference = pb_grpc.ClassifierStub(channel), oip_grpc.GRPCInferenceServiceStub(channel)
    image = pb.ClassifyRequest(image=b"x")
    infer = oip.ModelInferRequest(model_name="cifar10", raw_input_contents=[b"\x01\x00\x00\x00x"])
    infer.inputs.add(name="INPUT", datatype="BYTES", shape=[1])
    calls: dict[str, Callable[[], Any]] = {
        "Classify": lambda: resnet.Classify(image, metadata=metadata),
        "ClassifyStream": lambda: list(
            resnet.ClassifyStream(iter([pb.ClassifyStreamRequest(request=image)]), metadata=metadata)
        ),
        "ListModels": lambda: resnet.ListModels(pb.ListModelsRequest(), metadata=metadata),
        "ModelInfer": lambda: inference.ModelInfer(infer, metadata=metadata),
        "ModelStreamInfer": lambda: list(inference.ModelStreamInfer(iter([infer]), metadata=metadata)),
        "ServerMetadata": lambda: inference.ServerMetadata(oip.ServerMetadataRequest(), metadata=metadata),
    }
    try:
        calls[name]()
    except grpc.RpcError as error:
        return cast(grpc.Call, error).code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("name", CALLS)
def test_every_call_needs_its_scope(guarded: Guarded, channel: grpc.Channel, name: str) -> None:
    assert call(channel, name, None) is grpc.StatusCode.UNAUTHENTICATED
    assert call(channel, name, "rs_a_b") is grpc.StatusCode.UNAUTHENTICATED
    is_classifying = name not in ("ListModels", "ServerMetadata")
    refused = grpc.StatusCode.PERMISSION_DENIED if is_classifying else grpc.StatusCode.OK
    assert call(channel, name, guarded.keys["batch"]) is refused
    code = call(channel, name, guarded.keys["classify"])
    assert code not in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


def test_health_and_reflection_are_public(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    health = stub.Check(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]  # the stubs lack it
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert "resnet.v1.Classifier" in ProtoReflectionDescriptorDatabase(channel).get_services()
    live = oip_grpc.GRPCInferenceServiceStub(channel).ServerLive(oip.ServerLiveRequest())
    assert live.live


def test_refusals_are_counted_by_protocol(
    guarded: Guarded, client: httpx.Client, channel: grpc.Channel
) -> None:
    call(channel, "Classify", None)
    client.post("/v1/classify", content=b"x")
    text = client.get("/metrics", headers=bearer(guarded.keys["metrics"])).text
    assert re.search(r'code="UNAUTHENTICATED".*protocol="grpc",route="/resnet.v1.Classifier/Classify"', text)
    assert re.search(r'code="401".*protocol="http",route="/v1/classify"', text)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_client_sends_its_key(guarded: Guarded, protocol: str) -> None:
    frontend = guarded.frontend
    url = frontend.url if protocol == "http" else f"grpc://127.0.0.1:{frontend.grpc_port}"
    with Client(url, api_key=guarded.keys["classify"]) as client:
        assert client.classify(b"\xff\xd8x").predictions[0].label == "cat"
        assert client.list_models()
    for key, error in ((None, Unauthenticated), (guarded.keys["batch"], Forbidden)):
        with Client(url, api_key=key) as client, pytest.raises(error):
            client.classify(b"\xff\xd8x")


def test_the_command_takes_the_key_from_the_environment(guarded: Guarded) -> None:
    url = ["--url", guarded.frontend.url, "--json"]
    environment = {"RESNET_API_KEY": guarded.keys["classify"]}
    done = CliRunner().invoke(main, ["models", *url], env=environment)
    assert (done.exit_code, json.loads(done.output)["name"]) == (0, "cifar10")
    done = CliRunner().invoke(main, ["models", *url], env={"RESNET_API_KEY": ""})
    assert done.exit_code != 0
    assert "API key" in done.output


def test_no_key_is_ever_logged(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    key = file.add("classify")
    with run_service(api_keys=file.path, log_level="debug") as service:
        for credential in (key, key + "x", "rs_guess_guess"):
            httpx.post(f"{service.http}/v1/classify", content=b"x", headers=bearer(credential))
            httpx.get(f"{service.http}/v1/models?key={credential}", headers={"x-api-key": credential})
        lines = service.log
    assert any(line.get("key") == key.split("_")[1] for line in lines)
    told = json.dumps(lines)
    assert key.split("_", 2)[2] not in told
    assert "guess" not in told
