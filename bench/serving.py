"""The whole service against an in-process loop: `python -m bench.serving --model cifar10`.

L is what the project's own decoder and engine do without any protocol, both cores busy: a thread a core, each
decoding and computing batches of its own, and the best of a few batch sizes. The service runs as users start
it, over REST, with a closed loop of callers on the same cores. Subjects take turns, ROUNDS times; medians are
quoted, ratios are of the same round; a fixed piece of arithmetic says what the machine was worth meanwhile.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.decode import DecodeLimits, decode_image
from models.engines.onnx import OnnxEngine
from models.preprocess import cut_views, plan_center
from models.repository import ModelRepository, ModelVersion
from service.client.load import Target, run_closed
from service.private import run_private_service

ROUNDS = 3
SECONDS = 6.0
CALLERS = (1, 8, 32)
LOOP_BATCHES = (1, 4, 16)
ROOT = Path(__file__).resolve().parent.parent


def run_probe() -> float:
    """Products of two fixed matrices a second, one thread: what the machine is worth right now."""
    left = np.random.default_rng(0).standard_normal((256, 256), np.float32)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 0.5:
        left @ left
        count += 1
    return count / 0.5


def run_loop(version: ModelVersion, engine: OnnxEngine, image: bytes, batch: int) -> float:
    """Images a second of decoding, cutting and computing in a thread a core, `batch` views at a time."""
    counts = [0] * len(os.sched_getaffinity(0))
    ends = time.perf_counter() + SECONDS / 2

    def work(lane: int) -> None:
        rule = version.card.preprocess
        while time.perf_counter() < ends:
            views: list[NDArray[np.uint8]] = []
            for _ in range(batch):
                pixels = decode_image(image, DecodeLimits()).pixels
                height, width, _ = pixels.shape
                views += cut_views(pixels, plan_center(height, width, rule), rule.interpolation)
            engine.infer(np.stack(views), threads=1)
            counts[lane] += batch

    began = time.perf_counter()
    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def run_callers(target: Target, callers: int) -> dict[str, float]:
    """A closed loop through the service: rate, percentiles, errors."""
    report = asyncio.run(run_closed(target, callers, SECONDS))
    percentiles = {f"p{share * 100:g}_ms": round(report.percentile_ms(share), 2) for share in (0.5, 0.99)}
    return {"rate_per_s": round(report.rate_per_s, 1), "errors": report.errors} | percentiles


def measure(version: ModelVersion, image: bytes, url: str, precision: str) -> list[dict[str, Any]]:
    """ROUNDS rounds of: the probe, L, the service at each number of callers."""
    engine = OnnxEngine(version, precision)
    path = f"/v1/classify?model={version.reference}&precision={precision}"
    target = Target.from_url(url, path, [image])
    asyncio.run(run_closed(target, 8, 2.0))
    rounds = []
    for _ in range(ROUNDS):
        loops = {batch: round(run_loop(version, engine, image, batch), 1) for batch in LOOP_BATCHES}
        served = {str(callers): run_callers(target, callers) for callers in CALLERS}
        rounds.append({"probe": round(run_probe(), 1), "loop": loops, "served": served})
    return rounds


def summarise(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians, and the medians of the rounds' own ratios to L."""
    median: Callable[[list[float]], float] = lambda values: round(statistics.median(values), 3)  # noqa: E731
    best = [max(one["loop"].values()) for one in rounds]
    told: dict[str, Any] = {"L_per_s": median(best), "probe": median([one["probe"] for one in rounds])}
    for callers in map(str, CALLERS):
        rates = [one["served"][callers]["rate_per_s"] for one in rounds]
        told[f"c={callers}"] = {
            "rate_per_s": median(rates),
            "of_L": median([rate / limit for rate, limit in zip(rates, best, strict=True)]),
            "p50_ms": median([one["served"][callers]["p50_ms"] for one in rounds]),
            "p99_ms": median([one["served"][callers]["p99_ms"] for one in rounds]),
            "errors": sum(one["served"][callers]["errors"] for one in rounds),
        }
    return told


def main() -> None:
    """Measure one model version at each precision it has; print and, with --out, keep the raw rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repository", default=str(ROOT / "models" / "zoo"))
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--image", type=Path, default=ROOT / "tests" / "data" / "cat.jpg")
    parser.add_argument("--out", type=Path, help="keep the raw rounds as JSON")
    given = parser.parse_args()
    version = ModelRepository([Path(given.repository)]).find(given.model)
    image = given.image.read_bytes()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout
    result: dict[str, Any] = {
        "model": version.reference,
        "architecture": version.card.architecture,
        "image_bytes": len(image),
        "commit": commit.strip(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
    precisions = ["fp32", "int8"] if "graph.int8.onnx" in version.card.files else ["fp32"]
    began = time.perf_counter()
    with run_private_service(given.repository) as url:
        result["start_s"] = round(time.perf_counter() - began, 2)
        for precision in precisions:
            rounds = measure(version, image, url, precision)
            result[precision] = {"summary": summarise(rounds), "rounds": rounds}
            print(precision, json.dumps(result[precision]["summary"], indent=1))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
