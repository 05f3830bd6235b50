"""What the service does with more than it can: `python -m bench.overload --repository R --model resnet18`.

Capacity is measured first, by callers who wait for each answer; then requests come at multiples of it, at
random moments, whether or not earlier ones were answered, while somebody asks /livez ten times a second. The
load generator has the same cores as the service, so its processor time is told beside the service's.
"""

import argparse
import asyncio
import json
import os
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.images import make_images
from bench.machine import describe_machine, probe
from bench.quietness import Quietness
from service.client.load import Report, Target, run_closed, run_open
from tests.serving import Service, run_service

CALLERS = 32
HALF = 0.5
PROBE_S = 0.1
RECOVERY_S = 5.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Watch:
    """What was seen beside the load: /livez in seconds, the service's memory in bytes."""

    livez_s: list[float] = field(default_factory=list)
    livez_failed: int = 0
    memory: list[dict[str, int]] = field(default_factory=list)


def list_processes(service: Service) -> dict[str, int]:
    """Process ids by role and slot."""
    found = {f"{one['role']}-{one['slot']}": one["pid"] for one in service.get_json("/v1/status")["children"]}
    return {"supervisor": service.process.pid, **found, "load": os.getpid()}


def read_cpu_s(pid: int) -> float:
    """Processor time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def read_memory(processes: dict[str, int]) -> dict[str, int]:
    """Bytes of each process, shared pages counted once."""
    found = {}
    for name, pid in processes.items():
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        found[name] = next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return found


@contextmanager
def watching(service: Service) -> Iterator[Watch]:
    """Ask /livez and read the memory until the end of the block."""
    watch, is_over = Watch(), threading.Event()
    processes = list_processes(service)
    del processes["load"]
    for pid in set(service.list_pids()) - set(processes.values()):
        processes["in waiting"] = pid

    def look() -> None:
        next_memory = 0.0
        while not is_over.wait(PROBE_S):
            began = time.monotonic()
            try:
                with urllib.request.urlopen(service.http + "/livez", timeout=10):
                    watch.livez_s.append(time.monotonic() - began)
            except OSError:
                watch.livez_failed += 1
            if time.monotonic() >= next_memory:
                watch.memory.append(read_memory(processes))
                next_memory = time.monotonic() + 1.0

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield watch
    finally:
        is_over.set()
        thread.join()


def percentile_ms(seconds: list[float], share: float) -> float:
    """The latency in ms under which `share` of `seconds` stayed."""
    ranked = sorted(seconds)
    return round(1000 * ranked[min(len(ranked) - 1, int(share * len(ranked)))], 1) if ranked else float("nan")


def describe(report: Report) -> dict[str, Any]:
    """A load's figures."""
    return {
        "seconds": round(report.seconds, 1),
        "sent_per_s": round(report.codes.total() / report.seconds, 1),
        "good_per_s": round(report.rate_per_s, 2),
        "p50_ms": percentile_ms(report.latencies_s, 0.5),
        "p99_ms": percentile_ms(report.latencies_s, 0.99),
        "max_ms": percentile_ms(report.latencies_s, 1.0),
        "codes": {str(code): count for code, count in sorted(report.codes.items())},
    }


def describe_memory(seen: list[dict[str, int]]) -> dict[str, Any]:
    """The least and most of all together, and the most of each process, in MB."""
    totals = [round(sum(one.values()) / 1e6, 1) for one in seen]
    most = {name: round(max(one.get(name, 0) for one in seen) / 1e6, 1) for name in seen[0]}
    return {"least": min(totals), "most": max(totals), "most_by_process": most}


def load_and_watch(service: Service, load: Any) -> dict[str, Any]:
    """Run one load; what it saw, what was seen beside it, and who used the processor."""
    processes = list_processes(service)
    before = {name: read_cpu_s(pid) for name, pid in processes.items()}
    quietness = Quietness()
    with watching(service) as watch:
        report: Report = asyncio.run(load)
    used = {name: read_cpu_s(pid) - before[name] for name, pid in processes.items()}
    return describe(report) | {
        "others": quietness.others(sum(used.values())),
        "cores": {name: round(seconds / report.seconds, 3) for name, seconds in used.items()},
        "livez_p99_ms": percentile_ms(watch.livez_s, 0.99),
        "livez_max_ms": percentile_ms(watch.livez_s, 1.0),
        "livez_failed": watch.livez_failed,
        "memory_mb": describe_memory(watch.memory),
        "probe": round(probe(), 1),
    }


def overload(
    service: Service, target: Target, capacity: float, times: float, seconds: float
) -> dict[str, Any]:
    """`times` the capacity, then half of it for as long as recovery may take, then half of it, measured."""
    told = load_and_watch(service, run_open(target, times * capacity, seconds))
    after = asyncio.run(run_open(target, HALF * capacity, RECOVERY_S))
    back = load_and_watch(service, run_open(target, HALF * capacity, RECOVERY_S, seed=1))
    return {"times": times} | told | {"first_5_s_after": describe(after), "next_5_s": back}


def measure(service: Service, target: Target, given: argparse.Namespace) -> dict[str, Any]:
    """Capacity, half load, every overload, capacity again."""
    asyncio.run(run_closed(target, CALLERS, given.capacity_seconds / 2))
    first = load_and_watch(service, run_closed(target, CALLERS, given.capacity_seconds))
    capacity = first["good_per_s"]
    told: dict[str, Any] = {"capacity": first}
    told["half"] = load_and_watch(service, run_open(target, HALF * capacity, given.capacity_seconds))
    for times, seconds in given.overload:
        told[f"{times:g}x"] = overload(service, target, capacity, times, seconds)
    told["capacity_after"] = load_and_watch(service, run_closed(target, CALLERS, given.capacity_seconds))
    both = statistics.mean([capacity, told["capacity_after"]["good_per_s"]])
    for times, _ in given.overload:
        one = told[f"{times:g}x"]
        one["goodput_of_capacity"] = round(one["good_per_s"] / both, 3)
        one["p99_limit_ms"] = given.max_wait_ms + 2 * told["half"]["p99_ms"]
    return told


def parse_overload(text: str) -> tuple[float, float]:
    """TIMES:SECONDS."""
    times, _, seconds = text.partition(":")
    return float(times), float(seconds)


def main() -> None:
    """Measure one model; print, and keep the figures with --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repository", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument(
        "--side", type=int, default=500, help="pixels of the images, which are 4 to 3 as JPEGs"
    )
    parser.add_argument("--quality", type=int, default=80)
    parser.add_argument("--max-wait-ms", type=float, default=2000.0)
    parser.add_argument("--capacity-seconds", type=float, default=20.0)
    parser.add_argument("--overload", type=parse_overload, nargs="+", default=[(2.0, 300.0), (10.0, 120.0)])
    parser.add_argument("--out", type=Path, help="keep the figures as JSON")
    given = parser.parse_args()
    images = make_images(given.side, given.quality)
    result: dict[str, Any] = {
        "model": given.model,
        "image_bytes": round(statistics.mean(len(image) for image in images)),
        "max_wait_ms": given.max_wait_ms,
        "machine": describe_machine(),
    }
    settings = {"models": given.model, "default_model": given.model, "max_wait_ms": given.max_wait_ms}
    with run_service(given.repository, **settings) as service:
        result |= measure(service, Target.from_url(service.http, "/v1/classify", images), given)
    print(json.dumps(result, indent=1))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
