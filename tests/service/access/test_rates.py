"""Rates of keys: exact over time and over processes, told to callers on HTTP and gRPC."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from service.access.keys import ApiKey
from service.access.rates import RateTable
from service.client import Client
from service.pb import classifier_pb2 as pb
from service.pb import classifier_pb2_grpc as pb_grpc
from tests.service.access.trials import Guarded, bearer, run_guarded
from tests.service.frontends import wait_for
from tests.service.protocols.telling import read_details

SLOW = {"rate_per_s": 0.001, "burst": 3}  # nothing comes back while a test runs

# Takes tokens of one key as fast as it can, and says how many it got.
TAKE = """
import sys
from pathlib import Path
from service.access.keys import ApiKey
from service.access.rates import RateTable
table = RateTable(Path(sys.argv[1]), clock=lambda: 5.0)
key = ApiKey("a", "", frozenset(), rate_per_s=1.0, burst=2000)
input()
print(sum(table.take(key) == 0.0 for _ in range(2000)))
"""


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(tmp_path: Path, clock: Clock) -> Iterator[RateTable]:
    made = RateTable(tmp_path / "rates", clock)
    yield made
    made.close()


def make_limited(id: str = "a", rate_per_s: float | None = 10.0, burst: int = 5) -> ApiKey:
    return ApiKey(id, "", frozenset(), rate_per_s, burst)


def test_a_burst_passes_and_then_the_rate(table: RateTable, clock: Clock) -> None:
    key = make_limited()
    assert [table.take(key) for _ in range(5)] == [0.0] * 5
    assert table.take(key) == pytest.approx(0.1)
    clock.now += 0.1
    assert table.take(key) == 0.0
    assert table.take(key) == pytest.approx(0.1)
    taken = 0
    for _ in range(1000):  # ten seconds, asked ten times as often as allowed
        clock.now += 0.01
        taken += table.take(key) == 0.0
    assert taken == 100


def test_a_pause_fills_the_bucket_and_no_more(table: RateTable, clock: Clock) -> None:
    key = make_limited()
    while table.take(key) == 0.0:
        pass
    clock.now += 3600
    assert [table.take(key) == 0.0 for _ in range(6)] == [True] * 5 + [False]


def test_many_images_at_once_are_paid_for_by_who_comes_next(table: RateTable, clock: Clock) -> None:
    key = make_limited()
    assert table.take(key, 20) == 0.0  # more than the bucket holds, which is full
    assert table.take(key) == pytest.approx(1.6)
    state = table.look(key)
    assert state is not None
    assert state.left == 0
    assert state.full_in_s == pytest.approx(2.0)


def test_a_key_without_a_rate_is_never_told_to_wait(table: RateTable) -> None:
    key = make_limited(rate_per_s=None)
    assert not any(table.take(key) for _ in range(1000))
    assert table.look(key) is None


def test_keys_have_buckets_of_their_own(table: RateTable) -> None:
    keys = [make_limited(f"key-{number}", burst=1) for number in range(2000)]
    assert not any(table.take(key) for key in keys)
    assert all(table.take(key) for key in keys)


def test_processes_count_together(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", TAKE, str(tmp_path / "rates")]
    processes = [
        subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    taken = [int(one.communicate("go\n", timeout=60)[0]) for one in processes]
    assert sum(taken) == 2000, taken


def test_a_dead_holder_of_the_lock_stops_nobody(tmp_path: Path, clock: Clock) -> None:
    hold = (
        "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); "
        "fcntl.lockf(fd, fcntl.LOCK_EX); print(flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "rates")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    table = RateTable(tmp_path / "rates", clock)
    assert [table.take(make_limited()) == 0.0 for _ in range(6)] == [True] * 5 + [False]
    holder.kill()
    holder.communicate()
    assert table.take(make_limited()) > 0
    table.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with run_guarded(tmp_path_factory.mktemp("keys")) as running:
        yield running


def add_limited(guarded: Guarded) -> str:
    """A new key of three images, once the frontend knows it."""
    key = guarded.file.add("classify", **SLOW)
    url = f"{guarded.frontend.url}/v1/models"
    wait_for(lambda: httpx.get(url, headers=bearer(key)).status_code == 200, 30.0)
    return key


def test_http_tells_what_is_left_and_when_to_come_back(guarded: Guarded) -> None:
    key = add_limited(guarded)
    with httpx.Client(base_url=guarded.frontend.url, headers=bearer(key)) as client:
        answers = [client.post("/v1/classify", content=b"x") for _ in range(4)]
        assert [one.status_code for one in answers] == [200, 200, 200, 429]
        assert [one.headers["ratelimit"].split(";")[1] for one in answers] == ["r=2", "r=1", "r=0", "r=0"]
        assert answers[0].headers["ratelimit-policy"] == '"images";q=3;w=3000'
        assert (answers[3].json()["type"], int(answers[3].headers["retry-after"]) > 900) == (
            "rate-limited",
            True,
        )
        assert client.get("/v1/models").status_code == 200  # no image, no token


def test_a_body_over_the_rate_is_not_read(guarded: Guarded) -> None:
    key = add_limited(guarded)
    with httpx.Client(base_url=guarded.frontend.url, headers=bearer(key)) as client:
        for _ in range(3):
            client.post("/v1/classify", content=b"x")

        head = f"POST /v1/classify HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\nexpect: 100-continue\r\n"
    with socket.create_connection(("127.0.0.1", guarded.frontend.http_port), 20) as sock:
        sock.sendall(f"{head}content-length: 90000\r\n\r\n".encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 429 ")


def test_a_keys_images_count_together_on_both_protocols(guarded: Guarded) -> None:
    key = add_limited(guarded)
    httpx.post(f"{guarded.frontend.url}/v1/classify", content=b"x", headers=bearer(key))
    with grpc.insecure_channel(f"127.0.0.1:{guarded.frontend.grpc_port}") as channel:
        stub, metadata = pb_grpc.ClassifierStub(channel), (("x-api-key", key),)
        for _ in range(2):
            stub.Classify(pb.ClassifyRequest(image=b"x"), metadata=metadata, wait_for_ready=True)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Classify(pb.ClassifyRequest(image=b"x"), metadata=metadata)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    details = read_details(refused.value)
    assert details["ErrorInfo"].reason == "rate-limited"  # type: ignore[attr-defined]  # a message
    assert details["RetryInfo"].retry_delay.seconds > 900  # type: ignore[attr-defined]  # the same


def test_each_image_of_a_request_counts(guarded: Guarded) -> None:
    key = add_limited(guarded)
    image = {"b64": "eHh4eA=="}
    with httpx.Client(base_url=guarded.frontend.url, headers=bearer(key)) as client:
        asked = {"instances": [image, image, image]}
        assert client.post("/v1/models/cifar10:predict", json=asked).status_code == 200
        refused = client.post("/v1/models/cifar10:predict", json={"instances": [image]})
        assert refused.status_code == 429
        assert json.loads(refused.text)["error"].startswith("the key ")


def test_a_gate_without_rates_has_no_headers(guarded: Guarded) -> None:
    answer = httpx.post(
        f"{guarded.frontend.url}/v1/classify", content=b"x", headers=bearer(guarded.keys["classify"])
    )
    assert "ratelimit" not in answer.headers


def test_the_client_waits_as_long_as_it_is_told(guarded: Guarded) -> None:
    key = guarded.file.add("classify", rate_per_s=20.0, burst=1)
    url = f"{guarded.frontend.url}/v1/models"
    wait_for(lambda: httpx.get(url, headers=bearer(key)).status_code == 200, 30.0)
    with Client(guarded.frontend.url, api_key=key, attempts=20, timeout_s=60) as client:
        assert [client.classify(b"x").predictions[0].label for _ in range(3)] == ["cat"] * 3
