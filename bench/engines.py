"""The worker alone against a bare loop of the same decoder and engine: `python -m bench.engines VERSION_DIR`.

L is the rate of an in-process loop without any protocol, queue or frame: threads that decode, cut the centre
view and run the engine, in the best of several layouts, both cores busy. The worker gets the same images over
its real connection. Rounds are interleaved and medians quoted: machines drift, the probe says how much.
Processor time per image (core-ms) stands beside: it compares the two even where others use the machine.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.frames import WorkerProcess
from bench.images import make_images_for
from bench.loop import Loop
from bench.machine import describe_machine, probe
from models.engines.base import Placement
from models.engines.opening import open_engine
from models.repository import check_version
from service.messages import StartWorker
from service.settings import Settings
from service.types import ClassifyOptions

BATCHES = (1, 2, 4, 8, 16)  # images a batch of the bare loop: one lane a core, one engine thread a lane
CONCURRENCY = (1, 8, 32)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", type=Path)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "int8"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write every round here, as JSON")
    asked = parser.parse_args()
    version = check_version(asked.version.absolute())
    crop = version.card.preprocess.crop_px
    images = make_images_for(crop)
    size = statistics.mean(len(image) for image in images)
    engine = open_engine(version, Placement("cpu", asked.precision, asked.cores))
    loop = Loop(version.card, engine, images, asked.precision)
    print(f"{version.reference}, {asked.precision}, {asked.cores} cores, JPEGs of {size:.0f} bytes")
    options = ClassifyOptions(tta="center", precision=asked.precision)
    with tempfile.TemporaryDirectory() as metrics:
        start = StartWorker(
            0, Settings(log_level="warning").to_json(), metrics, str(version.path), "cpu", asked.cores
        )
        with WorkerProcess(["-m", "service.child", "worker"], start) as worker:
            print(f"worker up in {worker.start_s:.2f} s")
            rates = measure_rounds(loop, worker, options, asked)
    report(rates)
    if asked.out:
        asked.out.write_text(
            json.dumps(describe_machine() | {"version": version.reference, "values": rates}) + "\n"
        )


def measure_rounds(
    loop: Loop, worker: WorkerProcess, options: ClassifyOptions, asked: argparse.Namespace
) -> dict[str, list[float]]:
    """Every measurement once a round; values by name, one a round."""
    rates: dict[str, list[float]] = {}

    def loop_bare(lanes: int, batch: int) -> float:
        used_s = time.process_time()
        rate = loop.run(lanes, 1, batch, asked.seconds)
        core_ms = 1000 * (time.process_time() - used_s) / (rate * asked.seconds)
        rates.setdefault(f"core-ms, bare {lanes} lanes, batch {batch}", []).append(core_ms)
        return rate

    def drive(concurrency: int) -> float:
        found = worker.drive(loop.images, options, concurrency, asked.seconds)
        assert not found.failures
        rates.setdefault(f"p50 ms, worker c={concurrency}", []).append(found.p50_ms)
        rates.setdefault(f"core-ms, worker c={concurrency}", []).append(found.core_ms)
        return found.rate_per_s

    cores: int = asked.cores
    steps: dict[str, Callable[[], float]] = {"probe": probe}
    steps["bare one at a time"] = partial(loop.run, 1, cores, 1, asked.seconds)
    for batch in BATCHES:
        steps[f"bare {cores} lanes, batch {batch}"] = partial(loop_bare, cores, batch)
    for concurrency in CONCURRENCY:
        steps[f"worker c={concurrency}"] = partial(drive, concurrency)
    for step in steps.values():  # warm up
        step()
    rates.clear()
    for _ in range(asked.rounds):
        for name, step in steps.items():
            rates.setdefault(name, []).append(step())
    return rates


def report(rates: dict[str, list[float]]) -> None:
    """Medians, and the worker's share of L: of the best layout for many, of one at a time for one."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    limit = max(rate for name, rate in medians.items() if name.startswith("bare") and "lanes" in name)
    for name in sorted(rates):
        share = ""
        if name.startswith("worker"):
            bound = medians["bare one at a time"] if name == "worker c=1" else limit
            share = f"  {medians[name] / bound:.3f} of the bare loop"
        low, high = min(rates[name]), max(rates[name])
        print(f"{name:32} {medians[name]:9.3f}  ({low:.3f} to {high:.3f}){share}")


if __name__ == "__main__":
    main()
