"""The whole service against an in-process loop: `python -m bench.serving --model cifar10`.

L is what the project's own decoder and engine do without any protocol, both cores busy, in the best of
several layouts. The service runs as users start it, over REST with the whole
API, with a closed loop of callers on the same cores. Subjects take turns; ratios are of the same round,
medians are quoted; a fixed piece of arithmetic says what the machine was worth meanwhile. Alone (c=1), the
limits are the engine at batch 1 and one image decoded and computed at a time.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.batches import BatchCounts, read_batches
from bench.images import make_images_for
from bench.load import Endpoint, run_load
from bench.loop import Loop
from bench.machine import describe_machine, probe
from bench.quietness import Quietness
from bench.servers import Server, find_port, run_server
from models.engines.base import Placement
from models.engines.onnx import list_precisions
from models.engines.opening import open_engine
from models.repository import ModelRepository, ModelVersion
from service.settings import ZOO

CALLERS = (1, 8, 32)
LAYOUTS = ((1, 1), (2, 1), (4, 1), (8, 1), (4, 2))  # images a batch, threads it has: one lane a core, or one
WARM_UP_S = 2.0

Round = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one precision can do in this process."""

    loop: Loop
    cores: int

    def measure(self, seconds: float) -> Round:
        """L by layout, one image at a time, the engine at batch 1: rates a second, `seconds` all together."""
        part_s = seconds / (len(LAYOUTS) + 4)
        threads = (1, self.cores)
        cpu_s, quietness = time.process_time(), Quietness()
        told: Round = {
            "loop": {f"{batch} x {wide}": self._run(batch, wide, part_s) for batch, wide in LAYOUTS},
            "alone": max(self.loop.run(1, wide, 1, part_s) for wide in threads),
            "engine_alone": max(self.loop.run_engine(wide, part_s) for wide in threads),
        }
        return told | {"others": quietness.others(time.process_time() - cpu_s)}

    def _run(self, batch: int, threads: int, seconds: float) -> float:
        lanes = self.cores if threads == 1 else 1
        return round(self.loop.run(lanes, threads, batch, seconds), 2)


@dataclass(frozen=True, slots=True)
class Serving:
    """The running service and one way of asking it."""

    server: Server
    endpoint: Endpoint
    images: list[bytes]

    def measure(self, callers: int, seconds: float) -> Round:
        """Rate, percentiles, errors, processor time of an answer, and the views of an average batch."""
        batches = self._count()
        served_s, client_s, quietness = self.server.cpu_s(), time.process_time(), Quietness()
        load = run_load(self.endpoint, self.images, callers, seconds)
        served_s, client_s = self.server.cpu_s() - served_s, time.process_time() - client_s
        others = quietness.others(served_s + client_s)
        done = self._count()
        return asdict(load) | {
            "cpu_ms": round(1000 * served_s / load.answers, 3),
            "client_cpu_ms": round(1000 * client_s / load.answers, 3),
            "batch": round((done.views - batches.views) / max(1, done.batches - batches.batches), 2),
            "others": others,
        }

    def _count(self) -> BatchCounts:
        return read_batches(self.endpoint.port)


def run_rounds(
    version: ModelVersion, images: list[bytes], asked: argparse.Namespace, keep: Callable[[Round], None]
) -> Round:
    """Start the service, take turns; `keep` gets every round as it ends. Returns what holds for all."""
    cores = int(describe_machine()["cores"])  # type: ignore[call-overload]  # it is an int
    precisions = [one for one in list_precisions(version, "cpu") if one in asked.precisions]
    engines = {one: open_engine(version, Placement("cpu", one, cores)) for one in precisions}
    limits = {one: Limits(Loop(version.card, engine, images, one), cores) for one, engine in engines.items()}
    port = find_port()
    endpoints = {
        one: Endpoint(port, f"/v1/classify?model={version.reference}&precision={one}") for one in precisions
    }
    command = serve_command(port, version.path.parent.parent, version.reference)
    with run_server(command, endpoints[precisions[0]], images[0]) as server:
        for precision, endpoint in endpoints.items():
            run_load(endpoint, images, 8, WARM_UP_S)
            limits[precision].measure(WARM_UP_S)
        for number in range(asked.rounds):
            for precision in precisions:
                serving = Serving(server, endpoints[precision], images)
                told: Round = {"round": number, "precision": precision, "probe": round(probe(), 1)}
                told["limits"] = limits[precision].measure(asked.seconds)
                told["served"] = {str(count): serving.measure(count, asked.seconds) for count in CALLERS}
                keep(told)
        return {"start_s": server.start_s, "pss_mb": round(server.pss_mb(), 1)}


def serve_command(port: int, repository: Path, model: str, grpc_port: int = 0) -> list[str]:
    """The service as a user starts it, on `port`, serving `model` alone."""
    options = {
        "http-port": port,
        "grpc-port": grpc_port,
        "admin-port": 0,
        "model-repository": repository,
        "models": model.partition("@")[0],
        "default-model": model.partition("@")[0],
        "log-level": "warning",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "service", "serve", *words]


def summarise(rounds: list[Round]) -> Round:
    """Medians, and the medians of the rounds' own ratios to L, to the engine and to one at a time."""
    best = [max(one["limits"]["loop"].values()) for one in rounds]
    told: Round = {
        "L_per_s": _median(best),
        "alone_ms": _median([1000 / one["limits"]["alone"] for one in rounds]),
        "engine_alone_per_s": _median([one["limits"]["engine_alone"] for one in rounds]),
        "probe": _median([one["probe"] for one in rounds]),
    }
    for callers in map(str, CALLERS):
        served = [one["served"][callers] for one in rounds]
        rates = [one["rate_per_s"] for one in served]
        told[f"c={callers}"] = {
            "of_L": _median([rate / limit for rate, limit in zip(rates, best, strict=True)]),
            "errors": sum(one["errors"] for one in served),
        } | {
            name: _median([one[name] for one in served])
            for name in ("rate_per_s", "p50_ms", "p99_ms", "cpu_ms", "client_cpu_ms", "batch", "others")
        }
    alone = [one["limits"] for one in rounds]
    lone = [one["served"]["1"] for one in rounds]
    pairs = list(zip(lone, alone, strict=True))
    told["c=1"]["of_engine"] = _median([one["rate_per_s"] / limit["engine_alone"] for one, limit in pairs])
    told["c=1"]["over_alone_ms"] = _median([one["p50_ms"] - 1000 / limit["alone"] for one, limit in pairs])
    return told


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 3)


def main() -> None:
    """Measure one model version at each precision it has; print and, with --out, keep the raw rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repository", type=Path, default=ZOO)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--out", type=Path, help="keep the raw rounds as JSON")
    asked = parser.parse_args()
    version = ModelRepository([asked.repository]).find(asked.model)
    images = make_images_for(version.card.preprocess.crop_px)
    result: Round = describe_machine() | {
        "model": version.reference,
        "architecture": version.card.architecture,
        "image_bytes": round(statistics.mean(map(len, images))),
        "seconds": asked.seconds,
    }
    rounds: list[Round] = []
    began = time.perf_counter()

    def keep(told: Round) -> None:
        rounds.append(told)
        print(f"{time.perf_counter() - began:4.0f} s  {json.dumps(told)}", flush=True)
        if asked.out:
            asked.out.write_text(json.dumps(result | {"rounds": rounds}, indent=1) + "\n")

    result |= run_rounds(version, images, asked, keep)
    mine = {one: [told for told in rounds if told["precision"] == one] for one in asked.precisions}
    result["summary"] = {one: summarise(told) for one, told in mine.items() if told}
    print(json.dumps(result["summary"], indent=1))
    if asked.out:
        asked.out.write_text(json.dumps(result | {"rounds": rounds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
