"""POST /v1/batch answered at once: in order, as results come, and nothing left behind."""

import csv
import io
import json
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from service.messages import Classify, Failure
from tests.service.frontends import Answers, RunningFrontend
from tests.service.jobs.bodies import make_tar, make_zip
from tests.service.jobs.runners import answer_by_content, run_batches, wait_until

FILES = {f"{number:03}.png": bytes([number, number + 1]) * 50 for number in range(150)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def frontend(folder: Path) -> Iterator[RunningFrontend]:
    with run_batches(folder) as frontend:
        frontend.add_worker(0, answer_by_content)
        yield frontend


@pytest.fixture
def client(frontend: RunningFrontend) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=frontend.url, timeout=30.0) as client:
        yield client


def read_lines(response: httpx.Response) -> list[dict[str, object]]:
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def list_left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_dir()]


@pytest.mark.parametrize("form", ["multipart", "zip", "tar.gz"])
def test_every_image_is_answered_in_order_as_classify_would(
    form: str, client: httpx.Client, folder: Path
) -> None:
    if form == "multipart":
        response = client.post("/v1/batch", files=[("img", (name, data)) for name, data in FILES.items()])
    else:
        body = make_zip(FILES) if form == "zip" else make_tar(FILES, "w:gz")
        response = client.post("/v1/batch", content=body)
    lines = read_lines(response)
    assert response.headers["content-type"] == "application/x-ndjson"
    assert [(line["index"], line["id"]) for line in lines] == list(enumerate(FILES))
    for line, data in list(zip(lines, FILES.values(), strict=True))[::30]:
        alone = client.post("/v1/classify", content=data).json()
        assert line["predictions"] == alone["predictions"]
    assert list_left(folder) == []


def test_a_bad_image_harms_no_other(client: httpx.Client) -> None:
    lines = read_lines(
        client.post("/v1/batch", content=make_tar({"a": b"1", "b": b"broken", "c": b"", "d": b"4"}))
    )
    assert [sorted(line) for line in lines] == [
        ["id", "index", "predictions"],
        ["error", "id", "index"],
        ["error", "id", "index"],
        ["id", "index", "predictions"],
    ]
    assert lines[1]["error"] == {
        "type": "broken-image",
        "title": "The image cannot be decoded",
        "detail": "the image cannot be decoded",
    }


def test_csv_is_answered_where_it_is_accepted(client: httpx.Client) -> None:
    body = make_tar({"a, b.png": b"\0", "broken.png": b"broken"})
    response = client.post("/v1/batch", content=body, headers={"Accept": "text/html;q=0.1, text/csv"})
    assert response.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [(row["id"], row["label"], row["probability"], row["error"]) for row in rows] == [
        ("a, b.png", "cat", "0.5", ""),
        ("broken.png", "", "", "broken-image"),
    ]
    assert [one["label"] for one in json.loads(rows[0]["predictions"])] == ["cat", "dog", "ship"]


def test_options_reach_every_image_and_bulk_is_the_default(
    client: httpx.Client, frontend: RunningFrontend
) -> None:
    body = make_tar({"a": b"1"})
    assert len(read_lines(client.post("/v1/batch?top_k=2&tta=flip", content=body))) == 1
    read_lines(client.post("/v1/batch?priority=interactive", content=body))
    told = [message.options for message, _ in frontend.workers[0].received]
    assert [(one.top_k, one.tta, one.priority) for one in told] == [
        (2, "flip", "bulk"),
        (5, "center", "interactive"),
    ]


def test_an_overloaded_service_is_waited_for(client: httpx.Client, frontend: RunningFrontend) -> None:
    refusals = 3

    def refuse_first(message: Classify, image: bytes) -> Answers:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            return [(Failure(message.id, "overloaded", "too much", 0.0, 0.05), b"")]
        return answer_by_content(message, image)

    frontend.workers[0]._behave = refuse_first
    lines = read_lines(client.post("/v1/batch", content=make_tar({"a": b"1", "b": b"2"})))
    assert all("predictions" in line for line in lines)


class Refusal(NamedTuple):
    """A request that is no batch, and what it is told."""

    query: str
    content: bytes
    status: int
    slug: str
    headers: Mapping[str, str] | None = None


TAR = make_tar({"a": b"1"})
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(Refusal("?top_k=0", TAR, 400, "bad-request"), id="a bad option"),
        pytest.param(Refusal("?map=true", TAR, 400, "bad-request"), id="an activation map"),
        pytest.param(Refusal("?format=parquet", TAR, 400, "bad-request"), id="Parquet at once"),
        pytest.param(Refusal("?model=none", TAR, 404, "unknown-model"), id="an unknown model"),
        pytest.param(Refusal("", b"", 400, "bad-request"), id="nothing"),
        pytest.param(Refusal("", b"\x89PNG\r\n", 400, "bad-request"), id="one image"),
        pytest.param(Refusal("", make_tar({"../evil": b"1"}), 400, "bad-request"), id="a hostile archive"),
        pytest.param(
            Refusal("", TAR, 415, "unsupported-format", {"Content-Encoding": "br"}), id="packed twice"
        ),
        pytest.param(Refusal("", b'{"source": "x"}', 400, "bad-request", JSON), id="source at once"),
    ],
)
def test_what_is_no_batch_is_refused_before_any_result(
    refusal: Refusal, client: httpx.Client, folder: Path, frontend: RunningFrontend
) -> None:
    response = client.post(f"/v1/batch{refusal.query}", content=refusal.content, headers=refusal.headers)
    assert (response.status_code, response.json()["type"]) == (refusal.status, refusal.slug)
    assert not folder.exists() or list_left(folder) == []
    assert frontend.workers[0].received == []


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        pytest.param("max_batch_bytes", "5000", (413, "too-large"), id="bytes"),
        pytest.param("max_batch_items", "2", (413, "too-large"), id="items"),
        pytest.param("jobs_quota_bytes", "5000", (507, "storage-full"), id="quota"),
        pytest.param("jobs_reserve_bytes", str(1 << 60), (507, "storage-full"), id="free space"),
    ],
)
def test_a_limit_is_told_with_its_setting(
    setting: str, value: str, told: tuple[int, str], folder: Path
) -> None:
    body = make_tar({"a": b"1" * 3_000, "b": b"2" * 3_000, "c": b"3"})
    with run_batches(folder, **{setting: value}) as frontend:
        frontend.add_worker(0, answer_by_content)
        for content in (body, iter([body[:700], body[700:]])):  # of a length declared, and in chunks
            response = httpx.post(f"{frontend.url}/v1/batch", content=content)
            assert (response.status_code, response.json()["type"]) == told
            assert f"SERVE_{setting.upper()}" in response.json()["detail"]
            assert not folder.exists() or list_left(folder) == []


def test_the_first_line_comes_before_the_last_image_is_done(
    client: httpx.Client, frontend: RunningFrontend
) -> None:
    held: list[Classify] = []

    def hold_last(message: Classify, image: bytes) -> Answers:
        if image == b"last":
            held.append(message)
            return []
        return answer_by_content(message, image)

    frontend.workers[0]._behave = hold_last
    with client.stream("POST", "/v1/batch", content=make_tar({"a": b"first", "b": b"last"})) as response:
        lines = response.iter_lines()
        assert json.loads(next(lines))["id"] == "a"
        wait_until(lambda: len(held) == 1)
        for answer, payload in answer_by_content(held[0], b"last"):
            frontend.workers[0].say(answer, payload)
        assert json.loads(next(lines))["id"] == "b"


def test_a_caller_who_leaves_while_results_come_is_cleaned_up_after(
    frontend: RunningFrontend, folder: Path
) -> None:
    frontend.workers[0]._behave = lambda *_: []
    body = make_tar(FILES)
    with socket.create_connection(("127.0.0.1", frontend.http_port)) as sock:
        head = f"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        wait_until(lambda: len(frontend.workers[0].received) > 50)
    wait_until(lambda: list_left(folder) == [])
    wait_until(lambda: len(frontend.workers[0].cancelled) == len(frontend.workers[0].received))


def test_a_caller_who_leaves_within_the_body_is_cleaned_up_after(
    frontend: RunningFrontend, folder: Path
) -> None:
    body = make_tar(FILES)
    with socket.create_connection(("127.0.0.1", frontend.http_port)) as sock:
        head = f"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body[:10_000])
        wait_until(lambda: folder.exists() and len(list_left(folder)) == 1)
    wait_until(lambda: list_left(folder) == [])
    assert frontend.workers[0].received == []


def test_a_body_that_stops_is_answered_and_cleaned_up(folder: Path) -> None:
    body = make_tar(FILES)
    with run_batches(folder, body_timeout_s="0.5") as frontend:
        frontend.add_worker(0, answer_by_content)
        with socket.create_connection(("127.0.0.1", frontend.http_port)) as sock:
            head = f"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            sock.sendall(head.encode() + body[:10_000])
            assert b" 408 " in sock.recv(100)
        wait_until(lambda: list_left(folder) == [])


def test_classify_goes_on_beside_a_batch(client: httpx.Client, frontend: RunningFrontend) -> None:
    def slow_bulk(message: Classify, image: bytes) -> Answers:
        if message.options.priority == "bulk":
            return []
        return answer_by_content(message, image)

    frontend.workers[0]._behave = slow_bulk
    with socket.create_connection(("127.0.0.1", frontend.http_port)) as sock:
        body = make_tar(FILES)
        sock.sendall(
            f"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        wait_until(lambda: len(frontend.workers[0].received) > 50)
        time.sleep(0.05)
        assert client.post("/v1/classify", content=b"1").status_code == 200
