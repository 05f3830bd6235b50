"""Whether anything grows: `python -m bench.soak --requests 100000`.

Sends that many requests and writes down, every so often, each process's memory, descriptors and threads. Told
are the slope of the memory over the last half, by least squares, and whether the rest stayed constant.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bench.machine import describe_machine
from bench.overload import list_processes
from service.client.load import Report, Target, run_closed
from tests.faults.callers import IMAGES
from tests.serving import Service, run_service

CALLERS = 8
CHUNK_S = 5.0
SETTLE_S = 5.0  # the process in waiting is made 3 s after the start


def look(service: Service) -> dict[str, list[int]]:
    """Memory in bytes (shared pages counted once), descriptors, threads of each process."""
    seen = {}
    names = {pid: name for name, pid in list_processes(service).items()}
    for pid in [service.process.pid, *service.list_pids()]:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        memory = next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
        seen[names.get(pid, "in waiting")] = [memory, descriptors, threads]
    return seen


def find_slope(samples: list[dict[str, Any]]) -> float:
    """MiB per 10,000 requests over the last half of the requests."""
    half = [one for one in samples if one["requests"] >= samples[-1]["requests"] / 2]
    requests = [one["requests"] / 10_000 for one in half]
    memory = [sum(process[0] for process in one["processes"].values()) / 2**20 for one in half]
    return round(statistics.linear_regression(requests, memory).slope, 3)


def soak(service: Service, requests: int) -> list[dict[str, Any]]:
    """Load until that many requests were sent; what was seen at the end of each piece."""
    target = Target.from_url(service.http, "/v1/classify", IMAGES)
    asyncio.run(run_closed(target, CALLERS, SETTLE_S))
    samples: list[dict[str, Any]] = []
    codes: dict[str, int] = {}
    sent = 0
    while sent < requests:
        report: Report = asyncio.run(run_closed(target, CALLERS, CHUNK_S))
        sent += report.codes.total()
        for code, count in report.codes.items():
            codes[str(code)] = codes.get(str(code), 0) + count
        time.sleep(0.5)  # the connections of this piece are closed by then
        samples.append({"requests": sent, "codes": dict(codes), "processes": look(service)})
    return samples


def main() -> None:
    """Measure; print, and keep the samples with --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="keep the samples as JSON")
    given = parser.parse_args()
    with run_service() as service:
        samples = soak(service, given.requests)
    half = [one["processes"] for one in samples if one["requests"] >= given.requests / 2]
    counts = [{name: tuple(seen[1:]) for name, seen in one.items()} for one in half]
    result = {
        "requests": samples[-1]["requests"],
        "codes": samples[-1]["codes"],
        "slope_mib_per_10000": find_slope(samples),
        "are_descriptors_and_threads_constant": all(one == counts[0] for one in counts),
        "machine": describe_machine(),
        "samples": samples,
    }
    shown = {name: value for name, value in result.items() if name != "samples"}
    sys.stdout.write(json.dumps(shown | {"first": samples[0], "last": samples[-1]}, indent=1) + "\n")
    if given.out:
        given.out.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
