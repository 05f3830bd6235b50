"""POST /v1/classify over real sockets: what is accepted, what each refusal looks like."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.errors import find_error, list_errors
from service.messages import Classify, Failure, MapAnswer, Result
from service.protocols.status import STATUS
from service.types import ClassifyOptions
from tests.service.frontends import Answers, RunningFrontend, run_frontend, wait_for

IMAGE = bytes(range(256)) * 4
URL = "/v1/classify"


def assert_problem(response: httpx.Response, status: int, slug: str) -> dict[str, object]:
    """It is that problem, complete; returns its members."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, object] = response.json()
    assert problem["type"] == slug
    assert problem["status"] == status
    assert problem["title"] == STATUS[slug].title
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem


def test_form_and_raw_body_give_the_same_answer(client: httpx.Client, frontend: RunningFrontend) -> None:
    form = client.post(URL, files={"img": ("cat.jpg", IMAGE, "image/jpeg")})
    raw = client.post(URL, content=IMAGE, headers={"content-type": "image/jpeg"})
    plain = client.post(URL, content=IMAGE, headers={"content-type": "application/x-www-form-urlencoded"})
    for response in (form, raw, plain):
        assert response.status_code == 200, response.text
        answer = response.json()
        assert answer["predictions"][0] == {"index": 0, "label": "cat", "probability": 0.7}
        assert answer["model"] == {"name": "cifar10", "version": 1, "digest": "cifar10-1-digest"}
        assert answer["tta"] == {"asked": "center", "used": "center", "views": 1}
        assert set(answer["timings_ms"]) == {"decode", "queue", "infer", "total"}
        assert "logits" not in answer
        assert "map" not in answer
        assert response.headers["server-timing"].startswith("decode;dur=0.10, queue;dur=0.20, infer;dur=0.30")
    assert [payload for _, payload in frontend.workers[0].received[-3:]] == [IMAGE] * 3


def test_options_reach_the_worker_from_query_and_form(
    client: httpx.Client, frontend: RunningFrontend
) -> None:
    query = {"top_k": "2", "tta": "ten_crop", "logits": "true", "priority": "bulk"}
    client.post(URL, params=query, content=IMAGE).raise_for_status()
    wanted = ClassifyOptions(top_k=2, tta="ten_crop", wants_logits=True, priority="bulk")
    assert frontend.workers[0].received[-1][0].options == wanted
    form = {"top_k": "2", "tta": "ten_crop", "logits": "true", "note": "ignored"}
    client.post(URL, params={"priority": "bulk"}, files={"img": IMAGE}, data=form).raise_for_status()
    assert frontend.workers[0].received[-1][0].options == wanted


def test_request_id_comes_back_and_reaches_the_worker(
    client: httpx.Client, frontend: RunningFrontend
) -> None:
    response = client.post(URL, content=IMAGE, headers={"x-request-id": "my-id.1"})
    assert response.json()["request_id"] == response.headers["x-request-id"] == "my-id.1"
    assert frontend.workers[0].received[-1][0].request_id == "my-id.1"
    replaced = client.post(URL, content=IMAGE, headers={"x-request-id": "not <allowed>"})
    assert len(replaced.headers["x-request-id"]) == 32


def test_chunked_body_is_taken(client: httpx.Client, frontend: RunningFrontend) -> None:
    def stream() -> Iterator[bytes]:
        yield IMAGE[:100]
        yield IMAGE[100:]

    assert client.post(URL, content=stream()).status_code == 200
    assert frontend.workers[0].received[-1][1] == IMAGE


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["-F", "img=@image.jpg"], id="a form"),
        pytest.param(["-F", "img=@image.jpg", "-F", "top_k=1"], id="a form with a field"),
        pytest.param(["-F", 'img=@image.jpg;filename="a\\"b;c.jpg"'], id="a file name with a quote"),
        pytest.param(["--data-binary", "@image.jpg"], id="the raw body"),
        pytest.param(["-T", "image.jpg", "-X", "POST", "-H", "Transfer-Encoding: chunked"], id="in chunks"),
        pytest.param(["-F", "img=@image.jpg", "-H", "Expect: 100-continue"], id="after 100 Continue"),
        pytest.param(["--http1.0", "-F", "img=@image.jpg"], id="HTTP/1.0"),
    ],
)
def test_curl_is_understood(frontend: RunningFrontend, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "image.jpg").write_bytes(IMAGE)
    command = ["curl", "-sS", "--fail-with-body", *arguments, frontend.url + URL]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=20, check=True)
    assert json.loads(done.stdout)["predictions"][0]["label"] == "cat"
    assert frontend.workers[0].received[-1][1] == IMAGE


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("top_k=0", "top_k"),
        ("top_k=1&top_k=2", "query"),
        ("tpo_k=1", "query"),
        ("class=1", "class"),
        ("precision=int8", "precision"),
        ("x" * 3000, "query"),
        ("model=%ff%00", "model"),
    ],
)
def test_bad_parameter_is_named(client: httpx.Client, query: str, field: str) -> None:
    problem = assert_problem(client.post(f"{URL}?{query}", content=IMAGE), 400, "bad-request")
    assert problem["field"] == field


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"content": b""}, id="empty body"),
        pytest.param({"files": {"image": IMAGE}}, id="file in another field"),
        pytest.param({"files": {"img": b""}}, id="empty file"),
        pytest.param({"files": [("img", IMAGE), ("img", IMAGE)]}, id="two images"),
        pytest.param(
            {"content": IMAGE, "headers": {"content-type": "multipart/form-data"}}, id="no boundary"
        ),
        pytest.param(
            {"content": IMAGE, "headers": {"content-type": "multipart/form-data; boundary=b"}},
            id="not the form it says",
        ),
        pytest.param({"content": IMAGE, "headers": {"request-timeout": "soon"}}, id="bad timeout"),
        pytest.param({"files": {"img": IMAGE}, "data": {"top_k": ["1", "2"]}}, id="a field twice"),
        pytest.param(
            {"files": {"img": IMAGE}, "data": {"top_k": "1"}, "params": {"top_k": "1"}},
            id="in query and form",
        ),
    ],
)
def test_bad_request_is_400(client: httpx.Client, body: dict[str, object]) -> None:
    assert_problem(client.request("POST", URL, **body), 400, "bad-request")  # type: ignore[arg-type]  # any


def test_unknown_model_is_404(client: httpx.Client) -> None:
    problem = assert_problem(client.post(f"{URL}?model=vgg", content=IMAGE), 404, "unknown-model")
    assert problem["detail"] == "no model 'vgg' is served; served are: cifar10"


def test_compressed_body_is_415(client: httpx.Client) -> None:
    response = client.post(URL, content=IMAGE, headers={"content-encoding": "gzip"})
    assert_problem(response, 415, "unsupported-format")


def test_wrong_method_is_405_and_says_which_is_right(client: httpx.Client) -> None:
    response = client.get(URL)
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


def test_declared_size_is_refused_before_the_body_is_sent(frontend: RunningFrontend) -> None:
    with socket.create_connection(("127.0.0.1", frontend.http_port), 10) as sock:
        sock.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_image_of_the_limit_passes_and_one_byte_more_does_not(client: httpx.Client) -> None:
    assert client.post(URL, content=bytes(100_000)).status_code == 200
    assert client.post(URL, files={"img": bytes(100_000)}).status_code == 200
    assert_problem(client.post(URL, content=bytes(100_001)), 413, "too-large")
    problem = assert_problem(client.post(URL, files={"img": bytes(100_001)}), 413, "too-large")
    assert problem["detail"] == "the image has 100001 bytes, the limit is 100000 (SERVE_MAX_IMAGE_BYTES)"


def test_endless_chunks_are_cut_at_the_limit(client: httpx.Client) -> None:
    def stream() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(10_000)

    assert_problem(client.post(URL, content=stream()), 413, "too-large")


def test_connection_serves_on_after_a_body_too_large(client: httpx.Client) -> None:
    for _ in range(3):
        assert client.post(URL, content=bytes(3_000_000)).status_code == 413
        assert client.post(URL, content=IMAGE).status_code == 200


@pytest.fixture(scope="module")
def failing() -> Iterator[httpx.Client]:
    """Speaks to a frontend whose worker fails with the slug it is sent as an image."""

    def fail(message: Classify, payload: bytes) -> Answers:
        return [(Failure(message.id, payload.decode(), "the reason", 0.0, retry_after_s=2.3), b"")]

    with run_frontend(log_level="warning") as frontend, httpx.Client(base_url=frontend.url) as made:
        frontend.add_worker(0, fail)
        yield made


@pytest.mark.parametrize("slug", [error.slug for error in list_errors()])
def test_every_error_of_a_worker_has_its_status(failing: httpx.Client, slug: str) -> None:
    response = failing.post(URL, content=slug.encode())
    problem = assert_problem(response, STATUS[slug].http, slug)
    assert problem["detail"] == "the reason"
    assert response.headers["retry-after"] == "3"
    assert find_error(slug).slug == slug


def test_logits_and_map_are_told() -> None:
    def answer(message: Classify, _: bytes) -> Answers:
        shown = MapAnswer(2, [[0.0, 1.0], [0.5, 0.25]], (1, 2, 3, 4))
        result = Result(message.id, [2], [0.9], "center", "center", 1, 1.0, 2.0, 3.0, 0.0, [0.5, 1.5], shown)
        return [(result, b"\x89PNG")]

    with run_frontend() as frontend:
        frontend.add_worker(0, answer)
        told = httpx.post(f"{frontend.url}{URL}?logits=1&map=1&class=2", content=IMAGE).json()
    assert told["logits"] == [0.5, 1.5]
    assert told["map"] == {
        "png": "iVBORw==",
        "array": [[0.0, 1.0], [0.5, 0.25]],
        "class": 2,
        "box": {"left": 1, "top": 2, "right": 3, "bottom": 4},
    }


def test_request_before_any_model_is_up_is_503_and_counted() -> None:
    with run_frontend() as frontend:
        frontend.tell_models()
        assert httpx.post(frontend.url + URL, content=IMAGE).status_code == 503
        labels = 'code="503",model="other",protocol="http",route="/v1/classify"'
        assert f"resnet_requests_total{{{labels}}} 1.0" in httpx.get(f"{frontend.url}/metrics").text


def test_deadline_ends_the_wait_and_cancels_the_work() -> None:
    with run_frontend() as frontend:
        worker = frontend.add_worker(0, lambda message, payload: [])
        response = httpx.post(frontend.url + URL, content=IMAGE, headers={"request-timeout": "0.2"})
        assert_problem(response, 504, "deadline-passed")
        wait_for(lambda: worker.cancelled == [worker.received[0][0].id])


def test_caller_that_leaves_cancels_the_work() -> None:
    with run_frontend() as frontend:
        worker = frontend.add_worker(0, lambda message, payload: [])
        sock = socket.create_connection(("127.0.0.1", frontend.http_port), 10)
        sock.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd")
        wait_for(lambda: len(worker.received) == 1)
        sock.close()
        wait_for(lambda: worker.cancelled == [worker.received[0][0].id])
        labels = 'code="aborted",model="cifar10",protocol="http",route="/v1/classify"'
        assert f"resnet_requests_total{{{labels}}} 1.0" in httpx.get(f"{frontend.url}/metrics").text
