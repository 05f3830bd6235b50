"""Restart the two replicas behind the edge in turn, under load, and count what the client saw.

    docker compose --profile edge up -d --build
    .venv/bin/python -m bench.restarts --restarts 20

Every request must be answered 200: the edge turns away from a server that is not ready before that one stops.
Exits 1 when one was not.
"""

import argparse
import asyncio
import collections
import subprocess
import sys
import time
from pathlib import Path

import httpx

REPLICAS = ("resnet", "resnet-b")
IMAGE = Path(__file__).resolve().parent.parent / "tests/data/cat.jpg"
SETTLED_S = 2.0  # until the edge has seen a replica come back twice, at its four looks a second, and some


class Load:
    """`clients` callers that ask again as soon as they are answered, on connections they keep."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._image = IMAGE.read_bytes()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.latencies_s: list[float] = []
        self.is_over = False

    async def run(self, clients: int) -> None:
        """Until `is_over`."""
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._ask())

    async def _ask(self) -> None:
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            while not self.is_over:
                began = time.perf_counter()
                try:
                    answer = await client.post(self._url, content=self._image)
                    outcome = str(answer.status_code)
                except httpx.HTTPError as err:
                    outcome = type(err).__name__
                self.outcomes[outcome] += 1
                self.latencies_s.append(time.perf_counter() - began)


async def restart_replicas(restarts: int) -> list[float]:
    """Restart them in turn, each once the other is back; returns the seconds that each took."""
    took = []
    for number in range(restarts):
        began = time.monotonic()
        name = REPLICAS[number % 2]
        compose = ["docker", "compose", "--profile", "edge"]
        process = await asyncio.create_subprocess_exec(
            *compose, "restart", name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if await process.wait():
            raise SystemExit(f"`docker compose restart {name}` failed; is the edge profile up?")
        await wait_ready(name)
        took.append(time.monotonic() - began)
        await asyncio.sleep(SETTLED_S)
    return took


async def wait_ready(name: str) -> None:
    """Until the replica itself says so; raises SystemExit after a minute."""
    probe = "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/readyz', timeout=2)"
    for _ in range(120):
        process = await asyncio.create_subprocess_exec(
            *["docker", "compose", "--profile", "edge", "exec", "-T", name, "python", "-c", probe],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if await process.wait() == 0:
            return
        await asyncio.sleep(0.5)
    raise SystemExit(f"{name} is not ready after a minute")


async def measure(url: str, clients: int, restarts: int) -> int:
    """The whole run; returns the exit code."""
    load = Load(url)
    loading = asyncio.create_task(load.run(clients))
    await asyncio.sleep(SETTLED_S)
    began = time.monotonic()
    took = await restart_replicas(restarts)
    elapsed_s = time.monotonic() - began
    load.is_over = True
    await loading
    ranked = sorted(load.latencies_s)
    failed = sum(count for outcome, count in load.outcomes.items() if outcome != "200")
    print(f"{restarts} restarts in {elapsed_s:.0f} s, ready again after {min(took):.1f}-{max(took):.1f} s")
    print(f"{len(ranked)} requests from {clients} clients, {failed} failed: {dict(load.outcomes)}")
    for name, share in (("p50", 0.5), ("p99", 0.99), ("worst", 1.0)):
        print(f"{name} {ranked[min(len(ranked) - 1, int(share * len(ranked)))] * 1000:.0f} ms")
    return int(failed > 0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1/classify")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--restarts", type=int, default=20)
    given = parser.parse_args()
    sys.exit(asyncio.run(measure(given.url, given.clients, given.restarts)))


if __name__ == "__main__":
    main()
