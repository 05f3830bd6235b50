"""A durable job against a bare loop on the same cores: `python -m bench.batch --images 4000 --side 224`.

The loop is decode, centre view, engine and top-5 on one thread a core, sixteen images at a time, without any
protocol, disk or frame: the same pipeline as the worker's. The job is submitted as a zip to an idle service
and timed from its submission to its last line, then a batch answered at once by its request. Rounds are
interleaved. On a busy machine the clock says little, so the processor time of an image is told too.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from service.jobs.items import Item
from service.jobs.reader import LoadedItem
from service.offline.model import OfflineModel, open_model
from service.offline.run import CHUNK_ITEMS
from service.offline.scorer import OfflineScorer
from service.settings import ZOO, load_settings
from tests.service.jobs.bodies import make_zip
from tests.service.offline.pictures import make_pictures
from tests.serving import Service, run_service


@dataclass(frozen=True, slots=True)
class Round:
    """Images per second of the bare loop, of a durable job and of a batch answered at once; load average.

    `loop_cpu_ms` and `job_cpu_ms`: processor time of one image, of all processes of the service together.
    """

    loop: float
    job: float
    at_once: float
    load: float
    loop_cpu_ms: float
    job_cpu_ms: float


def time_loop(model: OfflineModel, images: list[bytes]) -> float:
    """Images per second on every core."""
    scorer = OfflineScorer(model.loaded, model.labels, model.options)
    items = [LoadedItem(index, Item(index), image) for index, image in enumerate(images)]
    chunks = iter([items[start : start + CHUNK_ITEMS] for start in range(0, len(items), CHUNK_ITEMS)])
    lock = threading.Lock()

    def run() -> None:
        while True:
            with lock:
                chunk = next(chunks, None)
            if chunk is None:
                return
            scorer.score(chunk)

    lanes = [threading.Thread(target=run) for _ in range(model.threads)]
    started = time.monotonic()
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    return len(images) / (time.monotonic() - started)


def time_job(client: httpx.Client, body: bytes, images: int) -> float:
    """Images per second from the moment the runner may begin to the last line on the disk."""
    response = client.post("/v1/batch", content=body, headers={"Prefer": "respond-async"}).raise_for_status()
    location = response.headers["location"]
    while (job := client.get(location).json())["status"] != "done":
        time.sleep(0.1)
    assert job["counts"] == {"total": images, "done": images, "failed": 0}
    client.delete(location)
    return images / float(job["finished"] - job["created"])


def time_at_once(client: httpx.Client, body: bytes, images: int) -> float:
    """Images per second of the whole request, upload included."""
    started = time.monotonic()
    lines = client.post("/v1/batch", content=body).raise_for_status().text.splitlines()
    assert len(lines) == images
    return images / (time.monotonic() - started)


def read_cpu_s(service: Service) -> float:
    """Processor seconds of the supervisor, the job runner and the workers so far.

    The frontend's are left out: what it did for a job, it did before the job was accepted.
    """
    ticks = 0
    children = service.get_json("/v1/status")["children"]
    pids = [child["pid"] for child in children if child["role"] != "frontend"]
    for pid in (service.process.pid, *pids):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def time_round(
    model: OfflineModel, images: list[bytes], service: Service, client: httpx.Client, body: bytes
) -> Round:
    """All three, one after the other."""
    count, loop_began = len(images), time.process_time()
    loop = time_loop(model, images)
    loop_cpu_s, job_began = time.process_time() - loop_began, read_cpu_s(service)
    job = time_job(client, body, count)
    job_cpu_s = read_cpu_s(service) - job_began
    at_once = time_at_once(client, body, count)
    costs = loop_cpu_s * 1000 / count, job_cpu_s * 1000 / count
    return Round(loop, job, at_once, os.getloadavg()[0], *costs)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4_000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tta", default="center")
    parser.add_argument("--repository", type=Path, default=ZOO)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--format", default="PNG", help="of the images, as Pillow names it")
    parser.add_argument("--out", type=Path, help="raw figures as JSON")
    given = parser.parse_args()
    pictures = make_pictures(given.images, given.side, given.format)
    body, images = make_zip(pictures), list(pictures.values())
    asked = {"model": given.model, "tta": given.tta, "top_k": 5, "precision": None, "threads": None}
    model = open_model(load_settings({"model_repository": str(given.repository)}, {}), asked)
    with (
        tempfile.TemporaryDirectory() as folder,
        run_service(
            given.repository, jobs_dir=folder, models=given.model, default_model=given.model
        ) as service,
        httpx.Client(base_url=service.http, timeout=None, params={"tta": given.tta}) as client,
    ):
        time_at_once(client, body, given.images)  # warm-up
        rounds = [time_round(model, images, service, client, body) for _ in range(given.rounds)]
    for name in ("loop", "job", "at_once", "load", "loop_cpu_ms", "job_cpu_ms"):
        values = [float(getattr(one, name)) for one in rounds]
        sys.stdout.write(
            f"{name}: median {statistics.median(values):.2f}, {min(values):.2f} to {max(values):.2f}\n"
        )
    shares = [one.job / one.loop for one in rounds]
    sys.stdout.write(f"job / loop: median {statistics.median(shares):.3f} of {len(shares)} rounds\n")
    costs = [one.loop_cpu_ms / one.job_cpu_ms for one in rounds]
    sys.stdout.write(f"loop / job in processor time: median {statistics.median(costs):.3f}\n")
    if given.out:
        what = {
            "model": model.reference,
            "images": given.images,
            "side": given.side,
            "format": given.format,
            "tta": given.tta,
            "cores": model.threads,
        }
        given.out.write_text(json.dumps(what | {"rounds": [asdict(one) for one in rounds]}, indent=1))


if __name__ == "__main__":
    main()
