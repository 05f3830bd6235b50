"""Hostile and broken HTTP against a real frontend: never a 5xx, never a hang, and good callers served on."""

import random
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from service.messages import Classify, MapAnswer, Result
from tests.service.frontends import (
    Answers,
    RunningFrontend,
    make_served,
    read_memory_kb,
    run_frontend,
    wait_for,
)

URL = "/v1/classify"
HOST = b"Host: x\r\n"
CLOSE = HOST + b"Connection: close\r\n\r\n"


def connect(frontend: RunningFrontend) -> socket.socket:
    """A connection to its HTTP port."""
    return socket.create_connection(("127.0.0.1", frontend.http_port), 10)


def talk(frontend: RunningFrontend, data: bytes, is_closing: bool = True) -> bytes:
    """Send raw bytes, close our side, and return everything that comes back."""
    with connect(frontend) as sock:
        told = b""
        try:
            sock.sendall(data)
            if is_closing:
                sock.shutdown(socket.SHUT_WR)
            while chunk := sock.recv(65536):
                told += chunk
        except ConnectionError:
            pass
        return told


def post(headers: bytes, body: bytes = b"") -> bytes:
    """A raw POST to the hot path that asks to close after it."""
    return b"POST /v1/classify HTTP/1.1\r\n" + HOST + b"Connection: close\r\n" + headers + b"\r\n" + body


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400, id="TLS hello"),
        pytest.param(b"\x00" * 1000, 400, id="zeros"),
        pytest.param(b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n", 400, id="no host"),
        pytest.param(b"GET /livez HTTP/1.1\r\n" + HOST + CLOSE, 400, id="two hosts"),
        pytest.param(b"GET /livez HTTP/1.0\r\n\r\n", 200, id="no host in HTTP/1.0"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", 400, id="SSH"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="HTTP/2 preface"),
        pytest.param(b"GET /livez HTTP/9.9\r\n" + HOST + b"\r\n", 400, id="HTTP/9.9"),
        pytest.param(b"GET\r\n\r\n", 400, id="no path"),
        pytest.param(b"FOO /livez HTTP/1.1\r\n" + HOST + b"\r\n", 400, id="made-up method"),
        pytest.param(post(b"Content-Length: -1\r\n"), 400, id="negative length"),
        pytest.param(post(b"Content-Length: 99999999999999999999999\r\n"), 400, id="absurd length"),
        pytest.param(post(b"Content-Length: 9999999999999\r\n"), 413, id="length of terabytes"),
        pytest.param(post(b"Content-Length: 1\r\nContent-Length: 2\r\n", b"ab"), 400, id="two lengths"),
        pytest.param(
            post(b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400, id="smuggling"
        ),
        pytest.param(
            post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"),
            400,
            id="smuggling, turned",
        ),
        pytest.param(post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), 400, id="another coding"),
        pytest.param(
            post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"), 400, id="chunked, then not"
        ),
        pytest.param(post(b"Content-Length: 3, 3\r\n", b"abc"), 400, id="a list of lengths"),
        pytest.param(post(b"Content-Length: +3\r\n", b"abc"), 400, id="a signed length"),
        pytest.param(post(b"Content-Length:\r\n 3\r\n", b"abc"), 400, id="a folded length"),
        pytest.param(post(b"Transfer-Encoding: chunked\r\n", b"zz\r\nx\r\n0\r\n\r\n"), 400, id="bad chunk"),
        pytest.param(post(b"X: a\x00b\r\n"), 400, id="NUL in a header"),
        pytest.param(post(b"X : a\r\n"), 400, id="space before the colon"),
        pytest.param(post(b"X: " + b"a" * 100_000 + b"\r\n"), 400, id="endless header"),
        pytest.param(post(b"".join(b"X%d: a\r\n" % n for n in range(20_000))), 400, id="endless headers"),
        pytest.param(b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 400, id="endless path"),
        pytest.param(b"GET /%00%ff%zz/../.. HTTP/1.1\r\n" + CLOSE, 404, id="odd escapes"),
        pytest.param(b"GET http://other/livez HTTP/1.1\r\n" + CLOSE, 200, id="absolute address"),
        pytest.param(b"CONNECT other:80 HTTP/1.1\r\n" + HOST + b"\r\n", 4, id="CONNECT"),
        pytest.param(
            b"GET /livez HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n",
            200,
            id="upgrade to a websocket",
        ),
        pytest.param(post(b"Content-Length: 4\r\n\r\n", b"")[:-2] + b"abcd", 200, id="a well-formed one"),
    ],
)
def test_broken_http_is_the_callers_mistake(frontend: RunningFrontend, data: bytes, status: int) -> None:
    told = talk(frontend, data, is_closing=status == 400)
    answered = told[9:12].decode()
    assert told.startswith(b"HTTP/1.1 ")
    assert answered.startswith(str(status)), told[:300]
    if answered != "200":
        assert b"content-type: application/problem+json\r\n" in told
        assert b"x-request-id: " in told


def test_refused_promise_of_a_body_closes_the_connection(frontend: RunningFrontend) -> None:
    head = (
        b"POST /v1/classify HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 200000\r\n\r\n"
    )
    told = talk(frontend, head, is_closing=False)
    assert told.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close\r\n" in told


def test_what_is_not_http_is_counted(frontend: RunningFrontend, client: httpx.Client) -> None:
    sample = 'resnet_requests_total{code="400",model="",protocol="http",route="unknown"}'
    before = read_sample(client, sample)
    talk(frontend, b"\x00\r\n")
    assert read_sample(client, sample) == before + 1


def read_sample(client: httpx.Client, sample: str) -> float:
    """One sample of /metrics, 0 where it is absent."""
    lines = (line for line in client.get("/metrics").text.splitlines() if line.startswith(sample + " "))
    return float(next(lines, "0 0").rpartition(" ")[2])


def test_random_bytes_never_get_a_5xx(frontend: RunningFrontend) -> None:
    source = random.Random(3)
    good = post(b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100\r\n", b"x" * 100)
    for _ in range(300):
        broken = bytearray(good)
        for _ in range(source.randrange(1, 6)):
            broken[source.randrange(len(broken))] = source.randrange(256)
        told = talk(frontend, bytes(broken[: source.randrange(1, len(broken) + 1)]))
        assert not told or told[9:10] in (b"2", b"4"), (bytes(broken), told)


def test_random_forms_never_get_a_5xx(client: httpx.Client) -> None:
    source = random.Random(5)
    pieces = [b"--b", b"--", b"\r\n", b"\r\n\r\n", b"Content-Disposition: form-data; name=", b'"img"', b"img"]
    pieces += [b"; filename=", b'"', b"\\", b"\x00", b"x" * 50, b":", b" "]
    for _ in range(500):
        body = b"--b\r\n" + b"".join(source.choices(pieces, k=source.randrange(30)))
        headers = {"content-type": "multipart/form-data; boundary=b"}
        assert client.post(URL, content=body, headers=headers).status_code in (200, 400, 415)


def test_pipelined_requests_are_answered_in_order(frontend: RunningFrontend) -> None:
    requests = b"".join(
        b"POST /v1/classify?top_k=%d HTTP/1.1\r\n" % count + HOST + b"Content-Length: 1\r\n\r\nx"
        for count in (1, 2, 3)
    )
    told = talk(frontend, requests + b"GET /livez HTTP/1.0\r\n\r\n", is_closing=False)
    assert told.count(b"HTTP/1.1 200 OK") == 4
    assert [part.count(b'"label"') for part in told.split(b"HTTP/1.1 200 OK")] == [0, 1, 2, 3, 0]


def test_unread_answers_hold_up_the_requests_behind_them() -> None:
    requests = b"".join(
        b"POST /v1/classify?map=true HTTP/1.1\r\n"
        + HOST
        + b"X-Request-Id: %d\r\nContent-Length: 1\r\n\r\nx" % n
        for n in range(400)
    )
    with run_frontend() as running:
        worker = running.add_worker(0, draw_large_map)
        with connect(running) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            sock.sendall(requests)
            seen = -1
            while seen != len(worker.received):  # until it stops
                seen = len(worker.received)
                time.sleep(0.3)
            assert 0 < seen < 200
            told = hear(sock, b"x-request-id: 399\r\n")
        answered = re.findall(rb"HTTP/1.1 (\d+) OK.*?x-request-id: (\d+)\r\n", told, re.DOTALL)
        assert answered == [(b"200", b"%d" % n) for n in range(400)]


def draw_large_map(message: Classify, _: bytes) -> Answers:
    """An answer of 270 kB."""
    drawn = MapAnswer(0, [[0.5]], (0, 0, 1, 1))
    return [
        (
            Result(message.id, [0], [0.7], "center", "center", 1, 0.1, 0.2, 0.3, 0.0, map=drawn),
            bytes(200_000),
        )
    ]


def test_an_answer_that_makes_no_sense_is_our_fault_and_nobody_elses(
    frontend: RunningFrontend, client: httpx.Client
) -> None:
    answers = [[7], [0]]  # there is no label 7

    def behave(message: Classify, _: bytes) -> Answers:
        return [(Result(message.id, answers.pop(0), [0.7], "center", "center", 1, 0.1, 0.2, 0.3, 0.0), b"")]

    frontend.add_worker(7, behave, make_served(frontend.directory, "odd"))
    wait_for(lambda: client.get("/v1/models/odd").status_code == 200)
    told = [client.post(URL + "?model=odd", content=b"x") for _ in range(2)]
    assert [one.status_code for one in told] == [500, 200]
    assert told[0].json()["type"] == "internal"
    assert client.get("/v1/status").json()["inflight_bytes"] == 0


def test_aborts_at_every_byte_leave_nothing_behind(frontend: RunningFrontend, client: httpx.Client) -> None:
    request = post(b"Content-Length: 50\r\n", b"x" * 50)
    for end in range(1, len(request)):
        with connect(frontend) as sock:
            sock.sendall(request[:end])
    assert client.post(URL, content=b"x").status_code == 200
    wait_for(lambda: client.get("/v1/status").json()["inflight_bytes"] == 0)
    assert client.get("/v1/status").json()["workers"][0]["unanswered"] == 0


def test_clock_of_a_second_request_starts_with_it() -> None:
    with run_frontend(header_timeout_s="3") as running, connect(running) as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n")
        assert hear(sock, b"}").startswith(b"HTTP/1.1 200")
        time.sleep(3.1)  # the connection is older than a request's headers may take
        sock.sendall(b"GET /livez HTTP/1.1\r\n")
        time.sleep(1.2)  # the sweep, once a second, sees it half sent
        sock.sendall(CLOSE)
        assert hear(sock, b"}").startswith(b"HTTP/1.1 200")


def hear(sock: socket.socket, end: bytes) -> bytes:
    """Everything up to `end`, or to the connection's."""
    told = b""
    while end not in told and (chunk := sock.recv(65536)):
        told += chunk
    return told


@pytest.fixture(scope="module")
def impatient() -> Iterator[RunningFrontend]:
    """A frontend that waits one second for headers and for the next piece of a body."""
    with run_frontend(header_timeout_s="1", body_timeout_s="1", log_level="warning") as running:
        running.add_worker(0)
        yield running


def drip(sock: socket.socket, data: bytes, pause_s: float) -> bytes:
    """Send byte by byte until the other side answers or closes; returns its answer."""
    sock.settimeout(pause_s)
    try:
        for byte in data:
            sock.sendall(bytes([byte]))
            try:
                return sock.recv(65536)
            except TimeoutError:
                continue
    except ConnectionError:
        return b""
    raise AssertionError("never cut")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"GET /livez HTTP/1.1\r\nX: " + b"a" * 1000, b"408", id="headers byte by byte"),
        pytest.param(
            post(b"Content-Length: 1000\r\nRequest-Timeout: 1.5\r\n", b"x" * 1000),
            b"408",
            id="body byte by byte",
        ),
    ],
)
def test_slow_request_is_cut(impatient: RunningFrontend, data: bytes, status: bytes) -> None:
    with connect(impatient) as sock:
        head, gap, body = data.partition(b"\r\n\r\n")
        if gap:
            sock.sendall(head + gap)
        told = drip(sock, body or data, 0.02)
        assert told[9:12] == status
        assert b"request-timeout" in told


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"", b"", id="nothing at all"),
        pytest.param(b"GET /livez HT", b"408", id="half a request line"),
        pytest.param(post(b"Content-Length: 10\r\n", b"abc"), b"408", id="part of a body"),
        pytest.param(post(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n"), b"408", id="part of chunks"),
    ],
)
def test_silent_connection_is_cut(impatient: RunningFrontend, data: bytes, status: bytes) -> None:
    began = time.monotonic()
    told = talk(impatient, data, is_closing=False)
    assert told[9:12] == status
    assert time.monotonic() - began > 0.9  # not before its time


def test_good_callers_are_served_among_slow_ones(impatient: RunningFrontend) -> None:
    with ExitStack() as stack, httpx.Client(base_url=impatient.url) as client:
        slow = [stack.enter_context(connect(impatient)) for _ in range(200)]
        for sock in slow:
            sock.sendall(b"POST /v1/classify HTTP/1.1\r\n")
        for _ in range(50):
            assert client.post(URL, content=b"x").status_code == 200
        for sock in slow:
            assert sock.recv(1000)[9:12] == b"408"


def test_connections_over_the_limit_are_told_so() -> None:
    with run_frontend(max_connections="3") as frontend, ExitStack() as stack:
        held = [stack.enter_context(connect(frontend)) for _ in range(3)]
        assert httpx.get(f"{frontend.url}/livez").status_code == 503
        held.pop().close()
        wait_for(lambda: httpx.get(f"{frontend.url}/livez").status_code == 200)


def test_idle_connections_hold_nothing_of_refused_bodies() -> None:
    body = bytes(100_000)
    head = b"POST /v1/classify?model=none HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(body)
    with run_frontend() as frontend, ExitStack() as stack:
        frontend.add_worker(1)
        before_kb = 0
        for number in range(600):
            sock = stack.enter_context(connect(frontend))
            sock.sendall(head + body)
            assert sock.recv(65536)[9:12] == b"404"
            if number == 99:  # the first bring tables and buffers with them
                before_kb = read_memory_kb(frontend.child.pid)
        grown_kb = read_memory_kb(frontend.child.pid) - before_kb
    assert grown_kb < 25_000  # they held 50 MB
