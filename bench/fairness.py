"""What a key that asks for little gets beside one that asks for everything: `python -m bench.fairness`.

A real service. The greedy key keeps many connections busy, the small one a single connection: each alone,
then both with keys of the same weight, then 16 connections of a key of weight 3, then both without keys.
"""

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from service.client.load import Report, Target, run_closed
from tests.serving import run_service

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 8.0
GREEDY = 64
PATH = "/v1/classify?tta=ten_crop"  # dear enough for one connection to be a load


def make_key(file: Path, *rules: str) -> str:
    """A new key of the file."""
    command = [sys.executable, "-m", "service", "keys", "add", "--file", str(file), *rules]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def drive(url: str, loads: dict[str, tuple[int, str | None]], seconds: float) -> dict[str, Report]:
    """Every load at once: connections and key by name."""
    image = [(ROOT / "tests" / "data" / "cat.jpg").read_bytes()]

    async def run() -> dict[str, Report]:
        targets = {name: Target.from_url(url, PATH, image, key) for name, (_, key) in loads.items()}
        reports = await asyncio.gather(
            *(run_closed(targets[name], connections, seconds) for name, (connections, _) in loads.items())
        )
        return dict(zip(loads, reports, strict=True))

    return asyncio.run(run())


def tell(title: str, reports: dict[str, Report]) -> None:
    """One line for each load."""
    for name, one in reports.items():
        print(
            f"{title:28} {name:7} {one.rate_per_s:7.1f} answers/s  p50 {one.percentile_ms(0.5):7.1f} ms  "
            f"p99 {one.percentile_ms(0.99):7.1f} ms  refused {one.codes['503']}",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "keys.json"
        greedy, small = make_key(file), make_key(file)
        heavy = make_key(file, "--weight", "3")
        settings = {"jobs_dir": folder, "log_level": "info"}
        with run_service(api_keys=file, **settings) as service:
            drive(service.http, {"warm": (4, small)}, 1.0)
            tell("alone", drive(service.http, {"small": (1, small)}, seconds / 2))
            tell("alone", drive(service.http, {"greedy": (GREEDY, greedy)}, seconds / 2))
            tell("both", drive(service.http, {"greedy": (GREEDY, greedy), "small": (1, small)}, seconds))
            tell("weight 3", drive(service.http, {"greedy": (GREEDY, greedy), "small": (16, heavy)}, seconds))
        with run_service(**settings) as service:
            drive(service.http, {"warm": (4, None)}, 1.0)
            tell(
                "both, without keys",
                drive(service.http, {"greedy": (GREEDY, None), "small": (1, None)}, seconds),
            )


if __name__ == "__main__":
    main()
