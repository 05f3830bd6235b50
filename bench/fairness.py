"""What a key that asks for little gets beside one that asks for everything: `python -m bench.fairness`.

A real service. The greedy key keeps many connections busy, the small one a single connection: each alone,
then both with keys of the same weight, then as many connections of a key of weight 3 (fewer would not always
have an image waiting, and who does not ask has no share), then both without keys.

The last answer of each connection is not counted: it comes when others have stopped asking, and the key with
most images outstanding gets most of that time. Nor is shared what the workers take before anybody waits, so
runs of a few seconds show less than the weight: 2.5 for 3 in six seconds on a busy machine.
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
# Connections and key by name.
Loads = dict[str, tuple[int, str | None]]
PATH = "/v1/classify?tta=ten_crop"  # dear enough for one connection to be a load


def make_key(file: Path, *rules: str) -> str:
    """A new key of the file."""
    command = [sys.executable, "-m", "service", "keys", "add", "--file", str(file), *rules]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def drive(url: str, loads: Loads, seconds: float) -> dict[str, Report]:
    """Every load at once."""
    image = [(ROOT / "tests" / "data" / "cat.jpg").read_bytes()]

    async def run() -> dict[str, Report]:
        targets = {name: Target.from_url(url, PATH, image, key) for name, (_, key) in loads.items()}
        reports = await asyncio.gather(
            *(run_closed(targets[name], connections, seconds) for name, (connections, _) in loads.items())
        )
        return dict(zip(loads, reports, strict=True))

    return asyncio.run(run())


def tell(title: str, loads: Loads, url: str, seconds: float) -> None:
    """Send the loads; one line for each."""
    for name, one in drive(url, loads, seconds).items():
        rate_per_s = (len(one.latencies_s) - loads[name][0]) / seconds
        print(
            f"{title:28} {name:7} {rate_per_s:7.1f} answers/s  p50 {one.percentile_ms(0.5):7.1f} ms  "
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
            tell("alone", {"small": (1, small)}, service.http, seconds / 2)
            tell("alone", {"greedy": (GREEDY, greedy)}, service.http, seconds / 2)
            tell("both", {"greedy": (GREEDY, greedy), "small": (1, small)}, service.http, seconds)
            weighed: Loads = {"greedy": (GREEDY, greedy), "heavy": (GREEDY, heavy)}
            tell("weight 3", weighed, service.http, seconds)
        with run_service(**settings) as service:
            drive(service.http, {"warm": (4, None)}, 1.0)
            tell("both, without keys", {"greedy": (GREEDY, None), "small": (1, None)}, service.http, seconds)


if __name__ == "__main__":
    main()
