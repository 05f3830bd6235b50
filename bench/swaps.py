"""Swap the served model version again and again under load, and count what the clients saw.

    make trial-swaps                      50 swaps, callers on HTTP and gRPC at once

Every swap is an upload to the admin port of a version with a new number; every fifth one is followed by a
rollback and another one forth again, and what is no longer used is deleted. Prints the memory of all
processes after each (proportional set size, so that shared pages count once). Exits 1 when a request failed,
when another version answered than was chosen, or when memory grew by more than a tenth from the first ten
swaps to the last.
"""

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench.callers import Callers
from models.repository import check_version, write_version
from service.client.versions import VersionsClient
from tests.serving import PHOTOGRAPHS, Service, run_service

ZOO = Path(__file__).resolve().parent.parent / "models/zoo"
TOKEN = "trial"
WAIT_S = 120.0
POLL_S = 0.05
MAX_GROWTH = 0.1


def read_memory(service: Service) -> float:
    """Megabytes of every process of the service."""
    total = 0
    for pid in (service.process.pid, *service.list_pids()):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:  # a worker that has just left
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def wait_retired(service: Service) -> None:
    """Until one worker is left."""
    ends = time.monotonic() + WAIT_S
    while sum(one["role"] == "worker" for one in service.get_json("/v1/status")["children"]) > 1:
        if time.monotonic() > ends:
            raise SystemExit("a replaced worker has not left")
        time.sleep(POLL_S)


def make_version(folder: Path, number: int) -> Path:
    """The shipped model under another number."""
    [shipped] = sorted((ZOO / "cifar10").glob("[0-9]*"))[-1:]
    card = check_version(shipped).card
    files = {name: (shipped / name).read_bytes() for name in card.files}
    return write_version(folder, replace(card, version=number), files).path


def swap(service: Service, admin: VersionsClient, workshop: Path, number: int, first: int) -> float:
    """Push that version, wait until it serves alone; every fifth goes back and forth. Returns megabytes."""
    pushed = admin.push(make_version(workshop, number))
    if not pushed.is_default:
        pushed = admin.activate(pushed.name, number)
    expect(service, admin.wait(pushed, WAIT_S).version)
    if number % 5 == 0:
        expect(service, admin.wait(admin.roll_back(pushed.name), WAIT_S).version)
        expect(service, admin.wait(admin.roll_back(pushed.name), WAIT_S).version)
    wait_retired(service)
    for old in admin.list():
        if old.use is None and old.version >= first:
            admin.remove(old.name, old.version)
    return read_memory(service)


def expect(service: Service, version: int) -> None:
    """The bare name is answered by that version once the frontend has heard; raises SystemExit."""
    wait_retired(service)
    answered = service.post_image((PHOTOGRAPHS / "cat.jpg").read_bytes())["model"]["version"]
    if answered != version:
        raise SystemExit(f"version {answered} answers where {version} should")


def run(swaps: int, callers: int) -> int:
    """The whole trial; returns the exit code."""
    load = Callers()
    with ExitStack() as stack:
        repository, workshop = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        service = stack.enter_context(run_service(f"{ZOO}:{repository}", admin_token=TOKEN))
        admin = stack.enter_context(VersionsClient(f"http://{service.admin}", TOKEN))
        urls = [service.http, f"grpc://{service.grpc}"]
        stack.enter_context(load.asking(urls, PHOTOGRAPHS / "cat.jpg", callers))
        began = time.monotonic()
        first = max(one.version for one in admin.list()) + 1
        memory = []
        for number in range(first, first + swaps):
            memory.append(swap(service, admin, workshop, number, first))
            print(f"swap {number - first + 1:3}  {memory[-1]:6.1f} MB", flush=True)
        took_s = time.monotonic() - began
    return tell(load, memory, took_s, swaps // 5)


def tell(load: Callers, memory: list[float], took_s: float, rollbacks: int) -> int:
    """Print the figures; returns the exit code."""
    span = max(1, min(10, len(memory) // 2))
    early, late = statistics.mean(memory[:span]), statistics.mean(memory[-span:])
    print(f"{len(memory)} swaps and {rollbacks} rollbacks there and back in {took_s:.0f} s")
    print(load.describe())
    print(f"answers came from {len(load.versions)} versions")
    print(f"memory: first {span} swaps {early:.1f} MB, last {span} {late:.1f} MB, most {max(memory):.1f} MB")
    return int(load.failed > 0 or late > early * (1 + MAX_GROWTH))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--callers", type=int, default=4)
    given = parser.parse_args()
    sys.exit(run(given.swaps, given.callers))


if __name__ == "__main__":
    main()
