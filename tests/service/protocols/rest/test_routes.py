"""The other routes: models, status, probes, metrics, documents; and that the document tells the truth."""

import re
import shutil
import subprocess
from typing import Any

import httpx
import jsonschema
import pytest

from service.errors import list_errors
from service.protocols.options import PARAMETER_NAMES
from service.protocols.rest.routes.docs import MEDIA_TYPES
from service.protocols.status import STATUS
from tests.service.frontends import make_card, run_frontend

URL = "/v1/classify"


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    """/openapi.json."""
    told: dict[str, Any] = client.get("/openapi.json").json()
    return told


def check_schema(document: dict[str, Any], path: str, method: str, response: httpx.Response) -> None:
    """The response is one that the document promises, down to its schema."""
    promised = document["paths"][path][method]["responses"][str(response.status_code)]["content"]
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type in promised
    schema = promised[media_type]["schema"] | {"components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(response.json())


def test_models_tell_what_their_cards_say(client: httpx.Client, document: dict[str, Any]) -> None:
    listed = client.get("/v1/models")
    check_schema(document, "/v1/models", "get", listed)
    (told,) = listed.json()["models"]
    card = make_card()
    assert (told["name"], told["version"], told["default"], told["state"]) == ("cifar10", 1, True, "ready")
    assert told["labels"] == list(card.labels)
    assert told["input"] == {"resize_px": 32, "crop_px": 32, "interpolation": "bilinear"}
    assert told["tta"]["default"] == "center"
    assert told["tta"]["policies"]["ten_crop"]["temperature"] == 1.5
    assert told["tta"]["cost_ms"] == {"center": 1.0, "flip": 2.0, "ten_crop": 10.0}
    assert told["metrics"][0]["top1_error"] == 8.5
    one = client.get("/v1/models/cifar10@1")
    check_schema(document, "/v1/models/{name}", "get", one)
    assert one.json() == told


@pytest.mark.parametrize("name", ["nope", "cifar10@2", "cifar10@x", "%2e%2e", "a%00b", "x" * 500])
def test_unknown_model_is_a_problem(client: httpx.Client, document: dict[str, Any], name: str) -> None:
    response = client.get(f"/v1/models/{name}")
    check_schema(document, "/v1/models/{name}", "get", response)
    assert (response.status_code, response.json()["type"]) == (404, "unknown-model")


def test_status_tells_of_workers(client: httpx.Client, document: dict[str, Any]) -> None:
    response = client.get("/v1/status")
    check_schema(document, "/v1/status", "get", response)
    (worker,) = response.json()["workers"]
    assert (worker["model"], worker["device"], worker["unanswered"]) == ("cifar10", "cpu", 0)


def test_probes_answer(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_without_workers_alive_but_not_ready(document: dict[str, Any]) -> None:
    with run_frontend() as frontend:
        assert httpx.get(f"{frontend.url}/livez").status_code == 200
        response = httpx.get(f"{frontend.url}/readyz")
        check_schema(document, "/readyz", "get", response)
        assert (response.status_code, response.json()["type"]) == (503, "no-worker")


@pytest.mark.parametrize(
    "path", ["/nope", "/v1", "/v1/classify/", "//v1/classify", "/v1/models/a/b", "/docs/x"]
)
def test_unknown_path_is_a_problem(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert response.json()["type"] == "not-found"
    assert response.json()["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_wrong_method_is_a_problem(client: httpx.Client, method: str) -> None:
    response = client.request(method, "/livez")
    assert (response.status_code, response.json()["type"]) == (405, "method-not-allowed")


@pytest.mark.parametrize("path", ["/livez", "/v1/models", "/metrics", "/nope"])
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


def test_page_of_documents_asks_no_other_host(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert address.startswith("/docs/")
        asset = client.get(address)
        assert asset.status_code == 200
        assert asset.headers["content-type"].startswith(MEDIA_TYPES[address.removeprefix("/docs/")])


def test_document_names_every_parameter_and_error_of_the_hot_path(document: dict[str, Any]) -> None:
    route = document["paths"][URL]["post"]
    query = {one["name"] for one in route["parameters"] if one["in"] == "query"}
    assert query == set(PARAMETER_NAMES)
    promised = {status for status in route["responses"] if status != "200"}
    elsewhere = {"unauthenticated", "forbidden", "method-not-allowed", "conflict", "storage-full"}
    hot = {error.slug for error in list_errors()} - elsewhere
    assert promised == {str(STATUS[slug].http) for slug in hot}


@pytest.mark.parametrize(
    ("query", "content"),
    [("", b"x"), ("?top_k=0", b"x"), ("?model=nope", b"x"), ("", b""), ("", bytes(100_001))],
    ids=["answered", "bad parameter", "unknown model", "empty", "too large"],
)
def test_hot_path_answers_as_documented(
    client: httpx.Client, document: dict[str, Any], query: str, content: bytes
) -> None:
    check_schema(document, URL, "post", client.post(URL + query, content=content))


def read_sample(client: httpx.Client, sample: str) -> float:
    """One sample of /metrics, 0 where it is absent."""
    for line in client.get("/metrics").text.splitlines():
        if line.startswith(sample + " "):
            return float(line.rpartition(" ")[2])
    return 0.0


def count_requests(client: httpx.Client, model: str, code: int) -> float:
    """Requests to the hot path that ended so."""
    labels = f'code="{code}",model="{model}",protocol="http",route="{URL}"'
    return read_sample(client, f"resnet_requests_total{{{labels}}}")


def test_requests_are_counted_by_model_and_code(client: httpx.Client) -> None:
    before = [count_requests(client, "cifar10", 200), count_requests(client, "other", 404)]
    images = read_sample(client, 'resnet_images_total{model="cifar10",outcome="ok"}')
    client.post(URL, content=b"x")
    client.post(f"{URL}?model=cifar10@1", content=b"x")
    client.post(f"{URL}?model=made-up-{id(client)}", content=b"x")
    after = [count_requests(client, "cifar10", 200), count_requests(client, "other", 404)]
    assert [after[0] - before[0], after[1] - before[1]] == [2, 1]
    assert read_sample(client, 'resnet_images_total{model="cifar10",outcome="ok"}') - images == 2
    assert "made-up" not in client.get("/metrics").text


def test_metrics_follow_the_naming_rules(client: httpx.Client) -> None:
    client.post(URL, content=b"x")
    text = client.get("/metrics").text
    families = dict(re.findall(r"# TYPE (\S+) (\S+)", text))
    assert families["resnet_requests_total"] == "counter"
    for name, kind in families.items():
        assert name.startswith("resnet_")
        assert name.endswith("_total") == (kind == "counter")
        if kind == "histogram":
            assert name.endswith(("_seconds", "_ratio", "_views"))
    assert {"resnet_workers", "resnet_model_info", "resnet_inflight_bytes"} <= set(families)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_no_fault(client: httpx.Client) -> None:
    client.post(URL, content=b"x")
    text = client.get("/metrics").text
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
