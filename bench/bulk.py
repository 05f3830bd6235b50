"""What a full bulk load costs interactive callers: `python -m bench.bulk --side 224 --model resnet18`.

One caller asks again and again, with a pause between its requests; windows without and with a durable job
that never ends alternate in one run of one service. The promise: p99 beside the job is at most p99 without it
plus one bulk slice (SERVE_BULK_SLICE_MS). Latencies are what the caller sees, the connection being kept.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from service.settings import ZOO, load_settings
from tests.service.jobs.bodies import make_zip
from tests.service.offline.pictures import make_pictures
from tests.serving import run_service

PAUSE_S = 0.02
ASYNC = {"Prefer": "respond-async"}


def ask_for(client: httpx.Client, image: bytes, seconds: float) -> list[float]:
    """Latencies in milliseconds."""
    took_ms: list[float] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        started = time.perf_counter()
        client.post("/v1/classify", content=image).raise_for_status()
        took_ms.append((time.perf_counter() - started) * 1000)
        time.sleep(PAUSE_S)
    return took_ms


def ask_beside_a_job(
    client: httpx.Client, image: bytes, body: bytes, seconds: float
) -> tuple[list[float], int]:
    """As ask_for, while a job runs; also how many of its images were done meanwhile."""
    location = client.post("/v1/batch", content=body, headers=ASYNC).raise_for_status().headers["location"]
    while client.get(location).json()["status"] != "running":
        time.sleep(0.05)
    took_ms = ask_for(client, image, seconds)
    job = client.get(location).json()
    assert job["status"] == "running", "the job was too small to last"
    client.delete(location)
    while client.get(location).json()["status"] != "cancelled":
        time.sleep(0.05)
    client.delete(location)
    return took_ms, int(job["counts"]["done"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2_000, help="of a job; more than a window can score")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15.0, help="of a window")
    parser.add_argument("--repository", type=Path, default=ZOO)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--out", type=Path, help="raw figures as JSON")
    given = parser.parse_args()
    pictures = make_pictures(given.images, given.side, "JPEG")
    body, image = make_zip(pictures), next(iter(pictures.values()))
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    done = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        run_service(
            given.repository, jobs_dir=folder, models=given.model, default_model=given.model
        ) as service,
        httpx.Client(base_url=service.http, timeout=60) as client,
    ):
        ask_for(client, image, 2.0)  # warm-up
        for _ in range(given.rounds):
            alone.append(ask_for(client, image, given.seconds))
            took_ms, images = ask_beside_a_job(client, image, body, given.seconds)
            beside.append(took_ms)
            done += images
    slice_ms = load_settings({}, {}).bulk_slice_ms
    for name, windows in (("alone", alone), ("beside a job", beside)):
        every = np.concatenate(windows)
        p50, p99 = np.percentile(every, [50, 99])
        sys.stdout.write(f"{name}: n {len(every)}, p50 {p50:.1f} ms, p99 {p99:.1f} ms\n")
    limit = np.percentile(np.concatenate(alone), 99) + slice_ms
    sys.stdout.write(
        f"limit: {limit:.1f} ms, one slice being {slice_ms:.0f} ms; {done} images of jobs done\n"
    )
    if given.out:
        what = {"model": given.model, "side": given.side, "slice_ms": slice_ms, "load": os.getloadavg()[0]}
        rounded = {"alone_ms": alone, "beside_ms": beside}
        raw = {name: [[round(ms, 2) for ms in one] for one in windows] for name, windows in rounded.items()}
        given.out.write_text(json.dumps(what | {"job_images": done} | raw))


if __name__ == "__main__":
    main()
