"""What browsers are told: security headers on every answer, and which pages of other origins may read one."""

import socket
from collections.abc import Iterator

import httpx
import pytest

from service.settings import BadSettings, load_settings
from tests.service.frontends import RunningFrontend, run_frontend

ORIGIN = "https://app.example"
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}


@pytest.fixture(scope="module")
def shared() -> Iterator[httpx.Client]:
    """A frontend whose answers pages of two origins may read."""
    with run_frontend(cors_origins=f"{ORIGIN},http://localhost:3000") as frontend:
        frontend.add_worker(0)
        with httpx.Client(base_url=frontend.url, timeout=20) as client:
            yield client


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/v1/classify", b"x", 200),
        ("POST", "/v1/classify", b"", 400),
        ("POST", "/v1/classify?model=nobody", b"x", 404),
        ("POST", "/v1/classify", bytes(200_000), 413),
        ("GET", "/v1/models", None, 200),
        ("GET", "/nothing", None, 404),
        ("PUT", "/livez", None, 405),
        ("GET", "/livez", None, 200),
        ("GET", "/metrics", None, 200),
        ("GET", "/", None, 200),
        ("GET", "/web/page.js", None, 200),
        ("GET", "/docs", None, 200),
        ("HEAD", "/openapi.json", None, 200),
    ],
)
def test_every_answer_has_the_security_headers(
    client: httpx.Client, method: str, path: str, content: bytes | None, status: int
) -> None:
    answer = client.request(method, path, content=content)
    assert answer.status_code == status
    check_headers(answer.headers.multi_items())


def test_what_is_not_http_is_answered_with_them_too(frontend: RunningFrontend) -> None:
    with socket.create_connection(("127.0.0.1", frontend.http_port), 20) as sock:
        sock.sendall(b"nonsense\r\n\r\n")
        head = sock.recv(65536).decode().partition("\r\n\r\n")[0]
    lines = [line.partition(": ") for line in head.splitlines()[1:]]
    check_headers([(name.lower(), value) for name, _, value in lines])


def check_headers(headers: list[tuple[str, str]]) -> None:
    found = dict(headers)
    assert found["x-content-type-options"] == "nosniff"
    assert found["x-frame-options"] == "DENY"
    assert found["referrer-policy"] == "no-referrer"
    policies = [value for name, value in headers if name == "content-security-policy"]
    assert len(policies) == 1
    assert "frame-ancestors 'none'" in policies[0]
    assert "default-src 'none'" in policies[0] or "default-src 'self'" in policies[0]
    assert "strict-transport-security" not in found  # there is no TLS here
    assert "server" not in found
    assert found["date"]


@pytest.mark.parametrize("origin", [ORIGIN, "null"])
def test_without_the_setting_no_page_may_read(client: httpx.Client, origin: str) -> None:
    answer = client.post("/v1/classify", content=b"x", headers={"origin": origin})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = client.options("/v1/classify", headers={"origin": origin, **PREFLIGHT})
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/v1/classify", "/v1/classify?top_k=0", "/v1/models", "/nothing"])
def test_a_listed_origin_may_read_answers_and_errors(shared: httpx.Client, path: str) -> None:
    method = "POST" if "classify" in path else "GET"
    answer = shared.request(method, path, content=b"x", headers={"origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["vary"] == "Origin"
    assert "retry-after" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["https://evil.example", f"{ORIGIN}.evil.example", "http://app.example", "null"]
)
def test_another_origin_may_not(shared: httpx.Client, origin: str) -> None:
    answer = shared.post("/v1/classify", content=b"x", headers={"origin": origin})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
    preflight = shared.options("/v1/classify", headers={"origin": origin, **PREFLIGHT})
    assert "access-control-allow-origin" not in preflight.headers


def test_a_preflight_allows_what_the_api_takes(shared: httpx.Client) -> None:
    answer = shared.options("/v1/classify", headers={"origin": ORIGIN, **PREFLIGHT})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in answer.headers["access-control-allow-methods"]
    for name in ("authorization", "x-api-key", "content-type", "request-timeout", "idempotency-key"):
        assert name in answer.headers["access-control-allow-headers"]
    # HTTP goes on after an answer without a body.
    assert shared.get("/livez").status_code == 200


def test_a_star_lets_every_page_read() -> None:
    with run_frontend(cors_origins="*") as frontend:
        answer = httpx.get(f"{frontend.url}/livez", headers={"origin": ORIGIN})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "vary" not in answer.headers


@pytest.mark.parametrize(
    "origins", ["app.example", "https://app.example/", "https://a b", "*,https://a", "ftp://a"]
)
def test_what_is_no_origin_is_refused_at_start(origins: str) -> None:
    with pytest.raises(BadSettings, match="SERVE_CORS_ORIGINS"):
        load_settings({"cors_origins": origins}, {})
