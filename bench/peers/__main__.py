"""The service beside other frameworks at the same job: `python -m bench.peers --python VENV/bin/python`.

Same model, same JPEGs, same callers on the same cores. In each round every subject is started, warmed up,
asked by 1, 8 and 32 callers, and ended, so that nobody runs beside another. Rounds are interleaved, ratios
are of the same round. Peers run in an environment of their own:

    python -m venv .venv-peers
    .venv-peers/bin/python -m pip install --require-hashes --requirement bench/peers/requirements.txt
"""

import argparse
import json
import statistics
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.images import make_images_for
from bench.load import Endpoint, run_load
from bench.machine import describe_machine, probe
from bench.quietness import Quietness
from bench.servers import Server, find_port, run_server
from bench.serving import serve_command
from models.repository import ModelRepository, ModelVersion
from service.settings import ZOO

CALLERS = (1, 8, 32)
WARM_UP_S = 2.0
SETTLE_S = 1.0
PACKAGES = ("litserve", "bentoml", "mosec", "ray", "torch")
OURS = ("fp32", "int8")

Round = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Peer:
    """How one is asked: the path, and the name of the form's file; None is the raw body."""

    path: str
    field: str | None = None


PEERS = {
    "litserve": Peer("/predict", "img"),
    "bentoml": Peer("/classify", "img"),
    "mosec": Peer("/inference"),
    "ray": Peer("/"),
}


@dataclass(frozen=True, slots=True)
class Arena:
    """What is the same for all subjects."""

    version: ModelVersion
    images: list[bytes]
    python: str
    seconds: float

    def measure(self, subject: str) -> Round:
        """One subject, from its start to its end."""
        command, endpoint = self._prepare(subject)
        told: Round = {"subject": subject, "probe": round(probe(), 1)}
        with run_server(command, endpoint, self.images[0]) as server:
            told["start_s"] = server.start_s
            time.sleep(SETTLE_S)
            run_load(endpoint, self.images, 8, WARM_UP_S)
            told["loads"] = [self._load(server, endpoint, callers) for callers in CALLERS]
            told["pss_mb"] = round(server.pss_mb(), 1)
            told["processes"] = len(server.list_pids())
        return told

    def _load(self, server: Server, endpoint: Endpoint, callers: int) -> Round:
        used_s, quietness = server.cpu_s() + time.process_time(), Quietness()
        load = run_load(endpoint, self.images, callers, self.seconds)
        used_s = server.cpu_s() + time.process_time() - used_s
        return asdict(load) | {"others": quietness.others(used_s)}

    def _prepare(self, subject: str) -> tuple[list[str], Endpoint]:
        port = find_port()
        if subject in OURS:
            repository, model = self.version.path.parent.parent, self.version.reference
            path = f"/v1/classify?precision={subject}"
            return serve_command(port, repository, model), Endpoint(port, path)
        peer = PEERS[subject]
        command = [self.python, "-m", f"bench.peers.{subject}", str(self.version.path), str(port)]
        return command, Endpoint(port, peer.path, peer.field)


def summarise(rounds: list[Round]) -> Round:
    """Medians by subject, and ours over the best and over each peer, by callers."""
    subjects = list(dict.fromkeys(one["subject"] for one in rounds))
    told: Round = {subject: _summarise_one(rounds, subject) for subject in subjects}
    peers = [one for one in subjects if one in PEERS]
    for ours in (one for one in OURS if one in subjects and peers):
        told[f"{ours} over"] = {
            f"c={callers}": _compare(rounds, ours, peers, index) for index, callers in enumerate(CALLERS)
        }
    return told


def _summarise_one(rounds: list[Round], subject: str) -> Round:
    mine = [one for one in rounds if one["subject"] == subject]
    told: Round = {name: _median([one[name] for one in mine]) for name in ("start_s", "pss_mb", "processes")}
    for index, callers in enumerate(CALLERS):
        loads = [one["loads"][index] for one in mine]
        told[f"c={callers}"] = {
            name: _median([one[name] for one in loads])
            for name in ("rate_per_s", "p50_ms", "p99_ms", "others")
        }
        told[f"c={callers}"]["errors"] = sum(one["errors"] for one in loads)
    return told


def _compare(rounds: list[Round], ours: str, peers: list[str], index: int) -> Round:
    rates: dict[int, dict[str, float]] = {}
    for one in rounds:
        rates.setdefault(one["round"], {})[one["subject"]] = one["loads"][index]["rate_per_s"]
    whole = [rate for rate in rates.values() if ours in rate and all(peer in rate for peer in peers)]
    told = {peer: _median([rate[ours] / rate[peer] for rate in whole]) for peer in peers}
    return told | {"best peer": _median([rate[ours] / max(rate[peer] for peer in peers) for rate in whole])}


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 3) if values else float("nan")


def list_versions(python: str) -> dict[str, str]:
    """Of the peers' packages."""
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {PACKAGES}}}))"
    found: dict[str, str] = json.loads(
        subprocess.run([python, "-c", code], capture_output=True, check=True).stdout
    )
    return found


def main() -> None:
    """Measure and print; with --out, keep the raw rounds, as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--python", required=True, help="that of the peers' environment")
    parser.add_argument("--repository", type=Path, default=ZOO)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--subjects", nargs="+", default=[*OURS, *PEERS], choices=[*OURS, *PEERS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--out", type=Path, help="raw rounds as JSON")
    asked = parser.parse_args()
    version = ModelRepository([asked.repository]).find(asked.model)
    images = make_images_for(version.card.preprocess.crop_px)
    arena = Arena(version, images, asked.python, asked.seconds)
    result: Round = describe_machine() | {
        "model": version.reference,
        "architecture": version.card.architecture,
    }
    result |= {"peers": list_versions(asked.python), "seconds": asked.seconds}
    result["image_bytes"] = round(statistics.mean(map(len, images)))
    rounds: list[Round] = []
    for number in range(asked.rounds):
        for subject in asked.subjects:
            rounds.append({"round": number} | arena.measure(subject))
            print(json.dumps(rounds[-1]), flush=True)
            if asked.out:
                told = result | {"summary": summarise(rounds), "rounds": rounds}
                asked.out.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(summarise(rounds), indent=1))


if __name__ == "__main__":
    main()
