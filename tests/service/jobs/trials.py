"""Trials that take minutes, `make trial-kills` and `make trial-memory`; tests run them small.

Kills: SIGKILL to every process of the service at random moments of one job. Memory: the peak of every process
while a batch is answered at once.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.service.jobs.bodies import make_zip
from tests.service.offline.pictures import make_pictures
from tests.serving import Service, run_service


@dataclass(frozen=True, slots=True)
class KillReport:
    """How a job fared: `progress` is how many lines were durable after each kill."""

    images: int
    progress: list[int]
    lost: int
    doubled: int
    different: int


def kill_everything(service: Service) -> None:
    """SIGKILL to the supervisor and every child, at once."""
    pids = [service.process.pid, *service.list_pids()]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    service.process.wait()


def count_lines(results: Path) -> int:
    """How many results are durable; none before the first, when there is no file yet."""
    return results.read_bytes().count(b"\n") if results.exists() else 0


def try_kills(images: int, kills: int, longest_s: float, seed: int = 0) -> KillReport:
    """One job of `images` pictures; every run but the last is killed in the middle of it.

    The kills keep step with the job: kill k of n comes up to `longest_s` after k / (n + 1) of the lines are
    there, or after the service is ready, where they already were.
    """
    chance = random.Random(seed)
    body = make_zip(make_pictures(images))
    progress: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        location = ""
        for kill in range(kills):
            with run_service(jobs_dir=folder) as service:
                location = location or _submit(service, body)
                results = Path(folder) / location[-32:] / "results.ndjson"
                while count_lines(results) < images * kill // (kills + 1):
                    time.sleep(0.001)
                time.sleep(chance.uniform(0, longest_s))
                kill_everything(service)
            progress.append(count_lines(results))
        with (
            run_service(jobs_dir=folder) as service,
            httpx.Client(base_url=service.http, timeout=None) as client,
        ):
            while client.get(location).json()["status"] != "done":
                time.sleep(0.2)
            lines = client.get(f"{location}/results").text.splitlines()
            online = client.post("/v1/batch", content=body).text.splitlines()
    return _compare(lines, online, progress)


def _submit(service: Service, body: bytes) -> str:
    headers = {"Prefer": "respond-async"}
    response = httpx.post(f"{service.http}/v1/batch", content=body, headers=headers, timeout=None)
    return response.raise_for_status().headers["location"]


def _compare(lines: list[str], online: list[str], progress: list[int]) -> KillReport:
    ids = [json.loads(line)["id"] for line in lines]
    different = sum(line != other for line, other in zip(lines, online, strict=False))
    lost = len(online) - len(set(ids))
    return KillReport(len(online), progress, lost, len(ids) - len(set(ids)), different)


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """Bytes of each process (role): idle, and at its highest while the batch was answered."""

    images: int
    body_bytes: int
    idle_bytes: dict[str, int]
    peak_bytes: dict[str, int]


def measure_memory(images: int, side: int) -> MemoryReport:
    """One batch at once, of `images` pictures of `side` pixels."""
    with tempfile.TemporaryDirectory() as folder, run_service(jobs_dir=folder) as service:
        url = f"{service.http}/v1/batch"
        warm = make_zip(make_pictures(64, side))
        httpx.post(url, content=warm, timeout=None).raise_for_status()
        idle = _read_memory(service, "VmRSS")
        body = make_zip(make_pictures(images, side))
        answered = httpx.post(url, content=body, timeout=None).raise_for_status()
        assert len(answered.text.splitlines()) == images
        return MemoryReport(images, len(body), idle, _read_memory(service, "VmHWM"))


def _read_memory(service: Service, field: str) -> dict[str, int]:
    found = {}
    for child in service.get_json("/v1/status")["children"]:
        lines = Path(f"/proc/{child['pid']}/status").read_text().splitlines()
        value = next(line for line in lines if line.startswith(field))
        found[f"{child['role']}-{child['slot']}"] = int(value.split()[1]) << 10
    return found


def tell(line: str) -> None:
    """To whoever runs the trial."""
    sys.stdout.write(line + "\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trial", choices=["kills", "memory"])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest-s", type=float, default=0.3)
    parser.add_argument("--side", type=int, default=224)
    given = parser.parse_args()
    if given.trial == "kills":
        tell(str(try_kills(given.images, given.kills, given.longest_s)))
    else:
        report = measure_memory(given.images, given.side)
        for name, idle in report.idle_bytes.items():
            tell(f"{name}: {idle / 2**20:.1f} MiB, at most {report.peak_bytes[name] / 2**20:.1f} MiB")
        tell(f"{report.images} images, {report.body_bytes / 2**20:.0f} MiB of body")


if __name__ == "__main__":
    main()
