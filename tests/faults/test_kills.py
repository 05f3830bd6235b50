"""Workers killed under load: callers see nothing, every answer is the golden one, nothing is counted twice.

Seconds long in every test run; `make test-faults` runs it for FAULT_SECONDS=300.
"""

import asyncio
import os
import re
import signal
import time
import urllib.request
from collections import Counter

import httpx
import pytest

from tests.serving import PHOTOGRAPHS, Service, run_service

SECONDS = float(os.environ.get("FAULT_SECONDS", "12"))
KILL_EVERY_S = 2.0
CALLERS = 4
PAUSE_S = 0.02  # about half of what the small model can do on two cores
CAT = (PHOTOGRAPHS / "cat.jpg").read_bytes()


def find_workers(service: Service) -> list[int]:
    """The workers' process ids, as the service tells them."""
    children = service.get_json("/v1/status")["children"]
    return [child["pid"] for child in children if child["role"] == "worker" and child["state"] == "up"]


async def kill_workers(service: Service, ends: float) -> int:
    """kill -9 every KILL_EVERY_S until `ends`; returns how many died of it."""
    kills = 0
    while time.monotonic() < ends - KILL_EVERY_S:
        await asyncio.sleep(KILL_EVERY_S)
        for pid in await asyncio.to_thread(find_workers, service):
            os.kill(pid, signal.SIGKILL)
            kills += 1
    return kills


async def call(client: httpx.AsyncClient, ends: float, ledger: Counter[int], answers: set[str]) -> None:
    """Ask again and again, count the statuses, keep what was answered."""
    while time.monotonic() < ends:
        answer = await client.post("/v1/classify", content=CAT, headers={"Request-Timeout": "10"})
        ledger[answer.status_code] += 1
        answers.add(str(answer.json().get("predictions")))
        await asyncio.sleep(PAUSE_S)


async def load_and_kill(service: Service) -> tuple[Counter[int], set[str], int]:
    ledger, answers, ends = Counter[int](), set[str](), time.monotonic() + SECONDS
    async with httpx.AsyncClient(base_url=service.http, timeout=30) as client:
        killing = asyncio.create_task(kill_workers(service, ends))
        await asyncio.gather(*(call(client, ends, ledger, answers) for _ in range(CALLERS)))
        return ledger, answers, await killing


@pytest.mark.timeout(SECONDS + 120)
def test_kills_every_two_seconds_are_seen_by_nobody() -> None:
    with run_service(max_wait_ms=9_000) as service:
        golden = str(service.post_image(CAT)["predictions"])
        ledger, answers, kills = asyncio.run(load_and_kill(service))
        deaths = [line for line in service.log if line["message"] == "worker died"]
        with urllib.request.urlopen(service.http + "/metrics", timeout=10) as metrics:
            text = metrics.read().decode()
    print(f"{ledger.total()} requests, {kills} kills")
    assert kills > 0
    assert len(deaths) == kills
    assert ledger == {200: ledger.total()}
    assert answers == {golden}
    assert count_ok(text) == ledger.total() + 1


def count_ok(metrics: str) -> int:
    """Classify requests answered 200, from the metrics."""
    lines = [line for line in metrics.splitlines() if line.startswith("resnet_requests_total{")]
    mine = [line for line in lines if 'code="200"' in line and re.search('route="/v1/classify"', line)]
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in mine))


def test_stopped_worker_is_replaced_and_its_images_answered() -> None:
    with run_service(max_wait_ms=20_000) as service:
        (pid,) = find_workers(service)
        os.kill(pid, signal.SIGSTOP)
        assert service.post_image(CAT)["predictions"][0]["label"] == "cat"
        assert find_workers(service) != [pid]
        assert any(line["message"] == "no heartbeat; killed" for line in service.log)
