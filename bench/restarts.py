"""Restart the two replicas behind the edge in turn, under load, and count what the clients saw.

    docker compose --profile edge up -d --build
    .venv/bin/python -m bench.restarts --restarts 20

Half of the callers speak HTTP, half gRPC, both through the edge, none of them tries anything twice. Every
request must be answered: the edge turns away from a server that is not ready before that one stops. Exits 1
when one was not.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from bench.callers import Callers

REPLICAS = ("resnet", "resnet-b")
COMPOSE = ["docker", "compose", "--profile", "edge"]
PROBE = "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/readyz', timeout=2)"
IMAGE = Path(__file__).resolve().parent.parent / "tests/data/cat.jpg"
SETTLED_S = 2.0  # until the edge has seen a replica come back twice, at its four looks a second, and some


def restart_replicas(restarts: int) -> list[float]:
    """Restart them in turn, each once the other is back; returns the seconds that each took."""
    took = []
    for number in range(restarts):
        began = time.monotonic()
        name = REPLICAS[number % 2]
        if not run([*COMPOSE, "restart", name]):
            raise SystemExit(f"`docker compose restart {name}` failed; is the edge profile up?")
        wait_ready(name)
        took.append(time.monotonic() - began)
        print(f"restart {number + 1:3}  {name:9} ready again after {took[-1]:.1f} s", flush=True)
        time.sleep(SETTLED_S)
    return took


def wait_ready(name: str) -> None:
    """Until the replica itself says so; raises SystemExit after a minute or two."""
    for _ in range(120):
        if run([*COMPOSE, "exec", "-T", name, "python", "-c", PROBE]):
            return
        time.sleep(0.5)
    raise SystemExit(f"{name} is not ready after a minute")


def run(command: list[str]) -> bool:
    """Whether it ended well."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def measure(urls: list[str], callers: int, restarts: int) -> int:
    """The whole run; returns the exit code."""
    load = Callers()
    began = time.monotonic()
    with load.asking(urls, IMAGE, callers):
        time.sleep(SETTLED_S)
        took = restart_replicas(restarts)
    elapsed_s = time.monotonic() - began
    print(f"{restarts} restarts in {elapsed_s:.0f} s, ready again after {min(took):.1f} to {max(took):.1f} s")
    print(load.describe())
    return int(load.failed > 0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--urls", nargs="+", default=["http://127.0.0.1:8000", "grpc://127.0.0.1:8001"])
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--restarts", type=int, default=20)
    given = parser.parse_args()
    sys.exit(measure(given.urls, given.callers, given.restarts))


if __name__ == "__main__":
    main()
